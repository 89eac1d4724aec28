//! The configuration of `deliver`.

use domain::retry::DeliverySchedule;
use lambda_runtime::Error;
use shared::egress::Receivers;
use shared::endpoint_cache::EndpointCache;
use shared::env;
use shared::setup::{self, Setup};

use crate::deliverer::Deliverer;

/// Reads the settings and builds the clients.
///
/// # Errors
/// When a setting is missing or malformed; the error names it.
pub fn deliverer() -> Result<Deliverer, Error> {
    let fallback = DeliverySchedule::default();
    let schedule = env::parsed("DELIVERY_SCHEDULE", fallback, DeliverySchedule::parse)?;
    let policy = setup::target_policy()?;
    let setup = Setup::from_env()?;
    let store = setup.store()?;
    Ok(Deliverer {
        endpoints: EndpointCache::new(store.clone()),
        store,
        secrets: setup.secrets()?,
        bus: setup.bus()?,
        queue: setup.delivery_lanes()?,
        receivers: Receivers::new(policy.clone())?,
        policy,
        schedule,
        entropy: setup.entropy(),
    })
}
