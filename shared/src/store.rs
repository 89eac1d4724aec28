//! The DynamoDB table that holds all state.
//!
//! | item | pk / sk | written |
//! |---|---|---|
//! | job | `job#<id>` / `job` | whole, by one conditional put per change |
//! | request record, with the payload | `request#<hash of its key>` / `payload` | once, and again when its key is used anew |
//! | hint | `job#<id>` / `hint` | by a callback that asks about the job's render, and when a wake-up call is sent for it |
//! | delivery | `job#<id>` / `delivery#<eventId>` | whole, by one conditional put per change |
//! | delivery of a test | `test` / `delivery#<eventId>` | the same |
//! | webhook configuration | `config` / `webhook` | by its owner |
//! | the lock on it | `config` / `lock` | before and after each change |
//! | when there was a receiver first | `config` / `first-receiver` | before the first configuration |
//! | API key | `api-keys` / its name | once, and deleted when it is revoked |
//! | index of the provider specs | `provider-specs` / `index` | when a spec is put or removed |
//! | provider spec | `provider-specs` / `document#<id>` | once, and once more when it is replaced |
//! | last change of every secret | `secrets` / `changes` | before and after each change |
//! | turns to read a secret | `secrets` / `turns` | when a process has heard of a change |
//! | claim on the callback secret | `callback-secret` / `claim` | when the secret is made |
//! | endpoint | `endpoint#<hash of its URL>` / `endpoint` | whole, while its state is not the default |
//! | how long renders take | `durations#<provider>` / `durations` | at most once a minute and process |
//! | lease of a shard | `lease#<shard>` / `lease` | when taken over or given back, once a minute while held, when its holder falls asleep, when a provider's pause begins or ends |
//! | number of shards | `shards` / `shards` | when there are more than ever |
//!
//! A change and what follows from it (a job's outbox, a delivery's next attempt) are one
//! item and so one write. Every write of a job, hint, delivery, endpoint, lease, lock or statistics is conditional on the
//! version that was read (optimistic
//! concurrency), so of two concurrent writers one gets a conflict, and the response holds what
//! the other one wrote.
//!
//! The indexes project keys only, and only keys that never change while an item is in the
//! index: an item pays for an index when it enters and when it leaves.

mod active;
mod api_key_item;
mod api_keys;
mod callback_claim;
mod config;
mod delivery;
mod delivery_item;
mod endpoint_item;
mod endpoints;
mod hint;
mod job;
mod job_item;
mod lease_item;
mod page;
mod payload;
mod provider_specs;
mod put;
mod reading;
mod request_record;
mod secret_changes;
mod statistics_item;
mod undelivered;
mod without_receiver;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;

use crate::entropy::Entropy;

use config::ConfigCache;
use put::{Put, committed};

pub use api_keys::{KeyChange, StoredKeys, UnreadableKey};
pub use callback_claim::CallbackClaim;
pub use config::{ConfigLock, LockOutcome, Switched, WebhookConfig};
pub use delivery::Wait;
pub use endpoints::Consistency;
pub use page::Page;
pub use payload::{MAX_STORED_PAYLOAD, PayloadTooLarge, StoredPayload};
pub use provider_specs::{DocumentId, MAX_SPEC_BYTES, SpecEntry, SpecIndex};
pub use request_record::FoundRecord;
pub use secret_changes::SecretChanges;
pub use statistics_item::StoredStatistics;
pub use undelivered::{ListOrder, TimeSpan};
pub use without_receiver::JobWithoutReceiver;

type Item = HashMap<String, AttributeValue>;

/// The table. Clones share what they remember of it.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    table: String,
    retention: TimeDelta,
    entropy: Entropy,
    webhook_config: Arc<ConfigCache>,
}

/// Why the table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB did not answer, or refused. The same call may work later.
    #[error("the table could not be asked to {doing}")]
    Unavailable {
        /// What was tried, after "to".
        doing: &'static str,
        /// The SDK's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An item has a form that this release does not write.
    #[error("an item in the table is not a {kind}: {problem}")]
    Corrupt {
        /// What the item should be.
        kind: &'static str,
        problem: String,
    },
}

/// The outcome of storing a new item.
#[derive(Clone, Debug, PartialEq)]
pub enum Inserted<T> {
    /// The item is stored.
    New,
    /// An item of that key existed before, and is unchanged.
    Exists(T),
}

/// The outcome of storing a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed<T> {
    /// The change is stored.
    Stored,
    /// Another writer changed the item first; this is the item now. None when it was deleted.
    Conflict(Option<T>),
}

impl Store {
    /// The table named `table`. Settled jobs expire after `retention`, and each write
    /// is marked with an id from `entropy`.
    #[must_use]
    pub fn new(client: Client, table: String, retention: TimeDelta, entropy: Entropy) -> Self {
        Self { client, table, retention, entropy, webhook_config: Arc::default() }
    }

    async fn get(
        &self,
        pk: &str,
        sk: &str,
        doing: &'static str,
    ) -> Result<Option<Item>, StoreError> {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key(pk, sk)));
        let output = get.consistent_read(true).send().await;
        Ok(output.map_err(|error| unavailable(doing, error.into_service_error()))?.item)
    }
}

fn key(pk: &str, sk: &str) -> Item {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S(pk.to_owned())),
        ("sk".to_owned(), AttributeValue::S(sk.to_owned())),
    ])
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn unavailable(doing: &'static str, error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { doing, source: Box::new(error) }
}

fn corrupt(kind: &'static str, problem: impl fmt::Display) -> StoreError {
    StoreError::Corrupt { kind, problem: problem.to_string() }
}
