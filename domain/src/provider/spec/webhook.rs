//! The vocabulary of callbacks: their URL, their signature, and their meaning.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::Reading;
use crate::provider::pointer::Pointer;
use crate::verifier::SignatureScheme;

/// The callbacks of a provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSpec {
    /// Whether a job can name a URL, and does so unless the request says otherwise. Absent
    /// when only the account can.
    #[serde(default)]
    pub per_job: Option<JobCallbackUrl>,
    /// Whether the account can name a URL for all its renders.
    #[serde(default)]
    pub account: Option<AccountCallbackUrl>,
    /// Whether bodies may be forms besides JSON.
    #[serde(default)]
    pub form: bool,
    /// The signature. A body whose signature holds is believed; any other body is a hint to poll
    /// the provider.
    #[serde(default)]
    pub signature: Option<SignatureScheme>,
    /// What to do with a callback to a job's own URL that lacks the signature.
    #[serde(default)]
    pub unsigned: Unsigned,
    /// The kinds of callbacks. The first rule that matches decides; without one the callback is
    /// ignored.
    pub rules: Vec<WebhookRule>,
    /// How to read a body that is believed; needed with a signature that proves the body.
    #[serde(default)]
    pub answer: Option<Reading>,
}

/// A job names the URL of its callback.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobCallbackUrl {
    /// Whether jobs do so unless the request says otherwise.
    pub by_default: bool,
}

/// The account names one URL for the callbacks of all its renders.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountCallbackUrl {
    /// Where a body has our id of the job, or its UUID.
    pub job: Vec<Pointer>,
}

/// What to do with a callback that lacks the signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unsigned {
    /// Take it as a hint: the token in its URL is valid, and the provider is polled anyway.
    #[default]
    Hint,
    /// Refuse it: this provider signs everything once it has a secret.
    Refuse,
}

/// One kind of callback.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookRule {
    /// Values that the body must have, by pointer. Empty fits every body.
    #[serde(default)]
    pub when: BTreeMap<String, Value>,
    /// What such a callback is.
    pub kind: WebhookKind,
    /// Where it carries the render's id.
    #[serde(default)]
    pub id: Vec<Pointer>,
}

/// What a callback is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WebhookKind {
    /// The render ended, with any result.
    Ended,
    /// The render progressed. It is believed with a signature, and not worth a poll without.
    Progress,
    /// Another event, which is accepted and changes nothing.
    Ignore,
}

impl WebhookSpec {
    /// Whether a body with a valid signature is believed, and not only a hint to poll.
    #[must_use]
    pub fn believes(&self) -> bool {
        self.answer.is_some() && self.signature.as_ref().is_some_and(SignatureScheme::proves_body)
    }
}
