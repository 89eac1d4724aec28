//! Since when an endpoint does nothing but fail.

use chrono::{DateTime, TimeDelta, Utc};

/// How long an endpoint may do nothing but fail before it is disabled. As other senders have
/// it; a delivery of the default schedule that began with the first failure is exhausted by
/// then.
const DEAD_AFTER: TimeDelta = TimeDelta::days(5);

/// How far apart failures must be to say more than one of them.
const OCCASION: TimeDelta = TimeDelta::hours(12);

/// On how many occasions it must have failed: a burst of failures, and one a week later, are
/// not a week of failing.
const OCCASIONS: u8 = 3;

/// A time in which every attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The first failure after the last success.
    pub since: DateTime<Utc>,
    /// How many of them counted, all in a row: not those that were no news to the breaker.
    pub failures: u32,
    /// On how many occasions, 12 hours or more apart.
    pub occasions: u8,
    /// When the newest of them was.
    pub occasion_at: DateTime<Utc>,
}

impl Failing {
    /// The time that begins with a failure now, which is not counted yet.
    pub(super) fn first(now: DateTime<Utc>) -> Self {
        Self { since: now, failures: 0, occasions: 1, occasion_at: now }
    }

    /// The same with a failure now, which is not counted yet.
    pub(super) fn at(self, now: DateTime<Utc>) -> Self {
        if now - self.occasion_at < OCCASION {
            return self;
        }
        Self { occasions: self.occasions.saturating_add(1), occasion_at: now, ..self }
    }

    pub(super) fn counted(self) -> Self {
        Self { failures: self.failures.saturating_add(1), ..self }
    }

    /// Whether it has gone on for so long that the endpoint is given up.
    pub(super) fn is_dead(self, now: DateTime<Utc>) -> bool {
        now - self.since >= DEAD_AFTER && self.occasions >= OCCASIONS
    }
}
