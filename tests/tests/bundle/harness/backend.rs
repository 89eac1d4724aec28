//! The customer's backend: it requests renders, and repeats a request until it is answered.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::clock;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use domain::address::TargetPolicy;
use domain::id::{IdempotencyKey, JobId, RequestId};
use domain::request::JobRequest;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{Method, Request};
use serde_json::{Value, json};
use shared::store::{Inserted, StoredPayload};
use tests::SimulatedProvider;

use crate::checks::invariant::Invariant;
use crate::harness::bundle::{API_KEY, Bundle};
use crate::harness::gateway::GatewayResponse;
use crate::harness::receivers;

/// The most tries of a request: they last longer than any outage.
const MAX_TRIES: usize = 300;

/// The events that a request subscribes to when it names none.
const TERMINAL_EVENTS: [&str; 3] =
    ["video.render.completed", "video.render.failed", "video.render.cancelled"];

#[derive(Clone, Debug)]
pub(crate) struct CallerRequest {
    /// A text that no other request contains. It is the source record's id, the receiver's name and
    /// part of the payload.
    pub(crate) tag: String,
    pub(crate) provider: SimulatedProvider,
    pub(crate) body: Value,
    /// None when every try is a new request.
    pub(crate) key: Option<String>,
    /// The answer that the provider is configured to give.
    pub(crate) expected: ExpectedAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedAnswer {
    /// The request is accepted, or its answer is lost.
    Accepted,
    /// The request is refused with this code.
    Refused(&'static str),
}

impl CallerRequest {
    /// A request whose tag is its idempotency key and names its receiver.
    pub(crate) fn new(provider: SimulatedProvider, tag: &str) -> Self {
        let body = json!({
            "provider": provider.name(),
            "payload": provider.payload(tag),
            "sourceRecordId": tag,
            "metadata": {"shop": "berlin"},
            "callbackUrl": receivers::url(tag),
        });
        let (tag, key) = (tag.to_owned(), Some(tag.to_owned()));
        Self { tag, provider, body, key, expected: ExpectedAnswer::Accepted }
    }

    /// The same request, refused by its provider with this code.
    pub(crate) fn refused(mut self, code: &'static str) -> Self {
        self.expected = ExpectedAnswer::Refused(code);
        self
    }

    /// The same request with another idempotency key than its tag.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The same request with a member added or replaced.
    pub(crate) fn with(mut self, member: &str, value: Value) -> Self {
        self.body[member] = value;
        self
    }

    /// The same request without a member.
    pub(crate) fn without(mut self, member: &str) -> Self {
        self.body.as_object_mut().unwrap().remove(member);
        self
    }

    /// Whether the request subscribes to an event.
    pub(crate) fn subscribes_to(&self, event: &str) -> bool {
        match self.body.get("events").and_then(Value::as_array) {
            Some(named) => named.iter().any(|name| name == event),
            None => TERMINAL_EVENTS.contains(&event),
        }
    }

    /// The URL of the request's own receiver.
    pub(crate) fn receiver(&self) -> Option<&str> {
        self.body.get("callbackUrl").and_then(Value::as_str)
    }
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub(crate) struct AnsweredRequest {
    pub(crate) request: CallerRequest,
    pub(crate) job: Result<JobId, RefusedAnswer>,
}

/// A final answer other than 202.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedAnswer {
    pub(crate) status: u16,
    /// The problem's code; empty when it has none.
    pub(crate) code: String,
    /// The failed job that the refusal reports.
    pub(crate) job: Option<JobId>,
}

/// The final answer of a repeated call.
#[derive(Clone, Debug)]
pub(crate) struct AnsweredCall {
    pub(crate) since: DateTime<Utc>,
    pub(crate) status: u16,
    /// The problem's code; empty when it is none.
    pub(crate) code: String,
    pub(crate) body: Value,
}

impl RefusedAnswer {
    fn of(seen: &GatewayResponse) -> Self {
        let text = |at: &str| seen.body.pointer(at).and_then(Value::as_str);
        Self {
            status: seen.status,
            code: text("/code").unwrap_or_default().to_owned(),
            job: text("/job/jobId").map(|id| JobId::parse(id).expect("a refusal names its job")),
        }
    }
}

impl Bundle {
    /// The job of a request: the one that the answer names, or the one that the table has of its
    /// source record.
    pub(crate) fn job_of(&self, answered: &AnsweredRequest) -> Option<JobId> {
        match &answered.job {
            Ok(job) => Some(job.clone()),
            Err(refusal) => refusal.job.clone().or_else(|| {
                let stored = self.stored_jobs(&answered.request.tag);
                stored.first().map(|job| JobId::parse(job).unwrap())
            }),
        }
    }

    /// Stores the record of a request and no job, as if that was so long ago.
    pub(crate) async fn abandon(&self, request: &CallerRequest, ago: TimeDelta) {
        let body = request.body.to_string();
        let parsed = JobRequest::parse(body.as_bytes(), &TargetPolicy::local_use()).unwrap();
        let key = IdempotencyKey::parse(request.key.as_ref().unwrap()).unwrap();
        let (id, job) = (RequestId::of_key(&key), JobId::from_bytes([9; 16]));
        let store = self.aws.store();
        let record = store.new_record(job, parsed.fingerprint, clock::true_now() - ago);
        let payload = StoredPayload::compress(body.as_bytes()).unwrap();
        let stored = store.insert_record(&id, &record, &payload).await.unwrap();
        assert_eq!(stored, Inserted::New);
    }

    /// Submits a job, and repeats the request until it is accepted or refused.
    pub(crate) async fn submit(self: &Arc<Self>, request: &CallerRequest) -> Option<JobId> {
        self.ensure_render_options(request.provider, &request.tag).await;
        let mut last = None;
        for _ in 0..MAX_TRIES {
            let key = request.key.as_deref();
            let seen = self.call_api(Method::POST, "/v1/jobs", key, &request.body).await;
            last = Some(RefusedAnswer::of(&seen));
            if seen.status == 202 {
                let id = seen.body.get("jobId").and_then(Value::as_str).unwrap_or_default();
                let id = JobId::parse(id).expect("202 names the job");
                if self.aws.table().item(&format!("job#{id}"), "job").is_none() {
                    self.checker.violated(
                        Invariant::StoredBeforeAnswered,
                        format!("202 before job {id} is stored"),
                    );
                }
                self.answered_requests
                    .lock()
                    .unwrap()
                    .push(AnsweredRequest { request: request.clone(), job: Ok(id.clone()) });
                return Some(id);
            }
            // A refusal by the provider is final: the job exists, and has failed.
            if !seen.is_unavailable() || seen.body.get("job").is_some() {
                break;
            }
            tokio::time::sleep(self.wait(&seen)).await;
        }
        let refusal = last.expect("it was tried");
        self.answered_requests
            .lock()
            .unwrap()
            .push(AnsweredRequest { request: request.clone(), job: Err(refusal) });
        None
    }

    /// Repeats a call until the API answers with something other than that it is unavailable. The
    /// status must be one of `expected`. None when that never happens.
    pub(crate) async fn call_until_answered(
        self: &Arc<Self>,
        method: Method,
        path: &str,
        body: &Value,
        expected: &[u16],
    ) -> Option<AnsweredCall> {
        for _ in 0..MAX_TRIES {
            let since = clock::true_now();
            let seen = self.call_api(method.clone(), path, None, body).await;
            let code = seen.body.get("code").and_then(Value::as_str).unwrap_or_default();
            if !seen.is_unavailable() && code != "change_in_progress" {
                let (status, code) = (seen.status, code.to_owned());
                if !expected.contains(&status) {
                    let body = &seen.body;
                    self.checker.violation(format!(
                        "contract: {method} {path} is answered {status}: {body}"
                    ));
                }
                return Some(AnsweredCall { since, status, code, body: seen.body });
            }
            tokio::time::sleep(self.wait(&seen)).await;
        }
        self.checker
            .violated(Invariant::EveryJobSettles, format!("{method} {path} is never answered"));
        None
    }

    /// Calls the API once, or twice at the same time when the settings duplicate everything.
    pub(crate) async fn call_api(
        self: &Arc<Self>,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> GatewayResponse {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(AUTHORIZATION, format!("Bearer {API_KEY}"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Bytes::from(body.to_string())).unwrap();
        let seen = match self.duplicates_everything() {
            true => {
                let (first, second) = tokio::join!(self.call(request.clone()), self.call(request));
                self.keep_new_secret(&first);
                self.keep_new_secret(&second);
                // A refusal by the provider is final, whichever copy reports it.
                let is_refused = first.body.get("job").is_some();
                if is_refused || first.status < 300 && second.body.get("job").is_none() {
                    first
                } else {
                    second
                }
            }
            false => self.call(request).await,
        };
        self.keep_new_secret(&seen);
        seen
    }

    /// Makes a secret that the API shows known to the receivers and to the checks, and an API
    /// key to the checks.
    fn keep_new_secret(&self, seen: &GatewayResponse) {
        if let Some(secret) = seen.body.get("secret").and_then(Value::as_str) {
            self.receivers.add_secret(secret);
            self.checker.keep_secret(secret);
        }
        if let Some(key) = seen.body.get("key").and_then(Value::as_str) {
            self.checker.keep_secret(key);
        }
    }

    /// The wait that the API asks for. An answer that says it is unavailable must have
    /// `Retry-After`.
    fn wait(&self, seen: &GatewayResponse) -> Duration {
        let named = seen.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let seconds = named.and_then(|text| text.parse().ok());
        if seconds.is_none() && seen.body.get("code").is_some() {
            self.checker.violation(format!(
                "contract: a {} without Retry-After: {}",
                seen.status, seen.body
            ));
        }
        Duration::from_secs(seconds.unwrap_or(5))
    }
}
