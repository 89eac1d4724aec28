//! A table in memory that behaves as DynamoDB does: conditions are evaluated, sparse indexes
//! and eventually consistent reads may lag, pages end, and every call costs its units.
//!
//! An operation or a parameter that is not implemented is refused: a test must not rest on
//! one that is ignored.

mod batch;
mod expression;
mod index;
mod items;
mod size;

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use self::expression::{Condition, Placeholders, Update};
use self::index::{Index, Place};
use self::items::{InOrder, Item, Items, Key};

const KEYS: [&str; 2] = ["pk", "sk"];

/// The most that one page reads, in bytes.
const PAGE_BYTES: usize = 1024 * 1024;
/// The largest item, in bytes.
const MAX_ITEM: usize = 400 * 1024;

/// Items by `pk` and `sk`, in DynamoDB's JSON, with the indexes of `template.yaml`.
#[derive(Debug)]
pub struct Table(Mutex<State>);

struct State {
    watcher: Option<Watcher>,
    items: Items,
    indexes: Vec<Index>,
    lag: Duration,
    splits_batches: bool,
    /// Keys that were left unprocessed.
    left_over: Vec<Value>,
    consumed: Consumed,
}

/// Is shown every change: the item before and after it.
type Watcher = Box<dyn FnMut(Option<&Value>, Option<&Value>) + Send>;

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.fmt(f)
    }
}

/// What a table's calls have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Consumed {
    /// Write units, those of the indexes included.
    pub write_units: f64,
    /// Read units.
    pub read_units: f64,
    /// Calls that wrote.
    pub writes: u32,
    /// Calls that read.
    pub reads: u32,
}

/// An answer: HTTP status and body.
type Answer = (u16, Value);

/// Why a request is refused.
enum Refusal {
    /// A condition does not hold; the item that was there, if it is wanted.
    Condition(Option<Item>),
    /// The request is invalid, or not implemented.
    Validation(String),
}

impl From<String> for Refusal {
    fn from(problem: String) -> Self {
        Self::Validation(problem)
    }
}

impl Refusal {
    fn into_answer(self) -> Answer {
        match self {
            Self::Condition(item) => {
                let mut body = json!({
                    "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                    "message": "The conditional request failed",
                });
                if let (Some(item), Some(body)) = (item, body.as_object_mut()) {
                    body.insert("Item".into(), Value::Object(item));
                }
                (400, body)
            }
            Self::Validation(problem) => {
                (400, json!({"__type": "ValidationException", "message": problem}))
            }
        }
    }
}

/// What a page is taken from: items in their order, and by which attributes they are sorted.
struct Candidates<'a> {
    items: Box<dyn Iterator<Item = &'a Item> + 'a>,
    names: Vec<&'static str>,
    /// How a place compares with those before it.
    order: Ordering,
    /// The place that the page before ended with.
    after: Option<Place>,
}

/// What was read, and what it cost in units.
struct Page {
    answer: Item,
    units: f64,
}

/// What a call read or wrote, in units.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    table: f64,
    indexes: f64,
}

impl Default for Table {
    fn default() -> Self {
        let indexes = [
            Index::new("active", ["shard", "since"]),
            Index::new("due", ["due_shard", "due_at"]),
            Index::new("by_source", ["source", "created_at"]),
            Index::new("undelivered", ["undelivered", "created_at"]),
        ];
        Self(Mutex::new(State {
            watcher: None,
            items: Items::default(),
            indexes: indexes.into(),
            lag: Duration::ZERO,
            splits_batches: false,
            left_over: Vec::new(),
            consumed: Consumed::default(),
        }))
    }
}

impl Table {
    /// All items, by their keys.
    #[must_use]
    pub fn items(&self) -> Vec<Value> {
        self.state().items.values().cloned().map(Value::Object).collect()
    }

    /// One item.
    #[must_use]
    pub fn item(&self, pk: &str, sk: &str) -> Option<Value> {
        let key = [pk.to_owned(), sk.to_owned()];
        self.state().items.get(&key).cloned().map(Value::Object)
    }

    /// The entries of an index once it has caught up.
    #[must_use]
    pub fn indexed(&self, index: &str) -> Vec<Value> {
        let state = self.state();
        let keys = state.indexes.iter().find(|known| known.name == index);
        keys.map(Index::settled).unwrap_or_default()
    }

    /// Shows every change from now on to `watcher`: the item before and after it.
    pub fn watch(&self, watcher: impl FnMut(Option<&Value>, Option<&Value>) + Send + 'static) {
        self.state().watcher = Some(Box::new(watcher));
    }

    /// From now on the indexes lag behind the table by `lag`.
    pub fn delay_indexes(&self, lag: Duration) {
        self.state().lag = lag;
    }

