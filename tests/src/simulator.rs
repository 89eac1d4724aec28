//! What the simulator saw: renders, calls, webhooks, and the ledger of AWS requests.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A render that a submit made.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Render {
    /// The provider's id of it.
    pub id: String,
    /// What was submitted.
    pub body: Value,
    /// Status calls so far.
    pub polls: u32,
    /// Callbacks so far, in the order of their answers.
    pub callbacks: Vec<CallbackAttempt>,
}

impl Render {
    /// The callback URL that the submit gave, if it gave one.
    #[must_use]
    pub fn callback_url(&self) -> Option<&str> {
        let places = [
            "/callback",
            "/webhookUrl",
            "/callbackUrl",
            "/webhook_url",
            "/exports/0/destinations/0/endpoint",
        ];
        places.iter().find_map(|place| self.body.pointer(place)).and_then(Value::as_str)
    }

    /// What our API answered to the callbacks. Of an answer that was too late for the
    /// provider nothing is known, and the callback came again.
    #[must_use]
    pub fn callback_statuses(&self) -> Vec<u16> {
        self.callbacks.iter().filter_map(|attempt| attempt.status).collect()
    }
}

/// One attempt of a callback.
#[derive(Clone, Debug, Deserialize)]
pub struct CallbackAttempt {
    /// What our API answered.
    pub status: Option<u16>,
    /// What was sent, byte for byte.
    pub body: String,
}

/// One call of a provider's API.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiCall {
    /// When it came, in Unix milliseconds.
    pub at: i64,
    /// `GET` or `POST`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// What the provider answered.
    pub status: u16,
}

/// One webhook that a receiver got.
#[derive(Clone, Debug, Deserialize)]
pub struct Webhook {
    /// When it came, in Unix milliseconds.
    pub at: i64,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// Byte for byte.
    pub body: String,
    /// Whether the signature is right, says a library that is not ours.
    pub verified: Option<bool>,
    /// What the receiver answered.
    pub answered: u16,
}

impl Webhook {
    /// A header's value; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One request of a function to AWS.
#[derive(Clone, Debug, Deserialize)]
pub struct LedgerEntry {
    /// Counts the requests of all functions.
    pub seq: u64,
    /// When it came, in Unix milliseconds.
    pub at: i64,
    /// `dynamodb`, `sqs`, `events`, `ssm`.
    pub service: String,
    /// Such as `PutItem`.
    pub operation: String,
    /// The same for all attempts of one call: a client repeats one whose answer is late.
    pub invocation: Option<String>,
    /// The request's body, the first 64 KiB of it.
    pub request: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Whether the units are known.
    pub metered: bool,
    /// What it wrote, table and indexes, in write request units.
    pub write_units: f64,
    /// What it read, in read request units.
    pub read_units: f64,
    /// The table's share.
    pub table_units: f64,
    /// Each index's share.
    pub index_units: BTreeMap<String, f64>,
}

impl LedgerEntry {
    /// Whether it writes to the table.
    #[must_use]
    pub fn is_write(&self) -> bool {
        let writes =
            ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"];
        self.service == "dynamodb" && writes.contains(&self.operation.as_str())
    }

    /// The kind of item that it is about, as its sort key says: `job`, `delivery`, …; empty
    /// where it is about none, or more than one.
    #[must_use]
    pub fn item(&self) -> String {
        let body: Value = serde_json::from_str(&self.request).unwrap_or_default();
        let key = body.pointer("/Item/sk/S").or_else(|| body.pointer("/Key/sk/S"));
        let kind = |sk: &str| sk.split('#').next().unwrap_or_default().to_owned();
        key.and_then(Value::as_str).map(kind).unwrap_or_default()
    }
}
