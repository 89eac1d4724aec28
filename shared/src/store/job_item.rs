//! [`Job`] to item and back. Attribute names are short where the item is written often:
//! a change is billed for the whole item, by the KiB.

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use domain::event::{EventName, EventSet};
use domain::failure::Failure;
use domain::id::{JobId, PayloadVersion, ProviderName, RenderJobId, RequestId, SourceRecordId};
use domain::job::{Job, Milestone, OutboxEntry, RenderResult, State, StoredRequest};
use domain::polling::{LognormalModel, Tracking};
use domain::time;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use url::Url;

use super::{Item, StoreError, corrupt, undelivered};

pub(super) const SK: &str = "job";
const PK_PREFIX: &str = "job#";

#[derive(Serialize, Deserialize)]
struct JobItem {
    pk: String,
    sk: String,
    /// Keys of the `active` index: there until the job is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shard: Option<u32>,
    /// The shard again: `shard` is a key of the index, and goes when the job leaves it.
    shard_no: u32,
    /// Keys of the `by_source` index.
    source: SourceRecordId,
    created_at: i64,
    v: u64,
    state: State,
    provider: ProviderName,
    /// The base URL that it was submitted to.
    at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    render: Option<RenderJobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_version: Option<PayloadVersion>,
    /// JSON text: DynamoDB's numbers and names are narrower than JSON's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    callback_url: Option<String>,
    events: u8,
    fingerprint: String,
    /// The request record.
    req: RequestId,
    tracking: Tracking,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    durations: Option<LognormalModel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url_until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    timeline: Vec<(State, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    polled_at: Option<i64>,
    polls: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outbox: Vec<StoredEntry>,
    /// The events without a receiver, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    no_receiver: Option<u8>,
    /// Key of the `undelivered` index: there while there are such events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undelivered: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled_at: Option<i64>,
    /// When DynamoDB deletes it, in seconds: some time after it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

/// An entry of the outbox. Most are written once, before anything of them is done.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredEntry {
    Untouched(EventName, State, i64),
    Half(EventName, State, i64, Done),
}

/// What is done of an entry. One of which both are done is not stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    OnBus,
    DeliveryQueued,
}

impl StoredEntry {
    fn of(entry: &OutboxEntry) -> Self {
        let OutboxEntry { event, status, at, on_bus, delivery_queued } = *entry;
        let at = time::millis(at);
        match (on_bus, delivery_queued) {
            (true, _) => Self::Half(event, status, at, Done::OnBus),
            (false, true) => Self::Half(event, status, at, Done::DeliveryQueued),
            (false, false) => Self::Untouched(event, status, at),
        }
    }

    fn entry(&self) -> Result<OutboxEntry, StoreError> {
        let (event, status, at) = match *self {
            Self::Untouched(event, status, at) | Self::Half(event, status, at, _) => {
                (event, status, instant(at)?)
            }
        };
        let untouched = OutboxEntry::new(event, status, at);
        Ok(match self {
            Self::Untouched(..) => untouched,
            Self::Half(.., Done::OnBus) => OutboxEntry { on_bus: true, ..untouched },
            Self::Half(.., Done::DeliveryQueued) => {
                OutboxEntry { delivery_queued: true, ..untouched }
            }
        })
    }
}

pub(super) fn pk(id: &JobId) -> String {
    format!("{PK_PREFIX}{id}")
}

