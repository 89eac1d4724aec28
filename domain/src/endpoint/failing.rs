//! How long an endpoint has failed without a success.

use chrono::{DateTime, TimeDelta, Utc};

/// An endpoint that fails for this long without a success is disabled. Other senders have the
/// same limit. A delivery of the default schedule that began with the first failure is exhausted
/// before.
const DISABLE_AFTER: TimeDelta = TimeDelta::days(5);

/// The length of a failure window: failures within one window count as one.
const FAILURE_WINDOW: TimeDelta = TimeDelta::hours(12);

/// The number of failure windows before an endpoint is disabled: a burst of failures and one
/// more failure a week later are not a week of failures.
const MIN_FAILURE_WINDOWS: u8 = 3;

/// A time without a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The first failure after the last success.
    pub since: DateTime<Utc>,
    /// The failures in a row that the circuit breaker counted.
    pub failures: u32,
    /// The number of failure windows, which begin 12 hours or more apart.
    pub windows: u8,
    /// When the newest failure window began.
    pub window_at: DateTime<Utc>,
}

impl Failing {
    /// The state after the first failure, which is not counted yet.
    pub(super) fn first(now: DateTime<Utc>) -> Self {
        Self { since: now, failures: 0, windows: 1, window_at: now }
    }

    /// The state after one more failure, which is not counted yet.
    pub(super) fn at(self, now: DateTime<Utc>) -> Self {
        if now - self.window_at < FAILURE_WINDOW {
            return self;
        }
        Self { windows: self.windows.saturating_add(1), window_at: now, ..self }
    }

    /// The state after the circuit breaker counted the failure.
    pub(super) fn counted(self) -> Self {
        Self { failures: self.failures.saturating_add(1), ..self }
    }

    /// Whether the endpoint is to be disabled.
    pub(super) fn is_over_limit(self, now: DateTime<Utc>) -> bool {
        now - self.since >= DISABLE_AFTER && self.windows >= MIN_FAILURE_WINDOWS
    }
}
