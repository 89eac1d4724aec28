//! How long each provider's renders take: recorded when a render completes, stored in the
//! table, and read when a job is created.
//!
//! A process writes its observations at most once a minute, and not in its first minute: a
//! single render must not pay for a write. Observations that a process has not written when it
//! ends are lost, which does no harm. Stored ones are not, because each write is conditional on
//! the version that was read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::id::ProviderName;
use domain::polling::{LognormalModel, Statistics};
use tokio::time::Instant;
use tracing::warn;

use crate::store::{Committed, Store, StoreError, StoredStatistics};
use crate::telemetry::chain;

/// The TTL of a cached read, and the shortest time between two writes.
const MINUTE: Duration = Duration::from_secs(60);

/// How often a write is repeated after a conflict.
const MAX_CONFLICT_RETRIES: usize = 4;

/// How long renders take, as this process knows it: its observations and its cache. Clones share both.
#[derive(Clone, Debug)]
pub struct DurationModels {
    store: Store,
    state: Arc<Mutex<ModelCache>>,
}

#[derive(Debug)]
struct ModelCache {
    /// Observed and not written yet.
    seen: BTreeMap<ProviderName, Statistics>,
    written_at: Instant,
    known: BTreeMap<ProviderName, (Instant, Option<LognormalModel>)>,
}

impl DurationModels {
    /// The models in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let state = ModelCache {
            seen: BTreeMap::new(),
            written_at: Instant::now(),
            known: BTreeMap::new(),
        };
        Self { store, state: Arc::new(Mutex::new(state)) }
    }

    /// Records that a render of this provider took so long.
    pub fn record(&self, provider: &ProviderName, duration: Duration) {
        let seen = &mut self.state().seen;
        let before = seen.get(provider).copied().unwrap_or_default();
        seen.insert(provider.clone(), before.merge(Statistics::single(duration)));
    }

    /// How long this provider's renders take, at most a minute old. None when too few were
    /// observed, or when the table cannot be read: only the poll schedule depends on it.
    pub async fn model(&self, provider: &ProviderName) -> Option<LognormalModel> {
        if let Some((read, duration_model)) = self.state().known.get(provider).copied()
            && read.elapsed() < MINUTE
        {
            return duration_model;
        }
        let duration_model = match self.store.duration_statistics(provider).await {
            Ok(stored) => stored.and_then(|stored| stored.statistics.model()),
            Err(cause) => {
                warn!(
                    provider.name = %provider,
                    error = chain(&cause),
                    "render duration statistics not read"
                );
                None
            }
        };
        self.state().known.insert(provider.clone(), (Instant::now(), duration_model));
        duration_model
    }

    /// Writes the observations, if a minute has passed. A failure is logged, and the
    /// observations are written with the next ones.
    pub async fn flush(&self) {
        let seen = {
            let mut state = self.state();
            if state.seen.is_empty() || state.written_at.elapsed() < MINUTE {
                return;
            }
            state.written_at = Instant::now();
            std::mem::take(&mut state.seen)
        };
        for (provider, seen) in seen {
            if let Err(cause) = self.add(&provider, seen).await {
                warn!(
                    provider.name = %provider,
                    error = chain(&cause),
                    "render duration statistics not stored; retrying later"
                );
                let mut state = self.state();
                let newer = state.seen.remove(&provider).unwrap_or_default();
                state.seen.insert(provider, seen.merge(newer));
            }
        }
    }

    async fn add(&self, provider: &ProviderName, seen: Statistics) -> Result<(), StoreError> {
        let mut before = self.store.duration_statistics(provider).await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let merged = StoredStatistics {
                statistics: before.map_or(seen, |before| before.statistics.merge(seen)),
                version: before.map_or(1, |before| before.version.saturating_add(1)),
            };
            match self.store.put_duration_statistics(provider, &merged).await? {
                Committed::Stored => return Ok(()),
                Committed::Conflict(now) => before = now,
            }
        }
        // With so many concurrent writers these few observations do not matter.
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, ModelCache> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