    /// From now on an eventually consistent read sees a write `lag` later. Conditions of writes
    /// see every write at once.
    pub fn lag_reads(&self, lag: Duration) {
        self.state().items.lag(lag);
    }

    /// From now on a request for several keys is answered for half of them, and the others are
    /// unprocessed until they are requested again, as by a busy table.
    pub fn split_batches(&self) {
        self.state().splits_batches = true;
    }

    /// The cost of all calls so far.
    #[must_use]
    pub fn consumed(&self) -> Consumed {
        self.state().consumed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HTTP status and body, as DynamoDB answers.
    pub(super) fn answer(&self, operation: &str, request: &Value) -> Answer {
        let mut state = self.state();
        let answer = match operation {
            "GetItem" => state.get(request),
            "BatchGetItem" => state.batch_get(request),
            "PutItem" => state.put(request),
            "UpdateItem" => state.update(request),
            "DeleteItem" => state.delete(request),
            "Query" => state.query(request),
            "Scan" => state.scan(request),
            other => Err(format!("the in-memory table has no {other}").into()),
        };
        match answer {
            Ok(body) => (200, body),
            Err(refusal) => refusal.into_answer(),
        }
    }
}

/// What every request may carry.
const COMMON: [&str; 2] = ["TableName", "ReturnConsumedCapacity"];

/// Refuses parameters that are not implemented.
fn only(request: &Value, known: &[&str]) -> Result<(), Refusal> {
    let names = request.as_object().into_iter().flat_map(Map::keys);
    match names.into_iter().find(|name| !known.contains(&&***name) && !COMMON.contains(&&***name)) {
        Some(unknown) => Err(format!("the in-memory table does not read {unknown}").into()),
        None => Ok(()),
    }
}

fn object(request: &Value, name: &str) -> Result<Item, Refusal> {
    let found = request.get(name).and_then(Value::as_object);
    found.cloned().ok_or_else(|| format!("{name} is missing").into())
}

fn text<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    request.get(name).and_then(Value::as_str)
}

fn flag(request: &Value, name: &str, fallback: bool) -> bool {
    request.get(name).and_then(Value::as_bool).unwrap_or(fallback)
}

fn key_of(item: &Item) -> Result<Key, Refusal> {
    let part = |name: &str| item.get(name).and_then(|value| value.get("S")).and_then(Value::as_str);
    match KEYS.map(part) {
        [Some(pk), Some(sk)] if !pk.is_empty() && !sk.is_empty() => Ok([pk.into(), sk.into()]),
        _ => Err("the keys pk and sk are texts".to_owned().into()),
    }
}

/// The key of a request that names nothing but a key.
fn exact_key(request: &Value) -> Result<Key, Refusal> {
    let key = object(request, "Key")?;
    match key.len() == KEYS.len() {
        true => key_of(&key),
        false => Err("Key holds the keys and nothing else".to_owned().into()),
    }
}

impl State {
    fn get(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(request, &["Key", "ConsistentRead"])?;
        let consistent = flag(request, "ConsistentRead", false);
        let item = self.items.read(&exact_key(request)?, consistent).cloned();
        let bytes = item.as_ref().map_or(0, size::of_item);
        let mut answer = Map::new();
        self.charge_read(request, &mut answer, size::read_units(bytes, consistent));
        answer.extend(item.map(|item| ("Item".to_owned(), Value::Object(item))));
        Ok(Value::Object(answer))
    }

    fn put(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(
            request,
            &[
                "Item",
                "ConditionExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ReturnValuesOnConditionCheckFailure",
            ],
        )?;
        let item = object(request, "Item")?;
        let key = key_of(&item)?;
        let mut placeholders = Placeholders::of(request);
        self.check_condition(request, &key, &mut placeholders)?;
        placeholders.all_used()?;
        self.store(request, &key, Some(&item))
    }

    fn update(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(
            request,
            &[
                "Key",
                "UpdateExpression",
                "ConditionExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ReturnValues",
                "ReturnValuesOnConditionCheckFailure",
            ],
        )?;
        let key = exact_key(request)?;
        let mut placeholders = Placeholders::of(request);
        self.check_condition(request, &key, &mut placeholders)?;
        let expression = text(request, "UpdateExpression").unwrap_or_default();
        let update = Update::parse(expression, &mut placeholders)?;
        placeholders.all_used()?;
        let before = self.items.get(&key).cloned();
        let after = update.apply(&before.clone().unwrap_or_default())?;
        let mut stored = object(request, "Key")?;
        stored.extend(after);
        if key_of(&stored)? != key {
            return Err("an update cannot change a key".to_owned().into());
        }
        let attributes = match text(request, "ReturnValues") {
            None | Some("NONE") => None,
            Some("ALL_OLD") => before,
            Some("ALL_NEW") => Some(stored.clone()),
            Some(other) => return Err(format!("the in-memory table returns no {other}").into()),
        };
        let mut answer = self.store(request, &key, Some(&stored))?;
        if let (Some(attributes), Some(answer)) = (attributes, answer.as_object_mut()) {
            answer.insert("Attributes".into(), Value::Object(attributes));
        }
        Ok(answer)
    }

