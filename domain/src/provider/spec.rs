//! The vocabulary of a provider spec. Unknown words are refused when a spec is loaded, so a
//! typo cannot change what a provider is asked.
//!
//! To add a word, add its field or variant here, its problems to `contradictions`, its meaning
//! to the module that runs it ([`request`](super::request), [`answer`](super::answer) or
//! [`inbound`](super::inbound)), and the word to `providers/schema.json`: a contract test
//! compares the two.

mod contradictions;
pub mod webhook;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use self::webhook::WebhookSpec;
use super::pointer::Pointer;
use crate::id::ProviderName;
use crate::polling::{PollSchedule, Slowdown};

/// The spec of one provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderSpec {
    /// The path of the JSON schema, for editors only.
    #[serde(rename = "$schema", default)]
    pub schema: Option<String>,
    /// The name that callers use; the same as the file's.
    pub name: ProviderName,
    /// The name for people.
    pub title: String,
    /// The URL of the provider's API documentation.
    pub docs: Url,
    /// Whether this spec was ever run against the provider itself, beyond its documentation.
    pub verified_live: bool,
    /// The API's base by environment. `default` must be there.
    pub base_urls: BTreeMap<String, Url>,
    /// The headers of every request. `{apiKey}` is replaced by the key, `{apiKeyBase64}` by its
    /// base64 as HTTP Basic needs it for `user:password`.
    pub headers: BTreeMap<String, String>,
    /// The submit.
    pub submit: SubmitSpec,
    /// How a lost answer to a submit is resolved.
    pub submit_safety: SubmitSafety,
    /// The status call.
    pub status: StatusSpec,
    /// The cancel call; none when renders cannot be cancelled.
    #[serde(default)]
    pub cancel: Option<CancelSpec>,
    /// The callbacks; none when the provider has none.
    #[serde(default)]
    pub webhook: Option<WebhookSpec>,
    /// The rules for error answers whose HTTP status alone would mislead. The first rule that
    /// matches decides.
    #[serde(default)]
    pub errors: Vec<ErrorRule>,
    /// Rate limit, time-outs and deadline.
    pub limits: ProviderLimits,
}

/// The submit of a render.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitSpec {
    /// The path below the base URL; POST.
    pub path: String,
    /// The statuses of an accepted submit.
    pub accepted: Vec<u16>,
    /// The pointers to the provider's id in the answer.
    pub id: Vec<Pointer>,
    /// The pointers to the message in an error answer.
    pub error: Vec<Pointer>,
    /// The member under which a bare payload is put; none when payloads are never wrapped.
    #[serde(default)]
    pub wrap: Option<Wrap>,
    /// The additions to the client's payload.
    #[serde(default)]
    pub inject: Inject,
}

/// The wrapping of payloads: clients may submit the bare or the wrapped form.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wrap {
    /// The member under which a bare payload goes.
    pub member: String,
    /// The members whose presence shows that the payload is wrapped already.
    pub unless_any: Vec<String>,
}

/// The additions to the client's payload, by purpose.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inject {
    /// The additions of a job with a callback; `{callbackUrl}` is replaced by our URL.
    #[serde(default)]
    pub callback: Vec<Injection>,
    /// The additions of every job; `{jobUuid}` and `{jobId}` are replaced by our id.
    #[serde(default)]
    pub identity: Vec<Injection>,
}

/// One addition to the body or the URL.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Injection {
    /// Put `value` at the pointer, making its parents.
    Set {
        /// The place in the body.
        set: Pointer,
        /// The value; texts in it may have placeholders.
        value: Value,
    },
    /// Append `value` to the array at the pointer, making it if absent.
    Append {
        /// The place in the body.
        append: Pointer,
        /// The value; texts in it may have placeholders.
        value: Value,
    },
    /// Add a query parameter.
    Query {
        /// The name of the parameter.
        query: String,
        /// The value, which may have placeholders.
        value: String,
    },
}

