//! What makes a document no spec although it has the shape of one: what contradicts itself,
//! could not be sent, or could never come to anything. `providers/schema.json` says the same,
//! as far as a schema can.

use super::webhook::{Unsigned, WebhookSpec};
use super::{ProviderSpec, Reading, SubmitSafety, Words};
use crate::provider::pointer::Pointer;
use crate::verifier::incoming::HeaderName;

impl ProviderSpec {
    /// What is wrong, as a sentence.
    pub(super) fn contradiction(&self) -> Option<String> {
        if !self.base_urls.contains_key("default") {
            return Some("baseUrls has no `default`".into());
        }
        if let Some((name, _)) = self.base_urls.iter().find(|(_, url)| url.scheme() != "https") {
            return Some(format!("baseUrls.{name} is not https"));
        }
        if let Some(what) = self.cannot_be_sent() {
            return Some(what);
        }
        if self.submit.id.is_empty() && !matches!(self.submit_safety, SubmitSafety::ClientId {}) {
            return Some("submit.id is empty: nothing would name the render".into());
        }
        if self.submit.accepted.is_empty() {
            return Some("submit.accepted is empty: no answer would mean success".into());
        }
        if !self.status.path.contains("{id}")
            && !self.status.query.values().any(|value| value.contains("{id}"))
        {
            return Some("neither status.path nor status.query has {id}".into());
        }
        let believed = self.webhook.as_ref().and_then(|webhook| webhook.answer.as_ref());
        let mut readings = [Some(&self.status.answer), believed].into_iter().flatten();
        if let Some(what) = readings.find_map(Reading::contradiction) {
            return Some(what);
        }
        let per_job = self.webhook.as_ref().and_then(|webhook| webhook.per_job);
        if per_job.is_some() == self.submit.inject.callback.is_empty() {
            return Some("webhook.perJob and submit.inject.callback need each other".into());
        }
        if matches!(self.submit_safety, SubmitSafety::Callback {}) && per_job.is_none() {
            return Some("submitSafety is `callback`, but jobs have no callback".into());
        }
        if !matches!(self.submit_safety, SubmitSafety::Callback {})
            && self.submit.inject.identity.is_empty()
        {
            return Some(
                "submitSafety finds a render by submit.inject.identity: it is empty".into(),
            );
        }
        if let Some(what) = self.webhook.as_ref().and_then(WebhookSpec::contradiction) {
            return Some(what);
        }
        if let Some(cancel) = &self.cancel
            && !cancel.path.contains("{id}")
        {
            return Some("cancel.path has no {id}".into());
        }
        if self.cancel.as_ref().is_some_and(|cancel| cancel.accepted.is_empty()) {
            return Some("cancel.accepted is empty: no answer would mean success".into());
        }
        let mut statuses = self
            .submit
            .accepted
            .iter()
            .chain(self.errors.iter().flat_map(|e| &e.http))
            .chain(self.cancel.iter().flat_map(|cancel| &cancel.accepted));
        if let Some(status) = statuses.find(|status| !(100..=599).contains(*status)) {
            return Some(format!("{status} is no HTTP status"));
        }
        if self.errors.iter().any(|rule| rule.pointer.is_some() != rule.contains.is_some()) {
            return Some("a rule of errors needs both pointer and contains, or neither".into());
        }
        None
    }

    /// What no request could have, or would have and mean something else.
    fn cannot_be_sent(&self) -> Option<String> {
        if let Some(name) = self.headers.keys().find(|name| HeaderName::parse(name).is_err()) {
            return Some(format!("headers: `{name}` is not the name of a header"));
        }
        let controls = |value: &str| value.chars().any(char::is_control);
        if let Some((name, _)) = self.headers.iter().find(|(_, value)| controls(value)) {
            return Some(format!("headers.{name} has a character that no header has"));
        }
        let list = match &self.submit_safety {
            SubmitSafety::List(list) => Some(&list.path),
            SubmitSafety::ClientId {} | SubmitSafety::Callback {} => None,
        };
        let cancel = self.cancel.as_ref().map(|cancel| &cancel.path);
        let paths = [Some(&self.submit.path), Some(&self.status.path), list, cancel];
        let wrong = |path: &&String| !path.starts_with('/') || path.contains(['?', '#']);
        paths.into_iter().flatten().find(wrong).map(|path| {
            format!("the path `{path}` must begin with `/` and have neither `?` nor `#`")
        })
    }
}

impl WebhookSpec {
    fn contradiction(&self) -> Option<String> {
        if self.per_job.is_none() && self.account.is_none() {
            return Some("webhook has neither perJob nor account: nobody would call".into());
        }
        if self.account.is_some() && self.signature.is_none() {
            return Some("webhook.account needs a signature: its URL is no secret".into());
        }
        if self.unsigned == Unsigned::Refuse && self.signature.is_none() {
            return Some("webhook.unsigned is `refuse`, but nothing is signed".into());
        }
        if self.answer.is_some() && !self.believes() {
            return Some("webhook.answer is read only from a body that a signature proves".into());
        }
        let mut pointers = self.rules.iter().flat_map(|rule| rule.when.keys());
        pointers.find_map(|text| Pointer::parse(text).err()).map(|error| error.to_string())
    }
}

impl Reading {
    fn contradiction(&self) -> Option<String> {
        if self.words.completed.is_empty() {
            return Some("words.completed is empty: no render would ever complete".into());
        }
        let words = self.words.all();
        if let Some(twice) = words
            .iter()
            .find(|word| words.iter().filter(|other| other.eq_ignore_ascii_case(word)).count() > 1)
        {
            return Some(format!("words has `{twice}` twice"));
        }
        self.result_url
            .as_ref()
            .filter(|url| !url.starts_with("https://") || !url.contains("{result}"))
            .map(|url| format!("resultUrl `{url}` is not https, or has no {{result}}"))
    }
}

impl Words {
    fn all(&self) -> Vec<&str> {
        let groups = [
            &self.queued,
            &self.processing,
            &self.completed,
            &self.failed,
            &self.cancelled,
            &self.timed_out,
        ];
        groups.into_iter().flatten().map(String::as_str).collect()
    }
}