    fn delete(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(
            request,
            &[
                "Key",
                "ConditionExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ReturnValuesOnConditionCheckFailure",
            ],
        )?;
        let key = exact_key(request)?;
        let mut placeholders = Placeholders::of(request);
        self.check_condition(request, &key, &mut placeholders)?;
        placeholders.all_used()?;
        self.store(request, &key, None)
    }

    /// Checks the condition of a write. A refused write costs what writing the item that is
    /// there would.
    fn check_condition(
        &mut self,
        request: &Value,
        key: &Key,
        placeholders: &mut Placeholders<'_>,
    ) -> Result<(), Refusal> {
        let Some(expression) = text(request, "ConditionExpression") else { return Ok(()) };
        let condition = Condition::parse(expression, placeholders)?;
        let nothing = Item::new();
        let item = self.items.get(key);
        if condition.holds(item.unwrap_or(&nothing)) {
            return Ok(());
        }
        let shown = match text(request, "ReturnValuesOnConditionCheckFailure") {
            Some("ALL_OLD") => item.cloned(),
            Some(_) | None => None,
        };
        let units = size::write_units(item.map_or(0, size::of_item));
        self.consumed.write_units += units;
        self.consumed.writes += 1;
        Err(Refusal::Condition(shown))
    }

    /// Stores or deletes, and lets the indexes follow.
    fn store(&mut self, request: &Value, key: &Key, item: Option<&Item>) -> Result<Value, Refusal> {
        if item.map_or(0, size::of_item) > MAX_ITEM {
            return Err("Item size has exceeded the maximum allowed size".to_owned().into());
        }
        let before = self.items.store(key, item);
        let bytes = [before.as_ref(), item].into_iter().flatten().map(size::of_item);
        let table = size::write_units(bytes.max().unwrap_or(0));
        let mut cost = Cost { table, indexes: 0.0 };
        for index in &mut self.indexes {
            cost.indexes += index.follow(before.as_ref(), item, self.lag);
        }
        if let Some(watcher) = &mut self.watcher {
            let [before, after] = [before, item.cloned()].map(|item| item.map(Value::Object));
            watcher(before.as_ref(), after.as_ref());
        }
        self.consumed.write_units += cost.table + cost.indexes;
        self.consumed.writes += 1;
        let mut answer = Map::new();
        report_cost(request, &mut answer, cost);
        Ok(Value::Object(answer))
    }

