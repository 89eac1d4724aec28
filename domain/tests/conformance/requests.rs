//! The requests to a provider.

use domain::id::RenderJobId;
use domain::provider::ProviderKey;
use domain::provider::catalogue::Provider;
use domain::provider::key::KeyHost;
use domain::provider::request::{HttpMethod, HttpRequest, SubmitError, SubmitParts};
use serde_json::{Map, Value};

use crate::matrix::Matrix;
use crate::tested_provider::{CALLBACK_URL, TestedProvider, job_id};

/// A key that may be sent to the provider's host.
pub(crate) fn key_for(provider: &Provider) -> ProviderKey {
    ProviderKey::new("key:1", vec![KeyHost::of(&provider.base_url).unwrap()]).unwrap()
}

pub(crate) fn are_as_documented(subject: &TestedProvider, matrix: &mut Matrix) {
    let facts = &subject.facts.request;
    let Ok(request) = submitted(subject, &facts.payload, None) else {
        return matrix.check("submit", "refused", "asked for");
    };
    matrix.check("method", method(&request), "POST");
    matrix.check("submit URL", request.url().as_str(), &facts.submit_url);
    let (name, value) = &facts.key_header;
    matrix.check("key", &header(&request, name), value);
    matrix.check("content type", &header(&request, "content-type"), "application/json");
    matrix.check("body", &json(&request), &facts.body.to_string());
    let shown = format!("{request:?}");
    matrix.check("no key in logs", &shown.replace(value.as_str(), "KEY"), &shown);

    if let Some(expected) = &facts.body_with_callback {
        let found = submitted(subject, &facts.payload, Some(CALLBACK_URL));
        matrix.check("body with callback", &body_of(found), &expected.to_string());
    }
    for (payload, expected) in &facts.others {
        let found = submitted(subject, payload, None);
        matrix.check("another payload", &body_of(found), &expected.to_string());
    }
    for (payload, why) in &facts.refused {
        let found = submitted(subject, payload, Some(CALLBACK_URL));
        let found = found.map_or_else(|error| error.to_string(), |_| "submitted".to_owned());
        matrix.check("payload refused", &found, why);
    }

    let mut environments = subject.provider.spec.base_urls.clone();
    environments.remove("default");
    let found: Vec<_> = environments.iter().map(|(name, url)| (name, url.as_str())).collect();
    let expected: Vec<_> = facts.environments.iter().collect();
    matrix.check("environments", &format!("{found:?}"), &format!("{expected:?}"));

    let key = key_for(&subject.provider);
    let request = subject.provider.status_request(&subject.render(), &key).unwrap();
    matrix.check("status method", method(&request), "GET");
    matrix.check("status URL", request.url().as_str(), &facts.status_url);
    matrix.check("status key", &header(&request, name), value);
    let hostile = RenderJobId::parse("../../x?y=/#").unwrap();
    let request = subject.provider.status_request(&hostile, &key).unwrap();
    matrix.check("a hostile id", request.url().as_str(), &facts.hostile_status_url);

    let cancel = subject.provider.spec.cancel.as_ref();
    let cancel = cancel
        .map(|cancel| subject.provider.cancel_request(cancel, &subject.render(), &key).unwrap());
    if cancel.is_some() || facts.cancel.is_some() {
        let found = cancel.map(|request| format!("{} {}", method(&request), request.url()));
        let expected = facts.cancel.clone().unwrap_or_default();
        matrix.check("cancel", &found.unwrap_or_default(), &expected);
    }
}

pub(crate) fn callbacks_are_wanted(subject: &TestedProvider, matrix: &mut Matrix) {
    let facts = &subject.facts.request;
    for wants in &facts.wants {
        let payload = wants.payload.as_ref().unwrap_or(&facts.payload);
        let case = format!("asked {:?}, payload {payload:?}", wants.asked);
        let found = match subject.provider.spec.wants_callback(payload, wants.asked) {
            Ok(true) => "yes".to_owned(),
            Ok(false) => "no".to_owned(),
            Err(error) => error.to_string(),
        };
        matrix.check(&case, &found, &wants.is);
    }
}

fn submitted(
    subject: &TestedProvider,
    payload: &Map<String, Value>,
    callback_url: Option<&str>,
) -> Result<HttpRequest, SubmitError> {
    let job_id = job_id();
    let api_key = &key_for(&subject.provider);
    let submission = SubmitParts { payload, job_id: &job_id, callback_url, api_key };
    subject.provider.submit_request(&submission)
}

fn method(request: &HttpRequest) -> &'static str {
    match request.method() {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Delete => "DELETE",
    }
}

fn header(request: &HttpRequest, name: &str) -> String {
    let mut headers = request.headers().iter();
    let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

fn body_of(submitted: Result<HttpRequest, SubmitError>) -> String {
    submitted.map_or_else(|error| error.to_string(), |request| json(&request))
}

fn json(request: &HttpRequest) -> String {
    let body: Value = serde_json::from_slice(request.body().unwrap_or_default()).unwrap();
    body.to_string()
}
