//! UTC on tokio's clock, so that a test with a paused clock decides what time it is. Give
//! [`now`] to a function as its clock.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_async::time::TimeSource;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

/// 2026-05-24T06:00:00Z: when a clock begins that was not set.
const BEGINNING: DateTime<Utc> = match DateTime::from_timestamp(1_779_602_400, 0) {
    Some(beginning) => beginning,
    None => DateTime::<Utc>::MIN_UTC,
};

thread_local! {
    static START: Cell<Option<(Instant, DateTime<Utc>)>> = const { Cell::new(None) };
}

tokio::task_local! {
    static SKEW: TimeDelta;
}

/// Sets the clock of this thread's tests.
pub fn set(at: DateTime<Utc>) {
    START.set(Some((Instant::now(), at)));
}

/// The time as the process sees it, whose clock may be wrong: see [`skewed`].
#[must_use]
pub fn now() -> DateTime<Utc> {
    true_now() + SKEW.try_with(|skew| *skew).unwrap_or_default()
}

/// The time.
#[must_use]
pub fn true_now() -> DateTime<Utc> {
    let now = Instant::now();
    let (start, at) = START.get().unwrap_or_else(|| {
        START.set(Some((now, BEGINNING)));
        (now, BEGINNING)
    });
    at + TimeDelta::from_std(now.saturating_duration_since(start)).unwrap_or_default()
}

/// Runs `process` with a clock that is wrong by `by`.
pub async fn skewed<F: Future>(by: TimeDelta, process: F) -> F::Output {
    SKEW.scope(by, process).await
}

/// The same clock, for the AWS clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock;

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        let since = u64::try_from(now().timestamp_millis()).unwrap_or_default();
        UNIX_EPOCH + Duration::from_millis(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clock_follows_paused_time() {
        let start = now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(now() - start, TimeDelta::hours(1));
        let ahead = skewed(TimeDelta::minutes(2), async { now() }).await;
        assert_eq!(ahead - true_now(), TimeDelta::minutes(2));
    }
}
