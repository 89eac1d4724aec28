//! A table in memory that behaves as DynamoDB does: conditions are evaluated, sparse indexes
//! and eventually consistent reads may lag, pages end, and every call costs its units.
//!
//! An operation or a parameter that is not implemented is refused: a test must not rest on
//! one that is ignored.

mod batch;
pub mod bucket;
mod cost;
mod expression;
mod index;
mod items;
mod key;
mod number;
mod pages;
mod size;
mod throughput;
mod transact;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use self::cost::Cost;
use self::expression::{Condition, Placeholders, Update};
use self::index::Index;
use self::items::{Item, Items, Key};
use self::key::KeyAttribute;
use self::throughput::{Access, Meters, Use};
use self::transact::{MadeRequest, Obstacle};

pub use self::throughput::{Throttle, Throughput};

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
    made_requests: Vec<MadeRequest>,
    consumed: Consumed,
    meters: Meters,
    throttled: BTreeMap<Throttle, usize>,
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
pub type Answer = (u16, Value);

/// Why a request is refused.
enum Refusal {
    /// A condition does not hold; the item that was there, if it is wanted.
    Condition(Option<Item>),
    /// The request is invalid, or not implemented.
    Validation(String),
    /// There were too many.
    Throttled(Throttle),
    /// What each action of a transaction met.
    Cancelled(Vec<Option<Obstacle>>),
    /// A transaction has the token of another one.
    TokenMismatch,
}

