//! Keys: of which attributes they are, and where an item stands by them.

use serde_json::Value;

use crate::items::{Item, Key};
use crate::number::Number;
use crate::value;

/// The key of the table.
pub(crate) const PRIMARY: [KeyAttribute; 2] = [KeyAttribute::text("pk"), KeyAttribute::text("sk")];

/// The longest hash key of the table, in bytes.
const MAX_HASH: usize = 2048;
/// The longest range key of the table, in bytes.
const MAX_RANGE: usize = 1024;

/// An attribute of a key, and of what type it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyAttribute {
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

/// Where an item stands among others: by some of its attributes, in their order.
pub(crate) type Place = Vec<Rank>;

/// A key, which is ordered among those of its type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Number(Number),
    Text(String),
}

impl KeyAttribute {
    pub(crate) const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text }
    }

    pub(crate) const fn number(name: &'static str) -> Self {
        Self { name, kind: Kind::Number }
    }

    /// Whether this may be its value.
    pub(crate) fn takes(self, value: &Value) -> bool {
        self.rank(value).is_some()
    }

    fn rank(self, value: &Value) -> Option<Rank> {
        match self.kind {
            Kind::Number => value::number(value).map(Rank::Number),
            Kind::Text => {
                let text = value::text(value).filter(|text| !text.is_empty());
                text.map(|text| Rank::Text(text.to_owned()))
            }
        }
    }
}

/// The place of an item by these attributes; none when it lacks one.
pub(crate) fn place(item: &Item, names: &[KeyAttribute]) -> Option<Place> {
    names.iter().map(|key| key.rank(item.get(key.name)?)).collect()
}

/// The key of an item.
///
/// # Errors
/// When it has none, or one that is too long.
pub(crate) fn of_item(item: &Item) -> Result<Key, String> {
    let parts = PRIMARY.map(|key| item.get(key.name).filter(|value| key.takes(value)));
    match parts.map(|value| value.and_then(value::text)) {
        [Some(pk), Some(sk)] if pk.len() <= MAX_HASH && sk.len() <= MAX_RANGE => {
            Ok([pk.into(), sk.into()])
        }
        [Some(_) | None, _] => Err("the keys pk and sk are texts of limited length".into()),
    }
}
