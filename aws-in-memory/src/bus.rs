//! An event bus that keeps every event.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use dynamodb_in_memory::bucket::TokenBucket;
use serde_json::{Value, json};

use super::clock;
use super::quotas::{Rate, Throttle, Throttles};

/// The most entries that PutEvents takes.
const MAX_ENTRIES: usize = 10;
/// The most that the entries of a request have together, in bytes.
const MAX_REQUEST: usize = 256 * 1024;

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
#[derive(Debug)]
pub(super) struct InMemoryBus {
    events: Mutex<Vec<PublishedEvent>>,
    entries: Mutex<TokenBucket>,
}

impl InMemoryBus {
    /// That takes entries at this rate.
    pub(super) fn new(entries: Rate) -> Self {
        Self { events: Mutex::default(), entries: Mutex::new(entries.bucket()) }
    }

    /// From now on it takes entries at this rate.
    pub(super) fn limit(&self, entries: Rate) {
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = entries.bucket();
    }

    pub(super) fn events(&self) -> Vec<PublishedEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// HTTP status and body, as EventBridge answers.
    pub(super) fn answer(
        &self,
        operation: &str,
        request: &Value,
        throttles: &Throttles,
    ) -> (u16, Value) {
        if operation != "PutEvents" {
            let problem = format!("the in-memory bus has no {operation}");
            return (400, json!({"__type": "ValidationException", "message": problem}));
        }
        let entries = request.get("Entries").and_then(Value::as_array);
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        if entries.is_empty() || entries.len() > MAX_ENTRIES {
            return (400, json!({"__type": "ValidationException", "message": "1 to 10 entries"}));
        }
        if entries.iter().map(size).sum::<usize>() > MAX_REQUEST {
            let problem = "Total size of the entries in the request is over the limit.";
            return (400, json!({"__type": "ValidationException", "message": problem}));
        }
        let mut left = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if !left.has(1.0) {
            throttles.count(Throttle::BusEntry);
            return (400, json!({"__type": "ThrottlingException", "message": THROTTLED}));
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = 0;
        let mut answers = Vec::new();
        for entry in entries {
            if !left.take(1.0) {
                throttles.count(Throttle::BusEntry);
                failed += 1;
                answers
                    .push(json!({"ErrorCode": "ThrottlingException", "ErrorMessage": THROTTLED}));
                continue;
            }
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

/// What EventBridge says to an entry too many.
const THROTTLED: &str = "Rate exceeded";

/// What an entry counts, in bytes.
fn size(entry: &Value) -> usize {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).map_or(0, str::len);
    let time = if entry.get("Time").is_some() { 14 } else { 0 };
    let resources = entry.get("Resources").and_then(Value::as_array).into_iter().flatten();
    let resources: usize = resources.filter_map(Value::as_str).map(str::len).sum();
    time + text("Source") + text("DetailType") + text("Detail") + resources
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
    Ok(PublishedEvent { at: clock::now(), source, detail_type, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(many: usize, bytes: usize) -> Value {
        let detail = format!("{{\"k\":\"{}\"}}", "x".repeat(bytes.saturating_sub(8)));
        let entry = json!({"Source": "s", "DetailType": "d", "Detail": detail});
        json!({"Entries": vec![entry; many]})
    }

    #[tokio::test(start_paused = true)]
    async fn bus_throttles_requests_and_entries() {
        let (bus, throttles) = (InMemoryBus::new(Rate::per_second(15.0)), Throttles::default());
        let put = |many| bus.answer("PutEvents", &entries(many, 20), &throttles);
        assert_eq!(put(10).1["FailedEntryCount"], 0);
        let (status, answer) = put(10);
        assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(5)));
        assert_eq!(answer["Entries"][9]["ErrorCode"], "ThrottlingException");
        let (status, answer) = put(1);
        assert_eq!((status, &answer["__type"]), (400, &json!("ThrottlingException")));
        assert_eq!(throttles.all(), [(Throttle::BusEntry, 6)].into());
        assert_eq!(bus.events().len(), 15);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(put(1).1["FailedEntryCount"], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bus_limits_bytes_of_all_entries() {
        let bus = InMemoryBus::new(Rate::UNLIMITED);
        let put =
            |many, bytes| bus.answer("PutEvents", &entries(many, bytes), &Throttles::default()).0;
        let [one, two] = [262_144 - 2, 131_072 - 2];
        assert_eq!(
            [put(1, one), put(2, two), put(1, one + 1), put(2, two + 1)],
            [200, 200, 400, 400]
        );
        assert_eq!(put(11, 20), 400);
    }
}