    fn query(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(
            request,
            &[
                "IndexName",
                "KeyConditionExpression",
                "FilterExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ScanIndexForward",
                "ConsistentRead",
                "Limit",
                "ExclusiveStartKey",
                "Select",
            ],
        )?;
        let consistent = flag(request, "ConsistentRead", false);
        let mut placeholders = Placeholders::of(request);
        let expression = text(request, "KeyConditionExpression").unwrap_or_default();
        let wanted = Condition::parse(expression, &mut placeholders)?;
        let forward = flag(request, "ScanIndexForward", true);
        let (hash, names, after, items) = match text(request, "IndexName") {
            None => {
                let pk = wanted.equality("pk").and_then(|value| value.get("S"));
                let pk = pk.and_then(Value::as_str).ok_or_else(|| "pk must be named".to_owned())?;
                let first = [pk.to_owned(), String::new()];
                let beyond = [format!("{pk}\0"), String::new()];
                let after = start_of(request, &KEYS)?;
                let of_pk = self.items.range(&first, Some(&beyond), consistent);
                ("pk", KEYS.to_vec(), after, of_pk)
            }
            Some(_) if consistent => {
                return Err("an index cannot be read consistently".to_owned().into());
            }
            Some(name) => {
                let index = self.indexes.iter_mut().find(|index| index.name == name);
                let index = index.ok_or_else(|| format!("there is no index {name}"))?;
                let (hash, names) = (index.keys[0], index.names());
                let after = start_of(request, &names)?;
                let visible = index.visible(after.as_ref().filter(|_| forward));
                (hash, names, after, Box::new(visible) as InOrder<'_>)
            }
        };
        if wanted.equality(hash).is_none() {
            return Err(format!("{hash} must be named").into());
        }
        let wanted = |item: &&Item| wanted.holds(item);
        let candidates = match forward {
            true => Candidates {
                items: Box::new(items.filter(wanted)),
                names,
                order: Ordering::Greater,
                after,
            },
            false => Candidates {
                items: Box::new(items.rev().filter(wanted)),
                names,
                order: Ordering::Less,
                after,
            },
        };
        let page = page(request, candidates, placeholders)?;
        Ok(self.charge_page(request, page))
    }

    fn scan(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(
            request,
            &[
                "FilterExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ConsistentRead",
                "Limit",
                "ExclusiveStartKey",
            ],
        )?;
        let consistent = flag(request, "ConsistentRead", false);
        let all = Candidates {
            items: self.items.range(&Key::default(), None, consistent),
            names: KEYS.to_vec(),
            order: Ordering::Greater,
            after: start_of(request, &KEYS)?,
        };
        let page = page(request, all, Placeholders::of(request))?;
        Ok(self.charge_page(request, page))
    }

    fn charge_page(&mut self, request: &Value, page: Page) -> Value {
        let Page { mut answer, units } = page;
        self.charge_read(request, &mut answer, units);
        Value::Object(answer)
    }

    fn charge_read(&mut self, request: &Value, answer: &mut Item, units: f64) {
        self.consumed.read_units += units;
        self.consumed.reads += 1;
        report_cost(request, answer, Cost { table: units, indexes: 0.0 });
    }
}

/// The place that a request's page begins after.
fn start_of(request: &Value, names: &[&str]) -> Result<Option<Place>, String> {
    let Some(key) = request.get("ExclusiveStartKey") else { return Ok(None) };
    let key = key.as_object().filter(|key| key.len() == names.len());
    let place = key.and_then(|key| index::place(key, names));
    place.map(Some).ok_or_else(|| "ExclusiveStartKey is none of this".to_owned())
}

/// The page of `candidates` that a request asks for. Its limits count what is read, and only
/// then the filter looks.
fn page(
    request: &Value,
    candidates: Candidates<'_>,
    mut placeholders: Placeholders<'_>,
) -> Result<Page, Refusal> {
    let filter = text(request, "FilterExpression");
    let filter = filter.map(|text| Condition::parse(text, &mut placeholders)).transpose()?;
    placeholders.all_used()?;
    let limit = match request.get("Limit").map(Value::as_u64) {
        None => usize::MAX,
        Some(Some(limit @ 1..)) => usize::try_from(limit).unwrap_or(usize::MAX),
        Some(_) => return Err("Limit is at least 1".to_owned().into()),
    };
    let Candidates { items, names, order, after } = candidates;
    // By its place, because the item that a page ended with may be gone by now.
    let lies_ahead = |item: &Item| {
        let place = index::place(item, &names);
        after.as_ref().is_none_or(|after| place.map(|place| place.cmp(after)) == Some(order))
    };
    let mut rest = items.skip_while(|item| !lies_ahead(item)).peekable();
    let mut read = Vec::new();
    let mut bytes = 0;
    while read.len() < limit
        && bytes < PAGE_BYTES
        && let Some(item) = rest.next()
    {
        bytes += size::of_item(item);
        read.push(item);
    }
    let mut answer = Map::new();
    if rest.peek().is_some()
        && let Some(last) = read.last()
    {
        let last = names.iter().filter_map(|name| last.get_key_value(*name));
        let last = last.map(|(name, value)| (name.clone(), value.clone())).collect();
        answer.insert("LastEvaluatedKey".into(), Value::Object(last));
    }
    let scanned = read.len();
    read.retain(|item| filter.as_ref().is_none_or(|filter| filter.holds(item)));
    let consistent = flag(request, "ConsistentRead", false);
    answer.insert("Count".into(), read.len().into());
    answer.insert("ScannedCount".into(), scanned.into());
    match text(request, "Select") {
        Some("COUNT") => {}
        Some(_) | None => {
            let items: Vec<Value> = read.into_iter().cloned().map(Value::Object).collect();
            answer.insert("Items".into(), items.into());
        }
    }
    Ok(Page { answer, units: size::read_units(bytes, consistent) })
}

fn report_cost(request: &Value, answer: &mut Item, cost: Cost) {
    if matches!(text(request, "ReturnConsumedCapacity"), Some("TOTAL" | "INDEXES")) {
        let consumed = json!({
            "TableName": text(request, "TableName"),
            "CapacityUnits": cost.table + cost.indexes,
            "Table": {"CapacityUnits": cost.table},
        });
        answer.insert("ConsumedCapacity".into(), consumed);
    }
}

#[cfg(test)]
mod tests;