/// How we find out whether a render exists when the answer to a submit was lost. A submit is
/// never repeated.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum SubmitSafety {
    // The braces make serde refuse unknown members; it overlooks them in unit variants.
    /// We choose the render's id (`{jobUuid}`), so a status call shows whether it exists.
    ClientId {},
    /// A list of renders shows our id of the job, which we put into the submit.
    List(ListSpec),
    /// Only the callback of the job can show that the render exists.
    Callback {},
}

/// A list of renders, newest first, in which ours can be recognised.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListSpec {
    /// The path below the base URL; GET.
    pub path: String,
    /// Query parameters. `{since}` and `{until}` stand for RFC 3339 times around the submit.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// The pointers to the rows.
    pub rows: Vec<Pointer>,
    /// The pointers to our job id, or its UUID, in a row.
    pub correlation: Vec<Pointer>,
    /// The pointers to the provider's id in a row.
    pub id: Vec<Pointer>,
    /// The way to request the next page; none when only the first is read.
    #[serde(default)]
    pub next: Option<NextPage>,
}

/// The way to request the next page of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum NextPage {
    /// By a token in the page.
    Token {
        /// The query parameter.
        parameter: String,
        /// The pointers to the token in the page.
        token: Vec<Pointer>,
    },
    /// By the number of rows seen so far.
    Offset {
        /// The query parameter.
        offset: String,
    },
}

/// The cancel call of a render.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelSpec {
    /// The HTTP method.
    pub method: CancelMethod,
    /// The path below the base URL. `{id}` stands for the provider's id, escaped.
    pub path: String,
    /// The statuses of an accepted cancel call.
    pub accepted: Vec<u16>,
}

/// The method of a cancel call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CancelMethod {
    /// POST without a body.
    Post,
    /// DELETE.
    Delete,
}

/// The status call of a render.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusSpec {
    /// The path below the base URL; GET. `{id}` stands for the provider's id, escaped.
    pub path: String,
    /// Query parameters; `{id}` likewise.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// The pointers to the id in the answer. An answer about another render is ignored.
    pub id: Vec<Pointer>,
    /// The places of the values in the answer.
    pub answer: Reading,
}

/// The places of the status and the other values in an answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reading {
    /// The pointers to the provider's word for the status.
    pub status: Vec<Pointer>,
    /// The meaning of its words, compared without case. A word that is not listed means
    /// "processing", so that a word that a vendor adds does not end a render.
    pub words: Words,
    /// The places of the progress.
    #[serde(default)]
    pub progress: Vec<ProgressSource>,
    /// The pointers to the URL of the video, which is read only with the status "completed".
    pub result: Vec<Pointer>,
    /// The template that makes a URL of the value, such as `https://cdn.example/{result}.mp4`; none
    /// when the value is a URL.
    #[serde(default)]
    pub result_url: Option<String>,
    /// Whether the video may be stored after the status says "completed". Until it has a URL,
    /// the render is processing.
    #[serde(default)]
    pub result_follows: bool,
    /// The time in seconds after which the provider deletes the video; none when unknown.
    #[serde(default)]
    pub result_expires_after_seconds: Option<u32>,
    /// The pointers to the message of a failure.
    pub error: Vec<Pointer>,
    /// The separator of code and text in the message of a failure; none without a code.
    #[serde(default)]
    pub error_code_separator: Option<String>,
}

/// The meaning of a provider's words for the status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Words {
    /// The words that mean "queued".
    #[serde(default)]
    pub queued: Vec<String>,
    /// The words that mean "processing".
    #[serde(default)]
    pub processing: Vec<String>,
    /// The words that mean "completed".
    #[serde(default)]
    pub completed: Vec<String>,
    /// The words that mean "failed".
    #[serde(default)]
    pub failed: Vec<String>,
    /// The words that mean "cancelled".
    #[serde(default)]
    pub cancelled: Vec<String>,
    /// The words for a time-out of the provider, after which the render may still finish.
    #[serde(default)]
    pub timed_out: Vec<String>,
}

