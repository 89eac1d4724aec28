//! An event bus that keeps every event.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::clock;

/// The most entries that PutEvents takes.
const MAX_ENTRIES: usize = 10;
/// The longest entry, in bytes.
const MAX_ENTRY: usize = 256 * 1024;

/// An event that was put on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedEvent {
    /// When.
    pub at: DateTime<Utc>,
    /// Its source.
    pub source: String,
    /// Its detail-type.
    pub detail_type: String,
    /// Its detail, byte for byte.
    pub detail: String,
}

/// The answer of EventBridge when the one entry of a request fails, whose status is 200.
#[must_use]
pub fn not_taken() -> (u16, Value) {
    let entry = json!({"ErrorCode": "InternalFailure", "ErrorMessage": "internal failure"});
    (200, json!({"FailedEntryCount": 1, "Entries": [entry]}))
}

/// The bus. Every event that was taken, oldest first.
#[derive(Debug, Default)]
pub(super) struct InMemoryBus {
    events: Mutex<Vec<PublishedEvent>>,
}

impl InMemoryBus {
    pub(super) fn events(&self) -> Vec<PublishedEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// HTTP status and body, as EventBridge answers.
    pub(super) fn answer(&self, operation: &str, request: &Value) -> (u16, Value) {
        if operation != "PutEvents" {
            let problem = format!("the in-memory bus has no {operation}");
            return (400, json!({"__type": "ValidationException", "message": problem}));
        }
        let entries = request.get("Entries").and_then(Value::as_array);
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        if entries.is_empty() || entries.len() > MAX_ENTRIES {
            return (400, json!({"__type": "ValidationException", "message": "1 to 10 entries"}));
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = 0;
        let mut answers = Vec::new();
        for entry in entries {
            match read(entry) {
                Err(problem) => {
                    failed += 1;
                    answers.push(json!({"ErrorCode": problem, "ErrorMessage": problem}));
                }
                Ok(event) => {
                    events.push(event);
                    answers.push(json!({"EventId": format!("e-{}", events.len())}));
                }
            }
        }
        (200, json!({"FailedEntryCount": failed, "Entries": answers}))
    }
}

fn read(entry: &Value) -> Result<PublishedEvent, &'static str> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    let (Some(source), Some(detail_type), Some(detail)) =
        (text("Source"), text("DetailType"), text("Detail"))
    else {
        return Err("InvalidArgument");
    };
    if !serde_json::from_str::<Value>(&detail).is_ok_and(|detail| detail.is_object()) {
        return Err("MalformedDetail");
    }
    if source.len() + detail_type.len() + detail.len() > MAX_ENTRY {
        return Err("InvalidArgument");
    }
    Ok(PublishedEvent { at: clock::now(), source, detail_type, detail })
}
