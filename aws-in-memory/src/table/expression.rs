//! DynamoDB's expression language, parsed and evaluated, so that a test rests on what a
//! condition means and not on how it is spelled. What cannot be parsed is refused.

mod token;
mod update;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use self::token::{Token, tokens};
use super::items::Item;

pub(super) use update::Update;

/// The placeholders of a request: names for `#name`, values for `:value`.
pub(super) struct Placeholders<'a> {
    names: Option<&'a Item>,
    values: Option<&'a Item>,
    used: BTreeSet<String>,
}

impl<'a> Placeholders<'a> {
    /// Those of a request.
    pub(super) fn of(request: &'a Value) -> Self {
        let members = |name: &str| request.get(name).and_then(Value::as_object);
        Self {
            names: members("ExpressionAttributeNames"),
            values: members("ExpressionAttributeValues"),
            used: BTreeSet::new(),
        }
    }

    /// Refuses placeholders that no expression names, as DynamoDB does.
    pub(super) fn all_used(&self) -> Result<(), String> {
        let all = self.names.into_iter().chain(self.values).flat_map(Map::keys);
        match all.into_iter().find(|name| !self.used.contains(*name)) {
            Some(unused) => Err(format!("{unused} is unused in expressions")),
            None => Ok(()),
        }
    }

    fn name(&mut self, text: &str) -> Result<String, String> {
        if !text.starts_with('#') {
            return match RESERVED.contains(&text.to_ascii_uppercase().as_str()) {
                true => Err(format!("{text} is a reserved word")),
                false => Ok(text.to_owned()),
            };
        }
        self.used.insert(text.to_owned());
        let name = self.names.and_then(|names| names.get(text)).and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| format!("{text} is not defined"))
    }

    fn value(&mut self, text: &str) -> Result<Value, String> {
        self.used.insert(text.to_owned());
        let value = self.values.and_then(|values| values.get(text));
        value.cloned().ok_or_else(|| format!("{text} is not defined"))
    }
}

/// Those of DynamoDB's reserved words that an attribute might be named by.
const RESERVED: [&str; 38] = [
    "ACTION",
    "ADD",
    "ATTEMPT",
    "BEGIN",
    "BUCKET",
    "BYTE",
    "CASE",
    "CLOCK",
    "COUNT",
    "COUNTER",
    "DATA",
    "DATE",
    "END",
    "FIRST",
    "HASH",
    "KEY",
    "KEYS",
    "LAST",
    "LEVEL",
    "LIMIT",
    "NAME",
    "OWNER",
    "POSITION",
    "RANGE",
    "REGION",
    "SHARD",
    "SOURCE",
    "START",
    "STATE",
    "STATUS",
    "TIMESTAMP",
    "TOKEN",
    "TTL",
    "TYPE",
    "URL",
    "VALUE",
    "VALUES",
    "VIEW",
];

/// A condition, filter or key condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Compare(Operand, Comparison, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(String),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Attribute(String),
    Value(Value),
    Size(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads `text`.
    ///
    /// # Errors
    /// A sentence about what is not understood.
    pub(super) fn parse(text: &str, placeholders: &mut Placeholders<'_>) -> Result<Self, String> {
        let mut parser = Parser::new(text, placeholders)?;
        let condition = parser.any_of()?;
        parser.end()?;
        Ok(condition)
    }

    /// Whether `item` fulfils it; an item that is not there has no attributes.
    pub(super) fn holds(&self, item: &Item) -> bool {
        match self {
            Self::And(one, other) => one.holds(item) && other.holds(item),
            Self::Or(one, other) => one.holds(item) || other.holds(item),
            Self::Not(inner) => !inner.holds(item),
            Self::Compare(left, how, right) => {
                let (left, right) = (left.of(item), right.of(item));
                let order =
                    left.zip(right).map(|(left, right)| (compare(&left, &right), left == right));
                match (how, order) {
                    (Comparison::Equal, order) => order.is_some_and(|(_, same)| same),
                    (Comparison::Unequal, order) => order.is_none_or(|(_, same)| !same),
                    (Comparison::Less, order) => is(order, &[Ordering::Less]),
                    (Comparison::LessOrEqual, order) => {
                        is(order, &[Ordering::Less, Ordering::Equal])
                    }
                    (Comparison::Greater, order) => is(order, &[Ordering::Greater]),
                    (Comparison::GreaterOrEqual, order) => {
                        is(order, &[Ordering::Greater, Ordering::Equal])
                    }
                }
            }
            Self::Between(value, low, high) => {
                let within = |bound: &Operand, wanted: Ordering| {
                    let order = value.of(item).zip(bound.of(item));
                    let order = order.and_then(|(value, bound)| compare(&value, &bound));
                    order.is_some_and(|order| order == wanted || order == Ordering::Equal)
                };
                within(low, Ordering::Greater) && within(high, Ordering::Less)
            }
            Self::In(value, list) => {
                let value = value.of(item);
                value.is_some() && list.iter().any(|one| one.of(item) == value)
            }
            Self::Exists(name) => item.contains_key(name),
            Self::BeginsWith(value, start) => match (text_of(value, item), text_of(start, item)) {
                (Some(value), Some(start)) => value.starts_with(&start),
                (Some(_) | None, _) => false,
            },
            Self::Contains(value, part) => match (text_of(value, item), text_of(part, item)) {
                (Some(value), Some(part)) => value.contains(&part),
                (Some(_) | None, _) => false,
            },
        }
    }

    /// The value that `name` must equal, where the condition demands one.
    pub(super) fn equality(&self, name: &str) -> Option<&Value> {
        match self {
            Self::And(one, other) => one.equality(name).or_else(|| other.equality(name)),
            Self::Compare(
                Operand::Attribute(attribute),
                Comparison::Equal,
                Operand::Value(value),
            ) if attribute == name => Some(value),
            Self::Compare(..)
            | Self::Or(..)
            | Self::Not(_)
            | Self::Between(..)
            | Self::In(..)
            | Self::Exists(_)
            | Self::BeginsWith(..)
            | Self::Contains(..) => None,
        }
    }
}

