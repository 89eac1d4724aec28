//! The delivery of one event to one receiver: its own state, apart from the render's.
//!
//! A delivery is driven by tickets (one queue message each): ticket `n` stands for attempt
//! `n`. A ticket that arrives twice, late or out of order finds that its attempt was made
//! and makes no other; see [`Delivery::admit`].

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::attempt::{Attempt, LEASE, Outcome};
use crate::endpoint::{Endpoint, Hold, Instruction, Said};
use crate::event::{Event, EventName, TestEvent};
use crate::id::{EventId, JobId};
use crate::job::Job;
use crate::retry::{DeliverySchedule, later, with_jitter};

/// How late an attempt is when its ticket must be among the dead letters: longer than the
/// queue brings a ticket back.
const OVERDUE: TimeDelta = TimeDelta::minutes(20);

/// How many attempts keep the receiver's words; older ones keep status and times only.
pub const EXCERPTS_KEPT: usize = 10;

/// How many attempts a delivery may have been through when it is sent again by hand. Every
/// attempt is written down in the delivery's item, for which DynamoDB has a limit of 400 KiB
/// and a price by the KiB.
pub const MOST_ATTEMPTS: usize = 1_000;

/// Why a delivery is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAgain {
    /// Attempts are still made by themselves.
    Pending,
    /// It was tried [`MOST_ATTEMPTS`] times.
    TooOften,
}

/// One event on its way to one receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What it tells of.
    pub subject: Subject,
    /// The event; also the `webhook-id` that receivers see.
    pub event_id: EventId,
    /// Where it goes. A text here: it is judged again when it is used.
    pub url: String,
    /// The exact body. Every attempt sends these bytes.
    pub body: String,
    /// Which poller looks after its long waits: the job's.
    pub shard: u32,
    /// When it was first due.
    pub created_at: DateTime<Utc>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// The number of the attempt at which the schedule starts; not 0 after a redelivery.
    pub round_start: usize,
    /// When the schedule started.
    pub round_at: DateTime<Utc>,
    /// Whether the next attempt was asked for, to see whether its endpoint is well again.
    pub deliberate: bool,
    /// Until when an attempt is under way.
    pub leased_until: Option<DateTime<Utc>>,
    /// Counts changes; a store writes only over the version it read.
    pub version: u64,
}

/// What a delivery tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A change of a job.
    Render {
        /// The job.
        job_id: JobId,
        /// The change.
        event: EventName,
    },
    /// Nothing: its owner wanted to see one arrive.
    Test,
}

impl Subject {
    /// The wire name of the event.
    #[must_use]
    pub fn event_name(&self) -> &'static str {
        match self {
            Self::Render { event, .. } => event.as_str(),
            Self::Test => TestEvent::NAME,
        }
    }

    /// The job, if it is about one.
    #[must_use]
    pub fn job_id(&self) -> Option<&JobId> {
        match self {
            Self::Render { job_id, .. } => Some(job_id),
            Self::Test => None,
        }
    }
}

/// As logs name it.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Render { job_id, .. } => write!(f, "job {job_id}"),
            Self::Test => f.write_str("a test"),
        }
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// Another attempt is due.
    Pending {
        /// When.
        next_at: DateTime<Utc>,
        /// What keeps it waiting, if not its own schedule.
        held: Option<Hold>,
    },
    /// The receiver took it.
    Delivered,
    /// It was given up, and that is still to be announced.
    GivenUp(GivenUp),
    /// It was given up, and an event said so.
    Exhausted(GivenUp),
}

/// When and why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// When.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: GiveUpReason,
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUpReason {
    /// The last attempt of its schedule failed.
    AttemptsExhausted,
    /// The receiver answered 410.
    Gone,
    /// The receiver does not want it, and said so with `webhook-delivery: abort-message`.
    Aborted,
    /// Nothing is sent to its endpoint any more.
    EndpointDisabled,
    /// Its endpoint kept it waiting for longer than its schedule can take.
    HeldTooLong,
}

impl GiveUpReason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AttemptsExhausted,
        Self::Gone,
        Self::Aborted,
        Self::EndpointDisabled,
        Self::HeldTooLong,
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
        }
    }
}

