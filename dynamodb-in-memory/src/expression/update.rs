//! Update expressions: `SET`, `REMOVE` and `ADD` of whole attributes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::items::Item;
use super::super::number::Number;
use super::super::{key, value};
use super::token::Token;
use super::{Operand, Parser, Placeholders};

/// What an update does to an item.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Update(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Set(String, Term),
    Remove(String),
    Add(String, Value),
}

/// What an attribute is set to.
#[derive(Clone, Debug, PartialEq)]
enum Term {
    Plain(Operand),
    IfNotExists(String, Box<Self>),
    Plus(Box<Self>, Box<Self>),
    Minus(Box<Self>, Box<Self>),
}

impl Update {
    /// Reads `text`.
    ///
    /// # Errors
    /// A sentence about what is not understood.
    pub(in super::super) fn parse(
        text: &str,
        placeholders: &mut Placeholders<'_>,
    ) -> Result<Self, String> {
        let mut parser = Parser::new(text, placeholders)?;
        let mut steps = Vec::new();
        let mut clauses = BTreeSet::new();
        while parser.tokens.peek().is_some() {
            let clause = match parser.tokens.next() {
                Some(Token::Word(word)) => word.to_ascii_uppercase(),
                other => return Err(format!("{other:?} begins no clause")),
            };
            if !clauses.insert(clause.clone()) {
                return Err(format!("{clause} is there twice"));
            }
            loop {
                steps.push(match clause.as_str() {
                    "SET" => {
                        let name = parser.name()?;
                        parser.require("=")?;
                        Step::Set(name, parser.term()?)
                    }
                    "REMOVE" => Step::Remove(parser.name()?),
                    "ADD" => match (parser.name()?, parser.operand()?) {
                        (name, Operand::Value(value)) => Step::Add(name, value),
                        (_, other) => return Err(format!("{other:?} cannot be added")),
                    },
                    other => return Err(format!("{other} is no clause")),
                });
                if !parser.takes(",") {
                    break;
                }
            }
        }
        let mut changed = BTreeSet::new();
        for name in steps.iter().map(Step::name) {
            if !changed.insert(name) {
                return Err(format!("{name} is changed twice"));
            }
        }
        match steps.is_empty() {
            true => Err("an update expression is empty".into()),
            false => Ok(Self(steps)),
        }
    }

    /// The item after the update; every term is of the item before it.
    ///
    /// # Errors
    /// When an attribute is missing, is part of the key, or is no number where one is needed.
    pub(in super::super) fn apply(&self, before: &Item) -> Result<Item, String> {
        let mut after = before.clone();
        for step in &self.0 {
            if key::PRIMARY.iter().any(|key| key.name == step.name()) {
                return Err(format!("{} is part of the key", step.name()));
            }
            match step {
                Step::Set(name, term) => {
                    after.insert(name.clone(), term.of(before)?);
                }
                Step::Remove(name) => {
                    after.remove(name);
                }
                Step::Add(name, value) => {
                    let zero = json!({"N": "0"});
                    let sum = sum(before.get(name).unwrap_or(&zero), value, i128::checked_add)?;
                    after.insert(name.clone(), sum);
                }
            }
        }
        Ok(after)
    }
}

impl Step {
    fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Remove(name) | Self::Add(name, _) => name,
        }
    }
}

impl Term {
    fn of(&self, item: &Item) -> Result<Value, String> {
        match self {
            Self::Plain(operand) => {
                operand.of(item).ok_or_else(|| format!("{operand:?} is not in the item"))
            }
            Self::IfNotExists(name, fallback) => match item.get(name) {
                Some(value) => Ok(value.clone()),
                None => fallback.of(item),
            },
            Self::Plus(one, other) => sum(&one.of(item)?, &other.of(item)?, i128::checked_add),
            Self::Minus(one, other) => sum(&one.of(item)?, &other.of(item)?, i128::checked_sub),
        }
    }
}

/// The sum or difference of two integers; the table in memory calculates with no others.
fn sum(
    one: &Value,
    other: &Value,
    calculate: impl Fn(i128, i128) -> Option<i128>,
) -> Result<Value, String> {
    let integer = |value: &Value| {
        let number = value::number(value).and_then(|number| number.to_string().parse().ok());
        number.ok_or_else(|| format!("{value} is no integer"))
    };
    let sum = calculate(integer(one)?, integer(other)?).ok_or("the sum is out of range")?;
    Ok(json!({"N": Number::parse(&sum.to_string())?.to_string()}))
}

impl Parser<'_, '_> {
    fn term(&mut self) -> Result<Term, String> {
        let left = self.simple_term()?;
        if self.takes("+") {
            return Ok(Term::Plus(Box::new(left), Box::new(self.simple_term()?)));
        }
        if self.takes("-") {
            return Ok(Term::Minus(Box::new(left), Box::new(self.simple_term()?)));
        }
        Ok(left)
    }

    fn simple_term(&mut self) -> Result<Term, String> {
        if !self.takes_word("if_not_exists") {
            return self.operand().map(Term::Plain);
        }
        self.require("(")?;
        let name = self.name()?;
        self.require(",")?;
        let fallback = self.term()?;
        self.require(")")?;
        Ok(Term::IfNotExists(name, Box::new(fallback)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updated(text: &str) -> Result<Value, String> {
        let request = json!({"ExpressionAttributeValues": {":one": {"N": "1"}, ":x": {"S": "x"}}});
        let update = Update::parse(text, &mut Placeholders::of(&request)?)?;
        let before = json!({"epoch": {"N": "4"}, "former": {"S": "o"}});
        update.apply(before.as_object().unwrap()).map(Value::Object)
    }

    #[test]
    fn attributes_are_set_counted_and_removed() {
        assert_eq!(
            updated("SET epoch = epoch + :one, holder = :x REMOVE former"),
            Ok(json!({"epoch": {"N": "5"}, "holder": {"S": "x"}}))
        );
        assert_eq!(
            updated("ADD epoch :one SET n = if_not_exists(n, :one) + :one"),
            Ok(json!({"epoch": {"N": "5"}, "n": {"N": "2"}, "former": {"S": "o"}}))
        );
    }

    #[test]
    fn invalid_updates_are_refused() {
        for text in
            ["", "SET", "SET a", "SET a = gone", "DELETE a :x", "ADD former :one", "SET a = :y"]
        {
            assert!(updated(text).is_err(), "{text}");
        }
    }
}
