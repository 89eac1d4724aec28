//! The request for a new job, checked member by member.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::RequestError;
use super::members::Members;
use crate::address::{ReceiverUrl, TargetPolicy};
use crate::event::{EventName, EventSet};
use crate::id::{PayloadVersion, ProviderName, SourceRecordId};
use crate::job::MAX_METADATA_BYTES;

/// The largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A checked request.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRequest {
    /// The provider to render with. Whether it exists is not checked here.
    pub provider: ProviderName,
    /// The render, in the provider's own vocabulary.
    pub payload: Map<String, Value>,
    /// The customer's id of what is rendered.
    pub source_record_id: SourceRecordId,
    /// The customer's name for the payload's shape.
    pub payload_version: Option<PayloadVersion>,
    /// Where this job's webhooks go instead of the default receiver.
    pub callback_url: Option<ReceiverUrl>,
    /// The events that the client subscribes to.
    pub subscribed_events: EventSet,
    /// The customer's own data.
    pub metadata: Map<String, Value>,
    /// Whether the provider shall call back; none means the default of the provider's spec.
    pub provider_webhook: Option<bool>,
    /// SHA-256 of the request as canonical JSON: the same for a repeat with other spaces or
    /// another order of members.
    pub fingerprint: [u8; 32],
}

const FIELDS: [&str; 8] = [
    "provider",
    "payload",
    "sourceRecordId",
    "payloadVersion",
    "callbackUrl",
    "events",
    "metadata",
    "providerWebhook",
];

impl JobRequest {
    /// Reads and checks a request body.
    ///
    /// # Errors
    /// The first problem of the body.
    pub fn parse(body: &[u8], policy: &TargetPolicy) -> Result<Self, RequestError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(RequestError::TooLarge);
        }
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| RequestError::NotAnObject(error.to_string()))?;
        // Members are sorted, so equal documents have equal texts.
        let fingerprint = Sha256::digest(document.to_string()).into();
        let mut members = Members::of(document, &FIELDS, "a job request")?;

        let provider = members.required("provider", |value| text(value, ProviderName::parse))?;
        let payload = members.required("payload", object)?;
        let source_record_id =
            members.required("sourceRecordId", |value| text(value, SourceRecordId::parse))?;
        let payload_version =
            members.optional("payloadVersion", |value| text(value, PayloadVersion::parse))?;
        let callback_url = members.optional("callbackUrl", |value| match value {
            Value::String(url) => Ok(url),
            _ => Err("must be a string".into()),
        })?;
        let callback_url = callback_url
            .map(|url| ReceiverUrl::parse(&url, policy))
            .transpose()
            .map_err(|error| RequestError::CallbackUrl(error.to_string()))?;
        let subscribed_events =
            members.optional("events", events)?.unwrap_or_else(EventSet::terminal);
        let metadata = members.optional("metadata", metadata)?.unwrap_or_default();
        let provider_webhook = members.optional("providerWebhook", |value| {
            value.as_bool().ok_or_else(|| "must be true or false".into())
        })?;
        Ok(Self {
            provider,
            payload,
            source_record_id,
            payload_version,
            callback_url,
            subscribed_events,
            metadata,
            provider_webhook,
            fingerprint,
        })
    }
}

fn text<T, E: ToString>(value: Value, parse: fn(&str) -> Result<T, E>) -> Result<T, String> {
    match value {
        Value::String(text) => parse(&text).map_err(|error| error.to_string()),
        _ => Err("must be a string".into()),
    }
}

fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err("must be an object".into()),
    }
}

pub(super) fn events(value: Value) -> Result<EventSet, String> {
    let all = EventName::ALL.map(EventName::as_str).join(", ");
    let Value::Array(names) = value else { return Err("must be an array of event names".into()) };
    let parsed = names.iter().map(|name| name.as_str().and_then(EventName::parse));
    let subscribed_events: EventSet =
        parsed.collect::<Option<_>>().ok_or_else(|| format!("may only have {all}"))?;
    if subscribed_events.is_empty() {
        return Err("must name at least one event".into());
    }
    Ok(subscribed_events)
}