impl From<Throttle> for Refusal {
    fn from(met: Throttle) -> Self {
        Self::Throttled(met)
    }
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
            Self::Throttled(met) => {
                let (kind, message) = match met {
                    Throttle::Key | Throttle::IndexKey => (
                        "ProvisionedThroughputExceededException",
                        "The level of configured provisioned throughput for the table or index \
                         was exceeded.",
                    ),
                    Throttle::Whole => (
                        "ThrottlingException",
                        "Throughput exceeds the current capacity of your table or index.",
                    ),
                };
                let kind = format!("com.amazonaws.dynamodb.v20120810#{kind}");
                (400, json!({"__type": kind, "message": message}))
            }
            Self::Cancelled(obstacles) => (400, transact::cancelled(obstacles)),
            Self::TokenMismatch => {
                let kind = "com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException";
                let message =
                    "Request token already in use for another request with a different payload";
                (400, json!({"__type": kind, "Message": message}))
            }
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        let indexes = [
            Index::new("active", ["shard", "since"].map(KeyAttribute::number)),
            Index::new("due", ["due_shard", "due_at"].map(KeyAttribute::number)),
            Index::new(
                "by_source",
                [KeyAttribute::text("source"), KeyAttribute::number("created_at")],
            ),
            Index::new("undelivered", ["undelivered", "created_at"].map(KeyAttribute::number)),
        ];
        Self(Mutex::new(State {
            watcher: None,
            items: Items::default(),
            indexes: indexes.into(),
            lag: Duration::ZERO,
            splits_batches: false,
            left_over: Vec::new(),
            made_requests: Vec::new(),
            consumed: Consumed::default(),
            meters: Meters::new(Throughput::UNLIMITED),
            throttled: BTreeMap::new(),
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

    /// From now on the table lets through so much. At first there is no limit.
    pub fn limit(&self, throughput: Throughput) {
        self.state().meters = Meters::new(throughput);
    }

    /// How many calls, or keys of a call for several, were throttled so far, and by what.
    #[must_use]
    pub fn throttled(&self) -> BTreeMap<Throttle, usize> {
        self.state().throttled.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HTTP status and body, as DynamoDB answers.
    pub fn answer(&self, operation: &str, request: &Value) -> Answer {
        let mut state = self.state();
        let answer = check_choices(request).and_then(|()| match operation {
            "GetItem" => state.get(request),
            "BatchGetItem" => state.batch_get(request),
            "PutItem" => state.put(request),
            "UpdateItem" => state.update(request),
            "DeleteItem" => state.delete(request),
            "TransactWriteItems" => state.transact_write(request),
            "Query" => state.query(request),
            "Scan" => state.scan(request),
            other => Err(format!("the in-memory table has no {other}").into()),
        });
        match answer {
            Ok(body) => (200, body),
            Err(refusal) => refusal.into_answer(),
        }
    }
}

/// What a parameter may say.
const CHOICES: [(&str, &[&str]); 2] = [
    ("ReturnConsumedCapacity", &["INDEXES", "TOTAL", "NONE"]),
    ("ReturnValuesOnConditionCheckFailure", &["ALL_OLD", "NONE"]),
];

fn check_choices(request: &Value) -> Result<(), Refusal> {
    for (name, choices) in CHOICES {
        if text(request, name).is_some_and(|choice| !choices.contains(&choice)) {
            return Err(format!("{name} is one of {choices:?}").into());
        }
    }
    Ok(())
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

/// An item in a request, or a part of one, as it is stored.
fn item(request: &Value, name: &str) -> Result<Item, Refusal> {
    Ok(value::stored_item(&object(request, name)?)?)
}

fn text<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    request.get(name).and_then(Value::as_str)
}

fn flag(request: &Value, name: &str, fallback: bool) -> bool {
    request.get(name).and_then(Value::as_bool).unwrap_or(fallback)
}

/// The key of a request that names nothing but a key.
fn exact_key(request: &Value) -> Result<Key, Refusal> {
    let key = item(request, "Key")?;
    match key.len() == key::PRIMARY.len() {
        true => Ok(key::of_item(&key)?),
        false => Err("Key holds the keys and nothing else".to_owned().into()),
    }
}

impl State {
    fn get(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(request, &["Key", "ConsistentRead"])?;
        let consistent = flag(request, "ConsistentRead", false);
        let key = exact_key(request)?;
        let item = self.items.read(&key, consistent).cloned();
        let bytes = item.as_ref().map_or(0, size::of_item);
        let mut answer = Map::new();
        let units = size::read_units(bytes, consistent);
        self.admit(Access::Read, &[of_table(&key, units)])?;
        let cost = Cost::read(units, None);
        self.charge_read(request, &mut answer, &cost);
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
        let item = item(request, "Item")?;
        let key = key::of_item(&item)?;
        let mut placeholders = Placeholders::of(request)?;
        let condition = condition(request, "ConditionExpression", &mut placeholders)?;
        placeholders.all_used()?;
        self.check(&item)?;
        self.check_condition(request, condition.as_ref(), &key, size::of_item(&item))?;
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
        let mut placeholders = Placeholders::of(request)?;
        let condition = condition(request, "ConditionExpression", &mut placeholders)?;
        let expression = text(request, "UpdateExpression").unwrap_or_default();
        let update = Update::parse(expression, &mut placeholders)?;
        placeholders.all_used()?;
        self.check_condition(request, condition.as_ref(), &key, 0)?;
        let before = self.items.get(&key).cloned();
        let after = update.apply(&before.clone().unwrap_or_default())?;
        let mut stored = item(request, "Key")?;
        stored.extend(after);
        self.check(&stored)?;
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
        let mut placeholders = Placeholders::of(request)?;
        let condition = condition(request, "ConditionExpression", &mut placeholders)?;
        placeholders.all_used()?;
        self.check_condition(request, condition.as_ref(), &key, 0)?;
        self.store(request, &key, None)
    }

    /// Refuses an item that is too large, or has a key of an index which is none.
    fn check(&self, item: &Item) -> Result<(), String> {
        match size::of_item(item) > MAX_ITEM {
            true => Err("Item size has exceeded the maximum allowed size".into()),
            false => self.indexes.iter().try_for_each(|index| index.check(item)),
        }
    }

    /// Checks the condition of a write. A refused write costs what writing the larger of two
    /// items would: of the one that is there, and of `bytes`, the one that is not written.
    fn check_condition(
        &mut self,
        request: &Value,
        condition: Option<&Condition>,
        key: &Key,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let Some(condition) = condition else { return Ok(()) };
        let nothing = Item::new();
        let item = self.items.get(key);
        if condition.holds(item.unwrap_or(&nothing)) {
            return Ok(());
        }
        let shown = match text(request, "ReturnValuesOnConditionCheckFailure") {
            Some("ALL_OLD") => item.cloned(),
            Some(_) | None => None,
        };
        let units = size::write_units(item.map_or(0, size::of_item).max(bytes));
        self.admit(Access::Write, &[of_table(key, units)])?;
        self.consumed.write_units += units;
        self.consumed.writes += 1;
        Err(Refusal::Condition(shown))
    }

    /// Stores or deletes, and lets the indexes follow.
    fn store(&mut self, request: &Value, key: &Key, item: Option<&Item>) -> Result<Value, Refusal> {
        let before = self.items.get(key);
        let bytes = [before, item].into_iter().flatten().map(size::of_item);
        let table = size::write_units(bytes.max().unwrap_or(0));
        let mut uses = vec![of_table(key, table)];
        uses.extend(self.indexes.iter().flat_map(|index| index.uses(before, item)));
        self.admit(Access::Write, &uses)?;
        let cost = self.change(key, item, table);
        self.consumed.write_units += cost.total();
        self.consumed.writes += 1;
        let mut answer = Map::new();
        cost::report(request, &mut answer, &cost);
        Ok(Value::Object(answer))
    }

    /// Makes a change that costs `table` units of the table; what it costs with the indexes.
    fn change(&mut self, key: &Key, item: Option<&Item>, table: f64) -> Cost {
        let before = self.items.store(key, item);
        let mut cost = Cost { table, indexes: BTreeMap::new() };
        for index in &mut self.indexes {
            let units = index.follow(before.as_ref(), item, self.lag);
            if units > 0.0 {
                cost.indexes.insert(index.name, units);
            }
        }
        if let Some(watcher) = &mut self.watcher {
            let [before, after] = [before, item.cloned()].map(|item| item.map(Value::Object));
            watcher(before.as_ref(), after.as_ref());
        }
        cost
    }

    /// Lets a call through, unless it meets a limit.
    fn admit(&mut self, access: Access, uses: &[Use]) -> Result<(), Throttle> {
        self.meters.admit(access, uses).inspect_err(|met| {
            *self.throttled.entry(*met).or_default() += 1;
        })
    }

    fn charge_read(&mut self, request: &Value, answer: &mut Item, cost: &Cost) {
        self.consumed.read_units += cost.total();
        self.consumed.reads += 1;
        cost::report(request, answer, cost);
    }
}

/// What a call for one item uses of the table.
fn of_table([pk, _]: &Key, units: f64) -> Use {
    Use { index: None, key: Some(pk.clone()), units }
}

/// An expression of a request that is a condition, if it has this one.
fn condition(
    request: &Value,
    name: &str,
    placeholders: &mut Placeholders<'_>,
) -> Result<Option<Condition>, String> {
    text(request, name).map(|text| Condition::parse(text, placeholders)).transpose()
}

#[cfg(test)]
mod tests;
