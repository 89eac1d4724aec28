//! When to post again: the backoff schedule of attempts, its jitter, and `Retry-After`.
//!
//! Other waits are decided elsewhere: those of a failing receiver in `endpoint/breaker.rs`, the
//! poll intervals in `polling.rs`, and the pauses of a provider in `polling/throttle.rs`.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, TimeDelta, Utc};

/// The backoff schedule: the wait before each attempt. The first is usually zero; after the last
/// attempt the delivery is exhausted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliverySchedule(Vec<Duration>);

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No attempts, or more than [`DeliverySchedule::MAX_ATTEMPTS`].
    #[error("a delivery schedule has 1 to 20 attempts, not {0}")]
    Attempts(usize),
    /// An entry is not a whole number of seconds.
    #[error("`{0}` is not a whole number of seconds")]
    NotSeconds(String),
    /// A wait is longer than [`DeliverySchedule::MAX_WAIT`].
    #[error("a wait of {0} s is longer than 7 days")]
    TooLong(u64),
}

impl DeliverySchedule {
    /// The most attempts that a schedule may have.
    pub const MAX_ATTEMPTS: usize = 20;
    /// The longest wait between two attempts.
    pub const MAX_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Reads waits in seconds, separated by commas, such as `0,5,300`.
    ///
    /// # Errors
    /// When there are no entries or too many, an entry is not a number, or a wait is too long.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let waits = text.split(',').map(|part| {
            let part = part.trim();
            let seconds: u64 =
                part.parse().map_err(|_| ScheduleError::NotSeconds(part.to_owned()))?;
            let wait = Duration::from_secs(seconds);
            if wait > Self::MAX_WAIT {
                return Err(ScheduleError::TooLong(seconds));
            }
            Ok(wait)
        });
        let waits = waits.collect::<Result<Vec<_>, _>>()?;
        if waits.is_empty() || waits.len() > Self::MAX_ATTEMPTS {
            return Err(ScheduleError::Attempts(waits.len()));
        }
        Ok(Self(waits))
    }

    /// The wait before attempt number `attempt` (from 0); none after the last.
    #[must_use]
    pub fn wait_before(&self, attempt: usize) -> Option<Duration> {
        self.0.get(attempt).copied()
    }

    /// The longest time that the whole schedule may take, with the longest jitter and the longest
    /// `Retry-After` added to every wait.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.0.iter().map(|wait| wait.saturating_add(MAX_RETRY_AFTER + MAX_JITTER)).sum()
    }

    /// The number of attempts.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.0.len()
    }
}

impl Default for DeliverySchedule {
    /// The example of Standard Webhooks 1.0.0 ("Retry schedule"): 75 h 35 m in ten attempts.
    fn default() -> Self {
        let seconds = [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
        Self(seconds.map(Duration::from_secs).to_vec())
    }
}

impl fmt::Display for DeliverySchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds: Vec<String> = self.0.iter().map(|wait| wait.as_secs().to_string()).collect();
        f.write_str(&seconds.join(","))
    }
}

/// The longest jitter of one wait.
const MAX_JITTER: Duration = Duration::from_secs(15 * 60);
/// The longest `Retry-After` that is honoured, so that a receiver cannot delay a delivery
/// without end.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The wait with jitter: up to a tenth of it is added, at most 15 minutes. `jitter_sample` is a
/// random number in `0.0..1.0`.
#[must_use]
pub fn with_jitter(wait: Duration, jitter_sample: f64) -> Duration {
    let extra = wait.mul_f64(0.1 * jitter_sample.clamp(0.0, 1.0));
    wait.saturating_add(extra.min(MAX_JITTER))
}

/// Reads a `Retry-After` header (RFC 9110 §10.2.3): whole seconds or an HTTP-date, capped at
/// [`MAX_RETRY_AFTER`]. None when it is neither, or a date in the past.
#[must_use]
pub fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = header.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number that does not fit is a very long time, which the cap shortens.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        let at = DateTime::from_timestamp(i64::try_from(at.as_secs()).ok()?, 0)?;
        (at - now).to_std().ok()?
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// `now` plus `wait`, without overflow.
#[must_use]
pub fn later(now: DateTime<Utc>, wait: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(wait)
        .ok()
        .and_then(|wait| now.checked_add_signed(wait))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::noon;

    #[test]
    fn schedule_default_is_the_specifications() {
        let schedule = DeliverySchedule::default();
        let total: Duration = (0..10).filter_map(|n| schedule.wait_before(n)).sum();
        assert_eq!(total, Duration::from_secs(75 * 3600 + 35 * 60 + 5));
        assert_eq!(schedule.wait_before(10), None);
        assert_eq!(DeliverySchedule::parse(&schedule.to_string()), Ok(schedule));
    }

    #[test]
    fn schedule_malformed_is_refused() {
        assert_eq!(DeliverySchedule::parse(""), Err(ScheduleError::NotSeconds(String::new())));
        assert_eq!(DeliverySchedule::parse("0,x"), Err(ScheduleError::NotSeconds("x".into())));
        assert_eq!(DeliverySchedule::parse("604801"), Err(ScheduleError::TooLong(604_801)));
        let many = vec!["1"; 21].join(",");
        assert_eq!(DeliverySchedule::parse(&many), Err(ScheduleError::Attempts(21)));
    }

    #[test]
    fn retry_after_has_two_forms_and_cap() {
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(retry_after("120", noon()), seconds(120));
        assert_eq!(retry_after(" 0 ", noon()), seconds(0));
        assert_eq!(retry_after("Sun, 24 May 2026 12:02:00 GMT", noon()), seconds(120));
        assert_eq!(retry_after("Sun, 24 May 2026 11:00:00 GMT", noon()), None, "past");
        assert_eq!(retry_after("99999999999999999999999", noon()), seconds(86_400));
        for nonsense in ["", "-1", "1.5", "soon", "١٢"] {
            assert_eq!(retry_after(nonsense, noon()), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn jitter_only_adds(seconds in 0u64..700_000, jitter_sample in -1.0f64..2.0) {
            let wait = Duration::from_secs(seconds);
            let jittered = with_jitter(wait, jitter_sample);
            prop_assert!(jittered >= wait);
            prop_assert!(jittered <= wait.mul_f64(1.1001) + Duration::from_millis(1));
            prop_assert!(jittered - wait <= MAX_JITTER);
        }
    }
}
