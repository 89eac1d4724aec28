//! A recorded conversation with a provider, replayed against its spec. The replay shows whether
//! the spec reads the provider's real answers as its author expects, without the provider.
//!
//! ```json
//! {
//!   "exchanges": [
//!     { "submit": { "status": 202, "body": { "id": "r-1" },
//!                   "expect": { "is": "accepted", "renderJobId": "r-1" } } },
//!     { "status": { "status": 200, "body": { "id": "r-1", "state": "done" },
//!                   "expect": { "is": "observed", "state": "completed" } } },
//!     { "callback": { "headers": { "x-signature": "…" }, "body": "{\"id\":\"r-1\"}",
//!                     "expect": { "signature": "verified", "kind": "ended" } } }
//!   ]
//! }
//! ```
//!
//! A body that is a text means exactly these bytes, as signatures and forms need; any other value
//! means its JSON. `expect` names members of [`ReplayedExchange::understood`]; the others may have
//! any value.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{CancelAnswer, ListAnswer, ProviderAnswer, StatusAnswer, SubmitAnswer};
use super::echo::EchoMask;
use super::request::ListPage;
use super::spec::webhook::WebhookKind;
use super::spec::{ErrorClass, ProviderSpec, SubmitSafety};
use crate::id::{JobId, RenderJobId};
use crate::job::{Observation, RenderStatus};
use crate::retry::retry_after;
use crate::time;
use crate::verifier::{Incoming, SecretsError, Verification, VerifierSecrets};

/// The recorded exchanges with one provider, in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conversation {
    /// When it was recorded: the time by which signatures and expiries are judged.
    #[serde(default)]
    pub now: Option<DateTime<Utc>>,
    /// Our id of the job that it is about, where a list or a callback names it.
    #[serde(default)]
    pub job_id: Option<String>,
    /// The secrets of the provider's callbacks, separated by commas.
    #[serde(default)]
    pub webhook_secrets: Option<String>,
    /// The exchanges.
    pub exchanges: Vec<Exchange>,
}

/// One exchange, by the kind of request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Exchange {
    /// The answer to a submit.
    Submit(RecordedMessage),
    /// The answer to a status call for the render of the submit before it.
    Status(RecordedMessage),
    /// The answer to a request for a page of the list.
    List(RecordedMessage),
    /// The answer to a cancel call.
    Cancel(RecordedMessage),
    /// A callback.
    Callback(RecordedMessage),
}

/// The message of an exchange, and the expected result.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordedMessage {
    /// The HTTP status; a callback has none.
    #[serde(default)]
    pub status: Option<u16>,
    /// The headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: a text is taken as it is, anything else as JSON.
    #[serde(default)]
    pub body: Value,
    /// The expected members of the result.
    #[serde(default)]
    pub expect: Map<String, Value>,
}

/// The result of one exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayedExchange {
    /// The kind of request, such as `submit`.
    pub about: &'static str,
    /// The values that the interpreter read, by name; `null` for a missing one.
    pub understood: Map<String, Value>,
    /// The differences from the expected values.
    pub mismatches: Vec<Mismatch>,
}

/// A value that differs from the expected one.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// The name of the member.
    pub member: String,
    /// The expected value.
    pub expected: Value,
    /// The value that was read; none when there is no such member.
    pub got: Option<Value>,
}

/// Why a document is not a conversation with this provider.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// It does not have the structure of a conversation.
    #[error("{file}: {source}")]
    Shape {
        /// The document's name.
        file: String,
        /// The error of the parser, with line and column.
        source: serde_json::Error,
    },
    /// `jobId` is not a job id.
    #[error("jobId must be job_ and 32 hexadecimal digits")]
    JobId,
    /// The secrets do not fit the spec's signature.
    #[error("webhookSecrets: {0}")]
    Secrets(#[from] SecretsError),
    /// There are secrets, but the spec has no signature.
    #[error("webhookSecrets are given, but the spec has no webhook.signature")]
    NothingSigned,
    /// An answer has no HTTP status, or a callback has one.
    #[error("exchange {0}: an answer needs a `status`, and a callback has none")]
    Status(usize),
    /// It is unknown which render a status call was about.
    #[error("exchange {0}: no submit before it was accepted, so there is no render to ask about")]
    NoRender(usize),
    /// The spec has no such request.
    #[error("exchange {number}: the spec has no `{lacks}`")]
    Lacks {
        /// The exchange's number, from 1.
        number: usize,
        /// The member that the spec lacks.
        lacks: &'static str,
    },
}

