//! Several writes, of which all are made or none.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::cost::{Cost, consumed};
use super::expression::{Condition, Placeholders};
use super::items::{Item, Key};
use super::throughput::{Access, Throttle};
use super::{Refusal, State, condition, exact_key, item, key, of_table, only, size, text};

/// The most actions of one request.
const MAX_ACTIONS: usize = 100;
/// The most bytes of their items.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long a token makes a repeat of its request harmless.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// A request that was made: a repeat of it changes nothing.
#[derive(Debug)]
pub(super) struct MadeRequest {
    token: String,
    actions: Value,
    at: Instant,
}

/// One action of a request.
struct Action {
    what: What,
    table: Option<String>,
    key: Key,
    condition: Option<Condition>,
    /// Whether the item is shown that the condition does not hold for.
    shows: bool,
}

enum What {
    Put(Item),
    Delete,
    ConditionCheck,
}

/// Why one action does not let its transaction be made, in the answer's `CancellationReasons`.
pub(super) enum Obstacle {
    /// Its condition does not hold; the item that is there, if it is wanted.
    Condition(Option<Item>),
    Throttled(Throttle),
}

impl Obstacle {
    fn code(&self) -> &'static str {
        match self {
            Self::Condition(_) => "ConditionalCheckFailed",
            Self::Throttled(Throttle::Key | Throttle::IndexKey) => "ProvisionedThroughputExceeded",
            Self::Throttled(Throttle::Whole) => "ThrottlingError",
        }
    }

    fn into_reason(self) -> Value {
        let mut reason = json!({"Code": self.code(), "Message": match &self {
            Self::Condition(_) => "The conditional request failed",
            Self::Throttled(_) => "Throughput exceeds the current capacity of your table or index",
        }});
        if let (Self::Condition(Some(item)), Some(reason)) = (self, reason.as_object_mut()) {
            reason.insert("Item".into(), Value::Object(item));
        }
        reason
    }
}

/// The answer to a transaction that is not made, with what each action met.
pub(super) fn cancelled(obstacles: Vec<Option<Obstacle>>) -> Value {
    let codes = obstacles.iter().map(|it| it.as_ref().map_or("None", Obstacle::code));
    let codes: Vec<&str> = codes.collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let reasons = obstacles.into_iter();
    let reasons = reasons.map(|it| it.map_or(json!({"Code": "None"}), Obstacle::into_reason));
    let reasons: Vec<Value> = reasons.collect();
    json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        // Written so, unlike that of every other refusal.
        "Message": message,
        "CancellationReasons": reasons,
    })
}

impl State {
    pub(super) fn transact_write(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(request, &["TransactItems", "ClientRequestToken"])?;
        let actions = request.get("TransactItems").unwrap_or(&Value::Null);
        let token = text(request, "ClientRequestToken");
        if token.is_some_and(|token| !(1..=36).contains(&token.len())) {
            return Err("ClientRequestToken has 1 to 36 characters".to_owned().into());
        }
        let now = Instant::now();
        self.made_requests.retain(|made| now - made.at < TOKEN_TTL);
        if let Some(made) = self.made_requests.iter().find(|made| Some(&*made.token) == token) {
            return match made.actions == *actions {
                true => Ok(json!({})),
                false => Err(Refusal::TokenMismatch),
            };
        }
        let parsed = self.actions(actions)?;
        let answer = self.make(request, &parsed)?;
        if let Some(token) = token {
            let (token, actions) = (token.to_owned(), actions.clone());
            self.made_requests.push(MadeRequest { token, actions, at: now });
        }
        Ok(answer)
    }

    fn actions(&self, actions: &Value) -> Result<Vec<Action>, Refusal> {
        let actions = actions.as_array().map(Vec::as_slice).unwrap_or_default();
        if actions.is_empty() || actions.len() > MAX_ACTIONS {
            return Err(format!("TransactWriteItems takes 1 to {MAX_ACTIONS} actions").into());
        }
        let actions = actions.iter().map(Action::parse);
        let actions: Vec<Action> = actions.collect::<Result<_, _>>()?;
        let keys: BTreeSet<&Key> = actions.iter().map(|action| &action.key).collect();
        if keys.len() < actions.len() {
            let problem = "Transaction request cannot include multiple operations on one item";
            return Err(problem.to_owned().into());
        }
        let stored = || actions.iter().filter_map(Action::stored);
        stored().try_for_each(|item| self.check(item))?;
        match stored().map(size::of_item).sum::<usize>() > MAX_BYTES {
            true => Err("a transaction has at most 4 MiB".to_owned().into()),
            false => Ok(actions),
        }
    }