/// The place of the progress, and the factor that makes it `0.0..=1.0`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProgressSource {
    /// The pointer to the number.
    pub pointer: Pointer,
    /// The factor: 0.01 for percentages.
    pub scale: f64,
}

/// The meaning of an error answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorRule {
    /// The kind of request; none means all.
    #[serde(default)]
    pub on: Option<Operation>,
    /// The HTTP statuses of the answer.
    pub http: Vec<u16>,
    /// The pointer to the text that must contain `contains`.
    #[serde(default)]
    pub pointer: Option<Pointer>,
    /// The text, compared without regard to case.
    #[serde(default)]
    pub contains: Option<String>,
    /// The class of the error.
    pub means: ErrorClass,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// The submit.
    Submit,
    /// The status call, and the list.
    Status,
    /// The cancel call.
    Cancel,
}

/// The meaning of an error answer. Of a submit, every class but `Transient` says that the
/// provider certainly did not accept, whatever the HTTP status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The provider refuses our key.
    Auth,
    /// The request is wrong.
    Invalid,
    /// Credits or quota are used up.
    Quota,
    /// Too many requests.
    Rate,
    /// The provider is too busy.
    Busy,
    /// There is no such render, or not yet.
    NotFound,
    /// A transient error of the provider. Whether it accepted a submit is unknown.
    Transient,
}

/// The limits of requests to a provider. None of them is zero: without a floor and a safety poll
/// the poll times of a job would not advance.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderLimits {
    /// The shortest time between two status calls for one render.
    pub poll_floor_ms: NonZeroU32,
    /// The age at which the first safety poll of a job with a callback is due.
    pub safety_poll_seconds: NonZeroU32,
    /// The age of a job at which polling stops.
    pub deadline_seconds: NonZeroU32,
    /// How many requests a minute the provider takes from one key, all kinds together, where
    /// that is known.
    #[serde(default)]
    pub requests_per_minute: Option<NonZeroU32>,
    /// How long a submit may take.
    pub submit_timeout_ms: NonZeroU32,
    /// How long a status call may take.
    pub status_timeout_ms: NonZeroU32,
}

/// Why a document is not a provider spec.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It does not have the structure of a spec.
    #[error("{file}: {source}")]
    Shape {
        /// The document's name.
        file: String,
        /// The error of the parser, with line and column.
        source: serde_json::Error,
    },
    /// It has the structure of a spec but contradicts itself.
    #[error("{file}: {what}")]
    Meaning {
        /// The document's name.
        file: String,
        /// What is wrong, as a sentence.
        what: String,
    },
}

impl ProviderSpec {
    /// Reads and checks a spec. `file` names it in errors.
    ///
    /// # Errors
    /// When the document does not have the structure of a spec, or contradicts itself.
    pub fn parse(file: &str, json: &str) -> Result<Self, SpecError> {
        let spec: Self = serde_json::from_str(json)
            .map_err(|source| SpecError::Shape { file: file.to_owned(), source })?;
        match spec.contradiction() {
            Some(what) => Err(SpecError::Meaning { file: file.to_owned(), what }),
            None => Ok(spec),
        }
    }

    /// The budget of polls per second; none when the provider has no known rate limit.
    #[must_use]
    pub fn polling_budget(&self) -> Option<f64> {
        let limit = self.limits.requests_per_minute?;
        Some(f64::from(limit.get()) / 60.0 * POLLING_SHARE)
    }

    /// The poll schedule without a model of durations.
    #[must_use]
    pub fn poll_schedule(&self) -> PollSchedule {
        PollSchedule {
            floor: Duration::from_millis(self.limits.poll_floor_ms.get().into()),
            safety: Duration::from_secs(self.limits.safety_poll_seconds.get().into()),
            deadline: Duration::from_secs(self.limits.deadline_seconds.get().into()),
            duration_model: None,
            slowdown: Slowdown::NONE,
        }
    }
}

/// The share of a provider's rate limit that polls may use; the rest is for submits.
const POLLING_SHARE: f64 = 0.75;
