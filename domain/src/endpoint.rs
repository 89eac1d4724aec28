//! A receiver's URL, and what its answers have taught us: whether to send to it now, later
//! or not at all.
//!
//! One receiver's trouble must cost nobody else anything, and itself no more than it can
//! bear. So an attempt first [arrives](Endpoint::arrive) at its endpoint, which lets it
//! through, holds it for a while, or refuses it; and when it was made, the endpoint
//! [learns](Endpoint::learn) from it. What was learnt is one item in the table, so it
//! outlives the process that learnt it. Of a healthy endpoint nothing is known and nothing
//! is written.
//!
//! | what happens | what follows |
//! |---|---|
//! | five failures in a row, over 2 s | the [breaker] opens: one probe at a time, all others are held |
//! | 429, 502, 504, or `Retry-After` | nothing at all is sent before that time |
//! | 410, or `webhook-delivery: disable` | disabled |
//! | five days of nothing but failures | disabled |
//! | slow answers, or none | attempts move to a [lane](Lane) where they hold up only each other |
//! | a success | all is forgotten, but for what it asked to wait |
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

use self::signal::Effect;
use crate::attempt::LEASE;
use crate::id::EndpointId;
use crate::retry::{later, with_jitter};

pub use admission::{Arrival, Hold, Lane, Pass};
pub use breaker::Breaker;
pub use disabled::{Disabled, DisabledReason};
pub use failing::Failing;
pub use limits::{InFlight, LimitError, Limits};
pub use signal::{Instruction, Lesson, SLOW, Said};

/// How long an endpoint stays slow after a slow answer.
const SLOW_FOR: TimeDelta = TimeDelta::minutes(10);

/// How often a disabled endpoint that is still delivered to is written anew, so that it is
/// not forgotten before it is left alone.
const REMEMBERED: TimeDelta = TimeDelta::days(1);

/// What is known of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its name: a hash of the URL.
    pub id: EndpointId,
    /// The URL's host, for people. Not the whole URL: its path may be the receiver's secret.
    pub host: String,
    /// Since when it does nothing but fail.
    pub failing: Option<Failing>,
    /// Whether anything is sent to it.
    pub breaker: Breaker,
    /// Until when it asked for silence.
    pub quiet_until: Option<DateTime<Utc>>,
    /// Until when its attempts are made where they hold up nobody else.
    pub slow_until: Option<DateTime<Utc>>,
    /// That nothing is sent to it any more.
    pub disabled: Option<Disabled>,
    /// What its owner allows.
    pub limits: Limits,
    /// When the next attempt fits its rate.
    pub next_slot: Option<DateTime<Utc>>,
    /// The attempts under way; kept only where their number is limited.
    pub in_flight: Vec<InFlight>,
    /// When this was last written.
    pub updated_at: DateTime<Utc>,
    /// Counts changes; a store writes only over the version it read. 0 when never written.
    pub version: u64,
}

/// What becomes of an attempt that arrived. What has to be written is written first, and on
/// condition: who is overtaken arrives again.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrived {
    /// It may be made.
    Go {
        /// What it has to show afterwards.
        pass: Pass,
        /// What has to be written before.
        claim: Option<Box<Endpoint>>,
    },
    /// It may not be made before `until`.
    Hold {
        /// When it arrives again.
        until: DateTime<Utc>,
        /// Why.
        by: Hold,
        /// What has to be written before.
        claim: Option<Box<Endpoint>>,
    },
    /// It is to be made in the slow lane.
    ChangeLane,
    /// It may not be made at all.
    Refuse {
        /// What has to be written, some time.
        remember: Option<Box<Endpoint>>,
    },
}

/// How an endpoint is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As far as we know.
    Healthy,
    /// Its last attempts failed.
    Failing,
    /// Its attempts are held, but for a probe now and then.
    Held,
    /// It asked for silence.
    Throttled,
    /// Nothing is sent to it any more.
    Disabled,
}

impl Health {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Healthy, Self::Failing, Self::Held, Self::Throttled, Self::Disabled];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Held => "held",
            Self::Throttled => "throttled",
            Self::Disabled => "disabled",
        }
    }
}

