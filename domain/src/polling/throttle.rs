//! The throttle of one provider in one shard: a token bucket for its rate limit, and a circuit
//! breaker for when it is down or limits our rate.
//!
//! One render's trouble is its own (see [`Suspicion`](super::Suspicion)). A provider is paused
//! when several different renders say so and none was told of meanwhile:
//!
//! | what the renders answered | the pause begins | and lasts |
//! |---|---|---|
//! | anything that tells nothing of them | with the third, 10 s after the first or later | 5 s, doubled at each failed probe up to a minute |
//! | that our rate is limited | with the third | the shortest `Retry-After` that they named, or as above |
//!
//! Only a *fresh* failure is evidence: one of a render that was told of when it was last asked
//! about, or was never asked about. So a render that is sick for long says nothing of its
//! provider. In a pause, one of the renders that failed is probed at each end, in turn, and each
//! other render is asked about once, at a gentle rate. The first one that is told of ends the
//! pause. It also ends when all renders that were its evidence have left the shard.
//!
//! This is where a provider's HTTP 429 ends: `provider::answer` reads it as `ErrorClass::Rate`,
//! and the poller's `poll_job` makes it [`PauseReason::RateLimited`]. A 429 to a submit fails the
//! job, because nothing repeats a submit. A receiver's 429 is handled in `endpoint/signal.rs`. The
//! 429 that callers of our API get is API Gateway's: `ThrottlingRateLimit` in `template.yaml`.
//!
//! The holder of a shard's lease keeps it in memory. While the holder is idle, the lease keeps
//! the pauses, and the wake-up call keeps the suspects and which of them are evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::pause::{Pause, PauseReason, PollResult, Trouble};
use super::suspicion::retry_wait;
use crate::id::JobId;
use crate::retry::later;

/// How many different renders have to fail before their provider counts as down.
const DOWN_AFTER: usize = 3;

/// How long ago the first of them failed at least: a busy shard meets three failures in a row by
/// chance, but none in ten seconds in which nothing is told.
const DOWN_FOR: TimeDelta = TimeDelta::seconds(10);

/// The backoff of a provider that is down: the first pause, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// In a pause, renders that have not failed are asked about this far apart.
const GENTLE: TimeDelta = TimeDelta::seconds(1);

/// In a pause, this many jobs a second are asked about at their deadlines.
const DEADLINES: f64 = 10.0;

/// The part of a provider's budget that suspects may take.
pub const SUSPECTS_SHARE: f64 = 0.1;

/// How many of them a second there may be in any case.
const SUSPECTS_PER_SECOND: f64 = 5.0;

/// The capacity of a token bucket, in seconds of its rate.
const BURST_S: f64 = 5.0;

/// A fresh failure of a render, since which no render was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When it failed.
    #[serde(rename = "t", with = "chrono::serde::ts_milliseconds")]
    pub at: DateTime<Utc>,
    /// Whether it was told that our rate is limited.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rate_limited: bool,
}

/// What a poll is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// To find the end of a render that has not failed.
    Regular,
    /// To find out whether a suspect is told of again.
    Suspect,
    /// To ask once more at a job's deadline.
    Deadline,
}

/// Whether a provider may be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleDecision {
    /// One poll may be made now.
    Now,
    /// No poll on this errand may be made before this time.
    NotBefore(DateTime<Utc>),
    /// No poll may be made before the result of the probe that is in flight.
    AfterProbe,
}

/// The throttle of one provider in one shard.
#[derive(Clone, Debug)]
pub struct ProviderThrottle {
    /// Polls per second; none without a limit.
    budget: Option<Bucket>,
    suspects: Bucket,
    deadlines: Bucket,
    evidence: BTreeMap<JobId, Evidence>,
    /// The shortest `Retry-After` among the evidence, from when it came.
    shortest_wait: Option<Duration>,
    pause: Option<Pause>,
    /// Whether the pause is over once its evidence is gone. After a takeover the evidence is not
    /// known.
    knows_evidence: bool,
    gentle_at: DateTime<Utc>,
    probe: Option<JobId>,
    last_probe: Option<JobId>,
    /// The version of the provider's spec.
    spec: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    refilled_at: DateTime<Utc>,
}

/// A poll as its result is taken.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The job.
    pub id: &'a JobId,
    /// When the poll began.
    pub at: DateTime<Utc>,
    /// Whether the render was no suspect then.
    pub was_fresh: bool,
}

