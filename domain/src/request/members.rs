//! The members of a JSON object in a request body, checked one by one.

use serde_json::{Map, Value};

use super::RequestError;

/// The members that are not checked yet.
pub(crate) struct Members(Map<String, Value>);

impl Members {
    /// The members of `body`, which may have `fields` and no others. `what` names the object in
    /// the error.
    pub(crate) fn parse(body: &[u8], fields: &[&str], what: &str) -> Result<Self, RequestError> {
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| RequestError::NotAnObject(error.to_string()))?;
        Self::of(document, fields, what)
    }

    /// The members of a document that is parsed already.
    pub(crate) fn of(document: Value, fields: &[&str], what: &str) -> Result<Self, RequestError> {
        let Value::Object(mut members) = document else {
            return Err(RequestError::NotAnObject("it is another JSON value".into()));
        };
        if let Some(unknown) = members.keys().find(|name| !fields.contains(&name.as_str())) {
            let field = unknown.chars().take(64).collect();
            let problem = format!("is not a member of {what}");
            return Err(RequestError::Invalid { field, problem });
        }
        // `null` is how many clients leave a member out.
        members.retain(|_, value| !value.is_null());
        Ok(Self(members))
    }

    pub(crate) fn required<T>(
        &mut self,
        field: &'static str,
        check: impl FnOnce(Value) -> Result<T, String>,
    ) -> Result<T, RequestError> {
        self.optional(field, check)?.ok_or(RequestError::Missing { field })
    }

    pub(crate) fn optional<T>(
        &mut self,
        field: &'static str,
        check: impl FnOnce(Value) -> Result<T, String>,
    ) -> Result<Option<T>, RequestError> {
        let value = self.0.remove(field).map(check).transpose();
        value.map_err(|problem| RequestError::Invalid { field: field.into(), problem })
    }
}
