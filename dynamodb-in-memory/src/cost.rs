//! What a call read or wrote, in units, and how its answer says so.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::items::Item;
use super::text;

/// What a call read or wrote, in units.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    pub(super) table: f64,
    /// By the name of the index.
    pub(super) indexes: BTreeMap<&'static str, f64>,
}

impl Cost {
    /// Of a read of the table, or of one of its indexes.
    pub(super) fn read(units: f64, index: Option<&'static str>) -> Self {
        match index {
            None => Self { table: units, indexes: BTreeMap::new() },
            Some(index) => Self { table: 0.0, indexes: [(index, units)].into() },
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.table += other.table;
        for (index, units) in other.indexes {
            *self.indexes.entry(index).or_default() += units;
        }
    }

    pub(super) fn total(&self) -> f64 {
        self.table + self.indexes.values().sum::<f64>()
    }
}

pub(super) fn report(request: &Value, answer: &mut Item, cost: &Cost) {
    if let Some(consumed) = consumed(request, text(request, "TableName"), cost) {
        answer.insert("ConsumedCapacity".into(), consumed);
    }
}

/// The consumed capacity in an answer, if the request asks for it.
pub(super) fn consumed(request: &Value, table: Option<&str>, cost: &Cost) -> Option<Value> {
    let units = |units: &f64| json!({"CapacityUnits": units});
    let mut consumed = json!({"TableName": table, "CapacityUnits": cost.total()});
    match (text(request, "ReturnConsumedCapacity"), consumed.as_object_mut()) {
        (Some("INDEXES"), Some(consumed)) => {
            consumed.insert("Table".into(), units(&cost.table));
            if !cost.indexes.is_empty() {
                let indexes = cost.indexes.iter();
                let indexes = indexes.map(|(name, cost)| ((*name).to_owned(), units(cost)));
                consumed.insert("GlobalSecondaryIndexes".into(), indexes.collect());
            }
        }
        (Some("TOTAL"), _) => {}
        (Some(_) | None, _) => return None,
    }
    Some(consumed)
}
