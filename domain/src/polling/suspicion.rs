//! What a poller remembers of a render that its provider could not tell of: a *suspect*.
//!
//! A suspect is asked about ever more rarely, on its own. Its wait doubles with each failure, and
//! a `Retry-After` that came with an answer about it counts for it alone. The first answer that
//! tells of it ends the suspicion. Nothing of this is stored with the job: the poller keeps it in
//! memory, and hands it to its continuation.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::throttle::Evidence;
use crate::retry::later;

/// The wait after the first failure, which doubles up to the longest. Both are shorter or longer
/// by up to a quarter, by the job.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The longest `Retry-After` that is kept to: a question in a quarter of an hour harms no
/// provider, and a pause that was asked for by mistake ends.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// The shortest. Some providers round a short time down to zero.
pub(super) const SHORTEST_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Within this time the renders are asked about again that failed in an outage that is over.
const PARDON_WITHIN: Duration = Duration::from_secs(10);

/// A render of which its provider gave no status when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// The failures since it was last told of.
    #[serde(rename = "n")]
    pub failures: u32,
    /// When it was last asked about.
    #[serde(rename = "a", with = "chrono::serde::ts_milliseconds")]
    pub asked_at: DateTime<Utc>,
    /// It is not asked about before, unless as a probe.
    #[serde(rename = "b", with = "chrono::serde::ts_milliseconds")]
    pub not_before: DateTime<Utc>,
    /// Until when its provider asked to be left alone about it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "chrono::serde::ts_milliseconds_option")]
    pub held_until: Option<DateTime<Utc>>,
    /// It failed in an outage that is over, and is asked about once like any other render.
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_pardoned: bool,
    /// Its failure may still show that the provider is down. Only kept for a continuation.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

impl Suspicion {
    /// The suspicion after another failure. `spread` in `0.0..1.0` comes from the job's id.
    #[must_use]
    pub fn after(
        before: Option<&Self>,
        retry_after: Option<Duration>,
        spread: f64,
        now: DateTime<Utc>,
    ) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let wait = retry_after.map(retry_wait);
        Self {
            failures,
            asked_at: now,
            not_before: later(now, backoff(failures, spread)),
            held_until: wait.map(|wait| later(now, wait)),
            is_pardoned: false,
            evidence: None,
        }
    }

    /// When the next poll may be made that is due at `planned`. It is made at the deadline in any
    /// case.
    #[must_use]
    pub fn due(&self, planned: DateTime<Utc>, deadline: DateTime<Utc>) -> DateTime<Utc> {
        let from = if self.is_pardoned { self.not_before } else { planned.max(self.not_before) };
        let due = from.max(self.held_until.unwrap_or(from));
        match self.asked_at < deadline {
            true => due.min(deadline),
            false => due,
        }
    }

    /// Whether a probe may ask about it at this time.
    #[must_use]
    pub fn may_probe(&self, now: DateTime<Utc>) -> bool {
        self.held_until.is_none_or(|until| until <= now)
    }

    /// The suspicion after the outage in which it failed: it is asked about again soon.
    #[must_use]
    pub fn pardoned(&self, spread: f64, now: DateTime<Utc>) -> Self {
        let soon = later(now, PARDON_WITHIN.mul_f64(spread.clamp(0.0, 1.0)));
        Self {
            not_before: self.not_before.min(soon),
            held_until: self.held_until.map(|until| until.min(soon)),
            is_pardoned: true,
            ..self.clone()
        }
    }

    /// How many questions a second are asked about it.
    #[must_use]
    pub fn poll_rate(&self) -> f64 {
        let wait = self.held_until.unwrap_or(self.not_before).max(self.not_before) - self.asked_at;
        1.0 / wait.to_std().unwrap_or_default().max(FIRST_WAIT).as_secs_f64()
    }
}

/// A `Retry-After` within the bounds in which it is kept to.
pub(super) fn retry_wait(wait: Duration) -> Duration {
    wait.clamp(SHORTEST_RETRY_AFTER, LONGEST_RETRY_AFTER)
}

fn backoff(failures: u32, spread: f64) -> Duration {
    let factor = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let wait = FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT);
    wait.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::noon;

    fn at(seconds: u64) -> DateTime<Utc> {
        noon() + Duration::from_secs(seconds)
    }

    #[test]
    fn suspect_waits_double_up_to_minutes() {
        for (spread, expected) in
            [(0.5, [5, 10, 20, 40, 80, 160, 300, 300]), (0.0, [3, 7, 15, 30, 60, 120, 225, 225])]
        {
            let mut suspicion = None;
            let waits = [(); 8].map(|()| {
                let next = Suspicion::after(suspicion.as_ref(), None, spread, at(0));
                let wait = (next.not_before - at(0)).num_seconds();
                suspicion = Some(next);
                wait
            });
            assert_eq!(waits, expected);
        }
    }

    #[test]
    fn suspect_keeps_its_retry_after_alone() {
        let wait = |seconds| {
            let wait = Some(Duration::from_secs(seconds));
            let suspicion = Suspicion::after(None, wait, 0.5, at(0));
            (suspicion.due(at(2), at(1_800)) - at(0)).num_seconds()
        };
        assert_eq!([wait(0), wait(40), wait(3_600)], [5, 40, 900]);
    }

    #[test]
    fn suspect_is_asked_at_its_deadline() {
        let suspicion = Suspicion::after(None, Some(Duration::from_secs(600)), 0.5, at(0));
        assert_eq!(suspicion.due(at(2), at(300)), at(300));
        let late = Suspicion::after(Some(&suspicion), Some(Duration::from_secs(600)), 0.5, at(300));
        assert_eq!(late.due(at(360), at(300)), at(900), "and rarely after it");
    }

    #[test]
    fn pardoned_suspect_is_asked_soon() {
        let mut suspicion = Suspicion::after(None, Some(Duration::from_secs(600)), 0.5, at(0));
        for _ in 0..6 {
            suspicion =
                Suspicion::after(Some(&suspicion), Some(Duration::from_secs(600)), 0.5, at(0));
        }
        let pardoned = suspicion.pardoned(0.5, at(100));
        assert_eq!(pardoned.due(at(101), at(1_800)), at(105));
        assert_eq!(pardoned.due(at(900), at(1_800)), at(105), "not when it was planned");
        assert_eq!(pardoned.failures, 7, "it is no fresh witness");
        let failed = Suspicion::after(Some(&pardoned), None, 0.5, at(105));
        assert!(!failed.is_pardoned && failed.not_before == at(405));
        assert!((failed.poll_rate() * 300.0 - 1.0).abs() < 0.001, "{}", failed.poll_rate());
    }

    #[test]
    fn suspicion_survives_a_message() {
        let suspicion = Suspicion::after(None, Some(Duration::from_secs(60)), 0.5, at(0));
        let text = serde_json::to_string(&suspicion).unwrap();
        assert!(text.len() < 80, "{text}");
        assert_eq!(serde_json::from_str::<Suspicion>(&text).unwrap(), suspicion);
    }
}
