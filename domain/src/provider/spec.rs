//! The vocabulary of a provider spec. Unknown words are refused when a spec is loaded, so a
//! typo cannot change what a provider is asked.

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
use crate::polling::{PollingLaw, Slowdown};

/// The spec of one provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderSpec {
    /// The path of the JSON schema, for editors only.
    #[serde(rename = "$schema", default)]
    pub schema: Option<String>,
    /// The name callers use; the same as the file's.
    pub name: ProviderName,
    /// The name for people.
    pub title: String,
    /// The URL of the provider's API documentation.
    pub docs: Url,
    /// Whether this spec was ever run against the provider itself, beyond its documentation.
    pub verified_live: bool,
    /// The API's base by environment. `default` must be there.
    pub base_urls: BTreeMap<String, Url>,
    /// Headers of every request; `{apiKey}` stands for the key, `{apiKeyBase64}` for its
    /// base64, which HTTP Basic wants of `user:password`.
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
    pub limits: Limits,
}

/// The submit of a render.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitSpec {
    /// The path below the base URL; POST.
    pub path: String,
    /// Statuses that mean "accepted".
    pub accepted: Vec<u16>,
    /// Where the answer carries the provider's id.
    pub id: Vec<Pointer>,
    /// Where an error answer carries its message.
    pub error: Vec<Pointer>,
    /// A member that callers may leave out: `payload` is put under it unless it has it.
    #[serde(default)]
    pub wrap: Option<Wrap>,
    /// What is added to the caller's payload.
    #[serde(default)]
    pub inject: Inject,
}

/// Lets callers submit both the bare and the wrapped form of a payload.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wrap {
    /// The member under which a bare payload goes.
    pub member: String,
    /// Members that show that the payload is wrapped already.
    pub unless_any: Vec<String>,
}

/// What is added to the caller's payload, by what it is for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inject {
    /// Only when the provider is to call back; `{callbackUrl}` stands for our URL.
    #[serde(default)]
    pub callback: Vec<Injection>,
    /// Always: `{jobUuid}` and `{jobId}` stand for our id.
    #[serde(default)]
    pub identity: Vec<Injection>,
}

/// One addition to the body or the URL.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Injection {
    /// Put `value` at the pointer, making its parents.
    Set {
        /// Where.
        set: Pointer,
        /// What; texts in it may have placeholders.
        value: Value,
    },
    /// Append `value` to the array at the pointer, making it if absent.
    Append {
        /// Where.
        append: Pointer,
        /// What; texts in it may have placeholders.
        value: Value,
    },
    /// Add a query parameter.
    Query {
        /// Its name.
        query: String,
        /// Its value; may have placeholders.
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
    /// A list of renders shows the mark that we put into the submit.
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
    /// Where the rows are, each of them.
    pub rows: Vec<Pointer>,
    /// Where a row has our id of the job, or its UUID.
    pub correlation: Vec<Pointer>,
    /// Where a row has the provider's id.
    pub id: Vec<Pointer>,
    /// How the next page is asked for; only the first is read when absent.
    #[serde(default)]
    pub next: Option<NextPage>,
}

/// How the next page of a list is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum NextPage {
    /// By a token that the page carries.
    Token {
        /// The query parameter.
        parameter: String,
        /// Where the page carries it.
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
    /// The method.
    pub method: CancelMethod,
    /// The path below the base URL. `{id}` stands for the provider's id, escaped.
    pub path: String,
    /// Statuses that mean "will be cancelled, or was".
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
    /// Where the answer repeats the id; an answer about another render is no answer.
    pub id: Vec<Pointer>,
    /// How to read the answer.
    pub answer: Reading,
}

/// Where an answer says how the render stands, and what else it says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reading {
    /// Where the provider's word for the state is.
    pub status: Vec<Pointer>,
    /// What its words mean; compared without regard to case. A word not listed means
    /// "processing": vendors add words, and none of them ends a render by surprise.
    pub words: Words,
    /// Where the progress is.
    #[serde(default)]
    pub progress: Vec<Progress>,
    /// Where the video's URL is. Read only when the status says "completed".
    pub result: Vec<Pointer>,
    /// What makes a URL of what is there: `https://cdn.example/{result}.mp4`. Absent when it
    /// is one already.
    #[serde(default)]
    pub result_url: Option<String>,
    /// Whether the video may be stored after the status says "completed". Until it has a URL,
    /// the render is processing.
    #[serde(default)]
    pub result_follows: bool,
    /// After how long the provider deletes the video.
    #[serde(default)]
    pub result_expires_after_seconds: Option<u32>,
    /// Where a failure's message is.
    pub error: Vec<Pointer>,
    /// What separates a code from the text in a failure's message.
    #[serde(default)]
    pub error_code_separator: Option<String>,
}

/// What a provider's words for states mean.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Words {
    /// Waiting.
    #[serde(default)]
    pub queued: Vec<String>,
    /// At work.
    #[serde(default)]
    pub processing: Vec<String>,
    /// Done.
    #[serde(default)]
    pub completed: Vec<String>,
    /// Broken.
    #[serde(default)]
    pub failed: Vec<String>,
    /// Called off.
    #[serde(default)]
    pub cancelled: Vec<String>,
    /// Given up by the provider, which may still finish.
    #[serde(default)]
    pub timed_out: Vec<String>,
}

/// Where the progress is, and what makes it `0.0..=1.0`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// Where.
    pub pointer: Pointer,
    /// The factor: 0.01 for percentages.
    pub scale: f64,
}

/// The meaning of an error answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorRule {
    /// Which request was answered; both when absent.
    #[serde(default)]
    pub on: Option<Operation>,
    /// The HTTP statuses it is about.
    pub http: Vec<u16>,
    /// Where in the body the text is that must contain `contains`.
    #[serde(default)]
    pub pointer: Option<Pointer>,
    /// The text, compared without regard to case.
    #[serde(default)]
    pub contains: Option<String>,
    /// What it means.
    pub means: ErrorClass,
}

/// Which request was answered.
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

/// The meaning of an error answer.
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
    /// The provider is too busy; nothing was accepted.
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
pub struct Limits {
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
    pub fn polling_law(&self) -> PollingLaw {
        PollingLaw {
            floor: Duration::from_millis(self.limits.poll_floor_ms.get().into()),
            safety: Duration::from_secs(self.limits.safety_poll_seconds.get().into()),
            deadline: Duration::from_secs(self.limits.deadline_seconds.get().into()),
            durations: None,
            slowdown: Slowdown::NONE,
        }
    }
}

/// The share of a provider's rate limit that polls may use; the rest is for submits.
const POLLING_SHARE: f64 = 0.75;
