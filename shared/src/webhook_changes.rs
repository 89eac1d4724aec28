//! Hearing of changes of webhook secrets and headers.
//!
//! They are SSM parameters, and SSM is asked for them every ten minutes. The API announces its
//! changes in the table, by the lock that each of them takes: reading that item is cheap and
//! has no quota.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;

use crate::secrets::{SecretName, Secrets};
use crate::store::{Consistency, Store, StoreError};

/// How long a process takes the table's word for it.
const TTL: TimeDelta = TimeDelta::seconds(5);

const NAMES: [SecretName; 2] = [SecretName::WebhookSecrets, SecretName::WebhookHeaders];

/// The changes of webhook secrets and headers, as one process hears of them.
pub struct WebhookChanges {
    store: Store,
    /// When the table was read.
    read_at: Mutex<Option<DateTime<Utc>>>,
}

impl WebhookChanges {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, read_at: Mutex::default() }
    }

    /// Has `secrets` read what changed since it was read. With [`Consistency::Strong`] that
    /// includes every change that was answered before.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn follow(
        &self,
        secrets: &Secrets,
        consistency: Consistency,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        // Held while the table is read, so that the tickets of a batch read it once.
        let mut read_at = self.read_at.lock().await;
        let is_recent = read_at.is_some_and(|at| (now - at).abs() < TTL);
        if consistency == Consistency::Eventual && is_recent {
            return Ok(());
        }
        if let Some(change) = self.store.last_webhook_secret_change(consistency, now).await? {
            secrets.hear_of_change(&NAMES, &change, now);
        }
        *read_at = Some(now);
        Ok(())
    }
}
