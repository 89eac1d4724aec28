//! Waiting until a condition holds.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

/// The limit is generous, because a slow stack on a busy machine is no failure.
const TIMEOUT: Duration = Duration::from_secs(300);

/// All tests share one emulator, so a check is not free.
const CHECK_INTERVAL: Duration = Duration::from_millis(150);

/// Calls `check` until it succeeds, and returns its value. `what` names the condition in the
/// error.
///
/// # Errors
/// The last error of `check`, after five minutes.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() > deadline => {
                return Err(reason).with_context(|| format!("timed out waiting for: {what}"));
            }
            Err(_) => sleep(CHECK_INTERVAL).await,
        }
    }
}
