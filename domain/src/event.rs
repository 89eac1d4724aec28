//! The events that tell of a job's changes: on the bus and in webhooks, the same bytes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::delivery::{Delivery, GivenUp, Subject};
use crate::endpoint::{Disabled, Endpoint};
use crate::failure::Failure;
use crate::id::{EndpointId, EventId};
use crate::job::{Job, State};
use crate::time;

/// The name of an event: the bus's detail-type and the body's `event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventName {
    /// The provider accepted.
    #[serde(rename = "video.render.queued")]
    Queued,
    /// The provider started.
    #[serde(rename = "video.render.processing")]
    Processing,
    /// The video is done.
    #[serde(rename = "video.render.completed")]
    Completed,
    /// The video will not be done, or was not in time.
    #[serde(rename = "video.render.failed")]
    Failed,
    /// The render was called off.
    #[serde(rename = "video.render.cancelled")]
    Cancelled,
}

impl EventName {
    /// All names, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "video.render.queued",
            Self::Processing => "video.render.processing",
            Self::Completed => "video.render.completed",
            Self::Failed => "video.render.failed",
            Self::Cancelled => "video.render.cancelled",
        }
    }

    /// Reads a wire name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Queued => 1,
            Self::Processing => 2,
            Self::Completed => 4,
            Self::Failed => 8,
            Self::Cancelled => 16,
        }
    }
}

/// Which events somebody wants: one byte in the job's item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSet(u8);

impl EventSet {
    /// Completion, failure and cancellation: each event on the bus costs money, so the
    /// others are opt-in.
    #[must_use]
    pub fn ends() -> Self {
        [EventName::Completed, EventName::Failed, EventName::Cancelled].into_iter().collect()
    }

    /// Whether `event` is wanted.
    #[must_use]
    pub fn contains(self, event: EventName) -> bool {
        self.0 & event.bit() != 0
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as one byte, for storing.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        self.0
    }

    /// Reads a set back; bits that mean nothing are dropped.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        EventName::ALL.into_iter().filter(|event| bits & event.bit() != 0).collect()
    }
}

impl FromIterator<EventName> for EventSet {
    fn from_iter<I: IntoIterator<Item = EventName>>(events: I) -> Self {
        Self(events.into_iter().fold(0, |bits, event| bits | event.bit()))
    }
}

/// A change that somebody is still to be told of: the outbox's entry. Everything else an
/// event says follows from the job, so a notice is small and its event always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The event to send.
    pub event: EventName,
    /// The state that was entered.
    pub status: State,
    /// When it was entered.
    pub at: DateTime<Utc>,
}

/// The event as it goes over the wire. Field order is part of the contract only in that
/// it never changes: repeats carry the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The event's name.
    pub event: EventName,
    /// The same after any crash, retry or redelivery.
    pub event_id: EventId,
    job_id: String,
    render_job_id: Option<String>,
    provider: String,
    source_record_id: String,
    payload_version: Option<String>,
    status: &'static str,
    result_url: Option<String>,
    result_expires_at: Option<String>,
    failure: Option<Failure>,
    metadata: Map<String, Value>,
    occurred_at: String,
}

impl Event {
    /// The event of a notice: a pure function of the two, whenever it is made.
    #[must_use]
    pub fn of(job: &Job, notice: &Notice) -> Self {
        let completed = notice.status == State::Completed;
        Self {
            event: notice.event,
            event_id: EventId::of(&job.id, notice.event.as_str()),
            job_id: job.id.to_string(),
            render_job_id: job.render_job_id.as_ref().map(ToString::to_string),
            provider: job.provider.to_string(),
            source_record_id: job.source_record_id.to_string(),
            payload_version: job.payload_version.as_ref().map(ToString::to_string),
            status: notice.status.name(),
            result_url: job.result.url.clone().filter(|_| completed),
            result_expires_at: job.result.expires_at.filter(|_| completed).map(time::text),
            failure: match notice.status {
                // A failure that a late completion took away was this one.
                State::Failed => Some(job.failure.clone().unwrap_or_else(Failure::submit_unknown)),
                // Not read from the job: a late completion has taken it away by then.
                State::TimedOut => Some(Failure::timed_out()),
                State::Submitting
                | State::SubmitUnknown
                | State::Queued
                | State::Processing
                | State::Completed
                | State::Cancelled => None,
            },
            metadata: job.metadata.clone(),
            occurred_at: time::text(notice.at),
        }
    }

    /// The body to sign and send: JSON, UTF-8, no spaces.
    ///
    /// # Errors
    /// Never for a value built by [`Event::of`]; the type cannot say so.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Says on the bus, and only there, that a delivery was given up.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryExhausted {
    event: &'static str,
    event_id: EventId,
    job_id: String,
    delivery_event_id: EventId,
    delivery_event: EventName,
    endpoint_id: EndpointId,
    reason: &'static str,
    attempts: usize,
    occurred_at: String,
}

impl DeliveryExhausted {
    /// The bus's detail-type and the body's `event`.
    pub const NAME: &str = "webhook.delivery.exhausted";

