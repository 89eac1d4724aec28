//! Attribute values: what DynamoDB takes, how it stores them, and how it compares them.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::items::Item;
use crate::number::Number;

/// How many lists and maps may be inside each other.
const MAX_DEPTH: usize = 31;

/// An item, or a part of one, as it is stored: every value in its one spelling.
///
/// # Errors
/// When a value is one that DynamoDB does not take.
pub(crate) fn stored_item(item: &Item) -> Result<Item, String> {
    members(item, MAX_DEPTH)
}

fn members(item: &Item, depth: usize) -> Result<Item, String> {
    let stored = item.iter().map(|(name, value)| match name.is_empty() {
        true => Err("an attribute has no name".to_owned()),
        false => Ok((name.clone(), stored(value, depth)?)),
    });
    stored.collect()
}

fn stored(value: &Value, depth: usize) -> Result<Value, String> {
    let members_of = |value: &Value| value.as_object().cloned().map(Map::into_iter);
    let kind = match members_of(value).map(|mut members| (members.next(), members.next())) {
        Some((Some(member), None)) => member,
        Some(_) | None => return Err(format!("{value} is not one value of one type")),
    };
    let deeper = || depth.checked_sub(1).ok_or("values are nested too deep");
    Ok(match (kind.0.as_str(), &kind.1) {
        ("S", Value::String(_)) | ("BOOL", Value::Bool(_)) | ("NULL", Value::Bool(true)) => {
            value.clone()
        }
        ("N", Value::String(number)) => json!({"N": Number::parse(number)?.to_string()}),
        ("B", Value::String(text)) => json!({"B": STANDARD.encode(decoded(text)?)}),
        ("L", Value::Array(list)) => {
            let depth = deeper()?;
            let list: Result<Vec<_>, _> = list.iter().map(|value| stored(value, depth)).collect();
            json!({"L": list?})
        }
        ("M", Value::Object(map)) => json!({"M": members(map, deeper()?)?}),
        _ => return Err(format!("{value} is not a value that the table in memory takes")),
    })
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|_| format!("{text} is not Base64"))
}

/// The text of a value that is one.
pub(crate) fn text(value: &Value) -> Option<&str> {
    value.get("S").and_then(Value::as_str)
}

/// The bytes of a value that is binary.
pub(crate) fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.get("B").and_then(Value::as_str).and_then(|text| decoded(text).ok())
}

/// The number that a value is.
pub(crate) fn number(value: &Value) -> Option<Number> {
    value.get("N").and_then(Value::as_str).and_then(|text| Number::parse(text).ok())
}

/// How two values of one type are ordered; values of different types are not.
pub(crate) fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    let numbers = || Some(number(one)?.cmp(&number(other)?));
    let texts = || Some(text(one)?.cmp(text(other)?));
    let binaries = || Some(bytes(one)?.cmp(&bytes(other)?));
    numbers().or_else(texts).or_else(binaries)
}

/// Whether a value begins with another.
pub(crate) fn begins_with(value: &Value, start: &Value) -> bool {
    let texts = || Some(text(value)?.starts_with(text(start)?));
    let binaries = || Some(bytes(value)?.starts_with(&bytes(start)?));
    texts().or_else(binaries).unwrap_or(false)
}

/// Whether a value has another as a part or an element.
pub(crate) fn contains(value: &Value, part: &Value) -> bool {
    let texts = || Some(text(value)?.contains(text(part)?));
    let binaries = || {
        let (value, part) = (bytes(value)?, bytes(part)?);
        Some(part.is_empty() || value.windows(part.len()).any(|window| window == part))
    };
    let elements = || Some(value.get("L")?.as_array()?.contains(part));
    texts().or_else(binaries).or_else(elements).unwrap_or(false)
}

/// What the function `size` says of a value: UTF-16 units of a text, bytes of a binary, elements
/// of a list or map. Other values have no size.
pub(crate) fn size(value: &Value) -> Option<usize> {
    let text = || Some(text(value)?.encode_utf16().count());
    let binary = || Some(bytes(value)?.len());
    let list = || Some(value.get("L")?.as_array()?.len());
    let map = || Some(value.get("M")?.as_object()?.len());
    text().or_else(binary).or_else(list).or_else(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!({"S": "leaf"}), |inner, _| json!({"L": [inner]}))
    }

    #[test]
    fn values_are_stored_in_one_spelling() {
        let item = json!({
            "n": {"N": "01.0"}, "m": {"M": {"l": {"L": [{"N": "1e2"}, {"NULL": true}]}}},
        });
        let expected = json!({
            "n": {"N": "1"}, "m": {"M": {"l": {"L": [{"N": "100"}, {"NULL": true}]}}},
        });
        assert_eq!(
            stored_item(item.as_object().unwrap()),
            Ok(expected.as_object().unwrap().clone())
        );
    }

    #[test]
    fn values_that_are_none_are_refused() {
        for value in [
            json!("a"),
            json!({}),
            json!({"S": "a", "N": "1"}),
            json!({"N": 1}),
            json!({"N": "one"}),
            json!({"B": "%"}),
            json!({"NULL": false}),
            json!({"SS": ["a"]}),
            json!({"M": {"": {"S": "a"}}}),
            nested(32),
        ] {
            let item = json!({"a": value});
            assert!(stored_item(item.as_object().unwrap()).is_err(), "{item}");
        }
        let deepest = json!({"a": nested(31)});
        assert!(stored_item(deepest.as_object().unwrap()).is_ok());
    }

    #[test]
    fn binaries_compare_by_bytes() {
        let binary = |bytes: &[u8]| json!({"B": STANDARD.encode(bytes)});
        assert_eq!(compare(&binary(&[0xff]), &binary(&[0x00])), Some(Ordering::Greater));
        assert!(begins_with(&binary(&[1, 2, 3]), &binary(&[1])));
        assert!(contains(&binary(&[1, 2, 3]), &binary(&[2, 3])));
        assert_eq!(compare(&binary(&[1]), &json!({"S": "a"})), None);
    }
}
