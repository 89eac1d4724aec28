//! Whether a process knows which secrets are in force.
//!
//! A process reads the secrets, and hears of their changes, a while after these are made. That is
//! soon enough, because what a rotation changes begins [`LEAD`](super::LEAD) later. A process
//! that has not heard of changes for [`TRUSTED_FOR`], or has not read one that it heard of, knows
//! until when what it read is the truth, and signs nothing after that.
//!
//! Clocks may differ by `LEAD - TRUSTED_FOR`, half a minute, before a process signs with a set
//! that lacks the newest secret. The ends and beginnings themselves are by its own clock.

use chrono::{DateTime, TimeDelta, Utc};

use super::SigningSecrets;

/// How long after a look for changes no other change can be in force.
const TRUSTED_FOR: TimeDelta = TimeDelta::seconds(30);

/// The secrets as a process read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSecrets {
    secrets: SigningSecrets,
    until: DateTime<Utc>,
}

/// It is not known which secrets are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not known which webhook secrets are in force")]
pub struct NotKnown;

impl KnownSecrets {
    /// Secrets that were read. `looked_at` is when the process last looked for changes, and
    /// `changes_at` when the first of those begins that it has heard of and not read.
    #[must_use]
    pub fn new(
        secrets: SigningSecrets,
        looked_at: DateTime<Utc>,
        changes_at: Option<DateTime<Utc>>,
    ) -> Self {
        let trusted = looked_at + TRUSTED_FOR;
        Self { secrets, until: changes_at.map_or(trusted, |begins| begins.min(trusted)) }
    }

    /// Whether the secrets in force at `at` are known, and there are any.
    #[must_use]
    pub fn covers(&self, at: DateTime<Utc>) -> bool {
        at < self.until && self.secrets.in_force(at).next().is_some()
    }

    /// The `webhook-signature` header of an attempt at `at`, as [`SigningSecrets::sign`].
    ///
    /// # Errors
    /// When the secrets in force at `at` are not known.
    pub fn sign(&self, id: &str, at: DateTime<Utc>, body: &[u8]) -> Result<String, NotKnown> {
        if self.covers(at) { Ok(self.secrets.sign(id, at, body)) } else { Err(NotKnown) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GracePeriod, LEAD, SignatureType, WebhookSecret};
    use super::*;
    use crate::fixtures::noon;

    fn shared(seed: u8) -> WebhookSecret {
        WebhookSecret::from_random(SignatureType::V1, [seed; 32])
    }

    #[test]
    fn unread_change_ends_knowledge() {
        let secrets = SigningSecrets::first(shared(1), noon());
        let moment = TimeDelta::milliseconds(1);
        for (changes_at, until) in [
            (None, noon() + TRUSTED_FOR),
            (Some(noon() + LEAD), noon() + TRUSTED_FOR),
            (Some(noon() + moment * 5), noon() + moment * 5),
        ] {
            let known = KnownSecrets::new(secrets.clone(), noon(), changes_at);
            assert!(known.sign("evt_1", until - moment, b"{}").is_ok(), "{changes_at:?}");
            assert_eq!(known.sign("evt_1", until, b"{}"), Err(NotKnown), "{changes_at:?}");
        }
    }

    #[test]
    fn nothing_is_signed_without_secret_in_force() {
        let text = format!("{};created=2026-05-24T12:00:01.000Z", shared(1).reveal());
        let known = KnownSecrets::new(SigningSecrets::parse(&text).unwrap(), noon(), None);
        assert!(!known.covers(noon()));
        assert!(known.covers(noon() + TimeDelta::seconds(1)));
    }

    /// Whatever a process does not know of begins later than it signs by what it knows.
    #[test]
    fn unheard_rotation_cannot_be_in_force() {
        let before = SigningSecrets::first(shared(1), noon());
        let grace = GracePeriod::from_seconds(0).unwrap();
        let skew = TimeDelta::seconds(29);
        let after = before.rotate(shared(2), grace, noon() - skew).unwrap();
        let known = KnownSecrets::new(before, noon(), None);
        for ms in 0..40_000 {
            let at = noon() + TimeDelta::milliseconds(ms);
            if let Ok(header) = known.sign("evt_1", at, b"{}") {
                assert_eq!(header, after.sign("evt_1", at, b"{}"), "after {ms} ms");
            }
        }
    }
}