impl DeliveryState {
    /// The wire name. Whether the end was announced is our business alone.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Delivered => "delivered",
            Self::GivenUp(_) | Self::Exhausted(_) => "exhausted",
        }
    }

    /// The wire name of what keeps it waiting, or of why it was given up.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Pending { held, .. } => held.map(Hold::name),
            Self::Delivered => None,
            Self::GivenUp(given_up) | Self::Exhausted(given_up) => Some(given_up.reason.name()),
        }
    }
}

/// What to do with a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Make attempt number `n` now, under a lease.
    Attempt(usize),
    /// The attempt is due later: put the ticket back until then.
    Early(DateTime<Utc>),
    /// Another holder is at this very attempt. Its ticket may be this one, so this one must
    /// come back rather than be thrown away.
    Leased(DateTime<Utc>),
    /// The ticket's attempt was made. The next one's ticket may have been lost on the way.
    Superseded {
        /// The number of the attempt that is due next.
        next: usize,
        /// When it is due.
        at: DateTime<Utc>,
    },
    /// Given up, but the announcement may have been lost on the way.
    Announce,
    /// Nothing is left to do.
    Finished,
}

/// What follows from an attempt, or from being kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Done.
    Delivered,
    /// Try again.
    Retry {
        /// When.
        at: DateTime<Utc>,
    },
    /// Give up, and say so.
    GiveUp,
}

