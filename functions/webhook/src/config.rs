//! The configuration of `webhook`.

use std::sync::Arc;

use lambda_runtime::Error;
use shared::setup::Setup;

use crate::callback::Callbacks;

/// Reads the settings and the installation's own provider specs, and builds the clients.
///
/// # Errors
/// When a setting is missing or malformed, which the error names, or the specs cannot be read.
pub async fn callbacks() -> Result<Callbacks, Error> {
    let setup = Setup::from_env()?;
    let tracker = setup.tracker(Arc::new(setup.secrets()?)).await?;
    let secrets = Arc::clone(tracker.providers.secrets());
    Ok(Callbacks { tracker, secrets, wakes: setup.wakes()?, entropy: setup.entropy() })
}