fn metadata(value: Value) -> Result<Map<String, Value>, String> {
    let size = value.to_string().len();
    if size > MAX_METADATA_BYTES {
        return Err(format!("is {size} bytes of JSON; at most {MAX_METADATA_BYTES} are kept"));
    }
    object(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &Value) -> Result<JobRequest, RequestError> {
        JobRequest::parse(body.to_string().as_bytes(), &TargetPolicy::public())
    }

    fn whole() -> Value {
        json!({"provider": "zvid", "payload": {"name": "x"}, "sourceRecordId": "product-123"})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut body = whole();
        body[field] = value;
        body
    }

    #[test]
    fn job_request_has_defaults() {
        let request = parse(&whole()).unwrap();
        assert_eq!(request.subscribed_events, EventSet::terminal());
        assert_eq!((request.provider_webhook, request.callback_url), (None, None));
        assert_eq!(parse(&with("metadata", Value::Null)).unwrap().metadata, Map::new());
    }

    #[test]
    fn job_request_names_wrong_members() {
        for (field, value, problem) in [
            ("provider", json!(5), "`provider` must be a string"),
            (
                "provider",
                json!("No Such"),
                "`provider` must be lower-case letters, digits and hyphens",
            ),
            ("payload", json!([1]), "`payload` must be an object"),
            ("payload", json!("{}"), "`payload` must be an object"),
            ("sourceRecordId", json!(""), "`sourceRecordId` must not be empty"),
            ("payloadVersion", json!(4), "`payloadVersion` must be a string"),
            ("events", json!("all"), "`events` must be an array of event names"),
            ("events", json!([]), "`events` must name at least one event"),
            ("metadata", json!([]), "`metadata` must be an object"),
            ("providerWebhook", json!("yes"), "`providerWebhook` must be true or false"),
            ("callbackURL", json!("https://x"), "`callbackURL` is not a member of a job request"),
        ] {
            assert_eq!(parse(&with(field, value)).unwrap_err().to_string(), problem);
        }
        let many = with("metadata", json!({"k": "x".repeat(2048)}));
        assert!(parse(&many).unwrap_err().to_string().starts_with("`metadata` is 2056 bytes"));
        let unknown = parse(&with("events", json!(["video.render.done"]))).unwrap_err().to_string();
        assert!(unknown.contains("video.render.completed"), "{unknown}");
    }

    #[test]
    fn job_request_names_missing_members() {
        for field in ["provider", "payload", "sourceRecordId"] {
            assert_eq!(parse(&with(field, Value::Null)), Err(RequestError::Missing { field }));
        }
    }

    #[test]
    fn job_request_checks_callback_url() {
        for url in ["http://shop.example/hooks", "https://10.0.0.1/", "https://localhost/", "x"] {
            let error = parse(&with("callbackUrl", json!(url))).unwrap_err();
            assert!(matches!(error, RequestError::CallbackUrl(_)), "{url}: {error:?}");
        }
        assert!(parse(&with("callbackUrl", json!("https://shop.example/hooks"))).is_ok());
    }

    #[test]
    fn job_request_keeps_numbers_exact() {
        let sent = r#"{"provider":"zvid","sourceRecordId":"p","payload":{"x":0.10000000000000000555,"y":179.76931348623157}}"#;
        let request = JobRequest::parse(sent.as_bytes(), &TargetPolicy::public()).unwrap();
        let again = serde_json::to_string(&request.payload).unwrap();
        assert_eq!(again, r#"{"x":0.1,"y":179.76931348623157}"#);
        // The decimals that a quick parser gets wrong in the last digit.
        for text in ["8.41e21", "9.5e-7", "2.2250738585072011e-308", "67.72363712012786"] {
            let parsed: f64 = serde_json::from_str(text).unwrap();
            assert_eq!(Ok(parsed), text.parse(), "{text}");
        }
    }

    #[test]
    fn job_request_must_be_an_object() {
        for body in ["", "{", "[]", "null", "\"x\"", "{\"a\":1}}"] {
            let error = JobRequest::parse(body.as_bytes(), &TargetPolicy::public()).unwrap_err();
            assert!(matches!(error, RequestError::NotAnObject(_)), "{body}: {error:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(JobRequest::parse(deep.as_bytes(), &TargetPolicy::public()).is_err());
        let large = vec![b' '; MAX_BODY_BYTES + 1];
        let error = JobRequest::parse(&large, &TargetPolicy::public()).unwrap_err();
        assert_eq!(error, RequestError::TooLarge);
    }

    #[test]
    fn job_request_fingerprint_ignores_formatting() {
        let one = br#"{"provider":"zvid","payload":{"a":1,"b":2},"sourceRecordId":"p"}"#;
        let same = br#"{ "sourceRecordId": "p", "payload": {"b":2, "a":1}, "provider":"zvid" }"#;
        let other = br#"{"provider":"zvid","payload":{"a":1,"b":3},"sourceRecordId":"p"}"#;
        let print =
            |body: &[u8]| JobRequest::parse(body, &TargetPolicy::public()).unwrap().fingerprint;
        assert_eq!(print(one), print(same));
        assert_ne!(print(one), print(other));
    }
}
