//! The checks of a spec beyond its structure: contradictions, values that cannot be sent, and
//! settings without an effect. `providers/schema.json` has the same rules as far as a schema can
//! express them.

use serde_json::Value;
use url::Url;

use super::webhook::{Unsigned, WebhookSpec};
use super::{
    ErrorRule, Inject, Injection, ListSpec, NextPage, ProviderLimits, ProviderSpec, Reading,
    SubmitSafety, Words,
};
use crate::provider::pointer::Pointer;
use crate::verifier::incoming::HeaderName;

impl ProviderSpec {
    /// The first problem, as a sentence.
    pub(super) fn contradiction(&self) -> Option<String> {
        if !self.base_urls.contains_key("default") {
            return Some("baseUrls has no `default`".into());
        }
        if let Some((name, _)) = self.base_urls.iter().find(|(_, url)| url.scheme() != "https") {
            return Some(format!("baseUrls.{name} is not https"));
        }
        let bare = |url: &Url| {
            url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        if let Some((name, _)) = self.base_urls.iter().find(|(_, url)| !bare(url)) {
            return Some(format!("baseUrls.{name} has more than a host and a path"));
        }
        if !matches!(self.docs.scheme(), "https" | "http") {
            return Some("docs is not an http or https URL".into());
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
        if let Some(status) = self.submit.accepted.iter().find(|it| !(200..=299).contains(*it)) {
            return Some(format!("submit.accepted has {status}, which never means success"));
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
        if let Some(what) = self.is_never_found() {
            return Some(what);
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
            .errors
            .iter()
            .flat_map(|rule| &rule.http)
            .chain(self.cancel.iter().flat_map(|cancel| &cancel.accepted));
        if let Some(status) = statuses.find(|status| !(100..=599).contains(*status)) {
            return Some(format!("{status} is no HTTP status"));
        }
        if self.errors.iter().any(|rule| rule.pointer.is_some() != rule.contains.is_some()) {
            return Some("a rule of errors needs both pointer and contains, or neither".into());
        }
        if self.errors.iter().any(|rule| rule.http.is_empty()) {
            return Some("a rule of errors has no http: it would fit no answer".into());
        }
        let is_success = |rule: &ErrorRule| rule.http.iter().any(|it| (200..=299).contains(it));
        let says_nothing = |rule: &ErrorRule| rule.contains.as_deref().is_none_or(str::is_empty);
        if self.errors.iter().any(|rule| is_success(rule) && says_nothing(rule)) {
            return Some("a rule of errors about a 2xx needs a text to tell it by".into());
        }
        self.limits.contradiction()
    }

    /// The problems of the values that are added to a submit.
    fn is_never_found(&self) -> Option<String> {
        let Inject { callback, identity } = &self.submit.inject;
        let nowhere = |injection: &&Injection| match injection {
            Injection::Set { set: place, .. } | Injection::Append { append: place, .. } => {
                !place.is_one_member()
            }
            Injection::Query { .. } => false,
        };
        if callback.iter().chain(identity).any(|it| nowhere(&it)) {
            return Some("submit.inject has a place that is not one member of the payload".into());
        }
        if !callback.is_empty() && !says(callback, &["{callbackUrl}"]) {
            return Some("submit.inject.callback has no {callbackUrl}".into());
        }
        if self.webhook.as_ref().is_some_and(|webhook| webhook.account.is_some())
            && !says(identity, &["{jobId}", "{jobUuid}"])
        {
            return Some(
                "webhook.account finds a job by {jobId} or {jobUuid} in submit.inject.identity"
                    .into(),
            );
        }
        match &self.submit_safety {
            SubmitSafety::ClientId {} if !says(identity, &["{jobUuid}"]) => Some(
                "submitSafety is `clientId`, but submit.inject.identity has no {jobUuid}".into(),
            ),
            SubmitSafety::List(_) if !says(identity, &["{jobId}", "{jobUuid}"]) => Some(
                "submitSafety finds a render by {jobId} or {jobUuid} in submit.inject.identity"
                    .into(),
            ),
            SubmitSafety::List(list)
                if list.rows.is_empty() || list.correlation.is_empty() || list.id.is_empty() =>
            {
                Some("submitSafety needs rows, correlation and id: nothing would be found".into())
            }
            SubmitSafety::List(ListSpec { next: Some(NextPage::Token { token, .. }), .. })
                if token.is_empty() =>
            {
                Some("submitSafety.next.token is empty: no page would have a next".into())
            }
            SubmitSafety::ClientId {} | SubmitSafety::List(_) | SubmitSafety::Callback {} => None,
        }
    }

    /// The problems of paths, headers and query parameters.
    fn cannot_be_sent(&self) -> Option<String> {
        if let Some(name) = self.headers.keys().find(|name| HeaderName::parse(name).is_err()) {
            return Some(format!("headers: `{name}` is not the name of a header"));
        }
        if let Some(name) = self.headers.keys().find(|name| is_ours(name)) {
            return Some(format!("headers: `{name}` is not a provider's to choose"));
        }
        let names = self.headers.keys();
        let again = |name: &&String| {
            self.headers.keys().filter(|other| other.eq_ignore_ascii_case(name)).count() > 1
        };
        if let Some(name) = names.clone().find(again) {
            return Some(format!("headers has `{name}` twice"));
        }
        let known = ["{apiKey}", "{apiKeyBase64}"];
        if let Some((name, _)) = self.headers.iter().find(|(_, value)| has_unknown(value, &known)) {
            return Some(format!("headers.{name} has braces around what stands for nothing"));
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
        if let Some(path) = paths.into_iter().flatten().find(wrong) {
            return Some(format!(
                "the path `{path}` must begin with `/` and have neither `?` nor `#`"
            ));
        }
        let one = ["{id}"];
        let filled = [(Some(&self.status.path), &one[..]), (cancel, &one[..])];
        let all = [(Some(&self.submit.path), &[][..]), (list, &[][..])].into_iter().chain(filled);
        let mut all = all.filter_map(|(path, known)| Some((path?, known)));
        all.find(|(path, known)| has_unknown(path, known))
            .map(|(path, _)| format!("the path `{path}` has braces around what stands for nothing"))
    }
}

impl ProviderLimits {
    fn contradiction(&self) -> Option<String> {
        if self.submit_timeout_ms.max(self.status_timeout_ms).get() > MAX_TIMEOUT_MS {
            return Some(format!("limits has a timeout of more than {MAX_TIMEOUT_MS} ms"));
        }
        if self.deadline_seconds.get() > MAX_DEADLINE_SECONDS {
            return Some(format!("limits.deadlineSeconds is more than {MAX_DEADLINE_SECONDS}"));
        }
        if self.poll_floor_ms.get() < MIN_POLL_FLOOR_MS {
            return Some(format!("limits.pollFloorMs is less than {MIN_POLL_FLOOR_MS}"));
        }
        None
    }
}

/// The latest deadline, seven days. A job whose end is never learned is polled until then.
const MAX_DEADLINE_SECONDS: u32 = 604_800;

/// The shortest time between two polls of a render. One poller polls all jobs of its shard.
const MIN_POLL_FLOOR_MS: u32 = 500;

/// The longest time-out of a call, in milliseconds. The functions that wait for it have 29 s, and
/// need some of it for the table.
const MAX_TIMEOUT_MS: u32 = 25_000;

/// Whether a header is set by HTTP or by us.
fn is_ours(name: &str) -> bool {
    let ours =
        ["accept", "connection", "content-length", "content-type", "host", "transfer-encoding"];
    ours.iter().any(|it| it.eq_ignore_ascii_case(name))
}

/// Whether a text has a brace outside of these placeholders.
fn has_unknown(text: &str, known: &[&str]) -> bool {
    known.iter().fold(text.to_owned(), |text, known| text.replace(known, "")).contains(['{', '}'])
}

/// Whether an addition has one of these placeholders.
fn says(injections: &[Injection], placeholders: &[&str]) -> bool {
    injections.iter().any(|injection| match injection {
        Injection::Set { value, .. } | Injection::Append { value, .. } => {
            value_says(value, placeholders)
        }
        Injection::Query { value, .. } => placeholders.iter().any(|it| value.contains(it)),
    })
}

fn value_says(value: &Value, placeholders: &[&str]) -> bool {
    match value {
        Value::String(text) => placeholders.iter().any(|it| text.contains(it)),
        Value::Array(elements) => elements.iter().any(|it| value_says(it, placeholders)),
        Value::Object(members) => members.values().any(|it| value_says(it, placeholders)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl WebhookSpec {
    fn contradiction(&self) -> Option<String> {
        if self.per_job.is_none() && self.account.is_none() {
            return Some("webhook has neither perJob nor account: no callback would come".into());
        }
        if self.account.is_some() && self.signature.is_none() {
            return Some("webhook.account needs a signature: its URL is no secret".into());
        }
        if self.account.as_ref().is_some_and(|account| account.job.is_empty()) {
            return Some("webhook.account.job is empty: no job would be found".into());
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
        if self.status.is_empty() {
            return Some("status is empty: no answer would have a status".into());
        }
        let words = self.words.all();
        if words.iter().any(|word| word.trim().is_empty()) {
            return Some("words has an empty one, which no provider says".into());
        }
        if let Some(twice) = words
            .iter()
            .find(|word| words.iter().filter(|other| other.eq_ignore_ascii_case(word)).count() > 1)
        {
            return Some(format!("words has `{twice}` twice"));
        }
        if let Some(progress) = self.progress.iter().find(|progress| progress.scale <= 0.0) {
            return Some(format!(
                "progress has the scale {}, which is not above 0",
                progress.scale
            ));
        }
        if self.error_code_separator.as_deref() == Some("") {
            return Some("errorCodeSeparator is empty: it separates nothing".into());
        }
        let in_path = |url: &str| {
            let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
            Some(!host.is_empty() && !host.contains(['{', '}']) && path.contains("{result}"))
        };
        self.result_url
            .as_ref()
            .filter(|url| in_path(url) != Some(true))
            .map(|url| format!("resultUrl `{url}` is not https, or has no {{result}} in its path"))
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
