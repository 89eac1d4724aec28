//! Spec and job in, HTTP request out.
//!
//! A provider's API key goes into a header of its spec, as `{apiKey}` or `{apiKeyBase64}`. To add
//! a way to authenticate that these do not express, add a placeholder to `HttpRequest::with_key`, to
//! the ones that `spec/contradictions.rs` knows, and to the text of `headers` in
//! `providers/schema.json`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use url::Url;

use super::catalogue::Provider;
use super::echo::EchoMask;
use super::key::{KeyNotForHost, ProviderKey};
use super::spec::{CancelMethod, CancelSpec, Injection, ListSpec, NextPage, ProviderSpec};
use crate::id::{JobId, RenderJobId};
use crate::time;

/// The method of a request to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// Status calls and lists.
    Get,
    /// Submits, and cancel calls of some providers.
    Post,
    /// Cancel calls of other providers.
    Delete,
}

/// A request to a provider, ready to send. It carries the provider's key, which is for the host
/// of its URL; so neither can be changed. `Debug` hides the headers.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    method: HttpMethod,
    url: Url,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    echo_mask: EchoMask,
}

impl HttpRequest {
    /// The only way to make one: `spec_headers` are filled with the key if it is for the host.
    fn with_key(
        method: HttpMethod,
        url: Url,
        spec_headers: &BTreeMap<String, String>,
        key: &ProviderKey,
    ) -> Result<Self, KeyNotForHost> {
        let key = key.for_url(&url)?;
        let base64 = STANDARD.encode(key.reveal());
        let known = [("{apiKeyBase64}", base64.as_str()), ("{apiKey}", key.reveal())];
        let filled = spec_headers.iter();
        let filled = filled.map(|(name, value)| (name.clone(), filled_text(value, &known)));
        let headers = filled.chain([("accept".to_owned(), "application/json".to_owned())]);
        let echo_mask = EchoMask::default().with_secret(key.reveal());
        Ok(Self { method, headers: headers.collect(), url, body: None, echo_mask })
    }

    fn with_json(mut self, body: &Value) -> Self {
        self.headers.push(("content-type".into(), "application/json".into()));
        self.body = Some(body.to_string().into_bytes());
        self
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> HttpMethod {
        self.method
    }

    /// The URL, always below the provider's base URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Names and values, the API key among them.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The secrets in it, which its answer may send back.
    #[must_use]
    pub fn echo_mask(&self) -> &EchoMask {
        &self.echo_mask
    }

    /// The JSON body; none for a request without one.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.body.as_ref().map_or(0, Vec::len);
        write!(f, "{:?} {} ({size} bytes, headers redacted)", self.method, self.url)
    }
}

/// A page of a provider's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListPage {
    /// The first page.
    First,
    /// The page of this token.
    Token(String),
    /// The page after this many rows.
    Offset(usize),
}

/// The tolerance around the time of a submit in a list: the difference of the clocks, and the
/// delay until a submit shows.
const CLOCKS_APART: TimeDelta = TimeDelta::minutes(15);

/// Why a payload cannot be submitted to this provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload already has a value where our id goes.
    #[error("must not have {0}: the relay sets it")]
    Taken(String),
    /// A parent of the place for our value has a wrong type.
    #[error("has no place for {0}: something on the way to it is not an object or array")]
    NoPlace(String),
    /// The client asked for our callback, but the provider has none or the payload names its own.
    #[error("cannot get the relay's callback: {0}")]
    NoCallback(&'static str),
}

/// Why a submit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The payload is at fault.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The key may not go where the spec sends it.
    #[error(transparent)]
    Key(#[from] KeyNotForHost),
}

/// The parts of a submit.
#[derive(Clone, Copy)]
pub struct SubmitParts<'a> {
    /// The client's payload, in the provider's own vocabulary.
    pub payload: &'a Map<String, Value>,
    /// Our id of the job.
    pub job_id: &'a JobId,
    /// The URL for the callback; none for a poll-only job.
    pub callback_url: Option<&'a str>,
    /// The provider's API key.
    pub api_key: &'a ProviderKey,
}

