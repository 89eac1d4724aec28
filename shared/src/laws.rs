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
use domain::polling::{Durations, Statistics};
use tokio::time::Instant;
use tracing::warn;

use crate::store::{Committed, Learnt, Store, StoreError};
use crate::telemetry::chain;

/// How long a read is cached, and the shortest time between two writes.
const MINUTE: Duration = Duration::from_secs(60);

/// How often a write is repeated after a conflict.
const MAX_CONFLICT_RETRIES: usize = 4;

/// The observations and the cache of this process. Clones share both.
#[derive(Clone, Debug)]
pub struct Laws {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Observed and not written yet.
    seen: BTreeMap<ProviderName, Statistics>,
    written_at: Instant,
    known: BTreeMap<ProviderName, (Instant, Option<Durations>)>,
}

impl Laws {
    /// Laws kept in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let state =
            State { seen: BTreeMap::new(), written_at: Instant::now(), known: BTreeMap::new() };
        Self { store, state: Arc::new(Mutex::new(state)) }
    }

    /// Records that a render of this provider took so long.
    pub fn saw(&self, provider: &ProviderName, duration: Duration) {
        let seen = &mut self.state().seen;
        let before = seen.get(provider).copied().unwrap_or_default();
        seen.insert(provider.clone(), before.and(Statistics::of(duration)));
    }

    /// How long this provider's renders take, at most a minute old. None when too few were
    /// observed, or when the table cannot be read: only the poll schedule depends on it.
    pub async fn durations(&self, provider: &ProviderName) -> Option<Durations> {
        if let Some((read, durations)) = self.state().known.get(provider).copied()
            && read.elapsed() < MINUTE
        {
            return durations;
        }
        let durations = match self.store.learnt(provider).await {
            Ok(learnt) => learnt.and_then(|learnt| learnt.statistics.law()),
            Err(cause) => {
                warn!(
                    provider.name = %provider,
                    error = chain(&cause),
                    "render duration statistics not read"
                );
                None
            }
        };
        self.state().known.insert(provider.clone(), (Instant::now(), durations));
        durations
    }

    /// Writes the observations, if a minute has passed. A failure is logged, and the
    /// observations are written with the next ones.
    pub async fn write_down(&self) {
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
                state.seen.insert(provider, seen.and(newer));
            }
        }
    }

    async fn add(&self, provider: &ProviderName, seen: Statistics) -> Result<(), StoreError> {
        let mut before = self.store.learnt(provider).await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let learnt = Learnt {
                statistics: before.map_or(seen, |before| before.statistics.and(seen)),
                version: before.map_or(1, |before| before.version.saturating_add(1)),
            };
            match self.store.put_learnt(provider, &learnt).await? {
                Committed::Stored => return Ok(()),
                Committed::Overtaken(now) => before = now,
            }
        }
        // With so many concurrent writers these few observations do not matter.
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