/// The context of the replay.
struct Scene<'a> {
    spec: &'a ProviderSpec,
    secrets: Option<VerifierSecrets>,
    job: JobId,
    render: Option<RenderJobId>,
    now: DateTime<Utc>,
}

impl Conversation {
    /// Reads a conversation. `file` names it in errors.
    ///
    /// # Errors
    /// When the document does not have the structure of a conversation.
    pub fn parse(file: &str, json: &str) -> Result<Self, ConversationError> {
        serde_json::from_str(json)
            .map_err(|source| ConversationError::Shape { file: file.to_owned(), source })
    }

    /// Replays it against `spec`. `now` is the time when the document has none.
    ///
    /// # Errors
    /// When it cannot be a conversation with this provider.
    pub fn replay(
        &self,
        spec: &ProviderSpec,
        now: DateTime<Utc>,
    ) -> Result<Vec<ReplayedExchange>, ConversationError> {
        let signature = spec.webhook.as_ref().and_then(|webhook| webhook.signature.as_ref());
        let secrets = match (&self.webhook_secrets, signature) {
            (Some(_), None) => return Err(ConversationError::NothingSigned),
            (Some(text), Some(scheme)) => Some(scheme.parse_secrets(text)?),
            (None, _) => None,
        };
        let job = match &self.job_id {
            Some(text) => JobId::parse(text).map_err(|_| ConversationError::JobId)?,
            None => JobId::from_bytes([0; 16]),
        };
        let render = match spec.submit_safety {
            SubmitSafety::ClientId {} => RenderJobId::parse(&job.as_uuid()).ok(),
            SubmitSafety::List(_) | SubmitSafety::Callback {} => None,
        };
        let mut scene = Scene { spec, secrets, job, render, now: self.now.unwrap_or(now) };
        let numbered = self.exchanges.iter().zip(1..);
        numbered.map(|(exchange, number)| scene.replay_exchange(exchange, number)).collect()
    }
}

