//! The configuration of `submit`.

use std::sync::Arc;

use lambda_runtime::Error;
use shared::api_key_cache::ApiKeyCache;
use shared::env;
use shared::setup::{self, Setup};
use shared::shards::Shards;

use crate::submission::Submitter;

/// Reads the settings and the installation's own provider specs, and builds the clients.
///
/// # Errors
/// When a setting is missing or malformed, which the error names, or the specs cannot be read.
pub async fn submitter() -> Result<Submitter, Error> {
    let public_url = env::required("PUBLIC_URL")?;
    let shards = env::parsed("POLLER_SHARDS", 1, str::parse)?;
    let policy = setup::target_policy()?;
    let setup = Setup::from_env()?;
    let secrets = Arc::new(setup.secrets()?);
    let tracker = setup.tracker(secrets.clone()).await?;
    Ok(Submitter {
        keys: ApiKeyCache::new(tracker.store.clone()),
        tracker,
        secrets,
        wakes: setup.wakes()?,
        public_url: public_url.trim_end_matches('/').to_owned(),
        shards: Shards::new(shards),
        policy,
        entropy: setup.entropy(),
    })
}
