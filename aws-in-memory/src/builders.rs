//! Jobs and deliveries with defaults, for tests that are about one part of them.

#![allow(clippy::expect_used, reason = "a value that a test makes up wrongly fails the test")]

use chrono::{DateTime, Utc};
use domain::attempt::Attempt;
use domain::delivery::{Delivery, DeliveryState, DeliverySubject};
use domain::event::{EventName, EventSet, TestEvent};
use domain::id::{EventId, JobId, PayloadVersion, ProviderName, RequestId, SourceRecordId};
use domain::job::{Job, StoredRequest};
use domain::polling::{LognormalModel, Tracking};
use domain::request::JobRequest;
use serde_json::{Map, Value};

/// 2026-05-24T12:00:00Z: when things happen in a test that does not care.
#[must_use]
pub fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_779_624_000, 0).unwrap_or_default()
}

/// A job of a poll-only provider, made at [`noon`], that its provider was not asked for yet.
#[must_use]
pub fn job() -> JobBuilder {
    JobBuilder {
        id: JobId::from_bytes([7; 16]),
        request: StoredRequest {
            provider: provider("zvid"),
            source_record_id: source_record("product-123"),
            payload_version: None,
            metadata: Map::new(),
            submitted_to: "http://zvid.test".parse().expect("a URL"),
            callback_url: None,
            subscribed_events: EventSet::terminal(),
            fingerprint: [1; 32],
            record: RequestId::of_job(&JobId::from_bytes([7; 16])),
            tracking: Tracking::PollOnly,
            duration_model: None,
            shard: 0,
        },
        created_at: noon(),
    }
}

/// Makes a [`Job`].
#[derive(Clone, Debug)]
pub struct JobBuilder {
    id: JobId,
    request: StoredRequest,
    created_at: DateTime<Utc>,
}

impl JobBuilder {
    /// The job's id.
    #[must_use]
    pub fn id(mut self, id: JobId) -> Self {
        self.id = id;
        self
    }

    /// The provider that renders it, at `http://<name>.test`.
    #[must_use]
    pub fn provider(mut self, name: &str) -> Self {
        self.request.provider = provider(name);
        self.submitted_to(&format!("http://{name}.test"))
    }

    /// The base URL that it was submitted to.
    #[must_use]
    pub fn submitted_to(mut self, base_url: &str) -> Self {
        self.request.submitted_to = base_url.parse().expect("a URL");
        self
    }

    /// The customer's id of what is rendered.
    #[must_use]
    pub fn source_record(mut self, id: &str) -> Self {
        self.request.source_record_id = source_record(id);
        self
    }

    /// The customer's name for the shape of the payload.
    #[must_use]
    pub fn payload_version(mut self, version: &str) -> Self {
        let version = PayloadVersion::parse(version).expect("a payload version");
        self.request.payload_version = Some(version);
        self
    }

    /// The customer's own data: a JSON object.
    #[must_use]
    pub fn metadata(mut self, metadata: &Value) -> Self {
        self.request.metadata = metadata.as_object().expect("an object").clone();
        self
    }

    /// The job's own receiver.
    #[must_use]
    pub fn callback_url(mut self, url: Option<&str>) -> Self {
        self.request.callback_url = url.map(str::to_owned);
        self
    }

    /// The events that its receiver is sent.
    #[must_use]
    pub fn subscribed_events(mut self, events: impl IntoIterator<Item = EventName>) -> Self {
        self.request.subscribed_events = events.into_iter().collect();
        self
    }

    /// Whether the provider calls back.
    #[must_use]
    pub fn tracking(mut self, tracking: Tracking) -> Self {
        self.request.tracking = tracking;
        self
    }

    /// How long such renders took so far.
    #[must_use]
    pub fn duration_model(mut self, duration_model: Option<LognormalModel>) -> Self {
        self.request.duration_model = duration_model;
        self
    }

    /// Its shard.
    #[must_use]
    pub fn shard(mut self, shard: u32) -> Self {
        self.request.shard = shard;
        self
    }

    /// Everything that a caller's request says.
    #[must_use]
    pub fn request(mut self, request: JobRequest) -> Self {
        self.request = StoredRequest {
            provider: request.provider,
            source_record_id: request.source_record_id,
            payload_version: request.payload_version,
            metadata: request.metadata,
            callback_url: request.callback_url.map(|url| url.as_str().to_owned()),
            subscribed_events: request.subscribed_events,
            fingerprint: request.fingerprint,
            ..self.request
        };
        self
    }

    /// When it was submitted.
    #[must_use]
    pub fn created_at(mut self, at: DateTime<Utc>) -> Self {
        self.created_at = at;
        self
    }

    /// The job.
    #[must_use]
    pub fn build(self) -> Job {
        Job::new(self.id, self.request, self.created_at)
    }
}

/// A delivery of a completed render, made at [`noon`] and due at once.
#[must_use]
pub fn delivery() -> DeliveryBuilder {
    DeliveryBuilder {
        job_id: JobId::from_bytes([7; 16]),
        event_id: None,
        url: "https://shop.example/hooks".to_owned(),
        created_at: noon(),
        body: None,
        attempts: Vec::new(),
        state: None,
        shard: None,
    }
}

/// Makes a [`Delivery`].
#[derive(Clone, Debug)]
pub struct DeliveryBuilder {
    job_id: JobId,
    event_id: Option<EventId>,
    url: String,
    created_at: DateTime<Utc>,
    body: Option<String>,
    attempts: Vec<Attempt>,
    state: Option<DeliveryState>,
    shard: Option<u32>,
}

impl DeliveryBuilder {
    /// The job that completed. The event's id follows from it.
    #[must_use]
    pub fn job_id(mut self, id: JobId) -> Self {
        self.job_id = id;
        self
    }

    /// Another event id.
    #[must_use]
    pub fn event_id(mut self, id: EventId) -> Self {
        self.event_id = Some(id);
        self
    }

    /// The receiver.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.url);
        self
    }

    /// When it was made.
    #[must_use]
    pub fn created_at(mut self, at: DateTime<Utc>) -> Self {
        self.created_at = at;
        self
    }

    /// What is posted, instead of a test event's body.
    #[must_use]
    pub fn body(mut self, body: String) -> Self {
        self.body = Some(body);
        self
    }

    /// The attempts that were made.
    #[must_use]
    pub fn attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.attempts = attempts;
        self
    }

    /// Its state.
    #[must_use]
    pub fn state(mut self, state: DeliveryState) -> Self {
        self.state = Some(state);
        self
    }

    /// Its shard.
    #[must_use]
    pub fn shard(mut self, shard: u32) -> Self {
        self.shard = Some(shard);
        self
    }

    /// The delivery.
    #[must_use]
    pub fn build(self) -> Delivery {
        let event = EventName::Completed;
        let test = TestEvent::new([0; 16], self.created_at);
        let fresh = Delivery::of_test(&test, &self.url, self.created_at).expect("JSON");
        Delivery {
            event_id: self.event_id.unwrap_or_else(|| EventId::of(&self.job_id, event.as_str())),
            subject: DeliverySubject::Render { job_id: self.job_id, event },
            body: self.body.unwrap_or_else(|| fresh.body.clone()),
            attempts: self.attempts,
            state: self.state.unwrap_or(fresh.state),
            shard: self.shard.unwrap_or(fresh.shard),
            manual: false,
            ..fresh
        }
    }
}

fn provider(name: &str) -> ProviderName {
    ProviderName::parse(name).expect("a provider's name")
}

fn source_record(id: &str) -> SourceRecordId {
    SourceRecordId::parse(id).expect("an id of a source record")
}
