//! Specs with one thing changed.

use domain::provider::ProviderSpec;
use serde_json::{Value, json};

use crate::tested_provider::TestedProvider;

/// What no fact can be about: names for people, and our own numbers.
const OURS: [&str; 6] = ["/$schema", "/name", "/title", "/docs", "/verifiedLive", "/limits"];

/// A spec with one thing changed that is still a spec.
pub(crate) struct Mutant {
    /// Where, and what was done there.
    pub(crate) change: String,
    pub(crate) spec: ProviderSpec,
}

/// Every spec that differs from the subject's in one member: left out, or another value.
/// What a spec says of words for "processing" is left alone: it says so of all other words.
pub(crate) fn of(subject: &TestedProvider, document: &Value) -> Vec<Mutant> {
    let mut places = Vec::new();
    find(document, "", &mut places);
    places.retain(|place| {
        !OURS.iter().any(|ours| place.starts_with(ours)) && !place.contains("/words/processing")
    });
    let changes = places.iter().flat_map(|place| {
        let left_out = (format!("{place} left out"), without(document, place));
        let other = other(document, place).map(|other| (format!("{place} changed"), other));
        [Some(left_out), other].into_iter().flatten()
    });
    let name = subject.name();
    changes
        .filter_map(|(change, document)| {
            let spec = ProviderSpec::parse(name, &document.to_string()).ok()?;
            Some(Mutant { change, spec })
        })
        .collect()
}

fn find(value: &Value, at: &str, places: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value))
            .collect(),
        Value::Array(elements) => {
            elements.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (name, value) in children {
        let place = format!("{at}/{name}");
        find(value, &place, places);
        places.push(place);
    }
}

fn without(document: &Value, place: &str) -> Value {
    let mut document = document.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(members) => {
            members.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
        Value::Array(elements) => {
            elements.remove(name.parse().unwrap());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    document
}

fn other(document: &Value, place: &str) -> Option<Value> {
    let mut document = document.clone();
    let value = document.pointer_mut(place).unwrap();
    *value = match &*value {
        Value::String(text) => json!(format!("{text}x")),
        Value::Bool(is) => json!(!is),
        Value::Number(number) => match number.as_u64() {
            Some(number) => json!(number + 1),
            None => json!(number.as_f64().unwrap() + 1.0),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(document)
}
