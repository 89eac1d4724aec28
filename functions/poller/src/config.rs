//! The settings of `poller`.

use std::sync::Arc;

use domain::lease::AwakePolicy;
use lambda_runtime::Error;
use shared::env;
use shared::setup::Setup;

use crate::Poller;

/// Builds the poller from the environment and the installation's own provider specs.
///
/// # Errors
/// When a setting is missing or wrong, which the error names, or the specs cannot be read.
pub async fn poller() -> Result<Poller, Error> {
    let shards = env::parsed("POLLER_SHARDS", 1, str::parse)?;
    let policy = env::parsed("POLLERS_STAY_AWAKE", AwakePolicy::default(), AwakePolicy::parse)?;
    let setup = Setup::from_env()?;
    let secrets = Arc::new(setup.secrets()?);
    let poller = Poller::new(setup.tracker(secrets).await?, setup.wakes()?, shards);
    Ok(poller.with_awake_policy(policy))
}
