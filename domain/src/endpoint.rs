//! The endpoint of a receiver's URL: whether to send to it now, later or not at all.
//!
//! A failing receiver must not delay the webhooks of others, and must not get more requests than
//! it can take. So before an attempt its endpoint decides ([`Endpoint::admit`]) whether to admit
//! it, hold it for a while, or refuse it; after the attempt the endpoint
//! [records](Endpoint::record) its outcome. The state is one item in the table, shared by all
//! processes. A healthy endpoint has no state and needs no write.
//!
//! | what happens | what follows |
//! |---|---|
//! | five failures in a row, over at least 2 s | the circuit [breaker] opens: one probe at a time, all other attempts are held |
//! | 429, 502, 504, or `Retry-After` | no attempt is made before that time |
//! | 410, or `webhook-delivery: disable` | the endpoint is disabled |
//! | five days of failures only | the endpoint is disabled |
//! | slow answers, or none | attempts move to the slow [lane](Lane), where they delay only each other |
//! | a success | failures are forgotten and the breaker closes; the throttle, the slow lane and the limits stay |
//!
//! The rules are those of Standard Webhooks 1.0.0 ("Deliverability and reliability"), with
//! numbers where it has none.

mod admission;
mod breaker;
mod disabled;
mod failing;
mod limits;
mod signal;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use self::signal::SignalEffect;
use crate::attempt::ATTEMPT_LEASE;
use crate::headers::HeadersId;
use crate::id::EndpointId;
use crate::retry::{later, with_jitter};

pub use admission::{AttemptRequest, HoldReason, Lane, Permit};
pub use breaker::Breaker;
pub use disabled::{Disabled, DisabledReason};
pub use failing::Failing;
pub use limits::{EndpointLimits, InFlight, LimitError};
pub use signal::{AttemptSignal, Instruction, ResponseHints, SLOW};

/// The time for which an endpoint stays slow after a slow answer.
const SLOW_FOR: TimeDelta = TimeDelta::minutes(10);

/// The interval at which a disabled endpoint is written again while deliveries still go to it.
/// Otherwise its item would expire and the endpoint would count as healthy.
const REFRESH_INTERVAL: TimeDelta = TimeDelta::days(1);

/// The state of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The id: a hash of the URL.
    pub id: EndpointId,
    /// The URL's host, for people. Not the whole URL: its path may be the receiver's secret.
    pub host: String,
    /// The failures since the last success; none after a success.
    pub failing: Option<Failing>,
    /// The circuit breaker.
    pub breaker: Breaker,
    /// The end of the throttle: the receiver asked for no attempt before this time.
    pub throttled_until: Option<DateTime<Utc>>,
    /// Until when its attempts are made in the slow lane.
    pub slow_until: Option<DateTime<Utc>>,
    /// When and why it was disabled; none while it is enabled.
    pub disabled: Option<Disabled>,
    /// The limits that its owner set.
    pub limits: EndpointLimits,
    /// The headers that its owner configured.
    pub headers: Option<HeadersId>,
    /// The next free slot of the rate limit.
    pub next_slot: Option<DateTime<Utc>>,
    /// The attempts in flight; kept only when their number is limited.
    pub in_flight: Vec<InFlight>,
    /// The time of the last write.
    pub updated_at: DateTime<Utc>,
    /// The number of the last write, 0 before the first; a store replaces only the version that
    /// was read.
    pub version: u64,
}

/// The decision about an attempt. A change of the endpoint is written first, conditionally; after
/// a conflict the decision is made again.
#[derive(Clone, Debug, PartialEq)]
pub enum AdmissionDecision {
    /// The attempt may be made.
    Go {
        /// The permit, which is shown again with the outcome.
        permit: Permit,
        /// The endpoint to write first; none without a change.
        claim: Option<Box<Endpoint>>,
    },
    /// The attempt must not be made before `until`.
    Hold {
        /// When the attempt asks again.
        until: DateTime<Utc>,
        /// The reason.
        by: HoldReason,
        /// The endpoint to write first; none without a change.
        claim: Option<Box<Endpoint>>,
    },
    /// The attempt is to be made in the slow lane.
    ChangeLane,
    /// The attempt must not be made at all, because the endpoint is disabled.
    Refuse {
        /// The endpoint to write, so that its item does not expire; none when it is fresh.
        remember: Option<Box<Endpoint>>,
    },
}

/// The health of an endpoint, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No failure since the last success.
    Healthy,
    /// Its last attempts failed.
    Failing,
    /// The circuit breaker is not closed: all attempts but one probe at a time are held.
    CircuitOpen,
    /// The receiver asked for a throttle that is not over.
    Throttled,
    /// No attempt is made, except by hand.
    Disabled,
}

