//! What all the parts share: one world behind one lock, and a way out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::account::Accounts;
use crate::api::ApiRecord;
use crate::ledger::Ledger;
use crate::receiver::Receivers;
use crate::recent::{Limit, Recent};
use crate::render::Renders;
use crate::scenario::Scenarios;

/// Speaks plain HTTP, and follows no redirects.
pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

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
    pub(crate) client: HttpClient,
}

impl Simulation {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // Shorter than the patience of any server: a connection that the other
        // side is just closing would look like a failure of the request.
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(std::time::Duration::from_secs(2))
            .build(connector);
        let world = World {
            scenarios: Scenarios::default(),
            accounts: Accounts::default(),
            renders: Renders::default(),
            api_calls: Recent::new(Limit { entries: 20_000, bytes: 64 * 1024 * 1024 }),
            receivers: Receivers::default(),
            ledger: Ledger::default(),
        };
        Self { world: Mutex::new(world), client }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // Whoever panicked holding it has failed its own request; the others go on.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
