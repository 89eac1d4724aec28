//! A table in memory that behaves as DynamoDB does: conditions are evaluated, sparse indexes
//! and eventually consistent reads may lag, pages end, and every call costs its units.
//!
//! An operation or a parameter that is not implemented is refused: a test must not rest on
//! one that is ignored.

mod batch;
pub mod bucket;
mod expression;
mod index;
mod items;
mod key;
mod number;
mod size;
mod throughput;
mod transact;
mod value;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use self::expression::{Condition, Placeholders, Update};
use self::index::Index;
use self::items::{InOrder, Item, Items, Key};
use self::key::{KeyAttribute, Place};
use self::throughput::{Access, Meters, Use};
use self::transact::{MadeRequest, Obstacle};

pub use self::throughput::{Throttle, Throughput};

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

/// What a page is taken from: items in their order, and by which attributes they are sorted.
struct Candidates<'a> {
    items: Box<dyn Iterator<Item = &'a Item> + 'a>,
    names: Vec<KeyAttribute>,
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
#[derive(Clone, Debug, Default)]
struct Cost {
    table: f64,
    /// By the name of the index.
    indexes: BTreeMap<&'static str, f64>,
}

impl Cost {
    /// Of a read of the table, or of one of its indexes.
    fn read(units: f64, index: Option<&'static str>) -> Self {
        match index {
            None => Self { table: units, indexes: BTreeMap::new() },
            Some(index) => Self { table: 0.0, indexes: [(index, units)].into() },
        }
    }

    fn add(&mut self, other: Self) {
        self.table += other.table;
        for (index, units) in other.indexes {
            *self.indexes.entry(index).or_default() += units;
        }
    }