impl Health {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Healthy, Self::Failing, Self::CircuitOpen, Self::Throttled, Self::Disabled];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::CircuitOpen => "circuit_open",
            Self::Throttled => "throttled",
            Self::Disabled => "disabled",
        }
    }
}

impl Endpoint {
    /// The endpoint at `url` without any state.
    #[must_use]
    pub fn unknown(url: &str) -> Self {
        let host = url::Url::parse(url).ok();
        let host = host.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        Self {
            id: EndpointId::of(url),
            host: host.to_owned(),
            failing: None,
            breaker: Breaker::Closed,
            throttled_until: None,
            slow_until: None,
            disabled: None,
            limits: EndpointLimits::default(),
            headers: None,
            next_slot: None,
            in_flight: Vec::new(),
            updated_at: DateTime::UNIX_EPOCH,
            version: 0,
        }
    }

    /// Decides whether an attempt that is due may be made.
    #[must_use]
    pub fn admit(&self, request: &AttemptRequest, now: DateTime<Utc>) -> AdmissionDecision {
        if self.disabled.is_some() && !request.manual {
            let old = now - self.updated_at >= REFRESH_INTERVAL;
            let remember = old.then(|| Box::new(self.next_version(now)));
            return AdmissionDecision::Refuse { remember };
        }
        if let Some((until, by)) = self.current_hold(request.manual, request.jitter_sample, now) {
            return AdmissionDecision::Hold { until, by, claim: None };
        }
        if self.is_slow(now) && request.lane == Lane::Quick {
            return AdmissionDecision::ChangeLane;
        }
        let mut claim = self.clone();
        let token =
            match self.limits.reserve(request, &mut claim.in_flight, &mut claim.next_slot, now) {
                Ok(token) => token,
                Err((until, by)) => {
                    let claim = (claim != *self).then(|| Box::new(claim.next_version(now)));
                    return AdmissionDecision::Hold { until, by, claim };
                }
            };
        let probe = match self.breaker {
            Breaker::Closed => None,
            Breaker::Open { .. } | Breaker::HalfOpen { .. } if request.manual => None,
            Breaker::Open { round, .. } | Breaker::HalfOpen { round, .. } => {
                let until = now + ATTEMPT_LEASE;
                claim.breaker = Breaker::HalfOpen { until, round };
                Some(until)
            }
        };
        let claim = (claim != *self).then(|| Box::new(claim.next_version(now)));
        let permit = Permit { probe, token, manual: request.manual, headers: self.headers };
        AdmissionDecision::Go { permit, claim }
    }

    /// The endpoint after an attempt; none when nothing changes.
    #[must_use]
    pub fn record(
        &self,
        permit: &Permit,
        signal: &AttemptSignal,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let mut after = self.clone();
        if let Some(token) = permit.token {
            after.in_flight.retain(|place| place.token != token);
        }
        match signal.effect {
            SignalEffect::Alive => {
                // An attempt that is not manual began before the endpoint was disabled.
                if self.disabled.is_none() || permit.manual {
                    after.disabled = None;
                    after.failing = None;
                    after.breaker = Breaker::Closed;
                }
            }
            SignalEffect::Failed => after.record_failure(permit, now),
            SignalEffect::Disable(reason) => after.disable(reason, now),
        }
        // A success does not end a throttle that another answer has just asked for.
        if let Some(wait) = signal.throttle {
            let until = next_second(later(now, wait));
            after.throttled_until = after.throttled_until.max(Some(until));
        }
        if signal.slow {
            after.slow_until = extend_slow(after.slow_until, now);
        }
        (after != *self).then(|| after.next_version(now))
    }

    /// The endpoint when an attempt has lasted for [`SLOW`] without an answer; none when nothing
    /// changes.
    #[must_use]
    pub fn marked_slow(&self, now: DateTime<Utc>) -> Option<Self> {
        let slow_until = extend_slow(self.slow_until, now);
        (slow_until != self.slow_until).then(|| Self { slow_until, ..self.next_version(now) })
    }

    /// The endpoint after the event about `announcement` was published; none when that was known
    /// already, or the endpoint is no longer disabled.
    #[must_use]
    pub fn announced(&self, announcement: Disabled, now: DateTime<Utc>) -> Option<Self> {
        let same = |disabled: &Disabled| disabled.at == announcement.at && !disabled.announced;
        let disabled = self.disabled.filter(same)?;
        let disabled = Some(Disabled { announced: true, ..disabled });
        Some(Self { disabled, ..self.next_version(now) })
    }

    /// The endpoint after its owner configured it: with these limits and headers, enabled, and
    /// with a closed breaker. None when nothing changes.
    #[must_use]
    pub fn configured(
        &self,
        limits: EndpointLimits,
        headers: Option<HeadersId>,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let mut after = Self { limits, headers, ..self.clone() };
        after.failing = None;
        after.breaker = Breaker::Closed;
        after.disabled = None;
        if limits != self.limits {
            // Slots and places were reserved under the former limits.
            after.next_slot = None;
            after.in_flight.clear();
        }
        (after != *self).then(|| after.next_version(now))
    }

