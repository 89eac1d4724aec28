//! The capacity that DynamoDB reports for a call.
//!
//! A refused conditional write is an error answer and reports nothing, so it counts as zero here,
//! although DynamoDB charges for it as for a write of the existing item.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

const WRITES: [&str; 5] =
    ["BatchWriteItem", "DeleteItem", "PutItem", "TransactWriteItems", "UpdateItem"];
const READS: [&str; 5] = ["BatchGetItem", "GetItem", "Query", "Scan", "TransactGetItems"];

/// The capacity units of a call; zero for calls without capacity.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Units {
    /// Whether the answer reported capacity. Without it, zero means unknown for reads and writes.
    metered: bool,
    /// Of the table and its indexes.
    write_units: f64,
    /// Table and indexes.
    read_units: f64,
    /// The table's share of the units.
    table_units: f64,
    /// The share of each index that has one.
    index_units: BTreeMap<String, f64>,
}

pub(crate) fn has_capacity(operation: &str) -> bool {
    WRITES.contains(&operation) || READS.contains(&operation)
}

/// The request with `ReturnConsumedCapacity` added. `None` when it has that member already, or is
/// no object.
pub(crate) fn ask(request: &[u8]) -> Option<Bytes> {
    const WISH: &str = "ReturnConsumedCapacity";

    let mut fields: Map<String, Value> = serde_json::from_slice(request).ok()?;
    if fields.contains_key(WISH) {
        return None;
    }
    fields.insert(WISH.to_owned(), "INDEXES".into());
    serde_json::to_vec(&fields).ok().map(Bytes::from)
}

/// Reads the capacity in an answer. `ConsumedCapacity` is an object, or in batches and
/// transactions an array with one object for each table.
pub(crate) fn consumed(operation: &str, answer: &Value) -> Units {
    let metered = answer.get("ConsumedCapacity").is_some();
    let mut units = Units { metered, ..Units::default() };
    let mut total = 0.0;
    let tables = match answer.get("ConsumedCapacity") {
        Some(Value::Array(tables)) => tables.as_slice(),
        Some(table) => std::slice::from_ref(table),
        None => &[],
    };
    for table in tables {
        let of_all = capacity_units(table);
        let mut of_indexes = 0.0;
        for kind in ["GlobalSecondaryIndexes", "LocalSecondaryIndexes"] {
            let indexes = table.get(kind).and_then(Value::as_object);
            for (name, index) in indexes.into_iter().flatten() {
                let of_index = capacity_units(index);
                of_indexes += of_index;
                *units.index_units.entry(name.clone()).or_default() += of_index;
            }
        }
        // Transactions do not report the table's share, so it is the rest.
        units.table_units += table.get("Table").map_or(of_all - of_indexes, capacity_units);
        total += of_all;
    }
    if WRITES.contains(&operation) {
        units.write_units = total;
    } else {
        units.read_units = total;
    }
    units
}

fn capacity_units(of: &Value) -> f64 {
    of.get("CapacityUnits").and_then(Value::as_f64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn capacity_is_requested_once() {
        let asked = ask(br#"{"TableName":"t"}"#).unwrap();
        let asked: Value = serde_json::from_slice(&asked).unwrap();
        assert_eq!(asked, json!({"TableName": "t", "ReturnConsumedCapacity": "INDEXES"}));

        assert_eq!(ask(br#"{"ReturnConsumedCapacity":"NONE"}"#), None);
        assert_eq!(ask(b"[]"), None);
        assert_eq!(ask(b""), None);
    }

    #[test]
    fn write_counts_its_indexes() {
        let answer = json!({"ConsumedCapacity": {
            "TableName": "t",
            "CapacityUnits": 4.0,
            "Table": {"CapacityUnits": 1.0},
            "GlobalSecondaryIndexes": {"active": {"CapacityUnits": 2.0}},
            "LocalSecondaryIndexes": {"other": {"CapacityUnits": 1.0}},
        }});
        let expected = Units {
            metered: true,
            write_units: 4.0,
            read_units: 0.0,
            table_units: 1.0,
            index_units: [("active".to_owned(), 2.0), ("other".to_owned(), 1.0)].into(),
        };
        assert_eq!(consumed("UpdateItem", &answer), expected);
    }

    #[test]
    fn batch_counts_both_tables() {
        let answer = json!({"ConsumedCapacity": [
            {"TableName": "a", "CapacityUnits": 0.5},
            {"TableName": "b", "CapacityUnits": 1.5, "Table": {"CapacityUnits": 1.5}},
        ]});
        let expected =
            Units { metered: true, read_units: 2.0, table_units: 2.0, ..Units::default() };
        assert_eq!(consumed("BatchGetItem", &answer), expected);
    }

    #[test]
    fn transaction_leaves_rest_to_table() {
        let answer = json!({"ConsumedCapacity": [{
            "TableName": "t",
            "CapacityUnits": 5.0,
            "GlobalSecondaryIndexes": {"active": {"CapacityUnits": 1.0}},
        }]});
        let units = consumed("TransactWriteItems", &answer);
        assert_eq!((units.write_units, units.table_units), (5.0, 4.0));
    }

    #[test]
    fn refused_write_counts_zero() {
        let answer = json!({"__type": "x#ConditionalCheckFailedException"});
        assert_eq!(consumed("PutItem", &answer), Units::default());
    }
}