/// What the result of a poll means for the renders that failed before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pardon {
    /// Those that failed since a render was last told of, in order.
    pub renders: BTreeSet<JobId>,
    /// Whether that was a pause, so that none of them is to wait for long any more.
    pub from_pause: bool,
}

impl ProviderThrottle {
    /// A provider without failures. `budget` is in polls per second, and `spec` the version of
    /// its spec.
    #[must_use]
    pub fn new(budget: Option<f64>, spec: u64, now: DateTime<Utc>) -> Self {
        let suspects = budget.map_or(SUSPECTS_PER_SECOND, |budget| budget * SUSPECTS_SHARE);
        Self {
            budget: budget.map(|budget| Bucket::full(budget, now)),
            suspects: Bucket::full(suspects.min(SUSPECTS_PER_SECOND), now),
            deadlines: Bucket::full(DEADLINES, now),
            evidence: BTreeMap::new(),
            shortest_wait: None,
            pause: None,
            knows_evidence: true,
            gentle_at: now,
            probe: None,
            last_probe: None,
            spec,
        }
    }

    /// A provider that is in a pause.
    #[must_use]
    pub fn with_pause(budget: Option<f64>, pause: Pause, now: DateTime<Utc>) -> Self {
        let new = Self::new(budget, pause.spec, now);
        Self { pause: Some(pause), knows_evidence: false, ..new }
    }

    /// Takes evidence that an earlier poller left.
    pub fn restore(&mut self, id: &JobId, evidence: Evidence) {
        self.evidence.insert(id.clone(), evidence);
        self.knows_evidence = true;
    }

    /// Decides whether a poll may be made now, and takes a token for it if so.
    pub fn admit(&mut self, errand: Errand, id: &JobId, now: DateTime<Utc>) -> ThrottleDecision {
        match (errand, self.pause) {
            (Errand::Deadline, Some(_)) => return self.deadlines.take(now),
            (Errand::Suspect, Some(pause)) => {
                if now < pause.until {
                    return ThrottleDecision::NotBefore(pause.until);
                }
                if self.probe.is_some() {
                    return ThrottleDecision::AfterProbe;
                }
                if let not_before @ ThrottleDecision::NotBefore(_) = self.take(now) {
                    return not_before;
                }
                self.probe = Some(id.clone());
                self.last_probe = Some(id.clone());
            }
            (Errand::Regular, Some(_)) => {
                if now < self.gentle_at {
                    return ThrottleDecision::NotBefore(self.gentle_at);
                }
                if let not_before @ ThrottleDecision::NotBefore(_) = self.take(now) {
                    return not_before;
                }
                self.gentle_at = now + GENTLE;
            }
            (Errand::Suspect, None) => {
                if let Some(then) = self.suspects.missing_until(now) {
                    return ThrottleDecision::NotBefore(then);
                }
                if let not_before @ ThrottleDecision::NotBefore(_) = self.take(now) {
                    return not_before;
                }
                self.suspects.take(now);
            }
            (Errand::Regular | Errand::Deadline, None) => return self.take(now),
        }
        ThrottleDecision::Now
    }

    /// Takes a token of the budget.
    fn take(&mut self, now: DateTime<Utc>) -> ThrottleDecision {
        self.budget.as_mut().map_or(ThrottleDecision::Now, |budget| budget.take(now))
    }

    /// Takes the result of a poll. Answers which renders may be asked about again soon.
    pub fn record(&mut self, asked: Asked<'_>, result: PollResult, now: DateTime<Utc>) -> Pardon {
        let was_probe = self.probe.as_ref() == Some(asked.id);
        if was_probe {
            self.probe = None;
        }
        match result {
            PollResult::NotAsked => Pardon::default(),
            PollResult::Told => self.record_told(asked),
            // Our own key is missing: the provider was not asked, and has not failed.
            PollResult::NotTold(trouble) if !trouble.is_of_provider() => Pardon::default(),
            PollResult::NotTold(trouble) => {
                self.record_failure(asked, trouble, was_probe, now);
                Pardon::default()
            }
        }
    }

    fn record_told(&mut self, asked: Asked<'_>) -> Pardon {
        // The poll began before the pause, so its answer does not end the pause.
        if self.pause.is_some_and(|pause| asked.at < pause.since) {
            self.evidence.remove(asked.id);
            return Pardon::default();
        }
        self.resume()
    }