    /// The endpoint without limits and headers, once its owner has configured another; none
    /// when it has none.
    #[must_use]
    pub fn unconfigured(&self, now: DateTime<Utc>) -> Option<Self> {
        let limits = EndpointLimits::default();
        let after =
            Self { limits, headers: None, next_slot: None, in_flight: Vec::new(), ..self.clone() };
        let is_other = self.limits != limits || self.headers.is_some();
        is_other.then(|| after.next_version(now))
    }

    /// Until when a further attempt is blocked, and by what; none when neither the throttle nor
    /// the breaker blocks it.
    #[must_use]
    pub fn blocked_until(
        &self,
        jitter_sample: f64,
        now: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, HoldReason)> {
        self.current_hold(false, jitter_sample, now)
    }

    /// The health at `now`.
    #[must_use]
    pub fn health(&self, now: DateTime<Utc>) -> Health {
        if self.disabled.is_some() {
            Health::Disabled
        } else if self.throttled_until.is_some_and(|until| until > now) {
            Health::Throttled
        } else if self.breaker != Breaker::Closed {
            Health::CircuitOpen
        } else if self.failing.is_some() {
            Health::Failing
        } else {
            Health::Healthy
        }
    }

    /// The lane of its attempts.
    #[must_use]
    pub fn lane(&self, now: DateTime<Utc>) -> Lane {
        if self.is_slow(now) { Lane::Slow } else { Lane::Quick }
    }

    /// Whether its attempts are made in the slow lane.
    #[must_use]
    pub fn is_slow(&self, now: DateTime<Utc>) -> bool {
        self.slow_until.is_some_and(|until| until > now)
    }

    /// Whether its item can be deleted without a loss.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.failing.is_none()
            && self.breaker == Breaker::Closed
            && self.disabled.is_none()
            && !self.is_configured()
    }

    /// Whether its owner has set anything of it, which must outlast a quiet year.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.limits != EndpointLimits::default() || self.headers.is_some()
    }

    /// The later end of the throttle and the breaker's hold. A manual attempt ignores the
    /// breaker.
    fn current_hold(
        &self,
        manual: bool,
        jitter_sample: f64,
        now: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, HoldReason)> {
        let throttled = self.throttled_until.and_then(|until| (until - now).to_std().ok());
        let throttled = throttled.filter(|wait| !wait.is_zero());
        let throttled = throttled
            .map(|wait| (later(now, with_jitter(wait, jitter_sample)), HoldReason::Throttled));
        let held = self.breaker.held_until(jitter_sample, now).filter(|_| !manual);
        let held = held.map(|until| (until, HoldReason::Failing));
        match (throttled, held) {
            (Some(throttled), Some(held)) => {
                Some(if held.0 > throttled.0 { held } else { throttled })
            }
            (blocked, None) | (None, blocked) => blocked,
        }
    }

    fn record_failure(&mut self, permit: &Permit, now: DateTime<Utc>) {
        let failing = self.failing.unwrap_or(Failing::first(now));
        let failing = failing.at(now);
        let (breaker, counts) = self.breaker.after_failure(failing, permit.probe, now);
        self.breaker = breaker;
        self.failing = Some(if counts { failing.counted() } else { failing });
        if failing.is_over_limit(now) {
            self.disable(DisabledReason::Failing, now);
        }
    }

    fn disable(&mut self, reason: DisabledReason, now: DateTime<Utc>) {
        self.disabled = self.disabled.or(Some(Disabled { at: now, reason, announced: false }));
        self.breaker = Breaker::Closed;
    }

    fn next_version(&self, now: DateTime<Utc>) -> Self {
        // Versions begin with the time, so an item that was deleted and created again never has
        // a version that another process has cached.
        let first = u64::try_from(now.timestamp_millis()).unwrap_or(1);
        let version = if self.version == 0 { first } else { self.version.saturating_add(1) };
        Self { updated_at: now, version, ..self.clone() }
    }
}

/// The next whole second, so that answers of the same moment end the throttle at the same time
/// and only the first of them is written.
fn next_second(at: DateTime<Utc>) -> DateTime<Utc> {
    let second = TimeDelta::seconds(1);
    at.duration_trunc(second).unwrap_or(at) + second
}

/// The end of the slow time after a slow answer. It moves only when less than half of it is left,
/// so that not every slow answer costs a write.
fn extend_slow(slow_until: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let still = slow_until.is_some_and(|until| until - now > SLOW_FOR / 2);
    if still { slow_until } else { Some(now + SLOW_FOR) }
}

#[cfg(test)]
mod tests;
