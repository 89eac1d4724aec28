//! What a provider answers.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;
use domain::job::{Job, RenderStatus, Report, State, Transition};
use domain::provider::EchoMask;
use domain::provider::answer::ProviderAnswer;
use domain::provider::{StatusAnswer, SubmitAnswer};
use serde_json::Value;

use crate::facts::AnswerFact;
use crate::matrix::Matrix;
use crate::meaning;
use crate::tested_provider::{TestedProvider, noon};

pub(crate) fn acceptances(subject: &TestedProvider, matrix: &mut Matrix) {
    submits(subject, matrix, "accepted", State::Queued);
}

pub(crate) fn refusals(subject: &TestedProvider, matrix: &mut Matrix) {
    submits(subject, matrix, "refused", State::Failed);
}

pub(crate) fn unclear_submits(subject: &TestedProvider, matrix: &mut Matrix) {
    submits(subject, matrix, "unclear", State::SubmitUnknown);
}

/// Each answer to a submit of one outcome, and what becomes of the job by it.
fn submits(subject: &TestedProvider, matrix: &mut Matrix, outcome: &str, state: State) {
    for exchange in subject.facts.submit.iter().filter(|exchange| exchange.is.starts_with(outcome))
    {
        let body = exchange.bytes();
        let answer = subject.provider.spec.read_submit(&answer(exchange, &body));
        let job = after_submit(&subject.job(), &answer);
        let case = format!("HTTP {} {}", exchange.http, String::from_utf8_lossy(&body));
        let found = format!("{}; the job is {}", meaning::submit(&answer), job.state.name());
        matrix.check(&case, &found, &format!("{}; the job is {}", exchange.is, state.name()));
    }
}

/// What the submit function reports of an answer.
pub(crate) fn submit_report(answer: &SubmitAnswer) -> Report {
    match answer {
        SubmitAnswer::Accepted(id) => Report::Accepted(id.clone()),
        SubmitAnswer::Rejected(rejection) => Report::Rejected(rejection.failure.clone()),
        SubmitAnswer::Unclear => Report::SubmitUnclear,
    }
}

fn after_submit(job: &Job, answer: &SubmitAnswer) -> Job {
    match job.apply(&submit_report(answer), 0, noon()) {
        Transition::Changed(job) => *job,
        Transition::Unchanged => job.clone(),
    }
}

pub(crate) fn words(subject: &TestedProvider, matrix: &mut Matrix) {
    for (meaning, words) in &subject.facts.words {
        for word in words.iter().flat_map(|word| spellings(word)) {
            matrix.check(&word, &meaning_of(subject, &word), meaning);
        }
    }
}

/// Words that the provider may add, among them the last words of all other providers: none
/// of them ends a render by surprise.
pub(crate) fn unknown_words(subject: &TestedProvider, matrix: &mut Matrix) {
    let own: BTreeSet<String> =
        subject.facts.words.values().flatten().map(|word| word.to_lowercase()).collect();
    let mut unknown = BTreeSet::from(["archived".to_owned(), "done?".to_owned()]);
    unknown.extend(subject.all_words.iter().cloned());
    for word in unknown.difference(&own) {
        matrix.check(word, &meaning_of(subject, word), "processing");
    }
}

fn spellings(word: &str) -> BTreeSet<String> {
    let mut capital = word.to_lowercase();
    if let Some(first) = capital.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    BTreeSet::from([word.to_owned(), word.to_lowercase(), word.to_uppercase(), capital])
}

fn meaning_of(subject: &TestedProvider, word: &str) -> String {
    let body = filled(&subject.facts.word_body, word).to_string();
    let answer = ProviderAnswer::read(200, None, body.as_bytes(), &EchoMask::default());
    match subject.provider.spec.read_status(&subject.render(), &answer, noon()) {
        StatusAnswer::Observed(observation) if observation.provider_status == word => {
            meaning::word(&observation.status).to_owned()
        }
        other => format!("{other:?}"),
    }
}

fn filled(template: &Value, word: &str) -> Value {
    serde_json::from_str(&template.to_string().replace("{word}", word)).unwrap()
}

pub(crate) fn results(subject: &TestedProvider, matrix: &mut Matrix) {
    statuses(subject, matrix, &subject.facts.results);
}

pub(crate) fn progress(subject: &TestedProvider, matrix: &mut Matrix) {
    statuses(subject, matrix, &subject.facts.progress);
}

pub(crate) fn failures(subject: &TestedProvider, matrix: &mut Matrix) {
    statuses(subject, matrix, &subject.facts.failures);
}

pub(crate) fn status_errors(subject: &TestedProvider, matrix: &mut Matrix) {
    statuses(subject, matrix, &subject.facts.status_errors);
}

fn statuses(subject: &TestedProvider, matrix: &mut Matrix, exchanges: &[AnswerFact]) {
    for exchange in exchanges {
        let found = read(subject, exchange);
        let body = exchange.bytes();
        let case = format!("HTTP {} {}", exchange.http, String::from_utf8_lossy(&body));
        matrix.check(&case, &meaning::status(&found), &exchange.is);
    }
}

/// Videos are kept as long as documented, counted from the report, whichever way it came.
pub(crate) fn expiries(subject: &TestedProvider, matrix: &mut Matrix) {
    let Some(kept) = subject.facts.kept_seconds else { return };
    let spec = &subject.provider.spec;
    let observed =
        subject.facts.results.iter().filter_map(|exchange| match read(subject, exchange) {
            StatusAnswer::Observed(observation) => Some((&exchange.is, observation)),
            StatusAnswer::NotFound | StatusAnswer::Unavailable { .. } => None,
        });
    let claimed = subject.facts.callbacks.iter().filter_map(|post| {
        let callback = spec.read_callback(&post.bytes(), &EchoMask::default(), noon()).ok()?;
        Some((&post.is, callback.claim?))
    });
    for (case, observation) in observed.chain(claimed) {
        if let RenderStatus::Completed(result) = observation.status {
            let wanted = Some(noon() + TimeDelta::seconds(kept.into()));
            let (found, wanted) = (format!("{:?}", result.expires_at), format!("{wanted:?}"));
            matrix.check(case, &found, &wanted);
        }
    }
}

fn read(subject: &TestedProvider, exchange: &AnswerFact) -> StatusAnswer {
    let body = exchange.bytes();
    subject.provider.spec.read_status(&subject.render(), &answer(exchange, &body), noon())
}

pub(crate) fn cancellations(subject: &TestedProvider, matrix: &mut Matrix) {
    let Some(cancel) = &subject.provider.spec.cancel else { return };
    for exchange in &subject.facts.cancel {
        let body = exchange.bytes();
        let found = subject.provider.spec.read_cancel(cancel, &answer(exchange, &body));
        let case = format!("HTTP {} {}", exchange.http, String::from_utf8_lossy(&body));
        matrix.check(&case, &meaning::cancel(&found), &exchange.is);
    }
}

fn answer(exchange: &AnswerFact, body: &[u8]) -> ProviderAnswer {
    let retry_after = exchange.retry_after.map(Duration::from_secs);
    ProviderAnswer::read(exchange.http, retry_after, body, &EchoMask::default())
}
