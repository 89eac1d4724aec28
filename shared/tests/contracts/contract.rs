//! JSON Schemas, and assertions that a value fits one.

use serde_json::{Value, json};

/// A compiled schema.
pub(crate) struct Contract(jsonschema::Validator);

impl Contract {
    pub(crate) fn new(schema: &Value) -> Self {
        Self(jsonschema::draft202012::new(schema).unwrap())
    }

    /// The schema at `pointer` of a document, without additional members. Readers have to accept
    /// members that they do not know, but we must not write any that is undocumented.
    pub(crate) fn closed_at(document: &Value, pointer: &str) -> Self {
        let mut document = document.clone();
        close(&mut document);
        document["$ref"] = json!(format!("#{pointer}"));
        Self::new(&document)
    }

    pub(crate) fn accepts(&self, value: &Value) -> bool {
        self.0.is_valid(value)
    }

    /// Fails the test with all errors of `value`.
    pub(crate) fn assert_valid(&self, what: &str, value: &Value) {
        let errors: Vec<String> = self
            .0
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{what}:\n{}\n{value:#}", errors.join("\n"));
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            let lists_members = members.get("properties").is_some_and(Value::is_object);
            if lists_members && members.get("type").is_some() {
                members.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
