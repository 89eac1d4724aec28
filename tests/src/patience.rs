//! Waiting for something to be so.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

/// How long anything may take before a test gives up on it. Generous: a stack
/// that is merely slow, on a machine that is busy, is no failure.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks. Everything shares one emulator, so looking is not free.
const PAUSE: Duration = Duration::from_millis(150);

/// What `look` answers as soon as it succeeds. `what` names it if it never does.
///
/// # Errors
/// The last reason that `look` gave, when five minutes have passed.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(seen) => return Ok(seen),
            Err(reason) if Instant::now() > deadline => {
                return Err(reason).with_context(|| format!("waited in vain for: {what}"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
