//! A change of a secret, as the table tells of it.

use chrono::{DateTime, TimeDelta, Utc};

/// How long after a change a secret of before may be used, unless the change itself says so.
const OUTDATED_FOR: TimeDelta = TimeDelta::seconds(60);

/// When a change counts as made whose maker has not said that it is over. This is longer than
/// a function that makes one may run (29 s) by more than clocks differ.
const UNFINISHED_FOR: TimeDelta = TimeDelta::seconds(45);

/// SSM reads are eventually consistent: by then they surely show a change.
const SETTLING: TimeDelta = TimeDelta::seconds(5);

/// The same where the version is known. Only then an older one is taken for the truth: the
/// operator has deleted the parameter and stored it again, so that its versions begin anew.
const SETTLING_BY_VERSION: TimeDelta = TimeDelta::minutes(15);

/// A change of a secret. It is announced before it is made and once more after it, so that a
/// crash in between hides none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretChange {
    /// No two announcements have the same.
    pub id: u64,
    /// When it was announced.
    pub at: DateTime<Utc>,
    /// From when what was read before it may not be used.
    pub from: DateTime<Utc>,
    /// When it counts as made; none when it is over.
    pub unfinished_until: Option<DateTime<Utc>>,
    /// The version of the parameter that it wrote, where that is known.
    pub version: Option<i64>,
}

impl SecretChange {
    /// A change that is about to be made, and in force from `from` on.
    #[must_use]
    pub fn begun(id: u64, from: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        let unfinished_until = Some(now + UNFINISHED_FOR);
        Self { id, at: now, from, unfinished_until, version: None }
    }

    /// A change that was made, and is in force from `from` on.
    #[must_use]
    pub fn finished(
        id: u64,
        from: DateTime<Utc>,
        version: Option<i64>,
        now: DateTime<Utc>,
    ) -> Self {
        Self { id, at: now, from, unfinished_until: None, version }
    }

    /// A change that was made, and in force everywhere a minute later.
    #[must_use]
    pub fn made(id: u64, now: DateTime<Utc>) -> Self {
        Self::finished(id, now + OUTDATED_FOR, None, now)
    }

    /// The same, which wrote this version of the parameter.
    #[must_use]
    pub fn with_version(self, version: i64) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Whether it can still be under way at `now`.
    pub(super) fn is_under_way(&self, now: DateTime<Utc>) -> bool {
        self.unfinished_until.is_some_and(|until| now < until)
    }

    /// When SSM surely shows it.
    pub(super) fn settles_at(&self) -> DateTime<Utc> {
        match self.version {
            Some(_) => self.at + SETTLING_BY_VERSION,
            None => self.unfinished_until.unwrap_or(self.at) + SETTLING,
        }
    }

    /// How long what was read before it may be used: not longer by a clock that is slow.
    pub(super) fn tolerated(&self, now: DateTime<Utc>) -> TimeDelta {
        (self.from - now).min(self.from - self.at)
    }
}