    fn total(&self) -> f64 {
        self.table + self.indexes.values().sum::<f64>()
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
        report_cost(request, &mut answer, &cost);
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
        let mut placeholders = Placeholders::of(request)?;
        let wanted = condition(request, "KeyConditionExpression", &mut placeholders)?;
        let wanted = wanted.ok_or_else(|| "KeyConditionExpression is missing".to_owned())?;
        let filter = condition(request, "FilterExpression", &mut placeholders)?;
        placeholders.all_used()?;
        let forward = flag(request, "ScanIndexForward", true);
        let mut read_index = None;
        let partition;
        let (keys, names, after, items) = match text(request, "IndexName") {
            None => {
                let pk = wanted.of_key(key::PRIMARY)?;
                let pk = value::text(pk).unwrap_or_default();
                partition = pk.to_owned();
                let first = [pk.to_owned(), String::new()];
                let beyond = [format!("{pk}\0"), String::new()];
                let after = start_of(request, &key::PRIMARY, Some(&wanted))?;
                let of_pk = self.items.range(&first, Some(&beyond), consistent);
                (key::PRIMARY, key::PRIMARY.to_vec(), after, of_pk)
            }
            Some(_) if consistent => {
                return Err("an index cannot be read consistently".to_owned().into());
            }
            Some(name) => {
                let index = self.indexes.iter_mut().find(|index| index.name == name);
                let index = index.ok_or_else(|| format!("there is no index {name}"))?;
                partition = wanted.of_key(index.keys)?.to_string();
                read_index = Some(index.name);
                let (keys, names) = (index.keys, index.names());
                let after = start_of(request, &names, Some(&wanted))?;
                let visible = index.visible(after.as_ref().filter(|_| forward));
                (keys, names, after, Box::new(visible) as InOrder<'_>)
            }
        };
        let filtered = filter.iter().flat_map(Condition::attributes);
        if let Some(name) =
            filtered.into_iter().find(|name| keys.iter().any(|key| key.name == *name))
        {
            return Err(format!("{name} is part of the key, which no filter names").into());
        }
        match (text(request, "Select"), read_index) {
            (None | Some("COUNT"), _)
            | (Some("ALL_ATTRIBUTES"), None)
            | (Some("ALL_PROJECTED_ATTRIBUTES"), Some(_)) => {}
            (Some(other), _) => return Err(format!("{other} cannot be selected").into()),
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
        let page = page(request, candidates, filter.as_ref())?;
        self.charge_page(request, page, read_index, Some(partition))
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
        let mut placeholders = Placeholders::of(request)?;
        let filter = condition(request, "FilterExpression", &mut placeholders)?;
        placeholders.all_used()?;
        let all = Candidates {
            items: self.items.range(&Key::default(), None, consistent),
            names: key::PRIMARY.to_vec(),
            order: Ordering::Greater,
            after: start_of(request, &key::PRIMARY, None)?,
        };
        let page = page(request, all, filter.as_ref())?;
        self.charge_page(request, page, None, None)
    }

    fn charge_page(
        &mut self,
        request: &Value,
        page: Page,
        index: Option<&'static str>,
        key: Option<String>,
    ) -> Result<Value, Refusal> {
        let Page { mut answer, units } = page;
        self.admit(Access::Read, &[Use { index, key, units }])?;
        self.charge_read(request, &mut answer, &Cost::read(units, index));
        Ok(Value::Object(answer))
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
        report_cost(request, answer, cost);
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

/// The place that a request's page begins after. It must be one that the key condition allows.
fn start_of(
    request: &Value,
    names: &[KeyAttribute],
    wanted: Option<&Condition>,
) -> Result<Option<Place>, Refusal> {
    if request.get("ExclusiveStartKey").is_none() {
        return Ok(None);
    }
    let start = item(request, "ExclusiveStartKey")?;
    let is_whole = start.len() == names.len();
    let is_wanted = wanted.is_none_or(|wanted| wanted.holds(&start));
    let place = key::place(&start, names).filter(|_| is_whole && is_wanted);
    place.map(Some).ok_or_else(|| "ExclusiveStartKey is none of this".to_owned().into())
}

/// The page of `candidates` that a request asks for. Its limits count what is read, and only
/// then the filter looks.
fn page(
    request: &Value,
    candidates: Candidates<'_>,
    filter: Option<&Condition>,
) -> Result<Page, Refusal> {
    let limit = match request.get("Limit").map(Value::as_u64) {
        None => usize::MAX,
        Some(Some(limit @ 1..)) => usize::try_from(limit).unwrap_or(usize::MAX),
        Some(_) => return Err("Limit is at least 1".to_owned().into()),
    };
    let Candidates { items, names, order, after } = candidates;
    // By its place, because the item that a page ended with may be gone by now.
    let lies_ahead = |item: &Item| {
        let place = key::place(item, &names);
        after.as_ref().is_none_or(|after| place.map(|place| place.cmp(after)) == Some(order))
    };
    let mut rest = items.skip_while(|item| !lies_ahead(item)).peekable();
    let mut read = Vec::new();
    let mut bytes = 0;
    let has_room = |item: &&Item, bytes: usize| bytes + size::of_item(item) <= PAGE_BYTES;
    while read.len() < limit
        && let Some(item) = rest.next_if(|item| read.is_empty() || has_room(item, bytes))
    {
        bytes += size::of_item(item);
        read.push(item);
    }
    let mut answer = Map::new();
    // A page that has reached its limit does not look whether there is more.
    if (read.len() == limit || rest.peek().is_some())
        && let Some(last) = read.last()
    {
        let last = names.iter().filter_map(|key| last.get_key_value(key.name));
        let last = last.map(|(name, value)| (name.clone(), value.clone())).collect();
        answer.insert("LastEvaluatedKey".into(), Value::Object(last));
    }
    let scanned = read.len();
    read.retain(|item| filter.is_none_or(|filter| filter.holds(item)));
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

fn report_cost(request: &Value, answer: &mut Item, cost: &Cost) {
    if let Some(consumed) = consumed(request, text(request, "TableName"), cost) {
        answer.insert("ConsumedCapacity".into(), consumed);
    }
}

/// The consumed capacity in an answer, if the request asks for it.
fn consumed(request: &Value, table: Option<&str>, cost: &Cost) -> Option<Value> {
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

#[cfg(test)]
mod tests;