pub(super) fn encode(job: &Job, retention: TimeDelta) -> Result<Item, StoreError> {
    let active = job.settled_at.is_none();
    let metadata = Some(&job.request.metadata).filter(|metadata| !metadata.is_empty());
    let metadata = metadata.map(serde_json::to_string).transpose();
    let no_receiver = Some(job.without_receiver).filter(|events| !events.is_empty());
    let item = JobItem {
        pk: pk(&job.id),
        sk: SK.into(),
        since: active.then_some(time::millis(job.created_at)),
        shard: active.then_some(job.request.shard),
        shard_no: job.request.shard,
        source: job.request.source_record_id.clone(),
        created_at: time::millis(job.created_at),
        v: job.version,
        state: job.state,
        provider: job.request.provider.clone(),
        at: job.request.submitted_to.to_string(),
        render: job.render_job_id.clone(),
        raw_status: job.provider_status.clone(),
        progress: job.progress,
        payload_version: job.request.payload_version.clone(),
        metadata: metadata.map_err(|error| corrupt("job", error))?,
        callback_url: job.request.callback_url.clone(),
        events: job.request.subscribed_events.to_bits(),
        fingerprint: URL_SAFE_NO_PAD.encode(job.request.fingerprint),
        req: job.request.record.clone(),
        tracking: job.request.tracking,
        durations: job.request.duration_model,
        url: job.result.url.clone(),
        url_until: job.result.expires_at.map(time::millis),
        failure: job.failure.clone(),
        timeline: job.timeline.iter().map(|line| (line.state, time::millis(line.at))).collect(),
        polled_at: job.last_checked_at.map(time::millis),
        polls: job.attempt_count,
        outbox: job.outbox.iter().map(StoredEntry::of).collect(),
        no_receiver: no_receiver.map(EventSet::to_bits),
        undelivered: no_receiver.map(|_| undelivered::partition_of_jobs(job.request.shard)),
        settled_at: job.settled_at.map(time::millis),
        expires_at: job.settled_at.map(|at| (at + retention).timestamp()),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("job", error))
}

pub(super) fn decode(item: Item) -> Result<Job, StoreError> {
    let item: JobItem = serde_dynamo::from_item(item).map_err(|error| corrupt("job", error))?;
    let timeline =
        item.timeline.into_iter().map(|(state, at)| Ok(Milestone { state, at: instant(at)? }));
    let outbox = item.outbox.iter().map(StoredEntry::entry);
    Ok(Job {
        id: id(&item.pk)?,
        request: StoredRequest {
            provider: item.provider,
            source_record_id: item.source,
            payload_version: item.payload_version,
            metadata: match item.metadata {
                // Not the parser's own words: they may quote what the caller submitted.
                Some(text) => serde_json::from_str(&text)
                    .map_err(|_| corrupt("job", "its metadata is not a JSON object"))?,
                None => Map::new(),
            },
            submitted_to: Url::parse(&item.at).map_err(|error| corrupt("job", error))?,
            callback_url: item.callback_url,
            subscribed_events: EventSet::from_bits(item.events),
            fingerprint: URL_SAFE_NO_PAD
                .decode(&item.fingerprint)
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| corrupt("job", "its fingerprint is not 32 bytes"))?,
            record: item.req,
            tracking: item.tracking,
            duration_model: item.durations,
            shard: item.shard_no,
        },
        created_at: instant(item.created_at)?,
        state: item.state,
        render_job_id: item.render,
        provider_status: item.raw_status,
        progress: item.progress,
        result: RenderResult {
            url: item.url,
            expires_at: item.url_until.map(instant).transpose()?,
        },
        failure: item.failure,
        timeline: timeline.collect::<Result<_, StoreError>>()?,
        last_checked_at: item.polled_at.map(instant).transpose()?,
        attempt_count: item.polls,
        outbox: outbox.collect::<Result<_, StoreError>>()?,
        without_receiver: EventSet::from_bits(item.no_receiver.unwrap_or_default()),
        settled_at: item.settled_at.map(instant).transpose()?,
        version: item.v,
    })
}

/// The job's id, from any item below the job.
pub(super) fn id_of(item: &Item) -> Result<JobId, StoreError> {
    match item.get("pk") {
        Some(AttributeValue::S(pk)) => id(pk),
        _ => Err(corrupt("job", "it has no pk")),
    }
}

fn id(pk: &str) -> Result<JobId, StoreError> {
    let id = pk.strip_prefix(PK_PREFIX).ok_or_else(|| corrupt("job", "its pk is another's"))?;
    JobId::parse(id).map_err(|error| corrupt("job", error))
}

pub(super) fn instant(millis: i64) -> Result<DateTime<Utc>, StoreError> {
    time::from_millis(millis).ok_or_else(|| corrupt("time", millis))
}

#[cfg(test)]
mod tests {
    use domain::failure::FailureCode;
    use serde_json::json;

    use super::*;