impl Endpoint {
    /// The endpoint of which nothing is known.
    #[must_use]
    pub fn unknown(url: &str) -> Self {
        let host = url::Url::parse(url).ok();
        let host = host.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        Self {
            id: EndpointId::of(url),
            host: host.to_owned(),
            failing: None,
            breaker: Breaker::Closed,
            quiet_until: None,
            slow_until: None,
            disabled: None,
            limits: Limits::default(),
            next_slot: None,
            in_flight: Vec::new(),
            updated_at: DateTime::UNIX_EPOCH,
            version: 0,
        }
    }

    /// Whether an attempt that is due may be made.
    #[must_use]
    pub fn arrive(&self, arrival: &Arrival, now: DateTime<Utc>) -> Arrived {
        if self.disabled.is_some() && !arrival.deliberate {
            let old = now - self.updated_at >= REMEMBERED;
            let remember = old.then(|| Box::new(self.written(now)));
            return Arrived::Refuse { remember };
        }
        if let Some((until, by)) = self.shut(arrival.deliberate, arrival.luck, now) {
            return Arrived::Hold { until, by, claim: None };
        }
        if self.is_slow(now) && arrival.lane == Lane::Quick {
            return Arrived::ChangeLane;
        }
        let mut claim = self.clone();
        let token =
            match self.limits.reserve(arrival, &mut claim.in_flight, &mut claim.next_slot, now) {
                Ok(token) => token,
                Err((until, by)) => {
                    let claim = (claim != *self).then(|| Box::new(claim.written(now)));
                    return Arrived::Hold { until, by, claim };
                }
            };
        let probe = match self.breaker {
            Breaker::Closed => None,
            Breaker::Open { .. } | Breaker::HalfOpen { .. } if arrival.deliberate => None,
            Breaker::Open { round, .. } | Breaker::HalfOpen { round, .. } => {
                let until = now + LEASE;
                claim.breaker = Breaker::HalfOpen { until, round };
                Some(until)
            }
        };
        let claim = (claim != *self).then(|| Box::new(claim.written(now)));
        Arrived::Go { pass: Pass { probe, token, deliberate: arrival.deliberate }, claim }
    }

    /// The endpoint after an attempt; none when there is nothing to write.
    #[must_use]
    pub fn learn(&self, pass: &Pass, lesson: &Lesson, now: DateTime<Utc>) -> Option<Self> {
        let mut after = self.clone();
        if let Some(token) = pass.token {
            after.in_flight.retain(|place| place.token != token);
        }
        match lesson.effect {
            Effect::Alive => {
                // Another's success may have begun before the endpoint was disabled.
                if self.disabled.is_none() || pass.deliberate {
                    after.disabled = None;
                    after.failing = None;
                    after.breaker = Breaker::Closed;
                }
            }
            Effect::Failed => after.fail(pass, now),
            Effect::Disable(reason) => after.disable(reason, now),
        }
        // A success does not take back what the endpoint asked for just before.
        if let Some(wait) = lesson.quiet {
            let until = on_the_second(later(now, wait));
            after.quiet_until = after.quiet_until.max(Some(until));
        }
        if lesson.slow {
            after.slow_until = slower(after.slow_until, now);
        }
        (after != *self).then(|| after.written(now))
    }

    /// The endpoint when an attempt has gone on for [`SLOW`] and is not over; none when there
    /// is nothing to write.
    #[must_use]
    pub fn notice_slow(&self, now: DateTime<Utc>) -> Option<Self> {
        let slow_until = slower(self.slow_until, now);
        (slow_until != self.slow_until).then(|| Self { slow_until, ..self.written(now) })
    }

    /// The endpoint after an event said that it was disabled; none when it was said before, or
    /// is no longer so.
    #[must_use]
    pub fn announced(&self, said: Disabled, now: DateTime<Utc>) -> Option<Self> {
        let same = |disabled: &Disabled| disabled.at == said.at && !disabled.announced;
        let disabled = self.disabled.filter(same)?;
        let disabled = Some(Disabled { announced: true, ..disabled });
        Some(Self { disabled, ..self.written(now) })
    }

    /// The endpoint as its owner wants it from now on: within these limits, and with nothing
    /// held against it. None when it is that already.
    #[must_use]
    pub fn configured(&self, limits: Limits, now: DateTime<Utc>) -> Option<Self> {
        let mut after = Self { limits, ..self.clone() };
        after.failing = None;
        after.breaker = Breaker::Closed;
        after.disabled = None;
        if limits != self.limits {
            // Places in another rate mean nothing in this one.
            after.next_slot = None;
            after.in_flight.clear();
        }
        (after != *self).then(|| after.written(now))
    }

