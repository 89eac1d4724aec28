//! Many items at once, or some of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::cost::{Cost, consumed};
use super::items::Key;
use super::throughput::{Access, Throttle};
use super::{Refusal, State, exact_key, flag, object, of_table, only, size};

/// The most keys that one request names.
const MAX_KEYS: usize = 100;
/// The largest answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

impl State {
    pub(super) fn batch_get(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(request, &["RequestItems"])?;
        let mut responses = Map::new();
        let mut unprocessed = Map::new();
        let mut costs = Vec::new();
        let mut bytes = 0;
        let mut met: Option<Throttle> = None;
        for (table, mut wanted) in object(request, "RequestItems")? {
            only(&wanted, &["Keys", "ConsistentRead"])?;
            let consistent = flag(&wanted, "ConsistentRead", false);
            let keys = wanted.get("Keys").and_then(Value::as_array).cloned().unwrap_or_default();
            if keys.is_empty() || keys.len() > MAX_KEYS {
                return Err("BatchGetItem takes 1 to 100 keys".to_owned().into());
            }
            let exact = keys.iter().map(|key| exact_key(&json!({"Key": key})));
            let exact: Vec<Key> = exact.collect::<Result<_, _>>()?;
            if BTreeSet::from_iter(&exact).len() < keys.len() {
                return Err("BatchGetItem takes no key twice".to_owned().into());
            }
            let wished = self.processed(&keys);
            let mut processed = 0;
            let mut units = 0.0;
            let mut found = BTreeMap::new();
            for key in exact.iter().take(wished) {
                let item = self.items.read(key, consistent);
                let size = item.map_or(0, size::of_item);
                if bytes + size > MAX_ANSWER {
                    break;
                }
                let read = size::read_units(size, consistent);
                let item = item.cloned();
                if let Err(throttle) = self.admit(Access::Read, &[of_table(key, read)]) {
                    met = Some(throttle);
                    break;
                }
                bytes += size;
                units += read;
                processed += 1;
                found.extend(item.map(|item| (key, Value::Object(item))));
            }
            // Only a request of which nothing is read fails as a whole.
            if let Some(throttle) = met.filter(|_| processed == 0) {
                return Err(throttle.into());
            }
            costs.push((table.clone(), Cost::read(units, None)));
            let found: Vec<Value> = found.into_values().collect();
            responses.insert(table.clone(), found.into());
            if let (Some(rest @ [_, ..]), Some(names)) =
                (keys.get(processed..), wanted.as_object_mut())
            {
                names.insert("Keys".into(), rest.into());
                unprocessed.insert(table, wanted);
            }
        }
        let mut answer = Map::new();
        let consumed: Vec<Value> =
            costs.iter().filter_map(|(table, cost)| consumed(request, Some(table), cost)).collect();
        if !consumed.is_empty() {
            answer.insert("ConsumedCapacity".into(), consumed.into());
        }
        self.consumed.read_units += costs.iter().map(|(_, cost)| cost.total()).sum::<f64>();
        self.consumed.reads += 1;
        answer.insert("Responses".into(), Value::Object(responses));
        answer.insert("UnprocessedKeys".into(), Value::Object(unprocessed));
        Ok(Value::Object(answer))
    }

    /// How many of these keys are answered now. Of those that were left over, all.
    fn processed(&mut self, keys: &[Value]) -> usize {
        let is_first = !keys.iter().all(|key| self.left_over.contains(key));
        self.left_over.retain(|key| !keys.contains(key));
        if !(self.splits_batches && is_first) {
            return keys.len();
        }
        let processed = keys.len().div_ceil(2);
        self.left_over.extend(keys.iter().skip(processed).cloned());
        processed
    }
}
