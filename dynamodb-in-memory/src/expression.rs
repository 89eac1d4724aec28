//! DynamoDB's expression language, parsed and evaluated, so that a test rests on what a
//! condition means and not on how it is spelled. What cannot be parsed is refused.

mod token;
mod update;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use self::token::{Token, tokens};
use super::items::Item;
use super::key::KeyAttribute;
use super::value;

pub(super) use update::Update;

/// The longest expression, in bytes.
const MAX_EXPRESSION: usize = 4096;

/// What stands between the names and values of a request and its expressions.
pub(super) struct Placeholders<'a> {
    names: Option<&'a Item>,
    /// As they are stored.
    values: Option<Item>,
    used: BTreeSet<String>,
}

impl<'a> Placeholders<'a> {
    /// Those of a request.
    ///
    /// # Errors
    /// When there is a list of none, or one that does not begin as placeholders do.
    pub(super) fn of(request: &'a Value) -> Result<Self, String> {
        let members = |list: &str, start: char| match request.get(list).and_then(Value::as_object) {
            Some(members) if members.is_empty() => Err(format!("{list} is empty")),
            Some(members) if !members.keys().all(|name| name.starts_with(start)) => {
                Err(format!("{list} has a name that does not begin with {start}"))
            }
            members => Ok(members),
        };
        let names = members("ExpressionAttributeNames", '#')?;
        let values = members("ExpressionAttributeValues", ':')?;
        let values = values.map(value::stored_item).transpose()?;
        Ok(Self { names, values, used: BTreeSet::new() })
    }

    /// Refuses placeholders that no expression names, as DynamoDB does.
    pub(super) fn all_used(&self) -> Result<(), String> {
        let all = self.names.into_iter().chain(&self.values).flat_map(Map::keys);
        match all.into_iter().find(|name| !self.used.contains(*name)) {
            Some(unused) => Err(format!("{unused} is unused in expressions")),
            None => Ok(()),
        }
    }

    fn name(&mut self, text: &str) -> Result<String, String> {
        if !text.starts_with('#') {
            return match RESERVED.contains(text.to_ascii_uppercase().as_str()) {
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
        let value = self.values.as_ref().and_then(|values| values.get(text));
        value.cloned().ok_or_else(|| format!("{text} is not defined"))
    }
}

/// "Reserved words in DynamoDB" of the developer guide.
static RESERVED: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    include_str!("expression/reserved_words.txt").split_ascii_whitespace().collect()
});

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
        condition.check()?;
        Ok(condition)
    }

    /// Refuses what DynamoDB refuses before it looks at an item.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::And(one, other) | Self::Or(one, other) => {
                one.check().and_then(|()| other.check())
            }
            Self::Not(inner) => inner.check(),
            Self::Between(_, Operand::Value(low), Operand::Value(high)) => {
                match value::compare(low, high) {
                    Some(Ordering::Less | Ordering::Equal) => Ok(()),
                    Some(Ordering::Greater) | None => {
                        Err(format!("{low} and {high} are no bounds of BETWEEN"))
                    }
                }
            }
            Self::BeginsWith(_, Operand::Value(start))
                if value::text(start).is_none() && value::bytes(start).is_none() =>
            {
                Err(format!("begins_with takes a text or a binary, not {start}"))
            }
            Self::Contains(value, part) if value == part => {
                Err("contains takes two different operands".into())
            }
            Self::Compare(..)
            | Self::Between(..)
            | Self::In(..)
            | Self::Exists(_)
            | Self::BeginsWith(..)
            | Self::Contains(..) => Ok(()),
        }
    }

    /// Whether `item` fulfils it; an item that is not there has no attributes.
    pub(super) fn holds(&self, item: &Item) -> bool {
        match self {
            Self::And(one, other) => one.holds(item) && other.holds(item),
            Self::Or(one, other) => one.holds(item) || other.holds(item),
            Self::Not(inner) => !inner.holds(item),
            Self::Compare(left, how, right) => {
                let both = left.of(item).zip(right.of(item));
                let are_equal = both.as_ref().map(|(left, right)| left == right);
                let is = |wanted: &[Ordering]| {
                    let order = both.as_ref().and_then(|(left, right)| value::compare(left, right));
                    order.is_some_and(|order| wanted.contains(&order))
                };
                match how {
                    Comparison::Equal => are_equal.unwrap_or(false),
                    Comparison::Unequal => !are_equal.unwrap_or(false),
                    Comparison::Less => is(&[Ordering::Less]),
                    Comparison::LessOrEqual => is(&[Ordering::Less, Ordering::Equal]),
                    Comparison::Greater => is(&[Ordering::Greater]),
                    Comparison::GreaterOrEqual => is(&[Ordering::Greater, Ordering::Equal]),
                }
            }
            Self::Between(value, low, high) => {
                let within = |bound: &Operand, wanted: Ordering| {
                    let order = value.of(item).zip(bound.of(item));
                    let order = order.and_then(|(value, bound)| value::compare(&value, &bound));
                    order.is_some_and(|order| order == wanted || order == Ordering::Equal)
                };
                within(low, Ordering::Greater) && within(high, Ordering::Less)
            }
            Self::In(value, list) => {
                let value = value.of(item);
                value.is_some() && list.iter().any(|one| one.of(item) == value)
            }
            Self::Exists(name) => item.contains_key(name),
            Self::BeginsWith(value, start) => {
                let both = value.of(item).zip(start.of(item));
                both.is_some_and(|(value, start)| value::begins_with(&value, &start))
            }
            Self::Contains(value, part) => {
                let both = value.of(item).zip(part.of(item));
                both.is_some_and(|(value, part)| value::contains(&value, &part))
            }
        }
    }

    /// The value that the hash key must equal, of a condition that is one on a hash and a range
    /// key of these types.
    ///
    /// # Errors
    /// When it is no key condition. "Key condition expressions for the Query operation" of the
    /// developer guide.
    pub(super) fn of_key(&self, [hash, range]: [KeyAttribute; 2]) -> Result<&Value, String> {
        let clauses = self.clauses();
        let mut demanded = None;
        let mut named = BTreeSet::new();
        for clause in clauses {
            let (name, values) = clause.clause_of_key().ok_or("a key condition is too complex")?;
            let key = [hash, range].into_iter().find(|key| key.name == name);
            let key = key.ok_or_else(|| format!("{name} is not in the key"))?;
            if let Some(other) = values.iter().find(|value| !key.takes(value)) {
                return Err(format!("{name} is no {other}"));
            }
            if !named.insert(name) {
                return Err(format!("there are two conditions on {name}"));
            }
            if let (Self::Compare(_, Comparison::Equal, _), [value]) = (clause, values.as_slice())
                && name == hash.name
            {
                demanded = Some(*value);
            }
        }
        demanded.ok_or_else(|| format!("{} must equal something", hash.name))
    }

    fn clauses(&self) -> Vec<&Self> {
        match self {
            Self::And(one, other) => [one.clauses(), other.clauses()].concat(),
            Self::Compare(..)
            | Self::Or(..)
            | Self::Not(_)
            | Self::Between(..)
            | Self::In(..)
            | Self::Exists(_)
            | Self::BeginsWith(..)
            | Self::Contains(..) => vec![self],
        }
    }

    /// The attribute of a clause of a key condition, and the values that it is compared with.
    fn clause_of_key(&self) -> Option<(&str, Vec<&Value>)> {
        match self {
            Self::Compare(_, Comparison::Unequal, _) => None,
            Self::Compare(Operand::Attribute(name), _, Operand::Value(value))
            | Self::Compare(Operand::Value(value), _, Operand::Attribute(name))
            | Self::BeginsWith(Operand::Attribute(name), Operand::Value(value)) => {
                Some((name, vec![value]))
            }
            Self::Between(Operand::Attribute(name), Operand::Value(low), Operand::Value(high)) => {
                Some((name, vec![low, high]))
            }
            Self::And(..)
            | Self::Compare(..)
            | Self::Or(..)
            | Self::Not(_)
            | Self::Between(..)
            | Self::In(..)
            | Self::Exists(_)
            | Self::BeginsWith(..)
            | Self::Contains(..) => None,
        }
    }

    /// The attributes that it names.
    pub(super) fn attributes(&self) -> Vec<&str> {
        match self {
            Self::And(one, other) | Self::Or(one, other) => {
                [one.attributes(), other.attributes()].concat()
            }
            Self::Not(inner) => inner.attributes(),
            Self::Compare(one, _, other)
            | Self::BeginsWith(one, other)
            | Self::Contains(one, other) => {
                [one, other].into_iter().filter_map(Operand::attribute).collect()
            }
            Self::Between(value, low, high) => {
                [value, low, high].into_iter().filter_map(Operand::attribute).collect()
            }
            Self::In(value, list) => {
                std::iter::once(value).chain(list).filter_map(Operand::attribute).collect()
            }
            Self::Exists(name) => vec![name],
        }
    }
}