    /// Makes all of it or nothing. Either costs the units of all actions, and twice those of
    /// other writes: DynamoDB prepares each write and then commits it.
    fn make(&mut self, request: &Value, actions: &[Action]) -> Result<Value, Refusal> {
        let before = self.meters.clone();
        let mut units = Vec::new();
        let mut obstacles = Vec::new();
        for action in actions {
            let item = self.items.get(&action.key);
            let bytes = [item, action.stored()].into_iter().flatten().map(size::of_item);
            let table = 2.0 * size::write_units(bytes.max().unwrap_or(0));
            let mut uses = vec![of_table(&action.key, table)];
            if !matches!(action.what, What::ConditionCheck) {
                uses.extend(self.indexes.iter().flat_map(|it| it.uses(item, action.stored())));
            }
            let obstacle = action.obstacle(item);
            let throttle = self.admit(Access::Write, &uses).err().map(Obstacle::Throttled);
            obstacles.push(throttle.or(obstacle));
            units.push(table);
        }
        if obstacles.iter().flatten().any(|it| matches!(it, Obstacle::Throttled(_))) {
            self.meters = before;
            return Err(Refusal::Cancelled(obstacles));
        }
        self.consumed.writes += 1;
        if obstacles.iter().any(Option::is_some) {
            self.consumed.write_units += units.iter().sum::<f64>();
            return Err(Refusal::Cancelled(obstacles));
        }
        let mut cost = Cost::default();
        for (action, table) in actions.iter().zip(units) {
            let of_action = match &action.what {
                What::Put(item) => self.change(&action.key, Some(item), table),
                What::Delete => self.change(&action.key, None, table),
                What::ConditionCheck => Cost { table, ..Cost::default() },
            };
            cost.add(of_action);
        }
        self.consumed.write_units += cost.total();
        let mut answer = Map::new();
        let table = actions.iter().find_map(|action| action.table.as_deref());
        if let Some(consumed) = consumed(request, table, &cost) {
            answer.insert("ConsumedCapacity".into(), json!([consumed]));
        }
        Ok(Value::Object(answer))
    }
}

impl Action {
    fn parse(action: &Value) -> Result<Self, Refusal> {
        let members = action.as_object().into_iter().flatten();
        let members: Vec<(&str, &Value)> =
            members.map(|(name, body)| (name.as_str(), body)).collect();
        let (kind, body) = match members[..] {
            [(kind @ ("Put" | "Delete" | "ConditionCheck"), body)] => (kind, body),
            _ => {
                let problem = "an action is one Put, Delete or ConditionCheck in this table";
                return Err(problem.to_owned().into());
            }
        };
        super::check_choices(body)?;
        only(
            body,
            &[
                if kind == "Put" { "Item" } else { "Key" },
                "ConditionExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ReturnValuesOnConditionCheckFailure",
            ],
        )?;
        let (what, key) = match kind {
            "Put" => {
                let item = item(body, "Item")?;
                let key = key::of_item(&item)?;
                (What::Put(item), key)
            }
            "Delete" => (What::Delete, exact_key(body)?),
            _ => (What::ConditionCheck, exact_key(body)?),
        };
        let mut placeholders = Placeholders::of(body)?;
        let condition = condition(body, "ConditionExpression", &mut placeholders)?;
        placeholders.all_used()?;
        if matches!(what, What::ConditionCheck) && condition.is_none() {
            return Err("a ConditionCheck has a ConditionExpression".to_owned().into());
        }
        let shows = text(body, "ReturnValuesOnConditionCheckFailure") == Some("ALL_OLD");
        Ok(Self { what, table: text(body, "TableName").map(str::to_owned), key, condition, shows })
    }

    /// The item that it stores.
    fn stored(&self) -> Option<&Item> {
        match &self.what {
            What::Put(item) => Some(item),
            What::Delete | What::ConditionCheck => None,
        }
    }

    /// Why it does not let the transaction be made, if `item` is there.
    fn obstacle(&self, item: Option<&Item>) -> Option<Obstacle> {
        let nothing = Item::new();
        let condition = self.condition.as_ref()?;
        match condition.holds(item.unwrap_or(&nothing)) {
            true => None,
            false => Some(Obstacle::Condition(item.cloned().filter(|_| self.shows))),
        }
    }
}
