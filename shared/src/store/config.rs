//! The webhook configuration: the default receiver and its events and limits. A configuration,
//! even one without a receiver, says that a signing secret was created, or is created when its
//! owner repeats the PUT after a crash.
//!
//! All of it is one item, and every job needs it. So a process reads it at most once a second
//! for its jobs, also when there is none, and however many ask at the same time.
//!
//! And the lock on it. Secrets and headers are SSM parameters, and SSM has no conditional
//! write. So every change first takes this lock, by a conditional write to the table.
//!
//! One transaction switches from one receiver to another: the configuration, what the endpoints
//! of both are to have (limits, and the id of the headers), and that the lock is still held.
//! Headers are stored before it under an id of their own, which nothing names until then.

use std::num::NonZeroU16;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, Put as TransactPut, TransactWriteItem,
};
use chrono::{DateTime, TimeDelta, Utc};
use domain::endpoint::{Endpoint, EndpointLimits};
use domain::event::{EventName, EventSet};
use domain::headers::HeadersId;
use domain::time;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::job_item::instant;
use super::put::WRITE_ID;
use super::{Item, Put, Store, StoreError, corrupt, endpoint_item, key, number, unavailable};

const PK: &str = "config";
const SK: &str = "webhook";
const LOCK_SK: &str = "lock";

/// When a lock that is not released expires. This is longer than the function that takes it may
/// run (29 s) by more than clocks differ, so its holder has ended by then.
const LOCK_TTL: TimeDelta = TimeDelta::seconds(45);

/// How long a configuration that was read is used. A change through the API is in force
/// everywhere after it, and at once in the process that made it.
const CACHE_TTL: TimeDelta = TimeDelta::seconds(1);

/// Where webhooks go unless a job says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The default receiver, if there is one. It is text because the target policy is checked
    /// again when it is used.
    pub url: Option<String>,
    /// The events that the default receiver gets, of those that a job publishes.
    pub events: EventSet,
    /// The receiver's limits, as its owner set them.
    pub limits: EndpointLimits,
    /// When the configuration was last set.
    pub updated_at: DateTime<Utc>,
}

/// The configuration as one process knows it. Locked from a read's begin to its end, so that
/// those who need it meanwhile share the read.
pub(super) type ConfigCache = Mutex<CachedConfig>;

#[derive(Debug, Default)]
pub(super) struct CachedConfig {
    /// What was read, and when the read began.
    read: Option<(DateTime<Utc>, Option<WebhookConfig>)>,
    /// When the last read that failed had ended.
    failed_at: Option<Instant>,
}

/// The read that this caller waited for has failed.
#[derive(Debug, thiserror::Error)]
#[error("another read of it has just failed")]
struct SharedFailure;

/// The lock on the webhook configuration. While it is held, no other change is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigLock {
    version: u64,
    /// When the lock expires; none while it is free.
    until: Option<DateTime<Utc>>,
    /// The version of the secrets' parameter that was written last under the lock, and when.
    written: Option<(i64, DateTime<Utc>)>,
    /// The headers that are stored, or may be.
    headers: Vec<HeadersId>,
}

impl ConfigLock {
    /// The lock before it was taken for the first time.
    const NEVER: Self = Self { version: 0, until: None, written: None, headers: Vec::new() };

    /// The headers that are stored, or may be, except for these.
    pub fn other_headers(&self, kept: Option<HeadersId>) -> impl Iterator<Item = HeadersId> {
        self.headers.iter().copied().filter(move |id| Some(*id) != kept)
    }

    /// Records that these headers are stored no longer.
    pub fn deleted_headers(&mut self, id: HeadersId) {
        self.headers.retain(|stored| *stored != id);
    }

    /// Records that the secrets were written, as this version of their parameter.
    pub fn wrote(&mut self, version: i64, now: DateTime<Utc>) {
        self.written = Some((version, now));
    }

