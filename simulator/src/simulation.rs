//! The state that all request handlers share, behind one lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use http::{Method, StatusCode};

use crate::account::Accounts;
use crate::bounded_log::{BoundedLog, LogLimit};
use crate::environment::Environment;
use crate::ledger::Ledger;
use crate::receiver::WebhookReceivers;
use crate::render::Renders;
use crate::scenario::Scenarios;

/// A call of a provider's API.
#[derive(Clone, Debug)]
pub(crate) struct ApiRecord {
    pub(crate) at: DateTime<Utc>,
    pub(crate) provider: &'static str,
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    /// The submitted body; of a status call, that of its render, so that a tag finds it. Otherwise
    /// empty.
    pub(crate) about: Arc<str>,
}

/// All configuration and all records.
#[derive(Debug)]
pub(crate) struct SimulatedState {
    pub(crate) scenarios: Scenarios,
    pub(crate) accounts: Accounts,
    pub(crate) renders: Renders,
    pub(crate) api_calls: BoundedLog<ApiRecord>,
    pub(crate) receivers: WebhookReceivers,
    pub(crate) ledger: Ledger,
}

#[derive(Debug)]
pub(crate) struct Simulation {
    state: Mutex<SimulatedState>,
    pub(crate) environment: Arc<dyn Environment>,
}

impl Simulation {
    pub(crate) fn new(environment: Arc<dyn Environment>) -> Self {
        let state = SimulatedState {
            scenarios: Scenarios::default(),
            accounts: Accounts::default(),
            renders: Renders::default(),
            api_calls: BoundedLog::new(LogLimit { entries: 20_000, bytes: 64 * 1024 * 1024 }),
            receivers: WebhookReceivers::default(),
            ledger: Ledger::default(),
        };
        Self { state: Mutex::new(state), environment }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, SimulatedState> {
        // A request that panicked has failed; the others continue.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