    /// Ends the pause, if there is one, and forgets what was evidence for it.
    pub fn resume(&mut self) -> Pardon {
        let evidence = std::mem::take(&mut self.evidence);
        self.shortest_wait = None;
        self.probe = None;
        self.last_probe = None;
        self.knows_evidence = true;
        Pardon { renders: evidence.into_keys().collect(), from_pause: self.pause.take().is_some() }
    }

    fn record_failure(
        &mut self,
        asked: Asked<'_>,
        trouble: Trouble,
        was_probe: bool,
        now: DateTime<Utc>,
    ) {
        let is_rate_limited = trouble.reason == PauseReason::RateLimited;
        if asked.was_fresh {
            let evidence = Evidence { at: now, is_rate_limited };
            self.evidence.entry(asked.id.clone()).or_insert(evidence);
            self.knows_evidence = true;
            if let (true, Some(wait)) = (is_rate_limited, trouble.retry_after) {
                let wait = retry_wait(wait);
                self.shortest_wait =
                    Some(self.shortest_wait.map_or(wait, |shortest| shortest.min(wait)));
            }
        }
        let (since, failures) = match self.pause {
            // The pause is over, and this poll shows that its cause is not.
            Some(pause) if was_probe || now >= pause.until && self.probe.is_none() => {
                (pause.since, pause.failures.saturating_add(1))
            }
            Some(_) => return,
            None if self.is_down(now) || self.limits_our_rate() => (now, 0),
            None => return,
        };
        let wait = match (is_rate_limited, trouble.retry_after) {
            (true, Some(wait)) if was_probe => retry_wait(wait),
            (true, _) => self.shortest_wait.unwrap_or_else(|| backoff(failures)),
            (false, _) => backoff(failures),
        };
        let renders = u32::try_from(self.evidence.len()).unwrap_or(u32::MAX);
        self.pause = Some(Pause {
            since,
            until: later(now, wait),
            failures,
            reason: trouble.reason,
            status: trouble.status,
            renders,
            spec: self.spec,
        });
        self.gentle_at = self.gentle_at.max(now);
    }

    fn is_down(&self, now: DateTime<Utc>) -> bool {
        let first = self.evidence.values().map(|evidence| evidence.at).min();
        self.evidence.len() >= DOWN_AFTER && first.is_some_and(|first| first + DOWN_FOR <= now)
    }

    fn limits_our_rate(&self) -> bool {
        self.evidence.values().filter(|it| it.is_rate_limited).count() >= DOWN_AFTER
    }

    /// Forgets the evidence of renders that are not in the shard any more. A pause ends with the
    /// last of them.
    pub fn retain(&mut self, is_there: impl Fn(&JobId) -> bool) {
        self.evidence.retain(|id, _| is_there(id));
        if self.evidence.is_empty() && self.knows_evidence {
            self.resume();
        }
    }

    /// Whether a suspect should be asked about now, as the probe of a pause that is over.
    #[must_use]
    pub fn wants_probe(&self, now: DateTime<Utc>) -> bool {
        self.probe.is_none() && self.pause.is_some_and(|pause| pause.until <= now)
    }

    /// When the next probe is due, if the provider is paused and none is in flight.
    #[must_use]
    pub fn probe_at(&self) -> Option<DateTime<Utc>> {
        self.pause.filter(|_| self.probe.is_none()).map(|pause| pause.until)
    }

    /// Whether this render was the last probe.
    #[must_use]
    pub fn was_last_probe(&self, id: &JobId) -> bool {
        self.last_probe.as_ref() == Some(id)
    }

    /// The evidence that this render gave.
    #[must_use]
    pub fn evidence(&self, id: &JobId) -> Option<Evidence> {
        self.evidence.get(id).copied()
    }

    /// The pause, to be kept in the lease.
    #[must_use]
    pub fn pause(&self) -> Option<Pause> {
        self.pause
    }
}

impl Bucket {
    fn full(rate: f64, now: DateTime<Utc>) -> Self {
        Self { rate, tokens: (rate * BURST_S).max(1.0), refilled_at: now }
    }

    /// When a token is there, if none is now.
    fn missing_until(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let passed = (now - self.refilled_at).to_std().unwrap_or_default().as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min((self.rate * BURST_S).max(1.0));
        self.refilled_at = now;
        (self.tokens < 1.0).then(|| after(now, (1.0 - self.tokens) / self.rate))
    }

    fn take(&mut self, now: DateTime<Utc>) -> ThrottleDecision {
        match self.missing_until(now) {
            Some(then) => ThrottleDecision::NotBefore(then),
            None => {
                self.tokens -= 1.0;
                ThrottleDecision::Now
            }
        }
    }
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
