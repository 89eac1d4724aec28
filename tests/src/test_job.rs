//! A job as a customer's backend submits it.

use std::sync::{Arc, OnceLock};

use anyhow::{Result, bail, ensure};
use chrono::{TimeDelta, Utc};
use domain::event::EventSet;
use domain::id::{
    EventId, JobId, PayloadVersion, ProviderName, RenderJobId, RequestId, SourceRecordId,
};
use domain::job::{
    Job, Observation, RenderResult, RenderStatus, Report, StoredRequest, Transition,
};
use domain::polling::Tracking;
use serde_json::{Value, json};
use shared::entropy::Entropy;

use crate::relay::JobView;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

/// The provider that renders a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedProvider {
    /// It is polled, unless a job asks for its webhook.
    Zvid,
    /// It calls back, unless a job declines.
    Shotstack,
    /// It calls back in several body shapes, unless a job declines.
    Json2Video,
    /// It signs its callbacks, and calls back unless a job declines.
    ViralSync,
    /// It signs its callbacks, and calls back unless a job declines.
    RenderIo,
    /// A provider whose spec is a parameter of the stack. It has ViralSync's API, and its
    /// first safety poll is due after two seconds.
    Studio,
}

impl SimulatedProvider {
    /// The provider's name in our API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zvid => "zvid",
            Self::Shotstack => "shotstack",
            Self::Json2Video => "json2video",
            Self::ViralSync => "viralsync",
            Self::RenderIo => "renderio",
            Self::Studio => "studio",
        }
    }

    /// The simulated provider whose API it has, by its name at the simulator.
    #[must_use]
    pub fn simulated_as(self) -> &'static str {
        match self {
            Self::Studio => Self::ViralSync.name(),
            Self::Zvid | Self::Shotstack | Self::Json2Video | Self::ViralSync | Self::RenderIo => {
                self.name()
            }
        }
    }

    /// A small payload in this provider's format, with `tag` in it.
    #[must_use]
    pub fn payload(self, tag: &str) -> Value {
        match self {
            Self::Zvid => json!({
                "name": tag,
                "width": 1920,
                "height": 1080,
                "duration": 10,
                "visuals": [{"type": "TEXT", "text": "Hello", "x": 960, "y": 540}],
            }),
            Self::Shotstack => json!({
                "timeline": {"tracks": [{"clips": [{
                    "asset": {"type": "rich-text", "text": tag},
                    "start": 0,
                    "length": 4,
                }]}]},
                "output": {"format": "mp4", "resolution": "hd"},
            }),
            Self::Json2Video => json!({
                "resolution": "full-hd",
                "scenes": [{
                    "duration": 5,
                    "elements": [{"type": "text", "text": tag, "style": "001"}],
                }],
                "client-data": {"order_id": "A-1042"},
            }),
            Self::ViralSync | Self::Studio => json!({
                "kind": "movie",
                "projectId": "proj_abc123",
                "movie": {
                    "title": tag,
                    "width": 1920,
                    "height": 1080,
                    "fps": 30,
                    "scenes": [{"duration": 5}, {"duration": 3}],
                },
            }),
            Self::RenderIo => json!({
                "input_files": {"in_video": format!("https://media.example/{tag}.mp4")},
                "output_files": {"out_video": "result.webm"},
                "ffmpeg_command": "-i {{in_video}} -c:v libvpx-vp9 {{out_video}}",
                "metadata": {"upload": 9},
            }),
        }
    }
}

/// A request for one job. Its tag is its source record's id, its idempotency key, its
/// receiver's name, and part of its payload.
#[derive(Clone, Debug)]
pub struct TestJob {
    /// The text that only this job's names contain.
    pub tag: String,
    /// The provider that renders it.
    pub provider: SimulatedProvider,
    /// The body that is posted to `/v1/jobs`.
    pub body: Value,
    /// Set by the answer to its first submit. Clones share it.
    job_id: Arc<OnceLock<JobId>>,
}

impl TestJob {
    pub(crate) fn new(provider: SimulatedProvider, tag: String, receiver: &str) -> Self {
        let body = json!({
            "provider": provider.name(),
            "payload": provider.payload(&tag),
            "sourceRecordId": tag,
            "payloadVersion": "product-promo-v4",
            "metadata": {"shop": "berlin", "rank": [1, 2]},
            "callbackUrl": receiver,
        });
        Self { tag, provider, body, job_id: Arc::default() }
    }

