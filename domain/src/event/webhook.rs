//! The events that webhooks carry: a render's, which also go on the event bus, and the test.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::EventName;
use crate::failure::{Failure, FailureCode};
use crate::id::EventId;
use crate::job::{self, Job, OutboxEntry, State};
use crate::time;

/// The event of a change of a job, in its wire form. The order of its fields never changes, so
/// that repeats carry the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The event's name.
    pub event: EventName,
    /// The id, which is the same after any crash, retry or redelivery.
    pub event_id: EventId,
    job_id: String,
    render_job_id: Option<String>,
    provider: String,
    source_record_id: String,
    payload_version: Option<String>,
    status: &'static str,
    #[serde(rename = "final")]
    is_final: bool,
    result_url: Option<String>,
    result_expires_at: Option<String>,
    failure: Option<Failure>,
    metadata: Map<String, Value>,
    occurred_at: String,
}

impl Event {
    /// The event of an entry of the outbox of `job`: a pure function of both, so it is the same
    /// at any time.
    #[must_use]
    pub fn of(job: &Job, entry: &OutboxEntry) -> Self {
        let completed = entry.status == State::Completed;
        let failure = match entry.status {
            // Only this failure can have been removed, by a late completion.
            State::Failed => Some(job.failure.clone().unwrap_or_else(Failure::submit_unknown)),
            // Not read from the job: a late completion may have removed it.
            State::TimedOut => Some(Failure::timed_out()),
            State::Submitting
            | State::SubmitUnknown
            | State::Queued
            | State::Processing
            | State::Completed
            | State::Cancelled => None,
        };
        // A submit is unknown because no id came, which a late completion may have brought since.
        let is_unknown =
            failure.as_ref().is_some_and(|failure| failure.code == FailureCode::SubmitUnknown);
        let render_job_id = job.render_job_id.as_ref().filter(|_| !is_unknown);
        Self {
            event: entry.event,
            event_id: EventId::of(&job.id, entry.event.as_str()),
            job_id: job.id.to_string(),
            render_job_id: render_job_id.map(ToString::to_string),
            provider: job.request.provider.to_string(),
            source_record_id: job.request.source_record_id.to_string(),
            payload_version: job.request.payload_version.as_ref().map(ToString::to_string),
            status: entry.status.name(),
            is_final: job::is_final(entry.status, failure.as_ref()),
            result_url: job.result.url.clone().filter(|_| completed),
            result_expires_at: job.result.expires_at.filter(|_| completed).map(time::text),
            failure,
            metadata: job.request.metadata.clone(),
            occurred_at: time::text(entry.at),
        }
    }

    /// The body to sign and send: JSON, UTF-8, no spaces.
    ///
    /// # Errors
    /// Never in practice: a value built by [`Event::of`] is always valid JSON.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// A test event, which an owner sends to see whether webhooks arrive. It is about no job and
/// never goes on the bus.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestEvent {
    event: &'static str,
    /// A random id, one per test.
    pub event_id: EventId,
    occurred_at: String,
}

impl TestEvent {
    /// The body's `event`.
    pub const NAME: &str = "webhook.test";

    /// A test requested at `now`, with an id made of 16 random bytes.
    #[must_use]
    pub fn new(random: [u8; 16], now: DateTime<Utc>) -> Self {
        let event_id = EventId::from_bytes(random);
        Self { event: Self::NAME, event_id, occurred_at: time::text(now) }
    }

    /// The body to sign and send: JSON, no spaces.
    ///
    /// # Errors
    /// Never in practice: the value is always valid JSON.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{completed_job, noon};

    #[test]
    fn event_has_the_documented_bytes() {
        let job = completed_job();
        let event = Event::of(&job, &job.outbox[0]).to_body().unwrap();
        insta::assert_snapshot!(event, @r#"{"event":"video.render.completed","eventId":"evt_b3600f226f75d7828459edfa7092f94c","jobId":"job_07070707070787078707070707070707","renderJobId":"r-1","provider":"zvid","sourceRecordId":"product-123","payloadVersion":"product-promo-v4","status":"completed","final":true,"resultUrl":"https://cdn.example/video.mp4","resultExpiresAt":null,"failure":null,"metadata":{},"occurredAt":"2026-05-24T12:00:00.000Z"}"#);
    }

    #[test]
    fn event_of_timeout_survives_late_completion() {
        let mut job = completed_job();
        let timed_out = OutboxEntry::new(EventName::Failed, State::TimedOut, noon());
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
    fn event_of_unknown_submit_survives_late_completion() {
        let mut job = completed_job();
        let failed = OutboxEntry::new(EventName::Failed, State::Failed, noon());
        let before = {
            let mut earlier = job.clone();
            earlier.state = State::Failed;
            earlier.failure = Some(Failure::submit_unknown());
            earlier.render_job_id = None;
            earlier.result = Default::default();
            Event::of(&earlier, &failed).to_body().unwrap()
        };
        assert!(job.render_job_id.is_some(), "the completion brought it");
        job.outbox.insert(0, failed);
        assert_eq!(Event::of(&job, &failed).to_body().unwrap(), before);
    }
}
