//! A table in memory: what was put is got, and the conditions of a put are kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// Items by `pk` and `sk`, in DynamoDB's JSON. Queries and scans find nothing.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<BTreeMap<[String; 2], Value>>);

impl Table {
    /// HTTP status and body, as DynamoDB answers.
    pub(super) fn answer(&self, operation: &str, request: &Value) -> (u16, Value) {
        match operation {
            "GetItem" => self.get(request.get("Key").unwrap_or(&Value::Null)),
            "PutItem" => self.put(request),
            _ => (200, json!({})),
        }
    }

    fn get(&self, wanted: &Value) -> (u16, Value) {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match items.get(&key(wanted)) {
            Some(item) => (200, json!({"Item": item})),
            None => (200, json!({})),
        }
    }

    fn put(&self, request: &Value) -> (u16, Value) {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let item = request.get("Item").unwrap_or(&Value::Null);
        let old = items.get(&key(item));
        let holds = match request.get("ConditionExpression").and_then(Value::as_str) {
            None => true,
            Some("attribute_not_exists(pk)") => old.is_none(),
            Some("v = :v") => {
                let wanted = request.pointer("/ExpressionAttributeValues/:v");
                old.is_some_and(|old| old.get("v") == wanted)
            }
            // A test must not rest on a condition that nobody looked at.
            Some(_) => return (400, json!({"__type": "ValidationException"})),
        };
        if !holds {
            let refused = json!({"__type": "ConditionalCheckFailedException", "Item": old});
            return (400, refused);
        }
        items.insert(key(item), item.clone());
        (200, json!({}))
    }
}

fn key(item: &Value) -> [String; 2] {
    ["/pk/S", "/sk/S"]
        .map(|at| item.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned())
}
