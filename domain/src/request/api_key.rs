//! A new API key: its name, owner and scopes.

use serde_json::Value;

use super::RequestError;
use super::members::Members;
use crate::credential::{Scope, ScopeSet};
use crate::id::{KeyName, KeyOwner, NameError};

/// A checked request for an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// What its owner calls it.
    pub name: KeyName,
    /// Who answers for what is done with it.
    pub owner: KeyOwner,
    /// What it may be used for: at least one scope.
    pub scopes: ScopeSet,
}

impl KeyRequest {
    /// Reads and checks a request body.
    ///
    /// # Errors
    /// The first problem of the body.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let mut members = Members::parse(body, &["name", "owner", "scopes"], "an API key")?;
        Ok(Self {
            name: members.required("name", |value| named(&value, KeyName::parse))?,
            owner: members.required("owner", |value| named(&value, KeyOwner::parse))?,
            scopes: members.required("scopes", |value| scopes(&value))?,
        })
    }
}

fn named<T>(value: &Value, parse: fn(&str) -> Result<T, NameError>) -> Result<T, String> {
    let text = value.as_str().ok_or_else(|| "must be a string".to_owned())?;
    parse(text).map_err(|error| error.to_string())
}

fn scopes(value: &Value) -> Result<ScopeSet, String> {
    let Value::Array(names) = value else { return Err("must be an array of scopes".into()) };
    let parsed = names.iter().map(|name| name.as_str().and_then(Scope::parse));
    let all = || Scope::ALL.map(Scope::name).join(", ");
    let scopes: ScopeSet =
        parsed.collect::<Option<_>>().ok_or_else(|| format!("may only have {}", all()))?;
    if scopes.is_empty() {
        return Err("must name at least one scope".into());
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &Value) -> Result<KeyRequest, RequestError> {
        KeyRequest::parse(body.to_string().as_bytes())
    }

    #[test]
    fn key_request_keeps_its_members() {
        let request = parse(&json!({
            "name": "shop-backend", "owner": "shop@example.com", "scopes": ["read", "submit"],
        }));
        let request = request.unwrap();
        assert_eq!(request.name.as_str(), "shop-backend");
        assert_eq!(request.owner.as_str(), "shop@example.com");
        assert_eq!(request.scopes, [Scope::Submit, Scope::Read].into_iter().collect());
    }

    #[test]
    fn key_request_names_wrong_members() {
        let good = json!({"name": "n", "owner": "o", "scopes": ["read"]});
        for (member, value, problem) in [
            ("name", json!(null), "`name` is missing"),
            ("owner", json!(null), "`owner` is missing"),
            ("scopes", json!(null), "`scopes` is missing"),
            ("name", json!(5), "`name` must be a string"),
            ("owner", json!(""), "`owner` must not be empty"),
            ("owner", json!("a\nb"), "`owner` must not contain control or invisible characters"),
            ("scopes", json!("read"), "`scopes` must be an array of scopes"),
            ("scopes", json!([]), "`scopes` must name at least one scope"),
            ("scopes", json!(["all"]), "`scopes` may only have submit, read, operate, admin"),
            ("key", json!("rr_mine"), "`key` is not a member of an API key"),
        ] {
            let mut body = good.clone();
            body[member] = value;
            assert_eq!(parse(&body).unwrap_err().to_string(), problem);
        }
        assert!(parse(&json!({"name": "key_1", "owner": "o", "scopes": ["read"]})).is_err());
    }
}
