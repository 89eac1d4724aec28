//! The key of the tokens in callback URLs. The first submit that needs it makes it.
//!
//! Two hundred submits may start at once on a new stack, and SSM takes three writes a second. So
//! one of them claims the secret by a conditional write to the table, stores it in SSM, and
//! records in the table that it did. The others wait for that record, not for SSM. A claim
//! expires, and SSM stores the secret only where none is, so a crash at any point leaves a stack
//! on which the next submit goes on. A secret that was not stored is not used.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::credential::CallbackSecret;
use tokio::time::{Instant, sleep};

use crate::entropy::Entropy;
use crate::secrets::{PATIENCE, SecretError, SecretName, Secrets};
use crate::store::{Store, StoreError};

const NAME: SecretName = SecretName::CallbackSecret;

/// How long to wait before the table is looked at again, at most.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long SSM may take until it shows a secret that is in the table as made. Later, an absent
/// secret was deleted.
const MADE_BEFORE: TimeDelta = TimeDelta::seconds(60);

/// Why there is no callback secret.
#[derive(Debug, thiserror::Error)]
pub enum CallbackSecretError {
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SSM failed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no randomness.
    #[error("the callback secret could not be made")]
    Entropy(#[from] getrandom::Error),
    /// Another process makes it, and takes longer than a caller waits.
    #[error("the callback secret was not made in time")]
    NotMade,
}

/// The callback secret, if it was made.
///
/// # Errors
/// When it cannot be read, or is not shown by SSM yet.
pub async fn find(
    secrets: &Secrets,
    store: &Store,
    entropy: Entropy,
    now: fn() -> DateTime<Utc>,
) -> Result<Option<CallbackSecret>, CallbackSecretError> {
    let patient = Instant::now() + PATIENCE;
    let mut told = None;
    loop {
        let missing = match secrets.get(&NAME, CallbackSecret::parse).await {
            Ok(secret) => return Ok(Some(secret)),
            Err(missing @ SecretError::Missing(_)) => missing,
            Err(cause) => return Err(cause.into()),
        };
        // That it was absent may be long ago. The table knows more.
        let Some(made) = store.callback_claim().await?.and_then(|claim| claim.made()) else {
            return Ok(None);
        };
        if now() - made.at < MADE_BEFORE {
            if told.is_some() {
                sleep(LOOK_AGAIN.mul_f64(entropy.jitter_sample())).await;
            }
            secrets.forget(&NAME);
        } else if told == Some(made) {
            return Ok(None);
        } else {
            secrets.hear_of_change(&[NAME], &made, now());
        }
        told = Some(made);
        if Instant::now() >= patient {
            return Err(missing.into());
        }
    }
}

/// The callback secret, which is made if there is none.
///
/// # Errors
/// When it can be neither read nor made.
pub async fn get_or_make(
    secrets: &Secrets,
    store: &Store,
    entropy: Entropy,
    now: fn() -> DateTime<Utc>,
) -> Result<CallbackSecret, CallbackSecretError> {
    let patient = Instant::now() + PATIENCE;
    // The table first: on a new stack, SSM would be asked in vain.
    let mut is_made = secrets.holds(&NAME);
    loop {
        if is_made && let Some(secret) = find(secrets, store, entropy, now).await? {
            return Ok(secret);
        }
        let claim = store.callback_claim().await?;
        let is_deleted = is_made;
        is_made = !is_deleted && claim.as_ref().is_some_and(|claim| claim.made().is_some());
        if is_made {
            continue;
        }
        if !claim.as_ref().is_some_and(|claim| claim.is_held(now()))
            && let Some(ours) = store.claim_callback_secret(claim.as_ref(), now()).await?
        {
            let made = CallbackSecret::from_random(entropy.bytes()?);
            secrets.create(&NAME, &made.reveal()).await?;
            store.callback_secret_made(&ours, now()).await?;
            is_made = true;
            continue;
        }
        if Instant::now() >= patient {
            return Err(CallbackSecretError::NotMade);
        }
        sleep(LOOK_AGAIN.mul_f64(entropy.jitter_sample())).await;
    }
}