impl Provider {
    /// The request that asks for a render.
    ///
    /// # Errors
    /// When the payload has no place for the values that we add, or the key is not for the host.
    pub fn submit_request(&self, submission: &SubmitParts<'_>) -> Result<HttpRequest, SubmitError> {
        let submit = &self.spec.submit;
        let mut body = Value::Object(self.spec.wrapped(submission.payload));
        let mut url = below(&self.base_url, &submit.path);

        let uuid = submission.job_id.as_uuid();
        let mut known = vec![("{jobUuid}", uuid.as_str()), ("{jobId}", submission.job_id.as_str())];
        for injection in &submit.inject.identity {
            inject(injection, &known, &mut body, &mut url)?;
        }
        if let Some(callback_url) = submission.callback_url {
            known.push(("{callbackUrl}", callback_url));
            for injection in &submit.inject.callback {
                inject(injection, &known, &mut body, &mut url)?;
            }
        }
        let mut request = self.request(HttpMethod::Post, url, submission.api_key)?.with_json(&body);
        let token = submission.callback_url.and_then(|url| url.rsplit('/').next());
        if let Some(token) = token {
            request.echo_mask = request.echo_mask.with_secret(token);
        }
        Ok(request)
    }

    /// The status call for a render.
    ///
    /// # Errors
    /// When the key is not for the host.
    pub fn status_request(
        &self,
        id: &RenderJobId,
        api_key: &ProviderKey,
    ) -> Result<HttpRequest, KeyNotForHost> {
        let status = &self.spec.status;
        let mut url = below(&self.base_url, &status.path.replace("{id}", &escaped(id.as_str())));
        for (name, value) in &status.query {
            url.query_pairs_mut().append_pair(name, &value.replace("{id}", id.as_str()));
        }
        self.request(HttpMethod::Get, url, api_key)
    }

    /// The request that cancels a render.
    ///
    /// # Errors
    /// When the key is not for the host.
    pub fn cancel_request(
        &self,
        cancel: &CancelSpec,
        id: &RenderJobId,
        api_key: &ProviderKey,
    ) -> Result<HttpRequest, KeyNotForHost> {
        let method = match cancel.method {
            CancelMethod::Post => HttpMethod::Post,
            CancelMethod::Delete => HttpMethod::Delete,
        };
        let url = below(&self.base_url, &cancel.path.replace("{id}", &escaped(id.as_str())));
        self.request(method, url, api_key)
    }

    /// The request for a page of the list in which a render that was submitted at
    /// `submitted` should be.
    ///
    /// # Errors
    /// When the key is not for the host.
    pub fn list_request(
        &self,
        list: &ListSpec,
        page: &ListPage,
        submitted: DateTime<Utc>,
        api_key: &ProviderKey,
    ) -> Result<HttpRequest, KeyNotForHost> {
        let since = time::text(submitted - CLOCKS_APART);
        let until = time::text(submitted + CLOCKS_APART);
        let known = [("{since}", since.as_str()), ("{until}", until.as_str())];
        let mut url = below(&self.base_url, &list.path);
        for (name, value) in &list.query {
            url.query_pairs_mut().append_pair(name, &filled_text(value, &known));
        }
        match (&list.next, page) {
            (Some(NextPage::Token { parameter, .. }), ListPage::Token(token)) => {
                url.query_pairs_mut().append_pair(parameter, token);
            }
            (Some(NextPage::Offset { offset }), ListPage::Offset(rows)) => {
                url.query_pairs_mut().append_pair(offset, &rows.to_string());
            }
            (Some(_) | None, _) => {}
        }
        self.request(HttpMethod::Get, url, api_key)
    }

    fn request(
        &self,
        method: HttpMethod,
        url: Url,
        api_key: &ProviderKey,
    ) -> Result<HttpRequest, KeyNotForHost> {
        HttpRequest::with_key(method, url, &self.spec.headers, api_key)
    }
}

