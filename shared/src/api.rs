//! The edge of the HTTP API: API Gateway's requests and responses, problem documents, API keys
//! and their scopes.

mod route;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use domain::credential::{KeyRecord, Scope};
use domain::provider::KeyNotForHost;
use domain::request::RequestError;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;

use crate::api_key_cache::{ApiKeyCache, KeysUnavailable};
use crate::callback_secret::CallbackSecretError;
use crate::provider_specs::ProviderSpecsError;
use crate::providers::KeyError;
use crate::queue::QueueError;
use crate::secrets::SecretError;
use crate::store::StoreError;
use crate::telemetry::chain;
use crate::tracker::TrackError;

pub use route::Route;

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

    /// A provider's API key cannot be sent: 503, with a code of its own when the operator has to
    /// store it. The cause is logged here, once.
    #[must_use]
    pub fn no_key(cause: &KeyError) -> Self {
        match cause {
            KeyError::Secret(SecretError::Missing(_) | SecretError::Malformed { .. }) => {
                error!(error = chain(cause), "provider API key missing or malformed; answered 503");
                Self::new(
                    503,
                    "provider_not_configured",
                    "Provider not configured",
                    "The API key of this provider is not stored yet, or not in the form that names \
                     its hosts; ask the operator to store it with `relay provider set-key`.",
                )
                .about("provider")
            }
            KeyError::NotForHost { provider, refusal: KeyNotForHost { host } } => {
                error!(
                    provider.name = %provider,
                    error = chain(cause),
                    "provider API key not for this host; answered 503"
                );
                Self::new(
                    503,
                    "provider_key_not_for_this_host",
                    "Provider key not for this host",
                    format!(
                        "The API key of {provider} may not be sent to {host}, where the \
                         provider's spec sends this request; nothing was sent. If that host is \
                         the provider's, an operator with AWS credentials allows it: `relay \
                         provider set-key {provider} --stack STACK --host {host}`.",
                    ),
                )
                .about("provider")
            }
            KeyError::Secret(SecretError::Unavailable { .. } | SecretError::Stale(_)) => {
                Self::unavailable(cause)
            }
        }
    }

    /// The request has no API key that is in force: 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(
            401,
            "unauthorized",
            "Unauthorized",
            "Send a valid API key as `Authorization: Bearer <key>`.",
        )
        .wants_key()
    }

    /// The API key lacks a scope: 403.
    #[must_use]
    pub fn scope_missing(scope: Scope) -> Self {
        let name = scope.name();
        Self::new(
            403,
            "scope_missing",
            "Scope missing",
            format!("This API key lacks the scope `{name}`. Use one that has it."),
        )
        .with("scope", name.into())
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

impl From<KeysUnavailable> for Problem {
    fn from(cause: KeysUnavailable) -> Self {
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

impl From<ProviderSpecsError> for Problem {
    fn from(cause: ProviderSpecsError) -> Self {
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

/// Checks that a request carries an API key with the scope of its route, and returns the key's
/// record.
///
/// # Errors
/// As [`authorize_for`].
pub async fn authorize(
    request: &ApiGatewayV2httpRequest,
    route: Route,
    keys: &ApiKeyCache,
    now: DateTime<Utc>,
) -> Result<KeyRecord, Problem> {
    authorize_for(request, route.scope(), keys, now).await
}

/// Checks that a request carries an API key with a scope, and returns the key's record.
///
/// What an admin does outlasts his key: another receiver, another spec, a secret that he was
/// shown. So what only admins may do asks the table whether the key is still in force, but only
/// for keys that the cache knows as an admin's: a flood of others costs no read.
///
/// # Errors
/// 401 without a valid key; 403 without the scope; 503 when the keys cannot be read.
pub async fn authorize_for(
    request: &ApiGatewayV2httpRequest,
    scope: Scope,
    keys: &ApiKeyCache,
    now: DateTime<Utc>,
) -> Result<KeyRecord, Problem> {
    let header = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = header.and_then(|header| {
        let (scheme, key) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let key = key.ok_or_else(Problem::unauthorized)?;
    let record = keys.record_of(key, now).await?.ok_or_else(Problem::unauthorized)?;
    require(&record, scope)?;
    match scope {
        Scope::Submit | Scope::Read | Scope::Operate => Ok(record),
        Scope::Admin => {
            let keys = keys.reread(now).await?;
            let record = keys.of(key).ok_or_else(Problem::unauthorized)?;
            require(record, Scope::Admin)?;
            Ok(record.clone())
        }
    }
}

/// Checks that a key has a scope.
///
/// # Errors
/// 403 without it.
pub fn require(record: &KeyRecord, scope: Scope) -> Result<(), Problem> {
    match record.scopes.contains(scope) {
        true => Ok(()),
        false => Err(Problem::scope_missing(scope)),
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