    /// The lowest version of that parameter that may be read now. SSM reads are eventually
    /// consistent, and a change that is based on an older version would lose a secret. After the
    /// lock's time any version is accepted: the operator may have deleted the parameter and
    /// created another.
    #[must_use]
    pub fn least_version(&self, now: DateTime<Utc>) -> i64 {
        self.written.filter(|(_, at)| now - *at < LOCK_TTL).map_or(0, |(version, _)| version)
    }

    /// When the lock expires, if it is held at `now`.
    fn busy_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.until.filter(|until| *until > now)
    }

    fn taken(&self, headers: Option<HeadersId>, now: DateTime<Utc>) -> Self {
        Self {
            version: self.version.saturating_add(1),
            until: Some(now + LOCK_TTL),
            written: self.written,
            headers: self.headers.iter().copied().chain(headers).collect(),
        }
    }

    fn released(&self) -> Self {
        Self { version: self.version.saturating_add(1), until: None, ..self.clone() }
    }
}

/// The outcome of a switch to another configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    /// It is made, all of it.
    Made,
    /// Nothing is changed: another process has changed an endpoint.
    Outdated,
    /// Nothing is changed: the lock has expired.
    Unlocked,
}

/// The outcome of taking the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// The lock is taken.
    Acquired(ConfigLock),
    /// Another change holds the lock, until then at the latest.
    Busy(DateTime<Utc>),
}

const READ: &str = "read the webhook configuration";