impl ProviderSpec {
    /// Whether a job with this payload gets our callback: as the client `asked`, by default as
    /// the spec says. A payload that names its own callback keeps it, and the job is polled.
    ///
    /// # Errors
    /// When the client asked for our callback and it is impossible.
    pub fn wants_callback(
        &self,
        payload: &Map<String, Value>,
        asked: Option<bool>,
    ) -> Result<bool, PayloadError> {
        let Some(per_job) = self.webhook.as_ref().and_then(|webhook| webhook.per_job) else {
            return match asked {
                Some(true) => {
                    Err(PayloadError::NoCallback("the provider has none that a job can name"))
                }
                Some(false) | None => Ok(false),
            };
        };
        let body = Value::Object(self.wrapped(payload));
        let taken = self.submit.inject.callback.iter().any(|injection| match injection {
            Injection::Set { set, .. } => set.find(&body).iter().any(|value| !value.is_null()),
            Injection::Append { .. } | Injection::Query { .. } => false,
        });
        match asked {
            Some(true) if taken => {
                Err(PayloadError::NoCallback("the payload names a callback of its own"))
            }
            Some(answer) => Ok(answer),
            None => Ok(per_job.by_default && !taken),
        }
    }

    fn wrapped(&self, payload: &Map<String, Value>) -> Map<String, Value> {
        match &self.submit.wrap {
            Some(wrap) if !wrap.unless_any.iter().any(|name| payload.contains_key(name)) => {
                Map::from_iter([(wrap.member.clone(), Value::Object(payload.clone()))])
            }
            Some(_) | None => payload.clone(),
        }
    }
}

fn inject(
    injection: &Injection,
    known: &[(&str, &str)],
    body: &mut Value,
    url: &mut Url,
) -> Result<(), PayloadError> {
    match injection {
        Injection::Set { set, value } => {
            let place = set.make(body).ok_or_else(|| PayloadError::NoPlace(set.to_string()))?;
            if !place.is_null() {
                return Err(PayloadError::Taken(set.to_string()));
            }
            *place = filled(value, known);
        }
        Injection::Append { append, value } => {
            let no_place = || PayloadError::NoPlace(append.to_string());
            let place = append.make(body).ok_or_else(no_place)?;
            if place.is_null() {
                *place = Value::Array(Vec::new());
            }
            place.as_array_mut().ok_or_else(no_place)?.push(filled(value, known));
        }
        Injection::Query { query, value } => {
            url.query_pairs_mut().append_pair(query, &filled_text(value, known));
        }
    }
    Ok(())
}

fn filled(template: &Value, known: &[(&str, &str)]) -> Value {
    match template {
        Value::String(text) => Value::String(filled_text(text, known)),
        Value::Array(elements) => elements.iter().map(|element| filled(element, known)).collect(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), filled(value, known)));
            Value::Object(members.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    }
}