    /// The same job with one more member in its body, or with another value for it.
    #[must_use]
    pub fn with(mut self, member: &str, value: Value) -> Self {
        if let Some(members) = self.body.as_object_mut() {
            members.insert(member.to_owned(), value);
        }
        self
    }

    /// The same job for the default receiver.
    #[must_use]
    pub fn without_receiver(mut self) -> Self {
        if let Some(members) = self.body.as_object_mut() {
            members.remove("callbackUrl");
        }
        self
    }

    /// The id of the job.
    ///
    /// # Panics
    /// When the job was not submitted: until then it has none.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test that asks too early is wrong")]
    pub fn job_id(&self) -> &JobId {
        self.job_id.get().expect("the job was submitted")
    }

    /// Keeps the id that an answer names. A later answer must name the same.
    ///
    /// # Errors
    /// When it names another, or none.
    pub fn keep_id(&self, named: &str) -> Result<()> {
        let named = JobId::parse(named)?;
        let kept = self.job_id.get_or_init(|| named.clone());
        ensure!(*kept == named, "two jobs for {}: {kept} and {named}", self.tag);
        Ok(())
    }

    /// The URL of its own receiver; none when its webhooks go to the default receiver.
    #[must_use]
    pub fn receiver(&self) -> Option<&str> {
        self.body.get("callbackUrl").and_then(Value::as_str)
    }

    /// The id of one of the job's events.
    #[must_use]
    pub fn event_id(&self, event: &str) -> String {
        EventId::of(self.job_id(), event).to_string()
    }

    /// The event that has to announce the job's end, with every member.
    #[must_use]
    pub fn final_event(&self, job: &JobView) -> Value {
        let event = format!("video.render.{}", job.state);
        json!({
            "event": event,
            "eventId": self.event_id(&event),
            "jobId": self.job_id(),
            "renderJobId": job.render_job_id,
            "provider": self.provider.name(),
            "sourceRecordId": self.tag,
            "payloadVersion": "product-promo-v4",
            "status": job.state,
            "final": job.failure.as_ref().is_none_or(|failure| failure["code"] != "submit_unknown"),
            "resultUrl": job.result_url,
            "resultExpiresAt": job.result_expires_at,
            "failure": job.failure,
            "metadata": {"shop": "berlin", "rank": [1, 2]},
            "occurredAt": job.ended_at,
        })
    }

    /// The stored job right after the write that completed it, a minute ago: its event is
    /// still in the outbox, and the job is still active.
    ///
    /// # Errors
    /// When the body is one that `submit` would refuse.
    pub fn completed_unpublished(&self) -> Result<Job> {
        let id = JobId::from_bytes(Entropy::os().bytes()?);
        self.job_id.get_or_init(|| id);
        let then = Utc::now() - TimeDelta::minutes(1);
        let metadata = self.body.get("metadata").and_then(Value::as_object).cloned();
        let job = Job::new(
            self.job_id().clone(),
            StoredRequest {
                provider: ProviderName::parse(self.provider.name())?,
                source_record_id: SourceRecordId::parse(&self.tag)?,
                payload_version: Some(PayloadVersion::parse("product-promo-v4")?),
                metadata: metadata.unwrap_or_default(),
                submitted_to: "http://provider.example".parse()?,
                callback_url: self.receiver().map(str::to_owned),
                subscribed_events: EventSet::terminal(),
                fingerprint: [7; 32],
                record: RequestId::of_job(self.job_id()),
                tracking: Tracking::WebhookFirst,
                duration_model: None,
                shard: 0,
            },
            then,
        );
        let render = RenderJobId::parse("6d7acbe6-e7c1-4cf8-b8ea-94e7522878cc")?;
        let done = Report::Observed(Observation {
            render_job_id: Some(render.clone()),
            status: RenderStatus::Completed(RenderResult {
                url: Some(VIDEO.into()),
                expires_at: None,
            }),
            provider_status: "done".into(),
            progress: None,
        });
        [Report::Accepted(render), done].iter().try_fold(job, |job, report| {
            match job.apply(report, 1, then) {
                Transition::Changed(job) => Ok(*job),
                Transition::Unchanged => bail!("{report:?} changes nothing"),
            }
        })
    }
}
