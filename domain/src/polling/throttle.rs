//! The throttle of one provider in one shard: a token bucket for its rate limit, its
//! `Retry-After`, and a circuit breaker with exponential backoff for when it is down.
//!
//! This is where a provider's HTTP 429 ends: `provider::answer` reads it as `ErrorClass::Rate`,
//! the poller's `poll_job` makes it [`PollResult::RateLimited`], and the provider is paused. A 429
//! to a submit fails the job, because nothing repeats a submit. A receiver's 429 is handled in
//! `endpoint/signal.rs`. The 429 that callers of our API get is API Gateway's:
//! `ThrottlingRateLimit` in `template.yaml`.
//!
//! The holder of a shard's lease keeps it in memory. While the holder is idle, the lease keeps
//! the pauses, and the wake-up call keeps the failures of providers that are not paused yet.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// The number of failures in a row after which a provider counts as down: one render alone may
/// fail once or twice.
const DOWN_AFTER: u32 = 3;

/// The backoff of a provider that is down: the first pause, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The shortest pause for a `Retry-After`.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The capacity of the token bucket, in seconds of the budget.
const BURST_S: f64 = 5.0;

/// The result of a poll, as far as it affects the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollResult {
    /// The provider answered about the render.
    Answered,
    /// The poll was admitted but not made.
    NotAsked,
    /// The provider limits our rate; with its `Retry-After`, if it sent one.
    RateLimited(Option<Duration>),
    /// The poll failed: a network error or a server error, with its `Retry-After`, if any.
    Failed(Option<Duration>),
}

/// The throttle of one provider in one shard.
#[derive(Clone, Debug)]
pub struct ProviderThrottle {
    /// Polls per second; none without a limit.
    budget: Option<f64>,
    tokens: f64,
    refilled_at: DateTime<Utc>,
    failures: u32,
    /// Since when and until when it is paused.
    pause: Option<(DateTime<Utc>, DateTime<Utc>)>,
    probing: bool,
}

/// A pause as the lease keeps it while its holder is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The polls that were due from this time on were not made.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub since: DateTime<Utc>,
    /// When the provider may be polled again.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub until: DateTime<Utc>,
    /// The failures in a row before it.
    pub failures: u32,
}

/// Whether a provider may be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleDecision {
    /// One poll may be made now.
    Now,
    /// No poll may be made before this time.
    NotBefore(DateTime<Utc>),
    /// No poll may be made before the result of the probe that is in flight.
    AfterProbe,
}

impl ProviderThrottle {
    /// A provider without failures. `budget` is in polls per second.
    #[must_use]
    pub fn new(budget: Option<f64>, now: DateTime<Utc>) -> Self {
        let tokens = capacity(budget);
        Self { budget, tokens, refilled_at: now, failures: 0, pause: None, probing: false }
    }

    /// A provider that is in a pause.
    #[must_use]
    pub fn with_pause(budget: Option<f64>, pause: Pause, now: DateTime<Utc>) -> Self {
        Self {
            failures: pause.failures,
            pause: Some((pause.since, pause.until)),
            ..Self::new(budget, now)
        }
    }

    /// A provider with this many failures in a row that is not paused yet.
    #[must_use]
    pub fn with_failures(budget: Option<f64>, failures: u32, now: DateTime<Utc>) -> Self {
        Self { failures: failures.min(DOWN_AFTER - 1), ..Self::new(budget, now) }
    }

    /// Decides whether a poll may be made now, and takes a token for it if so. After a pause one
    /// poll is the probe, and the others wait for its result.
    pub fn admit(&mut self, now: DateTime<Utc>) -> ThrottleDecision {
        match self.pause {
            Some((_, until)) if now < until => return ThrottleDecision::NotBefore(until),
            Some(_) if self.probing => return ThrottleDecision::AfterProbe,
            Some(_) | None => {}
        }
        if let Some(budget) = self.budget {
            let passed = (now - self.refilled_at).to_std().unwrap_or_default().as_secs_f64();
            self.tokens = (self.tokens + passed * budget).min(capacity(self.budget));
            self.refilled_at = now;
            if self.tokens < 1.0 {
                return ThrottleDecision::NotBefore(after(now, (1.0 - self.tokens) / budget));
            }
            self.tokens -= 1.0;
        }
        self.probing = self.pause.is_some();
        ThrottleDecision::Now
    }

    /// Takes the result of a poll.
    pub fn record(&mut self, result: PollResult, now: DateTime<Utc>) {
        let is_paused = self.pause.is_some_and(|(_, until)| now < until);
        let wait = match result {
            PollResult::NotAsked => {
                self.probing = false;
                return;
            }
            // The poll was made before the pause began, so its answer does not end the pause.
            PollResult::Answered if is_paused => return,
            PollResult::Answered => {
                (self.failures, self.pause, self.probing) = (0, None, false);
                return;
            }
            // Some providers round a short time down to zero.
            PollResult::RateLimited(Some(wait)) | PollResult::Failed(Some(wait)) => {
                wait.max(MIN_RETRY_AFTER)
            }
            // Polls that were in flight when the pause began count as the same outage.
            PollResult::RateLimited(None) | PollResult::Failed(None) if is_paused => return,
            PollResult::RateLimited(None) => backoff(self.failures),
            PollResult::Failed(None) if self.pause.is_none() && self.failures + 1 < DOWN_AFTER => {
                self.failures += 1;
                return;
            }
            PollResult::Failed(None) => backoff((self.failures + 1).saturating_sub(DOWN_AFTER)),
        };
        if !is_paused {
            self.failures = self.failures.saturating_add(1);
        }
        self.probing = false;
        let until = now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::days(1));
        self.pause = Some(match self.pause {
            Some((since, before)) => (since, before.max(until)),
            None => (now, until),
        });
    }

    /// Whether the breaker counts the provider as down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }

    /// The failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause, to be kept in the lease.
    #[must_use]
    pub fn pause(&self) -> Option<Pause> {
        self.pause.map(|(since, until)| Pause { since, until, failures: self.failures })
    }
}

fn capacity(budget: Option<f64>) -> f64 {
    budget.map_or(1.0, |budget| (budget * BURST_S).max(1.0))
}

fn backoff(times: u32) -> Duration {
    let factor = 2_u32.checked_pow(times).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(MAX_PAUSE)
}

/// Rounded up to the millisecond, so that the wait does not end before the token is there.
fn after(now: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    let wait = Duration::try_from_secs_f64(seconds).unwrap_or(MAX_PAUSE);
    now + wait + Duration::from_millis(1)
}

#[cfg(test)]
mod tests;
