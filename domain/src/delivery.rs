//! The delivery of one event to one receiver. Its state is separate from the render's.
//!
//! A delivery is driven by tickets (one queue message each): ticket `n` stands for attempt `n`.
//! The queue delivers at least once, so a ticket may arrive twice, late or out of order. Then
//! its attempt was made already, and it makes no other (dedup); see [`Delivery::decide_ticket`].
//! A ticket that is lost to the dead-letter queue leaves the delivery overdue; see
//! [`Delivery::redeliver`].

mod restart;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::attempt::{ATTEMPT_LEASE, Attempt, AttemptOutcome, LEAST_LEASE};
use crate::endpoint::{Endpoint, HoldReason, Instruction, ResponseHints};
use crate::event::{Event, EventName, TestEvent};
use crate::id::{EventId, JobId};
use crate::job::Job;
use crate::retry::{DeliverySchedule, later, with_jitter};

pub use restart::{DropError, MAX_ATTEMPTS, RedeliverError};

/// The number of attempts, the newest ones, that keep an excerpt of the receiver's answer.
pub const EXCERPTS_KEPT: usize = 10;

/// The delivery of one event to one receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What the event is about.
    pub subject: DeliverySubject,
    /// The event's id, which is also the `webhook-id` header.
    pub event_id: EventId,
    /// The URL of the receiver, as text: the address policy checks it before each attempt.
    pub url: String,
    /// The exact body. Every attempt sends these bytes.
    pub body: String,
    /// The shard of the job, whose tick also ends the long waits of this delivery.
    pub shard: u32,
    /// When the first attempt was due.
    pub created_at: DateTime<Utc>,
    /// The current state.
    pub state: DeliveryState,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// The number of the attempt at which the schedule started: 0 before any redelivery.
    pub round_start: usize,
    /// When the schedule started.
    pub round_at: DateTime<Utc>,
    /// Whether the next attempt was requested by hand. It ignores the circuit breaker.
    pub manual: bool,
    /// When the lease of the attempt in flight lapses; none without one.
    pub leased_until: Option<DateTime<Utc>>,
    /// The number of writes; a store replaces only the version that was read.
    pub version: u64,
}

/// What the event of a delivery is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliverySubject {
    /// A change of a job.
    Render {
        /// The job.
        job_id: JobId,
        /// The change.
        event: EventName,
    },
    /// Nothing: it is a test of the receiver.
    Test,
}

impl DeliverySubject {
    /// The wire name of the event.
    #[must_use]
    pub fn event_name(&self) -> &'static str {
        match self {
            Self::Render { event, .. } => event.as_str(),
            Self::Test => TestEvent::NAME,
        }
    }

    /// The job; none for a test.
    #[must_use]
    pub fn job_id(&self) -> Option<&JobId> {
        match self {
            Self::Render { job_id, .. } => Some(job_id),
            Self::Test => None,
        }
    }
}

/// The form for logs.
impl fmt::Display for DeliverySubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Render { job_id, .. } => write!(f, "job {job_id}"),
            Self::Test => f.write_str("a test"),
        }
    }
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// Another attempt is due.
    Pending {
        /// When the next attempt is due.
        next_at: DateTime<Utc>,
        /// Why it waits; none when only its own schedule says so.
        held: Option<HoldReason>,
    },
    /// The receiver answered 2xx.
    Delivered,
    /// It was given up, and the event about that is not published yet.
    GivenUp(GivenUp),
    /// It was given up, and the event about that was published.
    Exhausted(GivenUp),
}

/// When and why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// When it was given up.
    pub at: DateTime<Utc>,
    /// The reason.
    pub reason: GiveUpReason,
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUpReason {
    /// The last attempt of its schedule failed.
    AttemptsExhausted,
    /// The receiver answered 410.
    Gone,
    /// The receiver answered with `webhook-delivery: abort-message`.
    Aborted,
    /// Its endpoint is disabled.
    EndpointDisabled,
    /// Its endpoint held it for longer than the whole schedule may take.
    HeldTooLong,
    /// An operator dropped it.
    Dropped,
}

