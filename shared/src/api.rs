//! The edge of the HTTP API: API Gateway's requests and responses, problem documents, API keys.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::credential::ApiKeyHashes;
use domain::request::RequestError;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;

use crate::callback_secret::CallbackSecretError;
use crate::queue::QueueError;
use crate::secrets::{SecretError, SecretName, Secrets};
use crate::store::StoreError;
use crate::telemetry::chain;
use crate::tracker::TrackError;

/// A problem document of RFC 9457. `code` is stable; texts may change. It shows no internal
/// cause: causes are logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Document>);

#[derive(Clone, Debug, PartialEq)]
struct Document {
    status: u16,
    retry_after: Option<u64>,
    wants_key: bool,
    body: Map<String, Value>,
}

impl Problem {
    /// `detail` is a sentence that says what to do next.
    #[must_use]
    pub fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        let body = Map::from_iter([
            ("type".to_owned(), Value::String(format!("urn:render-relay:problem:{code}"))),
            ("title".to_owned(), title.into()),
            ("status".to_owned(), status.into()),
            ("code".to_owned(), code.into()),
            ("detail".to_owned(), Value::String(detail.into())),
        ]);
        Self(Box::new(Document { status, retry_after: None, wants_key: false, body }))
    }

    /// Names the member, parameter or header that is wrong.
    #[must_use]
    pub fn about(self, field: &str) -> Self {
        self.with("field", field.into())
    }

    /// Adds a `Retry-After` header, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Adds a `WWW-Authenticate` header.
    fn wants_key(mut self) -> Self {
        self.0.wants_key = true;
        self
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.body.insert(name.to_owned(), value);
        self
    }

    /// A passing failure of our own or of AWS: 503. The cause is logged here, once.
    #[must_use]
    pub fn unavailable(cause: &dyn std::error::Error) -> Self {
        error!(error = chain(cause), "request failed; answered 503");
        Self::new(
            503,
            "temporarily_unavailable",
            "Temporarily unavailable",
            "The service could not do this right now. Nothing is lost; try again with the same \
             Idempotency-Key.",
        )
        .retry_after(5)
    }

    /// A provider's API key cannot be read: 503, with a code of its own when the operator has to
    /// store it. The cause is logged here, once.
    #[must_use]
    pub fn no_key(cause: &SecretError) -> Self {
        match cause {
            SecretError::Missing(_) | SecretError::Malformed { .. } => {
                error!(error = chain(cause), "provider API key missing or malformed; answered 503");
                Self::new(
                    503,
                    "provider_not_configured",
                    "Provider not configured",
                    "The API key of this provider is not stored yet; ask the operator to store it.",
                )
                .about("provider")
            }
            SecretError::Unavailable { .. } | SecretError::Stale(_) => Self::unavailable(cause),
        }
    }

    /// The path names nothing that exists: 404.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", "Not found", format!("There is no {what} of this id."))
    }

    /// The response with this document.
    #[must_use]
    pub fn into_response(self) -> ApiGatewayV2httpResponse {
        let Document { status, retry_after, wants_key, body } = *self.0;
        let mut response = answer(status, "application/problem+json", &Value::Object(body));
        if let Some(seconds) = retry_after {
            response.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if wants_key {
            response.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The caller's mistake.
impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let detail = format!("{error}.");
        match error {
            RequestError::TooLarge => {
                Self::new(413, "payload_too_large", "Payload too large", detail)
            }
            RequestError::NotAnObject(_) => {
                Self::new(400, "malformed_json", "Malformed JSON", detail)
            }
            RequestError::Missing { field } => {
                Self::new(422, "missing_field", "Missing field", detail).about(field)
            }
            RequestError::Invalid { field, .. } => {
                Self::new(422, "invalid_field", "Invalid field", detail).about(&field)
            }
            RequestError::CallbackUrl(_) => {
                Self::new(422, "invalid_callback_url", "Invalid callback URL", detail)
                    .about("callbackUrl")
            }
        }
    }
}

// What fails on our side of the API. A provider's key is apart: see `Problem::no_key`.

impl From<StoreError> for Problem {
    fn from(cause: StoreError) -> Self {
        Self::unavailable(&cause)
    }
}

impl From<SecretError> for Problem {
    fn from(cause: SecretError) -> Self {
        Self::unavailable(&cause)
    }
}

impl From<CallbackSecretError> for Problem {
    fn from(cause: CallbackSecretError) -> Self {
        Self::unavailable(&cause)
    }
}

impl From<QueueError> for Problem {
    fn from(cause: QueueError) -> Self {
        Self::unavailable(&cause)
    }
}

impl From<TrackError> for Problem {
    fn from(cause: TrackError) -> Self {
        Self::unavailable(&cause)
    }
}

/// A response with a JSON body. A body that cannot be serialized becomes a 503.
#[must_use]
pub fn json(status: u16, body: &impl Serialize) -> ApiGatewayV2httpResponse {
    match serde_json::to_value(body) {
        Ok(body) => answer(status, "application/json", &body),
        Err(cause) => Problem::unavailable(&cause).into_response(),
    }
}

/// A response 202, whose `Location` is `path`.
#[must_use]
pub fn accepted(path: &str, body: &impl Serialize) -> ApiGatewayV2httpResponse {
    let mut response = json(202, body);
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers.insert(LOCATION, path);
    }
    response
}

