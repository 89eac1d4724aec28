//! Many items at once, or some of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::items::Key;
use super::{Refusal, State, exact_key, flag, object, only, size};

/// The most keys that one request names.
const MAX_KEYS: usize = 100;

impl State {
    pub(super) fn batch_get(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(request, &["RequestItems"])?;
        let mut responses = Map::new();
        let mut unprocessed = Map::new();
        let mut units = 0.0;
        for (table, mut wanted) in object(request, "RequestItems")? {
            only(&wanted, &["Keys", "ConsistentRead"])?;
            let consistent = flag(&wanted, "ConsistentRead", false);
            let keys = wanted.get("Keys").and_then(Value::as_array).cloned().unwrap_or_default();
            if keys.is_empty() || keys.len() > MAX_KEYS {
                return Err("BatchGetItem takes 1 to 100 keys".to_owned().into());
            }
            let processed = self.processed(&keys);
            let mut seen: BTreeMap<Key, Option<Value>> = BTreeMap::new();
            for (number, key) in keys.iter().enumerate() {
                let key = exact_key(&json!({"Key": key}))?;
                let item = self.items.read(&key, consistent).filter(|_| number < processed);
                if number < processed {
                    units += size::read_units(item.map_or(0, size::of_item), consistent);
                }
                let item = item.cloned().map(Value::Object);
                if seen.insert(key, item).is_some() {
                    return Err("BatchGetItem takes no key twice".to_owned().into());
                }
            }
            let found: Vec<Value> = seen.into_values().flatten().collect();
            responses.insert(table.clone(), found.into());
            if let (Some(rest @ [_, ..]), Some(names)) =
                (keys.get(processed..), wanted.as_object_mut())
            {
                names.insert("Keys".into(), rest.into());
                unprocessed.insert(table, wanted);
            }
        }
        let mut answer = Map::new();
        self.charge_read(request, &mut answer, units);
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