impl GiveUpReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AttemptsExhausted,
        Self::Gone,
        Self::Aborted,
        Self::EndpointDisabled,
        Self::HeldTooLong,
        Self::Dropped,
    ];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Gone => "gone",
            Self::Aborted => "aborted",
            Self::EndpointDisabled => "endpoint_disabled",
            Self::HeldTooLong => "held_too_long",
            Self::Dropped => "dropped",
        }
    }

    /// Whether it is sent again with all others that were given up.
    #[must_use]
    pub fn is_recovered(self) -> bool {
        match self {
            Self::AttemptsExhausted
            | Self::Gone
            | Self::Aborted
            | Self::EndpointDisabled
            | Self::HeldTooLong => true,
            // It was not to be sent.
            Self::Dropped => false,
        }
    }
}

impl DeliveryState {
    /// The wire name, which is the same before and after the end was published.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Delivered => "delivered",
            Self::GivenUp(_) | Self::Exhausted(_) => "exhausted",
        }
    }

    /// The wire name of the reason why it waits or was given up, if there is one.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Pending { held, .. } => held.map(HoldReason::name),
            Self::Delivered => None,
            Self::GivenUp(given_up) | Self::Exhausted(given_up) => Some(given_up.reason.name()),
        }
    }
}

/// The decision about a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketDecision {
    /// Attempt number `n` is to be made now, under a lease.
    Attempt(usize),
    /// The attempt is due at this time, and the ticket must come back then.
    Early(DateTime<Utc>),
    /// The attempt is leased until this time. The lease may belong to an earlier receipt of this
    /// same ticket, so the ticket must come back and not be dropped.
    Leased(DateTime<Utc>),
    /// The ticket's attempt was made. The ticket of the next one may have been lost in a crash.
    Superseded {
        /// The number of the attempt that is due next.
        next: usize,
        /// When that attempt is due.
        at: DateTime<Utc>,
    },
    /// The delivery was given up, but the event about that is possibly not published.
    Announce,
    /// The delivery has ended.
    Finished,
}

/// The consequence of an attempt, or of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The receiver took the event.
    Delivered,
    /// Another attempt is due.
    Retry {
        /// When it is due.
        at: DateTime<Utc>,
    },
    /// The delivery is given up, and the event about that is to be published.
    GiveUp,
}

/// What becomes of an attempt whose endpoint too many others change at the same moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Contention {
    /// It asks again after this time.
    AskAgain(Duration),
    /// It has asked for longer than the whole schedule may take.
    GiveUp(Box<Delivery>),
}

/// The shortest and the longest wait at a contended endpoint, before the jitter that may make it
/// four times as long.
const CONTENTION: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
const CONTENTION_JITTER: f64 = 3.0;

/// The waits of an attempt whose secrets are not known, the first and the next ones, before the
/// jitter that may double them.
const SECRETS_WAITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// The status by which a receiver says that it is gone for good (Standard Webhooks 1.0.0).
const GONE: u16 = 410;