    /// What is said of a delivery that was given up. A delivery that is sent again and given
    /// up again has another event; the same end said twice has the same. None of a test:
    /// whoever asked for it looks by themselves, and subscribers have lost nothing.
    #[must_use]
    pub fn of(delivery: &Delivery, given_up: GivenUp) -> Option<Self> {
        let (job_id, event) = match &delivery.subject {
            Subject::Render { job_id, event } => (job_id, *event),
            Subject::Test => return None,
        };
        let at = time::millis(given_up.at);
        let end = format!("{}/{}/{at}", Self::NAME, delivery.event_id.as_str());
        Some(Self {
            event: Self::NAME,
            event_id: EventId::of(job_id, &end),
            job_id: job_id.to_string(),
            delivery_event_id: delivery.event_id.clone(),
            delivery_event: event,
            endpoint_id: EndpointId::of(&delivery.url),
            reason: given_up.reason.name(),
            attempts: delivery.attempts.len(),
            occurred_at: time::text(given_up.at),
        })
    }

    /// The body to publish: JSON.
    ///
    /// # Errors
    /// Never; the type cannot say so.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Says on the bus, and only there, that nothing is sent to an endpoint any more.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDisabled {
    event: &'static str,
    event_id: EventId,
    endpoint_id: EndpointId,
    host: String,
    reason: &'static str,
    failing_since: Option<String>,
    occurred_at: String,
}

impl EndpointDisabled {
    /// The bus's detail-type and the body's `event`.
    pub const NAME: &str = "webhook.endpoint.disabled";

    /// What is said of an endpoint that was disabled. One that is enabled and disabled again
    /// has another event; the same end said twice has the same.
    #[must_use]
    pub fn of(endpoint: &Endpoint, disabled: Disabled) -> Self {
        let at = time::millis(disabled.at);
        Self {
            event: Self::NAME,
            event_id: EventId::of_endpoint(&endpoint.id, &format!("{}/{at}", Self::NAME)),
            endpoint_id: endpoint.id.clone(),
            host: endpoint.host.clone(),
            reason: disabled.reason.name(),
            failing_since: endpoint.failing.map(|failing| time::text(failing.since)),
            occurred_at: time::text(disabled.at),
        }
    }

    /// The body to publish: JSON.
    ///
    /// # Errors
    /// Never; the type cannot say so.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// What its owner sends to a receiver to see whether it arrives. Tells of nothing, and never
/// goes on the bus.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestEvent {
    event: &'static str,
    /// One per test.
    pub event_id: EventId,
    occurred_at: String,
}

impl TestEvent {
    /// The body's `event`.
    pub const NAME: &str = "webhook.test";

    /// A test that was asked for at `now`; its id is made of 16 random bytes.
    #[must_use]
    pub fn new(random: [u8; 16], now: DateTime<Utc>) -> Self {
        let event_id = EventId::from_bytes(random);
        Self { event: Self::NAME, event_id, occurred_at: time::text(now) }
    }

    /// The body to sign and send: JSON, no spaces.
    ///
    /// # Errors
    /// Never; the type cannot say so.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::GiveUpReason;
    use crate::fixtures::{completed_job, noon};

    #[test]
    fn the_event_is_what_the_contract_says() {
        let job = completed_job();
        let event = Event::of(&job, &job.outbox[0]).to_body().unwrap();
        insta::assert_snapshot!(event, @r#"{"event":"video.render.completed","eventId":"evt_b3600f226f75d7828459edfa7092f94c","jobId":"job_07070707070787078707070707070707","renderJobId":"r-1","provider":"zvid","sourceRecordId":"product-123","payloadVersion":"product-promo-v4","status":"completed","resultUrl":"https://cdn.example/video.mp4","resultExpiresAt":null,"failure":null,"metadata":{},"occurredAt":"2026-05-24T12:00:00.000Z"}"#);
    }

    #[test]
    fn a_test_says_that_it_is_one_and_nothing_of_it_goes_on_the_bus() {
        let event = TestEvent::new([7; 16], noon());
        let body = event.to_body().unwrap();
        insta::assert_snapshot!(body, @r#"{"event":"webhook.test","eventId":"evt_07070707070707070707070707070707","occurredAt":"2026-05-24T12:00:00.000Z"}"#);
        let delivery = Delivery::of_test(&event, "https://shop.example/hooks", noon()).unwrap();
        assert_eq!((delivery.subject.event_name(), &delivery.body), (TestEvent::NAME, &body));
        let given_up = GivenUp { at: noon(), reason: GiveUpReason::Gone };
        assert_eq!(DeliveryExhausted::of(&delivery, given_up), None);
    }

    #[test]
    fn a_late_completion_does_not_change_what_the_time_out_said() {
        let mut job = completed_job();
        let timed_out = Notice { event: EventName::Failed, status: State::TimedOut, at: noon() };
        let before = {
            let mut earlier = job.clone();
            earlier.state = State::TimedOut;
            earlier.failure = Some(Failure::timed_out());
            earlier.result = Default::default();
            Event::of(&earlier, &timed_out).to_body().unwrap()
        };
        job.outbox.insert(0, timed_out);
        assert_eq!(Event::of(&job, &timed_out).to_body().unwrap(), before);
    }

    #[test]
    fn by_default_only_ends_are_told() {
        let wanted = EventSet::ends();
        let told: Vec<_> = EventName::ALL.into_iter().filter(|e| wanted.contains(*e)).collect();
        assert_eq!(told, [EventName::Completed, EventName::Failed, EventName::Cancelled]);
        assert_eq!(EventSet::from_bits(wanted.to_bits()), wanted);
        assert_eq!(EventSet::from_bits(0xff), EventName::ALL.into_iter().collect());
    }
}
