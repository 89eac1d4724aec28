//! A sparse index that projects keys only, and may lag behind its table.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::items::Item;
use super::key::{self, KeyAttribute, Place, place};
use super::size;
use super::throughput::Use;

#[derive(Debug)]
pub(super) struct Index {
    pub(super) name: &'static str,
    /// Its hash and range key.
    pub(super) keys: [KeyAttribute; 2],
    shown: BTreeMap<Place, Item>,
    /// Changes that are not visible yet, in their order.
    coming: VecDeque<(Instant, Change)>,
}

#[derive(Debug)]
enum Change {
    Enter(Place, Item),
    Leave(Place),
}

impl Index {
    pub(super) fn new(name: &'static str, keys: [KeyAttribute; 2]) -> Self {
        Self { name, keys, shown: BTreeMap::new(), coming: VecDeque::new() }
    }

    /// Applies a change of the table; answers the write units that it costs. An entry costs
    /// when it enters and when it leaves; no other attribute is projected.
    pub(super) fn follow(
        &mut self,
        before: Option<&Item>,
        after: Option<&Item>,
        lag: Duration,
    ) -> f64 {
        let before = before.and_then(|item| self.entry(item));
        let after = after.and_then(|item| self.entry(item));
        if before.as_ref().map(|(place, _)| place) == after.as_ref().map(|(place, _)| place) {
            return 0.0;
        }
        let at = Instant::now() + lag;
        let mut units = 0.0;
        if let Some((place, entry)) = before {
            units += size::write_units(size::of_item(&entry));
            self.coming.push_back((at, Change::Leave(place)));
        }
        if let Some((place, entry)) = after {
            units += size::write_units(size::of_item(&entry));
            self.coming.push_back((at, Change::Enter(place, entry)));
        }
        units
    }

    /// What a change of the table would use, by partition key.
    pub(super) fn uses(&self, before: Option<&Item>, after: Option<&Item>) -> Vec<Use> {
        let [before, after] = [before, after].map(|item| item.and_then(|item| self.entry(item)));
        if before.as_ref().map(|(place, _)| place) == after.as_ref().map(|(place, _)| place) {
            return Vec::new();
        }
        let [hash, _] = self.keys;
        let entries = [before, after].into_iter().flatten();
        let uses = entries.map(|(_, entry)| Use {
            index: Some(self.name),
            key: entry.get(hash.name).map(Value::to_string),
            units: size::write_units(size::of_item(&entry)),
        });
        uses.collect()
    }

    /// What a query sees now, in the index's order, from behind a place on.
    pub(super) fn visible(
        &mut self,
        after: Option<&Place>,
    ) -> impl DoubleEndedIterator<Item = &Item> + use<'_> {
        let now = Instant::now();
        while self.coming.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, change)) = self.coming.pop_front() {
                show(&mut self.shown, &change);
            }
        }
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        self.shown.range((from, Bound::Unbounded)).map(|(_, item)| item)
    }

    /// Its entries once it has caught up.
    pub(super) fn settled(&self) -> Vec<Value> {
        let mut shown = self.shown.clone();
        for (_, change) in &self.coming {
            show(&mut shown, change);
        }
        shown.into_values().map(Value::Object).collect()
    }

    /// The item's entry, if it has both keys.
    fn entry(&self, item: &Item) -> Option<(Place, Item)> {
        let names = self.names();
        let entry =
            names.iter().map(|key| Some((key.name.to_owned(), item.get(key.name)?.clone())));
        let entry: Item = entry.collect::<Option<_>>()?;
        Some((place(&entry, &names)?, entry))
    }

    /// What its entries hold, and are sorted by.
    pub(super) fn names(&self) -> Vec<KeyAttribute> {
        self.keys.into_iter().chain(key::PRIMARY).collect()
    }

    /// Refuses an item that has a key of this index which is none.
    pub(super) fn check(&self, item: &Item) -> Result<(), String> {
        let is_wrong =
            |key: &&KeyAttribute| item.get(key.name).is_some_and(|value| !key.takes(value));
        match self.keys.iter().find(is_wrong) {
            Some(key) => Err(format!("{} is not what the index {} needs", key.name, self.name)),
            None => Ok(()),
        }
    }
}

fn show(shown: &mut BTreeMap<Place, Item>, change: &Change) {
    match change {
        Change::Enter(place, entry) => {
            shown.insert(place.clone(), entry.clone());
        }
        Change::Leave(place) => {
            shown.remove(place);
        }
    }
}