fn is(order: Option<(Option<Ordering>, bool)>, wanted: &[Ordering]) -> bool {
    order.and_then(|(order, _)| order).is_some_and(|order| wanted.contains(&order))
}

impl Operand {
    fn of(&self, item: &Item) -> Option<Value> {
        match self {
            Self::Attribute(name) => item.get(name).cloned(),
            Self::Value(value) => Some(value.clone()),
            Self::Size(name) => {
                let size = item.get(name).map(super::size::of_value)?;
                Some(serde_json::json!({"N": size.to_string()}))
            }
        }
    }
}

fn text_of(operand: &Operand, item: &Item) -> Option<String> {
    operand.of(item)?.get("S")?.as_str().map(str::to_owned)
}

/// How two values of one type are ordered; values of different types are not.
pub(super) fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    let both = |kind: &str| Some((one.get(kind)?.as_str()?, other.get(kind)?.as_str()?));
    if let Some((one, other)) = both("N") {
        return match (one.parse::<i128>(), other.parse::<i128>()) {
            (Ok(one), Ok(other)) => Some(one.cmp(&other)),
            (Ok(_) | Err(_), _) => one.parse::<f64>().ok()?.partial_cmp(&other.parse().ok()?),
        };
    }
    let (one, other) = both("S").or_else(|| both("B"))?;
    Some(one.cmp(other))
}

/// A recursive-descent parser; `OR` binds least.
struct Parser<'a, 'b> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    placeholders: &'a mut Placeholders<'b>,
}

impl<'a, 'b> Parser<'a, 'b> {
    fn new(text: &str, placeholders: &'a mut Placeholders<'b>) -> Result<Self, String> {
        Ok(Self { tokens: tokens(text)?.into_iter().peekable(), placeholders })
    }

    fn any_of(&mut self) -> Result<Condition, String> {
        let mut condition = self.all_of()?;
        while self.takes_word("OR") {
            condition = Condition::Or(Box::new(condition), Box::new(self.all_of()?));
        }
        Ok(condition)
    }

    fn all_of(&mut self) -> Result<Condition, String> {
        let mut condition = self.single()?;
        while self.takes_word("AND") {
            condition = Condition::And(Box::new(condition), Box::new(self.single()?));
        }
        Ok(condition)
    }