    fn job() -> Job {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let mut job = Job::new(
            JobId::from_bytes([7; 16]),
            StoredRequest {
                provider: ProviderName::parse("shotstack").unwrap(),
                source_record_id: SourceRecordId::parse("product-123").unwrap(),
                payload_version: Some(PayloadVersion::parse("product-promo-v4").unwrap()),
                metadata: json!({"a": [1, {"b": null}]}).as_object().unwrap().clone(),
                submitted_to: Url::parse("https://api.shotstack.io/edit/stage").unwrap(),
                callback_url: Some("https://shop.example/hooks".into()),
                subscribed_events: EventSet::terminal(),
                fingerprint: [9; 32],
                record: RequestId::of_job(&JobId::from_bytes([7; 16])),
                tracking: Tracking::WebhookFirst,
                duration_model: Some(LognormalModel::new(3.0, 0.5)),
                shard: 3,
            },
            now,
        );
        job.state = State::TimedOut;
        job.render_job_id = Some(RenderJobId::parse("2abd5c11-0f3d").unwrap());
        job.provider_status = Some("rendering".into());
        job.progress = Some(0.75);
        job.result = RenderResult { url: Some("https://cdn/x".into()), expires_at: Some(now) };
        job.failure = Some(Failure::new(FailureCode::TimedOut, "m").with_provider_code("C"));
        job.last_checked_at = Some(now);
        job.attempt_count = 4;
        job.outbox = vec![OutboxEntry::new(EventName::Failed, State::TimedOut, now)];
        job
    }

    const RETENTION: TimeDelta = TimeDelta::days(90);

    #[test]
    fn job_round_trips() {
        let mut job = job();
        assert_eq!(decode(encode(&job, RETENTION).unwrap()).unwrap(), job);
        for (on_bus, delivery_queued) in [(true, false), (false, true)] {
            job.outbox[0] = OutboxEntry { on_bus, delivery_queued, ..job.outbox[0] };
            assert_eq!(decode(encode(&job, RETENTION).unwrap()).unwrap(), job);
        }
        job.settled_at = job.last_checked_at;
        job.without_receiver = EventName::Failed.into();
        job.request.metadata.clear();
        assert_eq!(decode(encode(&job, RETENTION).unwrap()).unwrap(), job);
    }

    #[test]
    fn settled_job_leaves_the_active_index() {
        let mut job = job();
        let active = encode(&job, RETENTION).unwrap();
        assert!(active.contains_key("shard") && active.contains_key("since"));
        assert!(!active.contains_key("expires_at"), "an active job is never deleted");
        job.settled_at = job.last_checked_at;
        let settled = encode(&job, RETENTION).unwrap();
        assert!(!settled.contains_key("shard") && !settled.contains_key("since"));
        let in_90_days = AttributeValue::N("1807776000".into());
        assert_eq!(settled.get("expires_at"), Some(&in_90_days));
    }

    #[test]
    fn only_job_without_receiver_is_undelivered() {
        let mut job = job();
        let item = encode(&job, RETENTION).unwrap();
        assert!(!item.contains_key("undelivered") && !item.contains_key("no_receiver"));
        job.without_receiver = EventName::Failed.into();
        let item = encode(&job, RETENTION).unwrap();
        // No shard of deliveries has such a number.
        assert_eq!(item.get("undelivered"), Some(&AttributeValue::N("4294967299".into())));
    }

    #[test]
    fn metadata_is_any_json() {
        let mut job = job();
        job.request.metadata = json!({"": 1e300, "n": null}).as_object().unwrap().clone();
        assert_eq!(decode(encode(&job, RETENTION).unwrap()).unwrap(), job);
        let item = encode(&job, RETENTION).unwrap();
        assert!(matches!(item.get("metadata"), Some(AttributeValue::S(_))));
    }

    #[test]
    fn foreign_job_item_is_an_error() {
        assert!(decode(Item::new()).is_err());
        let mut item = encode(&job(), RETENTION).unwrap();
        item.insert("state".into(), AttributeValue::S("exploded".into()));
        assert!(matches!(decode(item), Err(StoreError::Corrupt { kind: "job", .. })));
        let mut item = encode(&job(), RETENTION).unwrap();
        item.insert("at".into(), AttributeValue::S("api.shotstack.io".into()));
        assert!(matches!(decode(item), Err(StoreError::Corrupt { kind: "job", .. })));
    }
}
