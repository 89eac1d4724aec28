//! The shape of `tests/data/<name>.json`: what is known of one provider's API.
//!
//! In all texts `{jobId}`, `{jobUuid}` and `{callbackUrl}` stand for those of the job that
//! the facts are about. What is to come out of a fact is a line of text; see [`crate::meaning`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Facts {
    /// Where the facts are from and which of them are guesses; for readers.
    #[serde(rename = "source")]
    pub(crate) _source: String,
    pub(crate) request: Requests,
    /// The provider's id of the render that all answers are about.
    pub(crate) render: String,
    pub(crate) submit: Vec<AnswerFact>,
    /// The provider's words by what they mean.
    pub(crate) words: BTreeMap<String, Vec<String>>,
    /// A status answer with `{word}` where the word is.
    pub(crate) word_body: Value,
    pub(crate) results: Vec<AnswerFact>,
    /// After how long a video is deleted, where that is documented.
    #[serde(default)]
    pub(crate) kept_seconds: Option<u32>,
    #[serde(default)]
    pub(crate) progress: Vec<AnswerFact>,
    pub(crate) failures: Vec<AnswerFact>,
    /// Status calls that are not answered with a status.
    pub(crate) status_errors: Vec<AnswerFact>,
    #[serde(default)]
    pub(crate) callbacks: Vec<CallbackFact>,
    #[serde(default)]
    pub(crate) signature: Option<Signature>,
    /// The reports of the scenarios, by name.
    pub(crate) reports: BTreeMap<String, ReportFact>,
    /// What only this provider does; every provider has the common scenarios too.
    #[serde(default)]
    pub(crate) scenarios: Vec<ScenarioFact>,
    #[serde(default)]
    pub(crate) lists: Vec<SearchFact>,
    #[serde(default)]
    pub(crate) cancel: Vec<AnswerFact>,
}

/// What the provider is to be asked for a realistic payload.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Requests {
    pub(crate) payload: Map<String, Value>,
    pub(crate) submit_url: String,
    /// The header that has the key, with the key `key:1`.
    pub(crate) key_header: (String, String),
    /// The body without a callback.
    pub(crate) body: Value,
    /// The body with a callback, where a job can have one.
    #[serde(default)]
    pub(crate) body_with_callback: Option<Value>,
    pub(crate) status_url: String,
    /// The status URL for an id that is trying to be a path.
    pub(crate) hostile_status_url: String,
    #[serde(default)]
    pub(crate) cancel: Option<String>,
    /// Base URLs besides the default one.
    #[serde(default)]
    pub(crate) environments: BTreeMap<String, String>,
    /// Other payloads, and their bodies without a callback.
    #[serde(default)]
    pub(crate) others: Vec<(Map<String, Value>, Value)>,
    /// Whether a job gets a callback: by payload and by what the caller asked.
    pub(crate) wants: Vec<Wants>,
    /// Payloads that are not submitted, and why.
    #[serde(default)]
    pub(crate) refused: Vec<(Map<String, Value>, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Wants {
    /// The realistic payload when absent.
    #[serde(default)]
    pub(crate) payload: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) asked: Option<bool>,
    pub(crate) is: String,
}

/// An answer of the provider and what it means.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AnswerFact {
    pub(crate) http: u16,
    #[serde(default)]
    pub(crate) retry_after: Option<u64>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    text: Option<String>,
    pub(crate) is: String,
}

/// A callback and what it means.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CallbackFact {
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    text: Option<String>,
    pub(crate) is: String,
}

impl AnswerFact {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        bytes(self.body.as_ref(), self.text.as_deref())
    }
}

impl CallbackFact {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        bytes(self.body.as_ref(), self.text.as_deref())
    }
}

/// A body is JSON, or a text that need not be, or empty.
fn bytes(body: Option<&Value>, text: Option<&str>) -> Vec<u8> {
    match (body, text) {
        (Some(body), _) => body.to_string().into_bytes(),
        (None, text) => text.unwrap_or_default().as_bytes().to_vec(),
    }
}

/// How the provider signs. In `content` and `headers`, `{timestamp}` and `{id}` stand for
/// what the signer chooses, `{body}` for the body, `{hex}` and `{base64}` for the signature.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Signature {
    /// The secret's text.
    pub(crate) secret: String,
    /// Another one, as after a rotation.
    pub(crate) older_secret: String,
    /// One that is not ours.
    pub(crate) strange_secret: String,
    /// What stands before the base64 of the key in a secret; the text is the key when absent.
    #[serde(default)]
    pub(crate) base64_after: Option<String>,
    pub(crate) content: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// The callback that is signed.
    pub(crate) body: Value,
    /// Another delivery of it, where its bytes differ.
    #[serde(default)]
    pub(crate) copy: Option<Value>,
    /// The greatest age, where one is documented or sensible.
    #[serde(default)]
    pub(crate) max_age_seconds: Option<i64>,
    #[serde(default)]
    pub(crate) max_ahead_seconds: Option<i64>,
    /// What becomes of a callback to a job's own URL that is not signed.
    pub(crate) unsigned: String,
    /// What the provider, its documentation or another implementation computed.
    pub(crate) vectors: Vec<VectorFact>,
}

/// One signed request, byte for byte.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VectorFact {
    pub(crate) secret: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// Unix seconds.
    pub(crate) at: i64,
}

/// A report about a render.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum ReportFact {
    /// The answer to the submit.
    Submit(u16, Value),
    /// The answer to a status call.
    Status(u16, Value),
    /// A callback whose signature holds.
    SignedCallback(Value),
    /// A callback that nothing proves.
    Callback(Value),
}

/// Reports about one render, in order, and the states of its job.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ScenarioFact {
    pub(crate) title: String,
    /// `report: state` for a change, `report: state again` for a report that changes nothing.
    pub(crate) steps: Vec<String>,
    /// The states whose events are published.
    pub(crate) published: Vec<String>,
}

/// A search for a job whose submit was not answered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SearchFact {
    /// For each page the URL that it is at, and the answer.
    pub(crate) pages: Vec<PageFact>,
    pub(crate) is: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PageFact {
    pub(crate) url: String,
    pub(crate) http: u16,
    pub(crate) body: Value,
}
