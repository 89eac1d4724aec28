//! Values that the unit tests of this crate share.

use chrono::{DateTime, TimeZone, Utc};
use url::Url;

use crate::event::EventSet;
use crate::id::{JobId, PayloadVersion, ProviderName, RenderJobId, RequestId, SourceRecordId};
use crate::job::{Job, Observation, RenderResult, RenderStatus, Report, StoredRequest, Transition};
use crate::polling::Tracking;

pub(crate) fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 5, 24, 12, 0, 0).unwrap()
}

fn request() -> StoredRequest {
    StoredRequest {
        provider: ProviderName::parse("zvid").unwrap(),
        source_record_id: SourceRecordId::parse("product-123").unwrap(),
        payload_version: Some(PayloadVersion::parse("product-promo-v4").unwrap()),
        metadata: serde_json::Map::new(),
        submitted_to: Url::parse("https://api.zvid.io").unwrap(),
        callback_url: None,
        subscribed_events: EventSet::terminal(),
        fingerprint: [1; 32],
        record: RequestId::of_job(&JobId::from_bytes([7; 16])),
        tracking: Tracking::PollOnly,
        duration_model: None,
        shard: 0,
    }
}

pub(crate) fn render_id(text: &str) -> RenderJobId {
    RenderJobId::parse(text).unwrap()
}

pub(crate) fn observed(status: RenderStatus) -> Report {
    Report::Observed(Observation {
        render_job_id: Some(render_id("r-1")),
        status,
        provider_status: "word".into(),
        progress: None,
    })
}

pub(crate) fn done() -> RenderStatus {
    RenderStatus::Completed(RenderResult {
        url: Some("https://cdn.example/video.mp4".into()),
        expires_at: None,
    })
}

pub(crate) fn new_job() -> Job {
    Job::new(JobId::from_bytes([7; 16]), request(), noon())
}

pub(crate) fn completed_job() -> Job {
    changed(new_job().apply(&observed(done()), 1, noon()))
}

pub(crate) fn changed(transition: Transition) -> Job {
    match transition {
        Transition::Changed(job) => *job,
        Transition::Unchanged => panic!("nothing changed"),
    }
}
