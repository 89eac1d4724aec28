//! A parameter store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// The most names that GetParameters takes.
const MAX_NAMES: usize = 10;

/// Parameters by their full names, each with its version.
#[derive(Debug)]
pub(super) struct ParameterStore(Mutex<BTreeMap<String, (String, u64)>>);

impl ParameterStore {
    pub(super) fn new(parameters: BTreeMap<String, String>) -> Self {
        let parameters = parameters.into_iter().map(|(name, value)| (name, (value, 1)));
        Self(Mutex::new(parameters.collect()))
    }

    pub(super) fn all(&self) -> BTreeMap<String, String> {
        let parameters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parameters.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect()
    }

    /// Answers the version that this is.
    pub(super) fn set(&self, name: &str, value: &str) -> u64 {
        let mut parameters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = parameters.get(name).map_or(1, |(_, version)| version + 1);
        parameters.insert(name.to_owned(), (value.to_owned(), version));
        version
    }

    /// HTTP status and body, as SSM answers.
    pub(super) fn answer(&self, operation: &str, request: &Value) -> (u16, Value) {
        match operation {
            "GetParameter" => self.get(request),
            "GetParameters" => self.get_several(request),
            "PutParameter" => self.put(request),
            "DeleteParameter" => self.delete(request),
            other => {
                let problem = format!("the in-memory parameter store has no {other}");
                (400, json!({"__type": "ValidationException", "message": problem}))
            }
        }
    }

    fn get(&self, request: &Value) -> (u16, Value) {
        let name = word(request, "Name");
        let parameters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match parameters.get(name) {
            Some((value, version)) => {
                let parameter = json!({"Name": name, "Value": value, "Version": version});
                (200, json!({"Parameter": parameter}))
            }
            None => (400, json!({"__type": "ParameterNotFound"})),
        }
    }

    /// Those that there are, and the names of the others.
    fn get_several(&self, request: &Value) -> (u16, Value) {
        let names = request.get("Names").and_then(Value::as_array).into_iter().flatten();
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        let different = BTreeSet::from_iter(&names).len();
        if names.is_empty() || names.len() > MAX_NAMES || different < names.len() {
            let problem = "1 to 10 different names";
            return (400, json!({"__type": "ValidationException", "message": problem}));
        }
        let parameters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut invalid) = (Vec::new(), Vec::new());
        for name in names {
            match parameters.get(name) {
                Some((value, version)) => {
                    found.push(json!({"Name": name, "Value": value, "Version": version}));
                }
                None => invalid.push(name),
            }
        }
        (200, json!({"Parameters": found, "InvalidParameters": invalid}))
    }

    fn put(&self, request: &Value) -> (u16, Value) {
        let (name, value) = (word(request, "Name"), word(request, "Value"));
        if name.is_empty() || value.is_empty() {
            return (400, json!({"__type": "ValidationException", "message": "empty"}));
        }
        let overwrite = request.get("Overwrite").and_then(Value::as_bool).unwrap_or(false);
        if !overwrite && self.all().contains_key(name) {
            return (400, json!({"__type": "ParameterAlreadyExists"}));
        }
        let version = self.set(name, value);
        (200, json!({"Version": version, "Tier": "Standard"}))
    }

    fn delete(&self, request: &Value) -> (u16, Value) {
        let mut parameters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match parameters.remove(word(request, "Name")) {
            Some(_) => (200, json!({})),
            None => (400, json!({"__type": "ParameterNotFound"})),
        }
    }
}

fn word<'a>(request: &'a Value, name: &str) -> &'a str {
    request.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_parameters_are_read_at_once() {
        let store = ParameterStore::new([("/a".to_owned(), "1".to_owned())].into());
        let get = |names: &[&str]| store.answer("GetParameters", &json!({"Names": names}));
        let (status, answer) = get(&["/a", "/b"]);
        assert_eq!(status, 200);
        assert_eq!(answer["Parameters"], json!([{"Name": "/a", "Value": "1", "Version": 1}]));
        assert_eq!(answer["InvalidParameters"], json!(["/b"]));
        let names: Vec<String> = (0..11).map(|number| format!("/{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(get(&names[..10]).0, 200);
        assert_eq!([get(&names).0, get(&[]).0, get(&["/a", "/a"]).0], [400; 3]);
    }
}