impl Delivery {
    /// The delivery of an event of `job` to `url`, due at once.
    ///
    /// # Errors
    /// As [`Event::to_body`].
    pub fn of(
        job: &Job,
        event: &Event,
        url: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, serde_json::Error> {
        let subject = DeliverySubject::Render { job_id: job.id.clone(), event: event.event };
        Ok(Self::fresh(subject, &event.event_id, event.to_body()?, url, job.request.shard, now))
    }

    /// The delivery of a test event to `url`, due at once.
    ///
    /// # Errors
    /// As [`TestEvent::to_body`].
    pub fn of_test(
        event: &TestEvent,
        url: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, serde_json::Error> {
        // A test has no job. Shard 0 always exists.
        let test =
            Self::fresh(DeliverySubject::Test, &event.event_id, event.to_body()?, url, 0, now);
        Ok(Self { manual: true, ..test })
    }

    fn fresh(
        subject: DeliverySubject,
        event_id: &EventId,
        body: String,
        url: &str,
        shard: u32,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            subject,
            event_id: event_id.clone(),
            url: url.to_owned(),
            body,
            shard,
            created_at: now,
            state: DeliveryState::Pending { next_at: now, held: None },
            attempts: Vec::new(),
            round_start: 0,
            round_at: now,
            manual: false,
            leased_until: None,
            version: 1,
        }
    }

    /// Decides about the ticket for attempt number `ticket`.
    #[must_use]
    pub fn decide_ticket(&self, ticket: usize, now: DateTime<Utc>) -> TicketDecision {
        let next_at = match self.state {
            DeliveryState::Delivered | DeliveryState::Exhausted(_) => {
                return TicketDecision::Finished;
            }
            DeliveryState::GivenUp(_) => return TicketDecision::Announce,
            DeliveryState::Pending { next_at, .. } => next_at,
        };
        let next = self.attempts.len();
        if ticket < next {
            return TicketDecision::Superseded { next, at: next_at };
        }
        if let Some(until) = self.leased_until.filter(|_| self.is_leased(now)) {
            return TicketDecision::Leased(until);
        }
        if next_at > now {
            return TicketDecision::Early(next_at);
        }
        TicketDecision::Attempt(next)
    }

    /// The delivery while an attempt is in flight.
    #[must_use]
    pub fn leased(self, now: DateTime<Utc>) -> Self {
        let version = self.version.saturating_add(1);
        Self { leased_until: Some(now + ATTEMPT_LEASE), version, ..self }
    }

    /// Adds an attempt and decides what follows. `hints` are those in the receiver's answer,
    /// `endpoint` is the state of its endpoint after the attempt, and `jitter_sample` is a
    /// random number in `0.0..1.0`.
    #[must_use]
    pub fn record(
        self,
        attempt: Attempt,
        hints: ResponseHints,
        endpoint: &Endpoint,
        schedule: &DeliverySchedule,
        jitter_sample: f64,
        now: DateTime<Utc>,
    ) -> (Self, Consequence) {
        let mut delivery = self;
        let outcome = attempt.outcome;
        delivery.attempts.push(attempt);
        delivery.manual = false;
        let old = delivery.attempts.len().saturating_sub(EXCERPTS_KEPT);
        delivery.attempts.iter_mut().take(old).for_each(|attempt| attempt.excerpt.clear());

        let round = delivery.attempts.len().saturating_sub(delivery.round_start);
        match (outcome, hints.instruction) {
            (AttemptOutcome::Answered(200..=299), _) => {
                (delivery.moved(DeliveryState::Delivered), Consequence::Delivered)
            }
            (AttemptOutcome::Answered(GONE), _) => delivery.given_up(GiveUpReason::Gone, now),
            (AttemptOutcome::Answered(_), Some(Instruction::AbortMessage)) => {
                delivery.given_up(GiveUpReason::Aborted, now)
            }
            (AttemptOutcome::Answered(_) | AttemptOutcome::Failed(_), _)
                if endpoint.disabled.is_some() =>
            {
                delivery.given_up(GiveUpReason::EndpointDisabled, now)
            }
            (AttemptOutcome::Answered(_) | AttemptOutcome::Failed(_), _) => match schedule
                .wait_before(round)
            {
                Some(wait) => {
                    let wait =
                        with_jitter(wait.max(hints.retry_after.unwrap_or_default()), jitter_sample);
                    delivery.next(later(now, wait), endpoint.blocked_until(jitter_sample, now))
                }
                None => delivery.given_up(GiveUpReason::AttemptsExhausted, now),
            },
        }
    }

    /// The delivery while its endpoint holds it until `until`. The attempt that is due keeps its
    /// number. The delivery is given up when it would last longer than the whole schedule may.
    #[must_use]
    pub fn hold(
        &self,
        until: DateTime<Utc>,
        by: HoldReason,
        schedule: &DeliverySchedule,
        now: DateTime<Utc>,
    ) -> (Self, Consequence) {
        if until > later(self.round_at, schedule.longest()) {
            return self.clone().given_up(GiveUpReason::HeldTooLong, now);
        }
        let held = DeliveryState::Pending { next_at: until, held: Some(by) };
        (self.clone().moved(held), Consequence::Retry { at: until })
    }

    /// Decides when an attempt that is due asks its contended endpoint again: the later, the longer
    /// it has asked. So its ticket is not sent round without end, and of many the newest ask
    /// most often.
    #[must_use]
    pub fn contended(
        &self,
        jitter_sample: f64,
        schedule: &DeliverySchedule,
        now: DateTime<Utc>,
    ) -> Contention {
        let due = match self.state {
            DeliveryState::Pending { next_at, .. } => next_at,
            DeliveryState::Delivered | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => {
                now
            }
        };
        let [shortest, longest] = CONTENTION;
        let asked = (now - due).to_std().unwrap_or_default() / 2;
        let jitter = 1.0 + CONTENTION_JITTER * jitter_sample.clamp(0.0, 1.0);
        let wait = asked.clamp(shortest, longest).mul_f64(jitter);
        if later(now, wait) > later(self.round_at, schedule.longest()) {
            let (given_up, _) = self.clone().given_up(GiveUpReason::HeldTooLong, now);
            return Contention::GiveUp(Box::new(given_up));
        }
        Contention::AskAgain(wait)
    }

    /// When an attempt is made again that was put off because its secrets are not known: soon
    /// at first, and then not so often.
    #[must_use]
    pub fn put_off_until(&self, jitter_sample: f64, now: DateTime<Utc>) -> DateTime<Utc> {
        let held = match self.state {
            DeliveryState::Pending { held, .. } => held,
            DeliveryState::Delivered | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => {
                None
            }
        };
        let [first, next] = SECRETS_WAITS;
        let wait = if held == Some(HoldReason::Secrets) { next } else { first };
        later(now, wait.mul_f64(1.0 + jitter_sample.clamp(0.0, 1.0)))
    }

    /// The delivery, given up because its endpoint is disabled.
    #[must_use]
    pub fn refused(&self, now: DateTime<Utc>) -> Self {
        self.clone().given_up(GiveUpReason::EndpointDisabled, now).0
    }

    /// Whether the attempt that is due has a slot reserved in its endpoint's rate limit.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        match self.state {
            DeliveryState::Pending { held, .. } => held == Some(HoldReason::Rate),
            DeliveryState::Delivered | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => {
                false
            }
        }
    }

    /// Due at `at`, or later if the endpoint is blocked for longer.
    fn next(
        self,
        at: DateTime<Utc>,
        blocked: Option<(DateTime<Utc>, HoldReason)>,
    ) -> (Self, Consequence) {
        let (at, held) = match blocked {
            Some((until, by)) if until > at => (until, Some(by)),
            Some(_) | None => (at, None),
        };
        (self.moved(DeliveryState::Pending { next_at: at, held }), Consequence::Retry { at })
    }

    fn given_up(self, reason: GiveUpReason, now: DateTime<Utc>) -> (Self, Consequence) {
        let state = DeliveryState::GivenUp(GivenUp { at: now, reason });
        (self.moved(state), Consequence::GiveUp)
    }

    fn moved(self, state: DeliveryState) -> Self {
        let version = self.version.saturating_add(1);
        Self { state, leased_until: None, version, ..self }
    }

    /// The delivery after the event about its end was published.
    #[must_use]
    pub fn announced(&self) -> Self {
        let state = match self.state {
            DeliveryState::GivenUp(given_up) => DeliveryState::Exhausted(given_up),
            state @ (DeliveryState::Pending { .. }
            | DeliveryState::Delivered
            | DeliveryState::Exhausted(_)) => state,
        };
        Self { state, version: self.version.saturating_add(1), ..self.clone() }
    }

    /// Whether an attempt that posts now is over when its lease is. When that has lapsed, the
    /// delivery may have another receiver.
    #[must_use]
    pub fn may_post(&self, now: DateTime<Utc>) -> bool {
        self.leased_until.is_some_and(|until| until - now >= LEAST_LEASE)
    }

    /// Whether an attempt is in flight.
    #[must_use]
    pub fn is_leased(&self, now: DateTime<Utc>) -> bool {
        self.leased_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests;
