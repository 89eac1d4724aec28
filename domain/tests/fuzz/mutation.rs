//! Bytes and JSON, changed a little.

use serde_json::{Map, Value, json};

use super::random::Random;

/// Texts that parsers stumble over.
const STRANGE: [&str; 16] = [
    "",
    " ",
    ",",
    "=",
    "&",
    "%",
    "%00",
    "\"",
    "\\u0000",
    "-1",
    "18446744073709551616",
    "1e309",
    "null",
    "\u{feff}",
    "é\u{202e}",
    "NO_SECRET_PROVIDED",
];

/// Changes `bytes` in one to four places; `others` is what pieces are borrowed from.
pub(crate) fn bytes(random: &mut Random, bytes: &mut Vec<u8>, others: &[&[u8]]) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(16).min(bytes.len() - at);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.byte(),
            2 => bytes.insert(at, random.byte()),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let piece = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            5 => bytes.truncate(at),
            6 => drop(bytes.splice(at..at + length, random.of(&STRANGE).bytes())),
            _ if others.is_empty() => bytes.push(random.byte()),
            _ => {
                let other = *random.of(others);
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                bytes.splice(at..at + length, other[from..to].iter().copied());
            }
        }
    }
}

/// Changes `value` in up to three places; `others` are values to put there.
pub(crate) fn json(random: &mut Random, value: &mut Value, others: &[Value]) {
    for _ in 0..random.below(4) {
        // The document as a whole is rarely what is wrong.
        let steps = 1 + random.below(5);
        let place = descend(random, value, steps);
        match random.below(8) {
            0 => *place = Value::Null,
            1 | 2 if !others.is_empty() => *place = random.of(others).clone(),
            3 => *place = Value::Array(vec![place.take()]),
            4 => *place = Value::Object(Map::from_iter([("x".into(), place.take())])),
            5 if random.once_in(2) => forget(random, place),
            5 => rename(random, place),
            6 => *place = text_of(place).into(),
            _ => *place = scalar(random),
        }
    }
}

/// The text of a JSON document, broken once in a while.
pub(crate) fn text(random: &mut Random, value: &Value) -> Vec<u8> {
    let mut text = value.to_string().into_bytes();
    if random.once_in(4) {
        bytes(random, &mut text, &[]);
    }
    text
}

/// A value without members.
pub(crate) fn scalar(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => json!(random.once_in(2)),
        2 => json!(random.next()),
        3 => json!(f64::from(i8::from_le_bytes([random.byte()])) / 50.0),
        4 => json!(-1e300),
        5 => json!("x".repeat(random.below(400))),
        6 => json!("https://cdn.example/video.mp4"),
        _ => json!(*random.of(&STRANGE)),
    }
}

fn descend<'a>(random: &mut Random, value: &'a mut Value, steps: usize) -> &'a mut Value {
    let mut place = value;
    for _ in 0..steps {
        let inside = match place {
            Value::Object(members) => members.len(),
            Value::Array(elements) => elements.len(),
            _ => 0,
        };
        if inside == 0 {
            break;
        }
        let at = random.below(inside);
        place = match place {
            Value::Object(members) => members.values_mut().nth(at).unwrap(),
            Value::Array(elements) => &mut elements[at],
            other => other,
        };
    }
    place
}

fn forget(random: &mut Random, value: &mut Value) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            let at = random.below(members.len());
            let name = members.keys().nth(at).unwrap().clone();
            members.remove(&name);
        }
        Value::Array(elements) if !elements.is_empty() => {
            elements.remove(random.below(elements.len()));
        }
        other => *other = Value::Null,
    }
}

/// Puts a member under a strange name.
fn rename(random: &mut Random, value: &mut Value) {
    if let Value::Object(members) = value
        && !members.is_empty()
    {
        let name = members.keys().nth(random.below(members.len())).unwrap().clone();
        let member = members.remove(&name).unwrap_or_default();
        members.insert((*random.of(&STRANGE)).to_owned(), member);
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_uppercase(),
        other => other.to_string(),
    }
}
