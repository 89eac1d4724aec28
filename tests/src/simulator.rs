//! What the simulator recorded: renders, calls, webhooks, and the ledger of AWS requests.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A render that a submit created at a simulated provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedRender {
    /// The provider's id of the render.
    pub id: String,
    /// The submitted body.
    pub body: Value,
    /// The number of status calls so far.
    pub polls: u32,
    /// The callbacks so far, in the order in which they were answered.
    pub callbacks: Vec<CallbackAttempt>,
}

impl SimulatedRender {
    /// The callback URL in the submitted body, if there is one.
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

    /// The statuses of our API's answers to the callbacks. An answer that came too late for
    /// the provider is not among them, and the provider repeats that callback.
    #[must_use]
    pub fn callback_statuses(&self) -> Vec<u16> {
        self.callbacks.iter().filter_map(|attempt| attempt.status).collect()
    }
}

/// One attempt of a callback.
#[derive(Clone, Debug, Deserialize)]
pub struct CallbackAttempt {
    /// The status of our API's answer.
    pub status: Option<u16>,
    /// The body, byte for byte.
    pub body: String,
}

/// One call of a provider's API.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiCall {
    /// The time of arrival, in Unix milliseconds.
    pub at: i64,
    /// `GET` or `POST`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The status of the provider's answer.
    pub status: u16,
}

/// One webhook that a simulated receiver got.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceivedWebhook {
    /// The time of arrival, in Unix milliseconds.
    pub at: i64,
    /// The headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte.
    pub body: String,
    /// Whether the reference library verified the signature.
    pub verified: Option<bool>,
    /// The status of the receiver's answer.
    pub answered: u16,
}

impl ReceivedWebhook {
    /// A header's value; empty when the header is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One request of a function to AWS.
#[derive(Clone, Debug, Deserialize)]
pub struct LedgerEntry {
    /// The number of the request among those of all functions.
    pub seq: u64,
    /// The time of arrival, in Unix milliseconds.
    pub at: i64,
    /// `dynamodb`, `sqs`, `events`, `ssm`.
    pub service: String,
    /// The operation, such as `PutItem`.
    pub operation: String,
    /// The SDK's id of the call. A client that repeats a call because its answer is late
    /// sends the same id.
    pub invocation: Option<String>,
    /// The request's body, the first 64 KiB of it.
    pub request: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Whether AWS reported the capacity units.
    pub metered: bool,
    /// The write request units of table and indexes.
    pub write_units: f64,
    /// The read request units.
    pub read_units: f64,
    /// The table's share of the units.
    pub table_units: f64,
    /// Each index's share of the units.
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

    /// The kind of item in the request, by its sort key: `job`, `delivery`, …; empty when the
    /// request concerns no item or several.
    #[must_use]
    pub fn item(&self) -> String {
        let body: Value = serde_json::from_str(&self.request).unwrap_or_default();
        let key = body.pointer("/Item/sk/S").or_else(|| body.pointer("/Key/sk/S"));
        let kind = |sk: &str| sk.split('#').next().unwrap_or_default().to_owned();
        key.and_then(Value::as_str).map(kind).unwrap_or_default()
    }
}