impl Store {
    /// The webhook configuration as it is stored now, if it was ever set.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn webhook_config(&self) -> Result<Option<WebhookConfig>, StoreError> {
        let item = self.get(PK, SK, READ).await?;
        item.map(decode).transpose()
    }

    /// The webhook configuration, at most a second old by the caller's clock.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn recent_webhook_config(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Option<WebhookConfig>, StoreError> {
        let asked_at = Instant::now();
        let mut cached = self.webhook_config.lock().await;
        if let Some((read_at, config)) = &cached.read
            && (now - *read_at).abs() < CACHE_TTL
        {
            return Ok(config.clone());
        }
        // Otherwise those who waited for a slow failure would each wait for one of their own.
        if cached.failed_at.is_some_and(|failed_at| failed_at > asked_at) {
            return Err(unavailable(READ, SharedFailure));
        }
        let read = self.webhook_config().await;
        match &read {
            Ok(config) => cached.read = Some((now, config.clone())),
            Err(_) => cached.failed_at = Some(Instant::now()),
        }
        read
    }

    /// Replaces the webhook configuration, and changes endpoints with it: each is given as it was
    /// read and as it is to be. All of it is one write or none.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it; the change may be made all the same.
    pub async fn switch_webhook_config(
        &self,
        config: &WebhookConfig,
        endpoints: &[(Endpoint, Endpoint)],
        lock: &ConfigLock,
    ) -> Result<Switched, StoreError> {
        let doing = "store the webhook configuration";
        let building = |error| unavailable(doing, error);
        let held = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(key(PK, LOCK_SK)))
            .condition_expression("v = :v")
            .expression_attribute_values(":v", number(lock.version));
        let held = held.build().map_err(building)?;
        let mut item = encode(config)?;
        let write_id: [u8; 8] = self.entropy.bytes().map_err(|error| unavailable(doing, error))?;
        let write_id = AttributeValue::B(Blob::new(write_id));
        item.insert(WRITE_ID.into(), write_id.clone());
        let put = TransactPut::builder().table_name(&self.table).set_item(Some(item));
        let put = put.build().map_err(building)?;
        // Makes the client's repeats of the request harmless.
        let token: [u8; 16] = self.entropy.bytes().map_err(|error| unavailable(doing, error))?;
        let mut transaction = self
            .client
            .transact_write_items()
            .client_request_token(hex::encode(token))
            .transact_items(TransactWriteItem::builder().condition_check(held).build())
            .transact_items(TransactWriteItem::builder().put(put).build());
        for (before, after) in endpoints {
            let item = endpoint_item::encode(after, self.retention)?;
            let put = TransactPut::builder().table_name(&self.table).set_item(Some(item));
            let put = match before.version {
                0 => put.condition_expression("attribute_not_exists(pk)"),
                version => put
                    .condition_expression("v = :v")
                    .expression_attribute_values(":v", number(version)),
            };
            let put = put.build().map_err(building)?;
            transaction = transaction.transact_items(TransactWriteItem::builder().put(put).build());
        }
        // A read meanwhile could bring back what is being replaced.
        let mut cached = self.webhook_config.lock().await;
        cached.read = None;
        let error = match transaction.send().await.map_err(SdkError::into_service_error) {
            Ok(_) => return Ok(Switched::Made),
            Err(error) => error,
        };
        let reasons = match &error {
            TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                cancelled.cancellation_reasons()
            }
            _ => &[],
        };
        let is_obstacle =
            |code: &str| matches!(code, "ConditionalCheckFailed" | "TransactionConflict");
        let codes: Vec<&str> = reasons.iter().filter_map(CancellationReason::code).collect();
        match codes.split_first() {
            Some((&"ConditionalCheckFailed", _)) => Ok(Switched::Unlocked),
            Some((first, others))
                if is_obstacle(first) || others.iter().any(|it| is_obstacle(it)) =>
            {
                Ok(Switched::Outdated)
            }
            // Without an answer it may be made.
            Some(_) | None => match self.get(PK, SK, READ).await {
                Ok(Some(item)) if item.get(WRITE_ID) == Some(&write_id) => Ok(Switched::Made),
                Ok(_) | Err(_) => Err(unavailable(doing, error)),
            },
        }
    }

    /// Takes the lock on the webhook configuration, unless it is held, and records that these
    /// headers are going to be stored. [`Store::unlock_webhook_config`] releases it; the lock of a crashed holder expires.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it; the lock may be taken all the same.
    pub async fn lock_webhook_config(
        &self,
        headers: Option<HeadersId>,
        now: DateTime<Utc>,
    ) -> Result<LockOutcome, StoreError> {
        let doing = "lock the webhook configuration";
        let item = self.get(PK, LOCK_SK, doing).await?;
        let before = item.map(decode_lock).transpose()?.unwrap_or(ConfigLock::NEVER);
        if let Some(until) = before.busy_until(now) {
            return Ok(LockOutcome::Busy(until));
        }
        let lock = before.taken(headers, now);
        Ok(match self.put_lock(&lock, doing).await? {
            Put::Stored => LockOutcome::Acquired(lock),
            // Another change took the lock a moment ago.
            Put::Refused(item) => {
                let theirs = item.map(decode_lock).transpose()?;
                let until = theirs.and_then(|theirs| theirs.busy_until(now));
                LockOutcome::Busy(until.unwrap_or(now))
            }
        })
    }

    /// Releases the lock on the webhook configuration.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it. Then the lock expires.
    pub async fn unlock_webhook_config(&self, lock: &ConfigLock) -> Result<(), StoreError> {
        match self.put_lock(&lock.released(), "unlock the webhook configuration").await? {
            // A conflict: the lock had expired, and another change holds it.
            Put::Stored | Put::Refused(_) => Ok(()),
        }
    }

    async fn put_lock(&self, lock: &ConfigLock, doing: &'static str) -> Result<Put, StoreError> {
        let item = encode_lock(lock)?;
        self.put_version(item, lock.version, doing).await
    }
}

#[derive(Serialize, Deserialize)]
struct ConfigItem {
    pk: String,
    sk: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Absent for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<NonZeroU16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per_second: Option<NonZeroU16>,
    updated_at: i64,
}

fn encode(config: &WebhookConfig) -> Result<Item, StoreError> {
    let item = ConfigItem {
        pk: PK.into(),
        sk: SK.into(),
        url: config.url.clone(),
        events: (config.events != all()).then(|| config.events.to_bits()),
        max_in_flight: config.limits.max_in_flight,
        per_second: config.limits.per_second,
        updated_at: time::millis(config.updated_at),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("webhook configuration", error))
}