impl Scene<'_> {
    fn replay_exchange(
        &mut self,
        exchange: &Exchange,
        number: usize,
    ) -> Result<ReplayedExchange, ConversationError> {
        let (about, message) = match exchange {
            Exchange::Submit(message) => ("submit", message),
            Exchange::Status(message) => ("status", message),
            Exchange::List(message) => ("list", message),
            Exchange::Cancel(message) => ("cancel", message),
            Exchange::Callback(message) => ("callback", message),
        };
        let body = match &message.body {
            Value::String(text) => text.clone().into_bytes(),
            Value::Null => Vec::new(),
            json => json.to_string().into_bytes(),
        };
        let answer = || -> Result<ProviderAnswer, ConversationError> {
            let status = message.status.ok_or(ConversationError::Status(number))?;
            let mut headers = message.headers.iter();
            let wait = headers.find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
            let retry_after = wait.and_then(|(_, text)| retry_after(text, self.now));
            Ok(ProviderAnswer::read(status, retry_after, &body, &EchoMask::default()))
        };
        let lacks = |lacks| ConversationError::Lacks { number, lacks };
        let understood = match exchange {
            Exchange::Submit(_) => {
                let answer = self.spec.read_submit(&answer()?);
                let understood = submitted(&answer);
                if let SubmitAnswer::Accepted(id) = answer {
                    self.render = Some(id);
                }
                understood
            }
            Exchange::Status(_) => {
                let render = self.render.as_ref().ok_or(ConversationError::NoRender(number))?;
                status_read(&self.spec.read_status(render, &answer()?, self.now))
            }
            Exchange::List(_) => match &self.spec.submit_safety {
                SubmitSafety::List(list) => {
                    listed(&self.spec.read_list(list, &self.job, 0, &answer()?))
                }
                SubmitSafety::ClientId {} | SubmitSafety::Callback {} => {
                    return Err(lacks("submitSafety of the kind list"));
                }
            },
            Exchange::Cancel(_) => {
                let cancel = self.spec.cancel.as_ref().ok_or_else(|| lacks("cancel"))?;
                cancelled(&self.spec.read_cancel(cancel, &answer()?))
            }
            Exchange::Callback(_) if message.status.is_some() => {
                return Err(ConversationError::Status(number));
            }
            Exchange::Callback(_) => {
                if self.spec.webhook.is_none() {
                    return Err(lacks("webhook"));
                }
                self.called(message, &body)
            }
        };
        let understood = members(understood);
        Ok(ReplayedExchange {
            about,
            mismatches: mismatches(&message.expect, &understood),
            understood,
        })
    }

    fn called(&self, message: &RecordedMessage, body: &[u8]) -> Value {
        let webhook = self.spec.webhook.as_ref();
        let headers: Vec<(&str, &[u8])> =
            message.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let incoming = Incoming { headers: &headers, body };
        let signature: String = match (webhook.and_then(|w| w.signature.as_ref()), &self.secrets) {
            (None, _) => "none: the spec has no signature".into(),
            (Some(_), None) => "none: the conversation has no webhookSecrets".into(),
            (Some(scheme), Some(secrets)) => match scheme.verify(&incoming, secrets, self.now) {
                Verification::Verified { .. } => "verified".into(),
                Verification::Missing => "missing".into(),
                Verification::Invalid(reason) => format!("invalid: {reason}"),
            },
        };
        let (callback, error) = match self.spec.read_callback(body, &EchoMask::default(), self.now)
        {
            Ok(callback) => (Some(callback), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let kind = callback.as_ref().map(|callback| match callback.kind {
            WebhookKind::Ended => "ended",
            WebhookKind::Progress => "progress",
            WebhookKind::Ignore => "ignore",
        });
        // The body of an unsigned callback is not believed.
        let claim = callback.as_ref().and_then(|callback| callback.claim.as_ref());
        let claim = claim.filter(|_| signature == "verified");
        let mut understood = json!({
            "signature": signature,
            "kind": kind,
            "renderJobId": callback.as_ref().and_then(|callback| callback.render_job_id.as_ref()),
            "jobId": callback.as_ref().and_then(|callback| callback.job_id.as_ref()),
            "error": error,
        });
        add(&mut understood, observed(claim));
        understood
    }
}

impl Mismatch {
    /// The difference as a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { member, expected, got } = self;
        match got {
            Some(got) => format!("{member}: expected {expected}, got {got}"),
            None => format!("{member}: expected {expected}, but there is no such member"),
        }
    }
}

fn mismatches(expect: &Map<String, Value>, understood: &Map<String, Value>) -> Vec<Mismatch> {
    let wrong = expect.iter().filter(|(member, expected)| {
        !understood.get(*member).is_some_and(|got| same(expected, got))
    });
    wrong
        .map(|(member, expected)| Mismatch {
            member: member.clone(),
            expected: expected.clone(),
            got: understood.get(member).cloned(),
        })
        .collect()
}

/// `1` and `1.0` are the same number.
fn same(expected: &Value, got: &Value) -> bool {
    match (expected.as_f64(), got.as_f64()) {
        (Some(expected), Some(got)) => (expected - got).abs() < 1e-9,
        _ => expected == got,
    }
}

fn submitted(answer: &SubmitAnswer) -> Value {
    let (is, id, rejection) = match answer {
        SubmitAnswer::Accepted(id) => ("accepted", Some(id), None),
        SubmitAnswer::Rejected(rejection) => ("rejected", None, Some(rejection)),
        SubmitAnswer::Unclear => ("unclear", None, None),
    };
    json!({
        "is": is,
        "renderJobId": id,
        "class": rejection.map(|rejection| class(rejection.class)),
        "code": rejection.map(|rejection| rejection.failure.code),
        "message": rejection.map(|rejection| &rejection.failure.message),
        "retryAfterSeconds": rejection.and_then(|r| r.retry_after).map(|wait| wait.as_secs()),
    })
}

