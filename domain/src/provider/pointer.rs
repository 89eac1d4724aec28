//! Pointers into JSON documents: RFC 6901, plus `*` for each element or member.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A JSON pointer such as `/response/id` or `/output_files/*/storage_url`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Name(String),
    Each,
}

/// Why a text is not a pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a JSON pointer: it must be empty or begin with `/`")]
pub struct PointerError(String);

impl Pointer {
    /// Reads a pointer; the empty text is the whole document.
    ///
    /// # Errors
    /// When it is neither empty nor begins with `/`.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(Self { parts: Vec::new() });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PointerError(text.to_owned()));
        };
        let parts = rest.split('/').map(|part| match part {
            "*" => Part::Each,
            name => Part::Name(name.replace("~1", "/").replace("~0", "~")),
        });
        Ok(Self { parts: parts.collect() })
    }

    /// All values that it points at, in document order.
    #[must_use]
    pub fn find<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![document];
        for part in &self.parts {
            found = found.into_iter().flat_map(|value| step(value, part)).collect();
        }
        found
    }

    /// Whether it points at exactly one member, which is not the whole document.
    #[must_use]
    pub fn is_one_member(&self) -> bool {
        !self.parts.is_empty() && !self.parts.contains(&Part::Each)
    }

    /// The member that it points at, created if absent; missing parents become objects. None when
    /// a parent is neither an object nor an existing array element, or the pointer has a `*`.
    #[must_use]
    pub fn make<'a>(&self, document: &'a mut Value) -> Option<&'a mut Value> {
        let mut place = document;
        for part in &self.parts {
            let Part::Name(name) = part else { return None };
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            place = match place {
                Value::Object(members) => members.entry(name.clone()).or_insert(Value::Null),
                Value::Array(elements) => elements.get_mut(name.parse::<usize>().ok()?)?,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            };
        }
        Some(place)
    }
}

fn step<'a>(value: &'a Value, part: &Part) -> Vec<&'a Value> {
    match (value, part) {
        (Value::Object(members), Part::Each) => members.values().collect(),
        (Value::Array(elements), Part::Each) => elements.iter().collect(),
        (Value::Object(members), Part::Name(name)) => members.get(name).into_iter().collect(),
        (Value::Array(elements), Part::Name(name)) => {
            name.parse::<usize>().ok().and_then(|index| elements.get(index)).into_iter().collect()
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => Vec::new(),
    }
}

/// The first non-empty text that any of the pointers, in order, points at. Numbers count as
/// their text.
#[must_use]
pub fn first_text(pointers: &[Pointer], document: &Value) -> Option<String> {
    let texts =
        pointers.iter().flat_map(|pointer| pointer.find(document)).map(|value| match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
        });
    texts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty())
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Each => f.write_str("/*")?,
                Part::Name(name) => {
                    write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))?;
                }
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Pointer {
    type Error = PointerError;
    fn try_from(text: String) -> Result<Self, PointerError> {
        Self::parse(&text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> String {
        pointer.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(texts: &[&str]) -> Vec<Pointer> {
        texts.iter().map(|text| Pointer::parse(text).unwrap()).collect()
    }

    #[test]
    fn pointer_first_match_wins() {
        let job = json!({"result": {"url": "https://a"}, "progress": 40});
        assert_eq!(first_text(&pointers(&["/result/url", "/result"]), &job).unwrap(), "https://a");
        let plain = json!({"result": "https://b"});
        assert_eq!(
            first_text(&pointers(&["/result/url", "/result"]), &plain).unwrap(),
            "https://b"
        );
        let empty = json!({"error": "", "message": " no "});
        assert_eq!(first_text(&pointers(&["/error", "/message"]), &empty).unwrap(), "no");
        assert_eq!(first_text(&pointers(&["/result"]), &job), None, "an object is no text");
        assert_eq!(first_text(&pointers(&["/progress"]), &job).unwrap(), "40");
    }

    #[test]
    fn pointer_star_matches_each_and_skips_null() {
        let files = json!({"files": {"a": {"url": null}, "b": {"url": "https://b"}}});
        assert_eq!(first_text(&pointers(&["/files/*/url"]), &files).unwrap(), "https://b");
        let list = json!([{"id": 7}]);
        assert_eq!(first_text(&pointers(&["/*/id"]), &list).unwrap(), "7");
        assert_eq!(first_text(&pointers(&["/0/id"]), &list).unwrap(), "7");
    }

    #[test]
    fn pointer_make_creates_parents_only() {
        let mut document = json!({"metadata": {"kept": 1}, "list": ["x"], "text": "t"});
        *Pointer::parse("/metadata/job").unwrap().make(&mut document).unwrap() = json!("j");
        *Pointer::parse("/new/deep").unwrap().make(&mut document).unwrap() = json!(true);
        assert_eq!(document["metadata"], json!({"kept": 1, "job": "j"}));
        assert_eq!(document["new"], json!({"deep": true}));
        for nowhere in ["/text/inside", "/list/9", "/list/x", "/metadata/*"] {
            assert_eq!(Pointer::parse(nowhere).unwrap().make(&mut document), None, "{nowhere}");
        }
    }

    #[test]
    fn pointer_escapes_follow_rfc_6901() {
        let document = json!({"a/b": {"m~n": 1}});
        let pointer = Pointer::parse("/a~1b/m~0n").unwrap();
        assert_eq!(pointer.find(&document), [&json!(1)]);
        assert_eq!(pointer.to_string(), "/a~1b/m~0n");
        assert!(Pointer::parse("a").is_err());
        assert_eq!(Pointer::parse("").unwrap().find(&document), [&document]);
    }
}