fn filled_text(template: &str, known: &[(&str, &str)]) -> String {
    known.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// The characters of a path segment that need no escape (RFC 3986 §2.3), without the dot, because
/// the segments `.` and `..` would change the path.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// A text as one segment of a path.
pub(super) fn escaped(id: &str) -> String {
    utf8_percent_encode(id, KEPT).to_string()
}

fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let joined = format!("{}{path}", base.path().trim_end_matches('/'));
    url.set_path(&joined);
    url
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::render_id;
    use crate::provider::catalogue::{Adjustments, Catalogue};
    use crate::provider::key::KeyHost;

    fn key_for(provider: &Provider) -> ProviderKey {
        ProviderKey::new("secret-key", vec![KeyHost::of(&provider.base_url).unwrap()]).unwrap()
    }

    fn provider(name: &str) -> Provider {
        let name = crate::id::ProviderName::parse(name).unwrap();
        Catalogue::load(&Adjustments::default()).unwrap().get(&name).unwrap().as_ref().clone()
    }

    fn submit(name: &str, payload: &Value, callback: Option<&str>) -> Result<Value, SubmitError> {
        let payload = payload.as_object().unwrap().clone();
        let job_id = JobId::from_bytes([7; 16]);
        let provider = provider(name);
        let request = provider.submit_request(&SubmitParts {
            payload: &payload,
            job_id: &job_id,
            callback_url: callback,
            api_key: &key_for(&provider),
        })?;
        Ok(serde_json::from_slice(&request.body.unwrap()).unwrap())
    }

    #[test]
    fn submit_to_zvid_wraps_bare_payloads() {
        let uuid = JobId::from_bytes([7; 16]).as_uuid();
        let wanted = json!({"payload": {"name": "x"}, "jobId": uuid});
        assert_eq!(submit("zvid", &json!({"name": "x"}), None).unwrap(), wanted);
        assert_eq!(submit("zvid", &json!({"payload": {"name": "x"}}), None).unwrap(), wanted);

        let called = submit("zvid", &json!({"template": "tpl_1"}), Some("https://us/cb")).unwrap();
        assert_eq!(
            called,
            json!({"template": "tpl_1", "jobId": uuid, "webhookUrl": "https://us/cb"})
        );
    }

    #[test]
    fn submit_payload_without_room_is_refused() {
        let taken = submit("zvid", &json!({"template": "t", "jobId": "mine"}), None);
        assert_eq!(taken, Err(PayloadError::Taken("/jobId".into()).into()));
    }

    #[test]
    fn submit_payload_keeps_its_own_callback() {
        let spec = provider("shotstack").spec;
        let own = json!({"callback": "https://theirs"}).as_object().unwrap().clone();
        let none = Map::new();
        assert_eq!(spec.wants_callback(&none, None), Ok(true));
        assert_eq!(spec.wants_callback(&none, Some(false)), Ok(false));
        assert_eq!(spec.wants_callback(&own, None), Ok(false));
        assert!(spec.wants_callback(&own, Some(true)).is_err());
    }

    #[test]
    fn status_call_stays_below_base_url() {
        let shotstack = provider("shotstack");
        let key = key_for(&shotstack);
        let request = |id| shotstack.status_request(&render_id(id), &key).unwrap();
        let url = |id| request(id).url.to_string();
        assert_eq!(url("abc-1"), "https://api.shotstack.io/edit/v1/render/abc-1?data=false");
        assert_eq!(
            url("../../serve?x=/#"),
            "https://api.shotstack.io/edit/v1/render/%2E%2E%2F%2E%2E%2Fserve%3Fx%3D%2F%23?data=false"
        );
    }

    #[test]
    fn api_key_is_a_hidden_header() {
        let zvid = provider("zvid");
        let request = zvid.status_request(&render_id("r"), &key_for(&zvid)).unwrap();
        assert!(request.headers.contains(&("x-api-key".into(), "secret-key".into())));
        assert!(!format!("{request:?}").contains("secret-key"));
    }

    /// Status, list, cancel and submit: each at a base URL that the key is not for.
    #[test]
    fn requests_to_other_hosts_are_not_made() {
        let key = key_for(&provider("viralsync"));
        for base_url in [
            "https://evil.example/viralsync",
            "https://127.0.0.1/",
            "https://user@viralsync.example/",
            "http://viralsync.example/",
        ] {
            let base_url = Url::parse(base_url).unwrap();
            for name in ["viralsync", "shotstack", "renderio", "creatomate"] {
                let moved = Provider { base_url: base_url.clone(), ..provider(name) };
                let payload = Map::new();
                let submission = SubmitParts {
                    payload: &payload,
                    job_id: &JobId::from_bytes([7; 16]),
                    callback_url: None,
                    api_key: &key,
                };
                assert!(matches!(moved.submit_request(&submission), Err(SubmitError::Key(_))));
                assert!(moved.status_request(&render_id("r"), &key).is_err());
                if let Some(cancel) = &moved.spec.cancel {
                    assert!(moved.cancel_request(cancel, &render_id("r"), &key).is_err());
                }
                if let crate::provider::spec::SubmitSafety::List(list) = &moved.spec.submit_safety {
                    let token = ListPage::Token("https://viralsync.example/".into());
                    for page in [ListPage::First, token, ListPage::Offset(3)] {
                        let request = moved.list_request(list, &page, DateTime::UNIX_EPOCH, &key);
                        assert!(request.is_err());
                    }
                }
            }
        }
    }
}
