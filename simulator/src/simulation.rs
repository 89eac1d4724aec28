//! What all the parts share: one world behind one lock, and a way out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::account::Accounts;
use crate::api::ApiRecord;
use crate::ledger::Ledger;
use crate::receiver::Receivers;
use crate::recent::{Limit, Recent};
use crate::render::Renders;
use crate::scenario::Scenarios;
use crate::surroundings::Surroundings;

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
