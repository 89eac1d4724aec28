//! The API keys, as one process sees them.
//!
//! All keys are read at once and kept for half a minute, so that a key that was made, or revoked,
//! is in force, or out of it, everywhere within a minute, and no request pays for a read. A key
//! that is not among them may have been made a moment ago: then they are read again, but not
//! within five seconds of the last read, so that a flood of wrong keys costs next to nothing.
//! While DynamoDB does not answer, keys that were read within the last minute still count.
//! Routes that need the scope `admin` read past the cache: [`crate::api::authorize`].
//!
//! This is not a cache library such as `moka`: there is one entry, it outlives its TTL during an
//! outage, and its age is judged by the caller's clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use domain::credential::{ApiKeys, KeyRecord};
use tracing::{error, warn};

use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// How long keys that were read are used.
const TTL: TimeDelta = TimeDelta::seconds(30);

/// The same for a key that is not among them.
const UNKNOWN_TTL: TimeDelta = TimeDelta::seconds(5);

/// How old keys may be while DynamoDB does not answer.
const MAX_AGE: TimeDelta = TimeDelta::seconds(60);

/// How long a process with such keys waits before it asks again.
const PAUSE: TimeDelta = TimeDelta::seconds(5);

/// The API keys cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the API keys could not be read")]
pub struct KeysUnavailable(#[source] Arc<StoreError>);

/// The API keys of the table, cached.
pub struct ApiKeyCache {
    store: Store,
    read: Mutex<Option<ReadKeys>>,
    /// Held while the keys are read.
    last_failure: tokio::sync::Mutex<Option<Failure>>,
    /// How many reads are over.
    completed: AtomicU64,
}

#[derive(Clone)]
struct ReadKeys {
    keys: Arc<ApiKeys>,
    at: DateTime<Utc>,
}

struct Failure {
    error: KeysUnavailable,
    at: DateTime<Utc>,
}

impl ApiKeyCache {
    /// The API keys in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let (read, last_failure) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { store, read, last_failure, completed: AtomicU64::new(0) }
    }

    /// The record of a presented key, if it is in force.
    ///
    /// # Errors
    /// When the keys cannot be read, and none were within the last minute.
    pub async fn record_of(
        &self,
        key: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<KeyRecord>, KeysUnavailable> {
        if let Some(record) = self.keys(TTL, now).await?.of(key) {
            return Ok(Some(record.clone()));
        }
        Ok(self.keys(UNKNOWN_TTL, now).await?.of(key).cloned())
    }

    /// The keys as they are now, for what no revoked key may do. All requests after this one see
    /// them too.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn reread(&self, now: DateTime<Utc>) -> Result<Arc<ApiKeys>, StoreError> {
        let stored = self.store.api_keys().await?;
        for unreadable in &stored.unreadable {
            error!(
                key.name = ?unreadable.name,
                error = chain(&unreadable.problem),
                "unreadable API key item skipped"
            );
        }
        let keys = Arc::new(stored.keys);
        self.replace(Some(ReadKeys { keys: Arc::clone(&keys), at: now }));
        Ok(keys)
    }

    /// Forgets the keys, after they were changed.
    pub fn forget(&self) {
        self.replace(None);
    }

    async fn keys(
        &self,
        ttl: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Arc<ApiKeys>, KeysUnavailable> {
        if let Some(keys) = self.younger_than(ttl, now) {
            return Ok(keys);
        }
        let completed = self.completed.load(Ordering::SeqCst);
        let mut last_failure = self.last_failure.lock().await;
        // Another request may have read them meanwhile, or tried to.
        if let Some(keys) = self.younger_than(ttl, now) {
            return Ok(keys);
        }
        let has_waited = self.completed.load(Ordering::SeqCst) > completed;
        if let Some(failure) = &*last_failure {
            match self.younger_than(MAX_AGE, now) {
                Some(keys) if (now - failure.at).abs() < PAUSE => return Ok(keys),
                None if has_waited => return Err(failure.error.clone()),
                Some(_) | None => {}
            }
        }
        let read = self.reread(now).await;
        self.completed.fetch_add(1, Ordering::SeqCst);
        match read {
            Ok(keys) => {
                *last_failure = None;
                Ok(keys)
            }
            Err(cause) => {
                let error = KeysUnavailable(Arc::new(cause));
                *last_failure = Some(Failure { error: error.clone(), at: now });
                let keys = self.younger_than(MAX_AGE, now).ok_or_else(|| error.clone())?;
                warn!(error = chain(&error), "serving stale API keys");
                Ok(keys)
            }
        }
    }

    fn younger_than(&self, age: TimeDelta, now: DateTime<Utc>) -> Option<Arc<ApiKeys>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        read.filter(|read| (now - read.at).abs() < age).map(|read| read.keys)
    }

    fn replace(&self, keys: Option<ReadKeys>) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}