fn decode(item: Item) -> Result<WebhookConfig, StoreError> {
    let item: ConfigItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("webhook configuration", error))?;
    Ok(WebhookConfig {
        url: item.url,
        events: item.events.map_or_else(all, EventSet::from_bits),
        limits: EndpointLimits { max_in_flight: item.max_in_flight, per_second: item.per_second },
        updated_at: instant(item.updated_at)?,
    })
}

/// Also those that later releases add.
fn all() -> EventSet {
    EventName::ALL.into_iter().collect()
}

#[derive(Serialize, Deserialize)]
struct LockItem {
    pk: String,
    sk: String,
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
}

fn encode_lock(lock: &ConfigLock) -> Result<Item, StoreError> {
    let item = LockItem {
        pk: PK.into(),
        sk: LOCK_SK.into(),
        v: lock.version,
        until: lock.until.map(time::millis),
        written: lock.written.map(|(version, at)| (version, time::millis(at))),
        headers: lock.headers.iter().map(HeadersId::to_string).collect(),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("configuration lock", error))
}

fn decode_lock(item: Item) -> Result<ConfigLock, StoreError> {
    let item: LockItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("configuration lock", error))?;
    let until = item.until.map(instant).transpose()?;
    let written = item.written.map(|(version, at)| Ok((version, instant(at)?))).transpose()?;
    let headers = item.headers.iter().filter_map(|id| HeadersId::parse(id)).collect();
    Ok(ConfigLock { version: item.v, until, written, headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhook_config_round_trips() {
        let updated_at = time::from_millis(1_800_000_000_123).unwrap();
        for events in [all(), EventSet::terminal(), EventSet::from_iter([EventName::Failed])] {
            for url in [None, Some("https://shop.example/hooks".to_owned())] {
                let limits = EndpointLimits::new(url.as_ref().map(|_| 5), Some(9)).unwrap();
                let config = WebhookConfig { url, events, limits, updated_at };
                assert_eq!(decode(encode(&config).unwrap()).unwrap(), config);
            }
        }
        let headers = HeadersId::from_random([7; 8]);
        let mut written = ConfigLock::NEVER.taken(Some(headers), updated_at);
        written.wrote(7, updated_at);
        for lock in [ConfigLock::NEVER, written.released(), written] {
            assert_eq!(decode_lock(encode_lock(&lock).unwrap()).unwrap(), lock);
        }
    }

    #[test]
    fn config_lock_expires() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let lock = ConfigLock::NEVER.taken(None, now);
        assert_eq!(lock.busy_until(now), Some(now + LOCK_TTL));
        assert_eq!(lock.busy_until(now + LOCK_TTL), None);
        assert_eq!(lock.released().busy_until(now), None);
    }

    #[test]
    fn config_lock_remembers_headers_until_deleted() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let ids = [1, 2].map(|n| HeadersId::from_random([n; 8]));
        let lock = ConfigLock::NEVER.taken(Some(ids[0]), now).released();
        let mut lock = lock.taken(None, now).released().taken(Some(ids[1]), now);
        assert_eq!(lock.other_headers(Some(ids[1])).collect::<Vec<_>>(), [ids[0]]);
        lock.deleted_headers(ids[0]);
        assert_eq!(lock.released().other_headers(None).collect::<Vec<_>>(), [ids[1]]);
    }

    #[test]
    fn config_lock_remembers_recent_version() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let mut lock = ConfigLock::NEVER.taken(None, now);
        assert_eq!(lock.least_version(now), 0);
        lock.wrote(7, now);
        let next = lock.released().taken(None, now);
        assert_eq!(next.least_version(now), 7);
        assert_eq!(next.least_version(now + LOCK_TTL), 0);
    }
}