/// The status that says: this receiver is gone for good (Standard Webhooks 1.0.0).
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
        let subject = Subject::Render { job_id: job.id.clone(), event: event.event };
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
        // The first poller is always there.
        let test = Self::fresh(Subject::Test, &event.event_id, event.to_body()?, url, 0, now);
        Ok(Self { deliberate: true, ..test })
    }

    fn fresh(
        subject: Subject,
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
            deliberate: false,
            leased_until: None,
            version: 1,
        }
    }

    /// What to do with the ticket for attempt number `ticket`.
    #[must_use]
    pub fn admit(&self, ticket: usize, now: DateTime<Utc>) -> Admission {
        let next_at = match self.state {
            DeliveryState::Delivered | DeliveryState::Exhausted(_) => return Admission::Finished,
            DeliveryState::GivenUp(_) => return Admission::Announce,
            DeliveryState::Pending { next_at, .. } => next_at,
        };
        let next = self.attempts.len();
        if ticket < next {
            return Admission::Superseded { next, at: next_at };
        }
        if let Some(until) = self.leased_until.filter(|_| self.is_leased(now)) {
            return Admission::Leased(until);
        }
        if next_at > now {
            return Admission::Early(next_at);
        }
        Admission::Attempt(next)
    }

    /// The delivery while an attempt is under way.
    #[must_use]
    pub fn leased(self, now: DateTime<Utc>) -> Self {
        let version = self.version.saturating_add(1);
        Self { leased_until: Some(now + LEASE), version, ..self }
    }

    /// Writes an attempt down and decides what follows. `said` is what the receiver asked for
    /// beside its status, `endpoint` what is known of it now, and `luck` a random number in
    /// `0.0..1.0` for the jitter.
    #[must_use]
    pub fn record(
        self,
        attempt: Attempt,
        said: Said,
        endpoint: &Endpoint,
        schedule: &DeliverySchedule,
        luck: f64,
        now: DateTime<Utc>,
    ) -> (Self, Consequence) {
        let mut delivery = self;
        let outcome = attempt.outcome;
        delivery.attempts.push(attempt);
        delivery.deliberate = false;
        let old = delivery.attempts.len().saturating_sub(EXCERPTS_KEPT);
        delivery.attempts.iter_mut().take(old).for_each(|attempt| attempt.excerpt.clear());

        let round = delivery.attempts.len().saturating_sub(delivery.round_start);
        match (outcome, said.instruction) {
            (Outcome::Answered(200..=299), _) => {
                (delivery.moved(DeliveryState::Delivered), Consequence::Delivered)
            }
            (Outcome::Answered(GONE), _) => delivery.given_up(GiveUpReason::Gone, now),
            (Outcome::Answered(_), Some(Instruction::AbortMessage)) => {
                delivery.given_up(GiveUpReason::Aborted, now)
            }
            (Outcome::Answered(_) | Outcome::Failed(_), _) if endpoint.disabled.is_some() => {
                delivery.given_up(GiveUpReason::EndpointDisabled, now)
            }
            (Outcome::Answered(_) | Outcome::Failed(_), _) => match schedule.wait_before(round) {
                Some(wait) => {
                    let wait = with_jitter(wait.max(said.retry_after.unwrap_or_default()), luck);
                    delivery.next(later(now, wait), endpoint.shut_until(luck, now))
                }
                None => delivery.given_up(GiveUpReason::AttemptsExhausted, now),
            },
        }
    }

    /// The delivery while its endpoint keeps it waiting until then. The attempt that is due
    /// keeps its number. Given up when that would be for longer than it may ever take.
    #[must_use]
    pub fn hold(
        &self,
        until: DateTime<Utc>,
        by: Hold,
        schedule: &DeliverySchedule,
        now: DateTime<Utc>,
    ) -> (Self, Consequence) {
        if until > later(self.round_at, schedule.longest()) {
            return self.clone().given_up(GiveUpReason::HeldTooLong, now);
        }
        let held = DeliveryState::Pending { next_at: until, held: Some(by) };
        (self.clone().moved(held), Consequence::Retry { at: until })
    }

    /// The delivery when its endpoint was disabled.
    #[must_use]
    pub fn refused(&self, now: DateTime<Utc>) -> Self {
        self.clone().given_up(GiveUpReason::EndpointDisabled, now).0
    }

    /// Whether the attempt that is due has its turn in its endpoint's rate.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        match self.state {
            DeliveryState::Pending { held, .. } => held == Some(Hold::Rate),
            DeliveryState::Delivered | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => {
                false
            }
        }
    }

    /// Due at `at`, unless the endpoint is shut for longer.
    fn next(self, at: DateTime<Utc>, shut: Option<(DateTime<Utc>, Hold)>) -> (Self, Consequence) {
        let (at, held) = match shut {
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

    /// The delivery after its end was announced.
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

    /// The delivery with a fresh round of attempts, due at once; same id, same bytes. Its
    /// first attempt is made whatever became of its endpoint: somebody wants to know.
    ///
    /// # Errors
    /// While attempts are still made by themselves: but one that is held because its endpoint
    /// fails may be sent at once, and one that is long overdue has lost its ticket, and nobody
    /// would ever make its attempt. And when there were too many attempts.
    pub fn redeliver(&self, now: DateTime<Utc>) -> Result<Self, NotAgain> {
        let may = match self.state {
            DeliveryState::Pending { held: Some(Hold::Failing), .. } => !self.is_leased(now),
            DeliveryState::Pending { next_at, .. } => now - next_at > OVERDUE,
            DeliveryState::GivenUp(_) | DeliveryState::Delivered | DeliveryState::Exhausted(_) => {
                true
            }
        };
        if !may {
            return Err(NotAgain::Pending);
        }
        if self.attempts.len() >= MOST_ATTEMPTS {
            return Err(NotAgain::TooOften);
        }
        Ok(Self { deliberate: true, ..self.started_anew(now) })
    }

    /// The same for one of many that were given up: its attempts are no different from any
    /// other's. None when it was not given up, or was tried too often.
    #[must_use]
    pub fn recover(&self, now: DateTime<Utc>) -> Option<Self> {
        let given_up = match self.state {
            DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => true,
            DeliveryState::Pending { .. } | DeliveryState::Delivered => false,
        };
        let may = given_up && self.attempts.len() < MOST_ATTEMPTS;
        may.then(|| self.started_anew(now))
    }

    fn started_anew(&self, now: DateTime<Utc>) -> Self {
        let round_start = self.attempts.len();
        let state = DeliveryState::Pending { next_at: now, held: None };
        Self { round_start, round_at: now, deliberate: false, ..self.clone().moved(state) }
    }

    /// Whether somebody is at an attempt right now.
    #[must_use]
    pub fn is_leased(&self, now: DateTime<Utc>) -> bool {
        self.leased_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests;