    fn single(&mut self) -> Result<Condition, String> {
        if self.takes_word("NOT") {
            return Ok(Condition::Not(Box::new(self.single()?)));
        }
        if self.takes("(") {
            let condition = self.any_of()?;
            self.require(")")?;
            return Ok(condition);
        }
        if let Some(Token::Word(word)) = self.tokens.peek() {
            let function = word.clone();
            match function.as_str() {
                "attribute_exists" | "attribute_not_exists" => {
                    self.tokens.next();
                    self.require("(")?;
                    let name = self.name()?;
                    self.require(")")?;
                    let exists = Condition::Exists(name);
                    return Ok(match function.as_str() {
                        "attribute_exists" => exists,
                        _ => Condition::Not(Box::new(exists)),
                    });
                }
                "begins_with" | "contains" => {
                    self.tokens.next();
                    self.require("(")?;
                    let value = self.operand()?;
                    self.require(",")?;
                    let part = self.operand()?;
                    self.require(")")?;
                    return Ok(match function.as_str() {
                        "begins_with" => Condition::BeginsWith(value, part),
                        _ => Condition::Contains(value, part),
                    });
                }
                _ => {}
            }
        }
        let left = self.operand()?;
        if self.takes_word("BETWEEN") {
            let low = self.operand()?;
            match self.takes_word("AND") {
                true => return Ok(Condition::Between(left, low, self.operand()?)),
                false => return Err("BETWEEN needs AND".into()),
            }
        }
        if self.takes_word("IN") {
            self.require("(")?;
            let mut list = vec![self.operand()?];
            while self.takes(",") {
                list.push(self.operand()?);
            }
            self.require(")")?;
            return Ok(Condition::In(left, list));
        }
        let how = match self.tokens.next() {
            Some(Token::Symbol("=")) => Comparison::Equal,
            Some(Token::Symbol("<>")) => Comparison::Unequal,
            Some(Token::Symbol("<")) => Comparison::Less,
            Some(Token::Symbol("<=")) => Comparison::LessOrEqual,
            Some(Token::Symbol(">")) => Comparison::Greater,
            Some(Token::Symbol(">=")) => Comparison::GreaterOrEqual,
            other => return Err(format!("{other:?} is no comparison")),
        };
        Ok(Condition::Compare(left, how, self.operand()?))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        match self.tokens.peek() {
            Some(Token::Word(word)) if word == "size" => {
                self.tokens.next();
                self.require("(")?;
                let name = self.name()?;
                self.require(")")?;
                Ok(Operand::Size(name))
            }
            Some(Token::Word(word)) if word.starts_with(':') => {
                let word = word.clone();
                self.tokens.next();
                self.placeholders.value(&word).map(Operand::Value)
            }
            Some(Token::Word(_)) => self.name().map(Operand::Attribute),
            other => Err(format!("{other:?} is no operand")),
        }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.tokens.next() {
            Some(Token::Word(word)) if !word.starts_with(':') => self.placeholders.name(&word),
            other => Err(format!("{other:?} is no attribute")),
        }
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let is =
            |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted));
        self.tokens.next_if(is).is_some()
    }

    fn takes(&mut self, symbol: &str) -> bool {
        self.tokens
            .next_if(|token| matches!(token, Token::Symbol(found) if *found == symbol))
            .is_some()
    }

    fn require(&mut self, symbol: &str) -> Result<(), String> {
        match self.takes(symbol) {
            true => Ok(()),
            false => Err(format!("{symbol} is missing before {:?}", self.tokens.peek())),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        match self.tokens.next() {
            None => Ok(()),
            Some(token) => Err(format!("{token:?} is one too many")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(text: &str, item: &Value) -> Result<bool, String> {
        let request = json!({
            "ExpressionAttributeNames": {"#s": "state"},
            "ExpressionAttributeValues": {
                ":v": {"N": "10"}, ":w": {"N": "9"}, ":t": {"S": "job"}, ":p": {"S": "jo"},
            },
        });
        let mut placeholders = Placeholders::of(&request);
        let condition = Condition::parse(text, &mut placeholders)?;
        Ok(condition.holds(item.as_object().unwrap()))
    }

    #[test]
    fn conditions_evaluate_as_in_dynamodb() {
        let item = json!({"pk": {"S": "job"}, "v": {"N": "10"}, "state": {"S": "queued"}});
        for (text, expected) in [
            ("attribute_not_exists(pk)", false),
            ("attribute_exists(pk) AND v = :v", true),
            ("v = :w OR v = :v", true),
            ("NOT v = :v", false),
            ("v > :w", true),
            ("v BETWEEN :w AND :v AND pk = :t", true),
            ("begins_with(pk, :p)", true),
            ("contains(pk, :t) AND (v < :w OR v >= :v)", true),
            ("#s = :t", false),
            ("#s <> :t", true),
            ("gone < :v", false),
            ("gone <> :v", true),
            ("v = :t", false),
            ("pk IN (:p, :t)", true),
            ("size(pk) < :v", true),
        ] {
            assert_eq!(holds(text, &item), Ok(expected), "{text}");
        }
    }

    #[test]
    fn invalid_expressions_are_refused() {
        for text in
            ["", "v", "v = ", "v = :unknown", "#x = :v", "state = :t", "v ~ :v", "v = :v :v"]
        {
            assert!(holds(text, &json!({})).is_err(), "{text}");
        }
        let request = json!({"ExpressionAttributeValues": {":v": {"N": "1"}}});
        assert!(Placeholders::of(&request).all_used().is_err());
    }
}