    /// The endpoint without its owner's limits; none when it has none.
    #[must_use]
    pub fn unlimited(&self, now: DateTime<Utc>) -> Option<Self> {
        let limits = Limits::default();
        let after = Self { limits, next_slot: None, in_flight: Vec::new(), ..self.clone() };
        (self.limits != limits).then(|| after.written(now))
    }

    /// When, and why not before, an attempt after this one could be made, as far as the
    /// endpoint's health says.
    #[must_use]
    pub fn shut_until(&self, luck: f64, now: DateTime<Utc>) -> Option<(DateTime<Utc>, Hold)> {
        self.shut(false, luck, now)
    }

    /// How it is.
    #[must_use]
    pub fn health(&self, now: DateTime<Utc>) -> Health {
        if self.disabled.is_some() {
            Health::Disabled
        } else if self.quiet_until.is_some_and(|until| until > now) {
            Health::Throttled
        } else if self.breaker != Breaker::Closed {
            Health::Held
        } else if self.failing.is_some() {
            Health::Failing
        } else {
            Health::Healthy
        }
    }

    /// Where its attempts are made.
    #[must_use]
    pub fn lane(&self, now: DateTime<Utc>) -> Lane {
        if self.is_slow(now) { Lane::Slow } else { Lane::Quick }
    }

    /// Whether it answers slowly.
    #[must_use]
    pub fn is_slow(&self, now: DateTime<Utc>) -> bool {
        self.slow_until.is_some_and(|until| until > now)
    }

    /// Whether forgetting it would change nothing.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.failing.is_none()
            && self.breaker == Breaker::Closed
            && self.disabled.is_none()
            && self.limits == Limits::default()
    }

    /// The later of what it asked for and what the breaker says; a deliberate attempt does
    /// not care for the breaker.
    fn shut(
        &self,
        deliberate: bool,
        luck: f64,
        now: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, Hold)> {
        let quiet = self.quiet_until.and_then(|until| (until - now).to_std().ok());
        let quiet = quiet.filter(|wait| !wait.is_zero());
        let quiet = quiet.map(|wait| (later(now, with_jitter(wait, luck)), Hold::Throttled));
        let held = self.breaker.held_until(luck, now).filter(|_| !deliberate);
        let held = held.map(|until| (until, Hold::Failing));
        match (quiet, held) {
            (Some(quiet), Some(held)) => Some(if held.0 > quiet.0 { held } else { quiet }),
            (shut, None) | (None, shut) => shut,
        }
    }

    fn fail(&mut self, pass: &Pass, now: DateTime<Utc>) {
        let failing = self.failing.unwrap_or(Failing::first(now));
        let failing = failing.at(now);
        let (breaker, counts) = self.breaker.after_failure(failing, pass.probe, now);
        self.breaker = breaker;
        self.failing = Some(if counts { failing.counted() } else { failing });
        if failing.is_dead(now) {
            self.disable(DisabledReason::Failing, now);
        }
    }

    fn disable(&mut self, reason: DisabledReason, now: DateTime<Utc>) {
        self.disabled = self.disabled.or(Some(Disabled { at: now, reason, announced: false }));
        self.breaker = Breaker::Closed;
    }

    fn written(&self, now: DateTime<Utc>) -> Self {
        // An item that was deleted and made anew never has a version that somebody still
        // remembers: versions begin with the time.
        let first = u64::try_from(now.timestamp_millis()).unwrap_or(1);
        let version = if self.version == 0 { first } else { self.version.saturating_add(1) };
        Self { updated_at: now, version, ..self.clone() }
    }
}

/// The next whole second, so that answers of the same moment ask for the same and only the
/// first of them is written.
fn on_the_second(at: DateTime<Utc>) -> DateTime<Utc> {
    let second = TimeDelta::seconds(1);
    at.duration_trunc(second).unwrap_or(at) + second
}

/// Pushed on only when half of the time is over: it is a habit that counts, not an answer.
fn slower(slow_until: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let still = slow_until.is_some_and(|until| until - now > SLOW_FOR / 2);
    if still { slow_until } else { Some(now + SLOW_FOR) }
}

#[cfg(test)]
mod tests;
