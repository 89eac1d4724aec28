//! Our table and dynoxide's, which are asked the same.

use dynamodb_in_memory::{Answer, Table};
use dynoxide::Database;
use dynoxide::errors::DynoxideError;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) const TABLE: &str = "table";

/// The indexes of `template.yaml`: their names, and their keys with their types.
pub(crate) const INDEXES: [(&str, [(&str, &str); 2]); 4] = [
    ("active", [("shard", "N"), ("since", "N")]),
    ("due", [("due_shard", "N"), ("due_at", "N")]),
    ("by_source", [("source", "S"), ("created_at", "N")]),
    ("undelivered", [("undelivered", "N"), ("created_at", "N")]),
];

pub(crate) struct Pair {
    ours: Table,
    theirs: Database,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let theirs = Database::memory().unwrap();
        theirs.create_table(serde_json::from_value(schema()).unwrap()).unwrap();
        Self { ours: Table::default(), theirs }
    }

    /// The answer that both give.
    pub(crate) fn ask(&self, operation: &str, request: &Value) -> Result<Value, TestCaseError> {
        let (ours, theirs) = self.ask_both(operation, request);
        prop_assert_eq!(&ours, &theirs, "ours, theirs of {} {}", operation, shortened(request));
        Ok(ours.1)
    }

    /// What each of them answers.
    pub(crate) fn ask_both(&self, operation: &str, request: &Value) -> (Answer, Answer) {
        let ours = self.ours.answer(operation, request);
        let theirs = self.ask_theirs(operation, request);
        [ours, theirs].map(|answer| comparable(operation, request, answer)).into()
    }

    fn ask_theirs(&self, operation: &str, request: &Value) -> Answer {
        let theirs = &self.theirs;
        match operation {
            "GetItem" => call(request, |request| theirs.get_item(request)),
            "BatchGetItem" => call(request, |request| theirs.batch_get_item(request)),
            "PutItem" => call(request, |request| theirs.put_item(request)),
            "UpdateItem" => call(request, |request| theirs.update_item(request)),
            "DeleteItem" => call(request, |request| theirs.delete_item(request)),
            "TransactWriteItems" => {
                let (status, mut answer) =
                    call(request, |request| theirs.transact_write_items(request));
                without("WriteCapacityUnits", &mut answer);
                (status, answer)
            }
            "Query" => {
                let (status, answer) = call(request, |request| theirs.query(request));
                (status, without_uncounted(request, answer))
            }
            "Scan" => {
                let (status, answer) = call(request, |request| theirs.scan(request));
                (status, without_uncounted(request, answer))
            }
            other => panic!("{other} is not compared"),
        }
    }
}

fn schema() -> Value {
    let key = |[hash, range]: [(&str, &str); 2]| {
        json!([
            {"AttributeName": hash.0, "KeyType": "HASH"},
            {"AttributeName": range.0, "KeyType": "RANGE"},
        ])
    };
    let primary = [("pk", "S"), ("sk", "S")];
    let mut attributes: Vec<_> =
        INDEXES.iter().flat_map(|(_, keys)| *keys).chain(primary).collect();
    attributes.sort_unstable();
    attributes.dedup();
    let attributes =
        attributes.iter().map(|(name, kind)| json!({"AttributeName": name, "AttributeType": kind}));
    let indexes = INDEXES.iter().map(|(name, keys)| {
        json!({
            "IndexName": name,
            "KeySchema": key(*keys),
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        })
    });
    json!({
        "TableName": TABLE,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": attributes.collect::<Vec<_>>(),
        "KeySchema": key(primary),
        "GlobalSecondaryIndexes": indexes.collect::<Vec<_>>(),
    })
}

fn call<Q: DeserializeOwned, A: Serialize>(
    request: &Value,
    operation: impl FnOnce(Q) -> Result<A, DynoxideError>,
) -> Answer {
    let error = match serde_json::from_value(request.clone()).map(operation) {
        Ok(Ok(answer)) => return (200, serde_json::to_value(answer).unwrap()),
        Ok(Err(error)) => error,
        // What its HTTP server makes of such an error.
        Err(error) => DynoxideError::ValidationException(error.to_string()),
    };
    (error.status_code(), serde_json::from_str(&error.to_json()).unwrap())
}

/// Dynoxide counts the item that no longer fits into a page of 1 MB as read, and reads it again
/// for the next page. "ScannedCount" of `Query` and `Scan` in the API reference is the number of
/// items that were evaluated. Requests with a limit never come so far here.
fn without_uncounted(request: &Value, mut answer: Value) -> Value {
    if request.get("Limit").is_none() && answer.get("LastEvaluatedKey").is_some() {
        answer["ScannedCount"] = json!(answer["ScannedCount"].as_u64().unwrap() - 1);
    }
    answer
}

/// Removes a member, at any depth.
fn without(name: &str, value: &mut Value) {
    if let Some(members) = value.as_object_mut() {
        members.remove(name);
        members.values_mut().for_each(|inner| without(name, inner));
    }
    value.as_array_mut().into_iter().flatten().for_each(|inner| without(name, inner));
}

/// Without the words of errors, and with items of a batch in one order: they have none.
///
/// Of an item that an update creates dynoxide says that it was its key before. "ReturnValues" of
/// `UpdateItem` in the API reference: the attributes "as they appeared before".
fn comparable(operation: &str, request: &Value, (status, mut answer): Answer) -> Answer {
    if let Some(error) = answer.get("__type").and_then(Value::as_str) {
        let name = error.rsplit('#').next().unwrap();
        let reasons = answer.get("CancellationReasons").and_then(Value::as_array);
        let reasons = reasons.into_iter().flatten();
        let reasons = reasons.map(|it| json!({"Code": it.get("Code"), "Item": it.get("Item")}));
        let reasons: Vec<Value> = reasons.collect();
        answer = match reasons.iter().any(|reason| reason["Code"] == "ValidationError") {
            true => json!({"error": "ValidationException", "Item": null, "reasons": []}),
            false => json!({"error": name, "Item": answer.get("Item"), "reasons": reasons}),
        };
    }
    if operation == "UpdateItem" && answer.get("Attributes") == request.get("Key") {
        answer.as_object_mut().unwrap().remove("Attributes");
    }
    if operation == "BatchGetItem"
        && let Some(items) = answer.pointer_mut("/Responses/table").and_then(Value::as_array_mut)
    {
        items.sort_by_key(Value::to_string);
    }
    (status, answer)
}

/// A request that may be printed.
pub(crate) fn shortened(request: &Value) -> String {
    let text = request.to_string();
    match text.char_indices().nth(2000) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
