//! The state of endpoints, shared by all deliverers.
//!
//! An endpoint with trouble is an item in the table. A process caches what it read for a TTL of
//! one second, also that there is no item (negative caching): one that posts a hundred times a
//! second to one receiver must not read its item a hundred times. A change is a conditional
//! write. After a conflict it is decided again from the state that the other process wrote, up
//! to a limit.
//!
//! This is not a cache library such as `moka`: an entry's lock is held from the read to the
//! write, so that concurrent attempts of one process do not conflict with each other; the
//! age is judged by the caller's clock; and a library would add to the function's size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use domain::endpoint::{
    AdmissionDecision, AttemptRequest, AttemptSignal, Endpoint, HoldReason, Permit,
};
use domain::id::EndpointId;
use tracing::debug;

use crate::store::{Committed, Consistency, Store, StoreError};

/// How long a state that was read is used. For so long an attempt of another process may miss
/// that the receiver has just asked for a throttle; it counts as in flight then. And for so long a
/// success may not know that it ends a row of failures; the circuit breaker waits for longer.
const CACHE_TTL: TimeDelta = TimeDelta::seconds(1);

/// How often a change is decided again after a conflict. After the first few failures another
/// one changes nothing and writes nothing, so conflicts end by themselves. Only a limited
/// endpoint with more attempts than writes a second can use this up.
const MAX_CONFLICT_RETRIES: usize = 8;

/// How many endpoints are cached at most.
const MAX_CACHED: usize = 1_000;

/// The endpoints' state, as one process sees it.
pub struct EndpointCache {
    store: Store,
    entries: Mutex<HashMap<EndpointId, Arc<CacheEntry>>>,
}

/// Locked from the read of an endpoint to the write of its change.
type CacheEntry = tokio::sync::Mutex<Option<CachedEndpoint>>;

struct CachedEndpoint {
    endpoint: Endpoint,
    read_at: DateTime<Utc>,
}

/// What becomes of an attempt that is due. What it changes of the endpoint is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission {
    /// The attempt is made.
    Go(Permit),
    /// The attempt must wait.
    Hold {
        /// When it asks again.
        until: DateTime<Utc>,
        /// Why it waits.
        by: HoldReason,
    },
    /// The attempt is made in the slow lane.
    ChangeLane,
    /// The endpoint is disabled: the attempt is never made.
    Refuse,
    /// There were too many conflicts: the attempt asks again in a moment.
    Contended,
}

impl EndpointCache {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, entries: Mutex::default() }
    }

    /// The state of the endpoint at `url`.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn get(
        &self,
        url: &str,
        consistency: Consistency,
        now: DateTime<Utc>,
    ) -> Result<Endpoint, StoreError> {
        let entry = self.entry(url);
        let mut cached = entry.lock().await;
        self.current(url, consistency, &mut cached, now).await
    }

    /// Decides whether an attempt that is due may be made to the endpoint at `url`.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn admit(
        &self,
        url: &str,
        request: &AttemptRequest,
        now: DateTime<Utc>,
    ) -> Result<Admission, StoreError> {
        let decide = |endpoint: &Endpoint| match endpoint.admit(request, now) {
            AdmissionDecision::Go { permit, claim } => (claim, Admission::Go(permit)),
            AdmissionDecision::Hold { until, by, claim } => (claim, Admission::Hold { until, by }),
            AdmissionDecision::ChangeLane => (None, Admission::ChangeLane),
            AdmissionDecision::Refuse { remember } => (remember, Admission::Refuse),
        };
        let decided = match self.change(url, Consistency::Eventual, now, decide).await? {
            // A refusal is final, and the endpoint may have been enabled a moment ago.
            Changed::Stored(_, Admission::Refuse) => {
                self.change(url, Consistency::Strong, now, decide).await?
            }
            decided => decided,
        };
        Ok(match decided {
            Changed::Stored(_, admission) => admission,
            // Another process has stored that it is disabled.
            Changed::RetriesExhausted(_, Admission::Refuse) => Admission::Refuse,
            Changed::RetriesExhausted(_, _) => Admission::Contended,
        })
    }

    /// Records the outcome of an attempt to `url`, and returns the endpoint after it.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn record(
        &self,
        url: &str,
        permit: &Permit,
        signal: &AttemptSignal,
        now: DateTime<Utc>,
    ) -> Result<Endpoint, StoreError> {
        self.update(url, Consistency::Eventual, now, |endpoint| {
            endpoint.record(permit, signal, now)
        })
        .await
    }

    /// Changes the endpoint at `url` by `change`, if that returns a change, and returns the
    /// endpoint after it. After too many conflicts the change is dropped.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn update(
        &self,
        url: &str,
        consistency: Consistency,
        now: DateTime<Utc>,
        change: impl Fn(&Endpoint) -> Option<Endpoint>,
    ) -> Result<Endpoint, StoreError> {
        let decide = |endpoint: &Endpoint| (change(endpoint).map(Box::new), ());
        match self.change(url, consistency, now, decide).await? {
            Changed::Stored(endpoint, ()) => Ok(endpoint),
            Changed::RetriesExhausted(endpoint, ()) => {
                debug!(endpoint.id = %endpoint.id, "endpoint change dropped after repeated conflicts");
                Ok(endpoint)
            }
        }
    }

    async fn change<T>(
        &self,
        url: &str,
        consistency: Consistency,
        now: DateTime<Utc>,
        decide: impl Fn(&Endpoint) -> (Option<Box<Endpoint>>, T),
    ) -> Result<Changed<T>, StoreError> {
        let entry = self.entry(url);
        // Attempts of one process wait for each other instead of causing conflicts.
        let mut cached = entry.lock().await;
        let mut endpoint = self.current(url, consistency, &mut cached, now).await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let (after, answer) = decide(&endpoint);
            let Some(after) = after else { return Ok(Changed::Stored(endpoint, answer)) };
            *cached = None;
            match self.store.commit_endpoint(&endpoint, &after).await? {
                Committed::Stored => {
                    *cached = Some(CachedEndpoint { endpoint: (*after).clone(), read_at: now });
                    return Ok(Changed::Stored(*after, answer));
                }
                Committed::Conflict(current) => {
                    endpoint = current.unwrap_or_else(|| Endpoint::unknown(url));
                }
            }
        }
        let (after, answer) = decide(&endpoint);
        Ok(match after {
            None => Changed::Stored(endpoint, answer),
            Some(after) => Changed::RetriesExhausted(*after, answer),
        })
    }

    async fn current(
        &self,
        url: &str,
        consistency: Consistency,
        cached: &mut Option<CachedEndpoint>,
        now: DateTime<Utc>,
    ) -> Result<Endpoint, StoreError> {
        if let (Consistency::Eventual, Some(cached)) = (consistency, &cached)
            && (now - cached.read_at).abs() < CACHE_TTL
        {
            return Ok(cached.endpoint.clone());
        }
        let endpoint = self.store.endpoint(url, consistency).await?;
        *cached = Some(CachedEndpoint { endpoint: endpoint.clone(), read_at: now });
        Ok(endpoint)
    }

    fn entry(&self, url: &str) -> Arc<CacheEntry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_CACHED {
            // Those that are in use now stay.
            entries.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        entries.entry(EndpointId::of(url)).or_default().clone()
    }
}

enum Changed<T> {
    /// The change is stored, or there was none; the endpoint after it.
    Stored(Endpoint, T),
    /// There were too many conflicts; the endpoint as the change would have made it.
    RetriesExhausted(Endpoint, T),
}
