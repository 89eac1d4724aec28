//! The items of a table, and their former states: an eventually consistent read may be
//! answered by a replica that the last writes have not reached.

use std::collections::btree_map::Values;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

/// An item, or a part of one, in DynamoDB's JSON.
pub(super) type Item = Map<String, Value>;

/// An item's keys.
pub(super) type Key = [String; 2];

/// Items in the order of their keys.
pub(super) type InOrder<'a> = Box<dyn DoubleEndedIterator<Item = &'a Item> + 'a>;

#[derive(Debug, Default)]
pub(super) struct Items {
    now: BTreeMap<Key, Item>,
    /// The state before each change that has not reached the replicas, oldest first, and until
    /// when it is shown.
    before: BTreeMap<Key, VecDeque<(Instant, Option<Item>)>>,
    lag: Duration,
}

impl Items {
    /// From now on a write reaches the replicas `lag` later.
    pub(super) fn lag(&mut self, lag: Duration) {
        self.lag = lag;
    }

    /// The item, as the last write left it.
    pub(super) fn get(&self, key: &Key) -> Option<&Item> {
        self.now.get(key)
    }

    /// The item as a read is shown it.
    pub(super) fn read(&self, key: &Key, consistent: bool) -> Option<&Item> {
        match self.former(key).filter(|_| !consistent) {
            Some(former) => former,
            None => self.get(key),
        }
    }

    /// All items, as the last writes left them.
    pub(super) fn values(&self) -> Values<'_, Key, Item> {
        self.now.values()
    }

    /// The items from one key up to another, as a read is shown them.
    pub(super) fn range(&self, from: &Key, until: Option<&Key>, consistent: bool) -> InOrder<'_> {
        let is_within = |key: &Key| from <= key && until.is_none_or(|until| key < until);
        let stale = self.before.keys().filter(|key| !consistent && is_within(key));
        let stale: Vec<(&Key, Option<&Item>)> =
            stale.filter_map(|key| Some((key, self.former(key)?))).collect();
        let now = match until {
            Some(until) => self.now.range(from.clone()..until.clone()),
            None => self.now.range(from.clone()..),
        };
        if stale.is_empty() {
            return Box::new(now.map(|(_, item)| item));
        }
        let mut shown: BTreeMap<&Key, &Item> = now.collect();
        for (key, former) in stale {
            match former {
                Some(item) => shown.insert(key, item),
                None => shown.remove(key),
            };
        }
        Box::new(shown.into_values())
    }

    /// Stores an item, or deletes it; what was there before.
    pub(super) fn store(&mut self, key: &Key, item: Option<&Item>) -> Option<Item> {
        let before = match item {
            Some(item) => self.now.insert(key.clone(), item.clone()),
            None => self.now.remove(key),
        };
        if !self.lag.is_zero() {
            let now = Instant::now();
            let former = self.before.entry(key.clone()).or_default();
            former.retain(|(until, _)| *until > now);
            former.push_back((now + self.lag, before.clone()));
        }
        before
    }

    /// The state that a replica still shows of an item, which may be absent. None when every
    /// write has reached it.
    fn former(&self, key: &Key) -> Option<Option<&Item>> {
        let now = Instant::now();
        let former = self.before.get(key)?.iter().find(|(until, _)| *until > now);
        former.map(|(_, item)| item.as_ref())
    }
}
