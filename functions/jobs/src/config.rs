//! The configuration of `jobs`.

use std::sync::Arc;

use lambda_runtime::Error;
use shared::api_key_cache::ApiKeyCache;
use shared::env;
use shared::setup::{self, Setup};
use shared::shards::Shards;

use crate::Jobs;

/// Reads the settings and the installation's own provider specs, and builds the clients.
///
/// # Errors
/// When a setting is missing or malformed, which the error names, or the specs cannot be read.
pub async fn jobs() -> Result<Jobs, Error> {
    let policy = setup::target_policy()?;
    let shards = env::parsed("POLLER_SHARDS", 1, str::parse)?;
    let setup = Setup::from_env()?;
    let secrets = Arc::new(setup.secrets()?);
    let tracker = setup.tracker(secrets.clone()).await?;
    Ok(Jobs {
        keys: ApiKeyCache::new(tracker.store.clone()),
        tracker,
        secrets,
        policy,
        shards: Shards::new(shards),
        entropy: setup.entropy(),
    })
}
