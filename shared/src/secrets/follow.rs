//! Hearing of the changes of secrets, and taking turns to read them.
//!
//! A process that is in use reads the item of changes every five seconds, once for all that it
//! does at the same time. Of what has changed and it needs, it takes a turn by one write, and
//! reads SSM then; while it waits it goes on with what it has, until the change is in force. A
//! process that sleeps past its turn takes another.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::cache::Turn;
use super::{Reader, SecretName};
use crate::moment::Moment;
use crate::store::{Consistency, SecretChanges, Store, StoreError};
use crate::telemetry::chain;

/// How long the table's word is taken.
const TTL: Duration = Duration::from_secs(5);

/// The same when the table did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// A turn that is later is the work of a clock that is wrong.
const LATEST_TURN: TimeDelta = TimeDelta::seconds(120);

/// When a process reads that cannot take a turn, at most.
const WITHOUT_TURN: Duration = Duration::from_secs(10);

pub(super) struct Follower {
    pub(super) store: Store,
    pub(super) clock: fn() -> DateTime<Utc>,
    /// Held while the table is read, so that all who need it share the read.
    progress: Mutex<Progress>,
    /// Held while a turn is taken.
    turns: Mutex<()>,
}

#[derive(Default)]
struct Progress {
    /// When the table was last read, and how long that counts.
    read: Option<(Moment, Duration)>,
    revision: u64,
    /// When the stack last looked for changes made by hand.
    stack_looked_at: Option<DateTime<Utc>>,
}

impl Follower {
    pub(super) fn new(store: Store, clock: fn() -> DateTime<Utc>) -> Self {
        Self { store, clock, progress: Mutex::default(), turns: Mutex::default() }
    }
}

impl Reader {
    /// Hears of changes, unless it did a moment ago. With [`Consistency::Strong`] it hears of
    /// every change that was announced before.
    pub(super) async fn follow(&self, consistency: Consistency) -> Result<(), StoreError> {
        let most = match consistency {
            Consistency::Eventual => TTL,
            Consistency::Strong => Duration::ZERO,
        };
        self.follow_within(most, consistency).await.map(drop)
    }

    /// Hears of changes, unless it did so recently. Returns when the stack last looked for
    /// changes made by hand.
    pub(super) async fn follow_within(
        &self,
        most: Duration,
        consistency: Consistency,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut progress = self.follower.progress.lock().await;
        if progress.read.is_some_and(|(at, counts)| at.age() < counts.min(most)) {
            return Ok(progress.stack_looked_at);
        }
        let began = (self.follower.clock)();
        let read = self.follower.store.secret_changes(consistency).await;
        let counts = if read.is_ok() { TTL } else { RETRY };
        progress.read = Some((Moment::now(), counts));
        match read {
            // An eventually consistent read may answer what was before.
            Ok(changes) if changes.revision < progress.revision => {}
            Ok(changes) => {
                progress.revision = changes.revision;
                progress.stack_looked_at = changes.looked_at;
                self.hear(&changes, began);
            }
            Err(cause) => {
                warn!(error = chain(&cause), "changes of secrets not read");
                return Err(cause);
            }
        }
        Ok(progress.stack_looked_at)
    }

    fn hear(&self, changes: &SecretChanges, now: DateTime<Utc>) {
        let mut state = self.state();
        state.looked_at = Some(now);
        for (name, change) in &changes.changes {
            state.cache.hear_of_change(name, change, true, now);
        }
    }

    /// Takes a turn to read this secret.
    pub(super) async fn take_turn(self: &Arc<Self>, name: &SecretName) {
        let _held = self.follower.turns.lock().await;
        // Another caller may have taken it meanwhile.
        if self.state().cache.turn(name) != Turn::Untaken {
            return;
        }
        let now = (self.follower.clock)();
        let taken = self.follower.store.take_secret_turn(now).await;
        let wait = match taken {
            Ok(at) if at - now < LATEST_TURN => (at - now).to_std().unwrap_or_default(),
            Ok(_) | Err(_) => WITHOUT_TURN.mul_f64(self.entropy.jitter_sample()),
        };
        self.state().cache.take_turn(name, Instant::now() + wait);
    }
}
