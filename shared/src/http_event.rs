//! The HTTP requests that API Gateway hands over, read so that none of them fails an invocation.

use std::collections::BTreeMap;

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::error;

use crate::api::Problem;

/// A request as it came. One with a control character in a header is unreadable (RFC 9110 §5.5).
/// The runtime would make an error of it, and so a 500 to the caller, an alarm to the operator,
/// and a log line with the value, which may be a key.
#[derive(Debug)]
pub struct HttpEvent(Result<Box<ApiGatewayV2httpRequest>, Unreadable>);

/// Why a request is unreadable. It has no value of the request.
#[derive(Debug)]
enum Unreadable {
    /// The name of a header that HTTP does not allow.
    Header(String),
    /// The event is no request of API Gateway.
    Event(serde_json::error::Category),
}

impl HttpEvent {
    /// The request.
    ///
    /// # Errors
    /// When it is unreadable: 400.
    pub fn read(self) -> Result<ApiGatewayV2httpRequest, Problem> {
        let detail = match self.0 {
            Ok(request) => return Ok(*request),
            Err(Unreadable::Header(name)) => {
                let detail =
                    format!("The header `{name}` has a character that HTTP does not allow.");
                return Err(malformed(detail).about(&name));
            }
            Err(Unreadable::Event(category)) => {
                error!(error.category = ?category, "event is no HTTP request; answered 400");
                "The request cannot be read."
            }
        };
        Err(malformed(detail.to_owned()))
    }
}

fn malformed(detail: String) -> Problem {
    Problem::new(400, "malformed_request", "Malformed request", detail)
}

impl From<ApiGatewayV2httpRequest> for HttpEvent {
    fn from(request: ApiGatewayV2httpRequest) -> Self {
        Self(Ok(Box::new(request)))
    }
}

impl<'de> Deserialize<'de> for HttpEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = Box::<RawValue>::deserialize(deserializer)?;
        let read = serde_json::from_str(event.get());
        // The event crate takes header values of visible ASCII only.
        Ok(Self(read.or_else(|_| with_any_headers(event.get())).map(Box::new)))
    }
}

/// The request with its headers as bytes.
fn with_any_headers(event: &str) -> Result<ApiGatewayV2httpRequest, Unreadable> {
    let not_an_event = |error: serde_json::Error| Unreadable::Event(error.classify());
    let mut event: Value = serde_json::from_str(event).map_err(not_an_event)?;
    let headers = event.get_mut("headers").map(Value::take).unwrap_or_default();
    let mut request: ApiGatewayV2httpRequest =
        serde_json::from_value(event).map_err(not_an_event)?;
    let headers: BTreeMap<String, String> =
        serde_json::from_value(headers).map_err(not_an_event)?;
    for (name, text) in headers {
        let value = HeaderValue::from_bytes(text.as_bytes());
        match (HeaderName::try_from(&name), value) {
            (Ok(name), Ok(value)) => drop(request.headers.insert(name, value)),
            (Err(_), _) | (_, Err(_)) => return Err(Unreadable::Header(name)),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::encodings::Body;
    use serde_json::json;

    use super::*;

    /// The event as the runtime reads it: with the path of what it reads.
    fn event(json: &Value) -> HttpEvent {
        let text = json.to_string();
        let mut reader = serde_json::Deserializer::from_str(&text);
        serde_path_to_error::deserialize(&mut reader).unwrap()
    }

    fn with_header(name: &str, value: &str) -> Value {
        let event = include_str!("../../events/jobs-get.json");
        let mut event: Value = serde_json::from_str(event).unwrap();
        event["headers"][name] = value.into();
        event
    }

    fn problem(json: &Value) -> Value {
        let response = event(json).read().unwrap_err().into_response();
        let Some(Body::Text(body)) = response.body else { panic!("no text") };
        serde_json::from_str(&body).unwrap()
    }

    #[test]
    fn event_control_character_in_header_is_malformed() {
        for control in (0..32).chain([127]).filter(|it| *it != 9).map(char::from) {
            for name in ["authorization", "x-trace"] {
                let problem = problem(&with_header(name, &format!("Bearer rr_{control}secret")));
                assert_eq!((&problem["status"], &problem["field"]), (&400.into(), &name.into()));
                assert_eq!(problem["code"], "malformed_request");
                assert!(!problem.to_string().contains("secret"), "{problem}");
            }
        }
    }

    #[test]
    fn event_with_unusual_header_is_read() {
        for value in ["a\tb", "grüße", "日本", "", "a,b;c=\"d\""] {
            let request = event(&with_header("x-note", value)).read().unwrap();
            assert_eq!(request.headers["x-note"].as_bytes(), value.as_bytes());
            assert_eq!(request.route_key.as_deref(), Some("GET /v1/jobs/{jobId}"));
        }
    }

    #[test]
    fn event_that_is_no_request_is_malformed() {
        for event in [
            json!([]),
            json!("x"),
            json!(null),
            json!({"headers": 7}),
            json!({"headers": {"a": 7}}),
        ] {
            assert_eq!(problem(&event)["code"], "malformed_request", "{event}");
        }
    }

    #[test]
    fn event_unreadable_shows_no_value_in_debug() {
        let shown = format!("{:?}", event(&with_header("authorization", "Bearer rr_\u{1}secret")));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
