//! A job and a law for the tests of what is decided about them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::event::EventSet;
use domain::id::{JobId, ProviderName, SourceRecordId};
use domain::job::{Job, StoredRequest};
use domain::polling::{PollingLaw, Slowdown, Tracking};

pub(crate) const LAW: PollingLaw = PollingLaw {
    floor: Duration::from_secs(1),
    safety: Duration::from_secs(120),
    deadline: Duration::from_secs(1800),
    durations: None,
    slowdown: Slowdown::NONE,
};

/// When the job was submitted.
pub(crate) fn start() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_000).unwrap()
}

/// One whose provider was not asked yet.
pub(crate) fn job(tracking: Tracking) -> Job {
    let request = StoredRequest {
        provider: ProviderName::parse("zvid").unwrap(),
        source_record_id: SourceRecordId::parse("p").unwrap(),
        payload_version: None,
        metadata: serde_json::Map::new(),
        callback_url: None,
        wanted: EventSet::ends(),
        fingerprint: [0; 32],
        tracking,
        durations: None,
        shard: 0,
    };
    Job::new(JobId::from_bytes([7; 16]), request, start())
}