/// The request's body as bytes. API Gateway encodes bodies that are not text in base64.
///
/// # Errors
/// When the body is larger than `limit` bytes, or is malformed base64.
pub fn body(request: &ApiGatewayV2httpRequest, limit: usize) -> Result<Vec<u8>, Problem> {
    let text = request.body.as_deref().unwrap_or_default();
    let bytes = if request.is_base64_encoded {
        STANDARD.decode(text).map_err(|_| {
            Problem::new(400, "malformed_body", "Malformed body", "The body cannot be decoded.")
        })?
    } else {
        text.as_bytes().to_vec()
    };
    if bytes.len() > limit {
        return Err(Problem::new(
            413,
            "payload_too_large",
            "Payload too large",
            format!("The body is {} bytes; at most {limit} are taken.", bytes.len()),
        ));
    }
    Ok(bytes)
}

/// A path parameter; empty when the route does not have it.
#[must_use]
pub fn path_parameter<'a>(request: &'a ApiGatewayV2httpRequest, name: &str) -> &'a str {
    request.path_parameters.get(name).map_or("", String::as_str)
}

/// Checks that a request carries a valid API key.
///
/// # Errors
/// 401 without one; 503 when the keys cannot be read.
pub async fn authorize(
    request: &ApiGatewayV2httpRequest,
    secrets: &Secrets,
) -> Result<(), Problem> {
    let header = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = header.and_then(|header| {
        let (scheme, key) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let hashes = secrets.get(&SecretName::ApiKeyHashes, ApiKeyHashes::parse).await?;
    match key {
        Some(key) if hashes.accept(key) => Ok(()),
        Some(_) | None => Err(Problem::new(
            401,
            "unauthorized",
            "Unauthorized",
            "Send a valid API key as `Authorization: Bearer <key>`.",
        )
        .wants_key()),
    }
}

fn answer(status: u16, content_type: &'static str, body: &Value) -> ApiGatewayV2httpResponse {
    let mut response = ApiGatewayV2httpResponse::default();
    response.status_code = status.into();
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.body = Some(body.to_string().into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str, is_base64_encoded: bool) -> ApiGatewayV2httpRequest {
        let mut request = ApiGatewayV2httpRequest::default();
        request.body = Some(body.to_owned());
        request.is_base64_encoded = is_base64_encoded;
        request
    }

    #[test]
    fn problem_is_a_problem_document() {
        let response = Problem::new(422, "invalid_field", "Invalid field", "`payload` is odd.")
            .about("payload")
            .retry_after(7)
            .into_response();
        assert_eq!(response.status_code, 422);
        assert_eq!(response.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers[RETRY_AFTER], "7");
        let Some(aws_lambda_events::encodings::Body::Text(body)) = response.body else {
            panic!("no text")
        };
        insta::assert_snapshot!(body, @r#"{"code":"invalid_field","detail":"`payload` is odd.","field":"payload","status":422,"title":"Invalid field","type":"urn:render-relay:problem:invalid_field"}"#);
    }

    #[test]
    fn body_is_decoded_and_limited() {
        let text = request("äb", false);
        assert_eq!(body(&text, 3).unwrap(), "äb".as_bytes());
        assert!(body(&text, 2).is_err());
        assert_eq!(body(&request("/w==", true), 10).unwrap(), [0xff]);
        assert!(body(&request("%", true), 10).is_err());
        assert_eq!(body(&ApiGatewayV2httpRequest::default(), 10).unwrap(), [0u8; 0]);
    }
}
