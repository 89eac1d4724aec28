//! A parameter store in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

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
            "GetParametersByPath" => (200, self.below(request)),
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

    fn get_several(&self, request: &Value) -> (u16, Value) {
        let names = request.get("Names").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if names.is_empty() || names.len() > 10 {
            let problem = "one to ten names are taken";
            return (400, json!({"__type": "ValidationException", "message": problem}));
        }
        let parameters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut invalid) = (Vec::new(), Vec::new());
        for name in names.iter().filter_map(Value::as_str) {
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

    /// Two a page; the token of the next page is how many came before it.
    fn below(&self, request: &Value) -> Value {
        let path = format!("{}/", word(request, "Path"));
        let all = self.all();
        let below = all
            .iter()
            .filter(|(name, _)| name.strip_prefix(&path).is_some_and(|rest| !rest.contains('/')));
        let before: usize = word(request, "NextToken").parse().unwrap_or(0);
        let mut left =
            below.skip(before).map(|(name, value)| json!({"Name": name, "Value": value}));
        let page: Vec<Value> = left.by_ref().take(2).collect();
        match left.next() {
            Some(_) => json!({"Parameters": page, "NextToken": (before + 2).to_string()}),
            None => json!({"Parameters": page}),
        }
    }
}

fn word<'a>(request: &'a Value, name: &str) -> &'a str {
    request.get(name).and_then(Value::as_str).unwrap_or_default()
}