fn status_read(answer: &StatusAnswer) -> Value {
    let (is, observation, trouble) = match answer {
        StatusAnswer::Observed(observation) => ("observed", Some(observation), None),
        StatusAnswer::NotFound => ("notFound", None, None),
        StatusAnswer::Unavailable { class, retry_after, .. } => {
            ("unavailable", None, Some((*class, *retry_after)))
        }
    };
    let mut understood = json!({ "is": is });
    add(&mut understood, unavailable(trouble));
    add(&mut understood, observed(observation));
    understood
}

fn listed(answer: &ListAnswer) -> Value {
    let (is, id, next, trouble) = match answer {
        ListAnswer::Found(id) => ("found", Some(id), None, None),
        ListAnswer::Next(page) => ("next", None, Some(page), None),
        ListAnswer::Absent => ("absent", None, None, None),
        ListAnswer::Unavailable { class, retry_after, .. } => {
            ("unavailable", None, None, Some((*class, *retry_after)))
        }
    };
    let next = next.map(|page| match page {
        ListPage::First => Value::Null,
        ListPage::Token(token) => json!(token),
        ListPage::Offset(rows) => json!(rows),
    });
    let mut understood = json!({ "is": is, "renderJobId": id, "next": next });
    add(&mut understood, unavailable(trouble));
    understood
}

fn cancelled(answer: &CancelAnswer) -> Value {
    let (is, message, trouble) = match answer {
        CancelAnswer::Accepted => ("accepted", None, None),
        CancelAnswer::Refused { message } => ("refused", Some(message), None),
        CancelAnswer::Unavailable { class, retry_after } => {
            ("unavailable", None, Some((*class, *retry_after)))
        }
    };
    let mut understood = json!({ "is": is, "message": message });
    add(&mut understood, unavailable(trouble));
    understood
}

fn unavailable(trouble: Option<(ErrorClass, Option<Duration>)>) -> Value {
    json!({
        "class": trouble.map(|(it, _)| class(it)),
        "retryAfterSeconds": trouble.and_then(|(_, wait)| wait).map(|wait| wait.as_secs()),
    })
}

fn observed(observation: Option<&Observation>) -> Value {
    let status = observation.map(|observation| &observation.status);
    let state = status.map(|status| match status {
        RenderStatus::Queued => "queued",
        RenderStatus::Processing => "processing",
        RenderStatus::Completed(_) => "completed",
        RenderStatus::Failed(_) => "failed",
        RenderStatus::Cancelled => "cancelled",
        RenderStatus::TimedOut => "timedOut",
    });
    let (result, failure) = match status {
        Some(RenderStatus::Completed(result)) => (Some(result), None),
        Some(RenderStatus::Failed(failure)) => (None, Some(failure)),
        _ => (None, None),
    };
    json!({
        "state": state,
        "providerStatus": observation.map(|observation| &observation.provider_status),
        "progress": observation.and_then(|observation| observation.progress),
        "resultUrl": result.and_then(|result| result.url.as_ref()),
        "resultExpiresAt": result.and_then(|result| result.expires_at).map(time::text),
        "message": failure.map(|failure| &failure.message),
        "providerCode": failure.and_then(|failure| failure.provider_code.as_ref()),
    })
}

/// The name of a class in specs.
fn class(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Auth => "auth",
        ErrorClass::Invalid => "invalid",
        ErrorClass::Quota => "quota",
        ErrorClass::Rate => "rate",
        ErrorClass::Busy => "busy",
        ErrorClass::NotFound => "not_found",
        ErrorClass::Transient => "transient",
    }
}

fn add(understood: &mut Value, more: Value) {
    if let (Value::Object(understood), Value::Object(more)) = (understood, more) {
        understood.extend(more);
    }
}

fn members(document: Value) -> Map<String, Value> {
    match document {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