impl Operand {
    fn of(&self, item: &Item) -> Option<Value> {
        match self {
            Self::Attribute(name) => item.get(name).cloned(),
            Self::Value(value) => Some(value.clone()),
            Self::Size(name) => {
                let size = item.get(name).and_then(value::size)?;
                Some(serde_json::json!({"N": size.to_string()}))
            }
        }
    }

    fn attribute(&self) -> Option<&str> {
        match self {
            Self::Attribute(name) | Self::Size(name) => Some(name),
            Self::Value(_) => None,
        }
    }
}

/// Whether a pair of parentheses has nothing in it but another pair.
fn has_redundant_parentheses(tokens: &[Token]) -> bool {
    let mut open = Vec::new();
    let mut pairs = BTreeSet::new();
    for (place, token) in tokens.iter().enumerate() {
        match token {
            Token::Symbol("(") => open.push(place),
            Token::Symbol(")") => {
                if let Some(opened) = open.pop() {
                    pairs.insert((opened, place));
                }
            }
            Token::Symbol(_) | Token::Word(_) => {}
        }
    }
    pairs.iter().any(|(opened, closed)| pairs.contains(&(opened + 1, closed.saturating_sub(1))))
}

/// A recursive-descent parser; `OR` binds least.
struct Parser<'a, 'b> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    placeholders: &'a mut Placeholders<'b>,
}

impl<'a, 'b> Parser<'a, 'b> {
    fn new(text: &str, placeholders: &'a mut Placeholders<'b>) -> Result<Self, String> {
        if text.len() > MAX_EXPRESSION {
            return Err(format!("an expression has at most {MAX_EXPRESSION} bytes"));
        }
        let tokens = tokens(text)?;
        match has_redundant_parentheses(&tokens) {
            true => Err("there are redundant parentheses".into()),
            false => Ok(Self { tokens: tokens.into_iter().peekable(), placeholders }),
        }
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
        let mut placeholders = Placeholders::of(&request)?;
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
        assert!(Placeholders::of(&request).unwrap().all_used().is_err());
    }
}
