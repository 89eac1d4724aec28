//! What all the parts share: one world behind one lock, and a way out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use http::{Method, StatusCode};

use crate::account::Accounts;
use crate::ledger::Ledger;
use crate::receiver::Receivers;
use crate::recent::{Limit, Recent};
use crate::render::Renders;
use crate::scenario::Scenarios;
use crate::surroundings::Surroundings;

/// One call of a provider's API, whatever came of it.
#[derive(Clone, Debug)]
pub(crate) struct ApiRecord {
    pub(crate) at: DateTime<Utc>,
    pub(crate) provider: &'static str,
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    /// The body that was sent; for a status call the one its render was made
    /// of, so that marks find it. Empty when there is neither.
    pub(crate) about: Arc<str>,
}

/// Everything that was asked of the simulator and everything it saw.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenarios: Scenarios,
    pub(crate) accounts: Accounts,
    pub(crate) renders: Renders,
    pub(crate) api_calls: Recent<ApiRecord>,
    pub(crate) receivers: Receivers,
    pub(crate) ledger: Ledger,
}

#[derive(Debug)]
pub(crate) struct Simulation {
    world: Mutex<World>,
    pub(crate) around: Arc<dyn Surroundings>,
}

impl Simulation {
    pub(crate) fn new(around: Arc<dyn Surroundings>) -> Self {
        let world = World {
            scenarios: Scenarios::default(),
            accounts: Accounts::default(),
            renders: Renders::default(),
            api_calls: Recent::new(Limit { entries: 20_000, bytes: 64 * 1024 * 1024 }),
            receivers: Receivers::default(),
            ledger: Ledger::default(),
        };
        Self { world: Mutex::new(world), around }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // Whoever panicked holding it has failed its own request; the others go on.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
