//! Reports that arrive twice, late, early or not at all, and the states that a job gets by them.

use chrono::{DateTime, TimeDelta, Utc};
use domain::job::{Report, Transition};
use domain::provider::EchoMask;
use domain::provider::StatusAnswer;
use domain::provider::answer::ProviderAnswer;
use domain::provider::spec::webhook::{WebhookKind, WebhookSpec};
use serde_json::Value;

use crate::answers::submit_report;
use crate::facts::{ReportFact, ScenarioFact};
use crate::matrix::Matrix;
use crate::tested_provider::{TestedProvider, noon};

/// The scenarios of every provider: title, steps, and the states whose events are published.
/// `lost` is a submit whose answer did not arrive, `deadline` is the job's deadline. After `~`
/// stands the state for a provider that does not sign its callbacks.
const COMMON: &[(&str, &[&str], &[&str])] = &[
    (
        "repeated and late reports change nothing",
        &[
            "accepted: queued",
            "accepted: queued again",
            "working: processing",
            "working: processing again",
            "done: completed",
            "done: completed again",
            "working: completed again",
            "failed: completed again",
            "accepted: completed again",
            "deadline: completed again",
        ],
        &["completed"],
    ),
    (
        "a failure is final",
        &["accepted: queued", "failed: failed", "failed: failed again", "done: failed again"],
        &["failed"],
    ),
    (
        "the submit's answer is lost, and a status call finds the render",
        &["lost: submit_unknown", "done: completed", "accepted: completed again"],
        &["completed"],
    ),
    (
        "no report of a submit ever comes",
        &["lost: submit_unknown", "lost: submit_unknown again", "deadline: failed"],
        &["failed"],
    ),
    (
        "the render completes after the deadline",
        &["accepted: queued", "deadline: timed_out", "working: timed_out again", "done: completed"],
        &["timed_out", "completed"],
    ),
];

/// The scenarios of every provider with callbacks.
const WITH_CALLBACKS: &[(&str, &[&str], &[&str])] = &[
    (
        "the callback comes after a poll has found the end",
        &["accepted: queued", "done: completed", "callback: completed again"],
        &["completed"],
    ),
    (
        "the callback comes twice, and a status call confirms it",
        &[
            "accepted: queued",
            "callback: completed ~ queued again",
            "callback: completed again ~ queued again",
            "done: completed again ~ completed",
        ],
        &["completed"],
    ),
    (
        "the callback comes before the submit's answer",
        &[
            "callback: completed ~ submitting again",
            "done: completed again ~ completed",
            "accepted: completed again",
        ],
        &["completed"],
    ),
    (
        "the callback proves a submit whose answer was lost",
        &[
            "lost: submit_unknown",
            "callback: completed ~ submit_unknown again",
            "done: completed again ~ completed",
        ],
        &["completed"],
    ),
];

pub(crate) fn end_as_expected(subject: &TestedProvider, matrix: &mut Matrix) {
    for (title, steps, published) in COMMON {
        run(subject, matrix, title, steps, published);
    }
    if subject.facts.reports.contains_key("callback") {
        for (title, steps, published) in WITH_CALLBACKS {
            run(subject, matrix, title, steps, published);
        }
    }
    for ScenarioFact { title, steps, published } in &subject.facts.scenarios {
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let published: Vec<&str> = published.iter().map(String::as_str).collect();
        run(subject, matrix, title, &steps, &published);
    }
}

fn run(
    subject: &TestedProvider,
    matrix: &mut Matrix,
    title: &str,
    steps: &[&str],
    published: &[&str],
) {
    let mut job = subject.job();
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    let mut now = noon();
    for step in steps {
        now += TimeDelta::seconds(10);
        let (name, state) = step.split_once(": ").unwrap();
        let report = match report(subject, name, now) {
            Ok(report) => report,
            Err(problem) => return matrix.check(title, problem, name),
        };
        let proved = report.is_some();
        let version = job.version;
        let step = report.map_or(Transition::Unchanged, |report| job.apply(&report, 0, now));
        let again = match step {
            Transition::Changed(changed) => {
                job = *changed;
                ""
            }
            Transition::Unchanged => " again",
        };
        assert!(job.version == version + u64::from(again.is_empty()), "a version per change");
        found.push(format!("{name}: {}{again}", job.state.name()));
        let state = match state.split_once(" ~ ") {
            None => state,
            Some((state, _)) if proves(subject, name, proved) => state,
            Some((_, state)) => state,
        };
        expected.push(format!("{name}: {state}"));
    }
    matrix.check(title, &found.join(", "), &expected.join(", "));
    let entries: Vec<&str> = job.outbox.iter().map(|entry| entry.status.name()).collect();
    matrix.check(&format!("{title}: published"), &entries.join(", "), &published.join(", "));
}

/// Whether the report proves itself, as a signed callback does; for a step after the callback,
/// whether the provider signs its callbacks.
fn proves(subject: &TestedProvider, name: &str, proved: bool) -> bool {
    match name {
        "callback" => proved,
        _ => matches!(subject.facts.reports["callback"], ReportFact::SignedCallback(_)),
    }
}

/// The report to apply; none when the provider has to be asked first, or the callback is ignored.
///
/// # Errors
/// When the callback is not believed, or does not cause a poll.
fn report(
    subject: &TestedProvider,
    name: &str,
    now: DateTime<Utc>,
) -> Result<Option<Report>, &'static str> {
    let spec = &subject.provider.spec;
    let answer =
        |status, body: &[u8]| ProviderAnswer::read(status, None, body, &EchoMask::default());
    match name {
        "lost" => return Ok(Some(Report::SubmitUnclear)),
        "deadline" => return Ok(Some(Report::DeadlinePassed)),
        _ => {}
    }
    let read = |body: &Value| {
        spec.read_callback(body.to_string().as_bytes(), &EchoMask::default(), now).ok()
    };
    Ok(
        match subject.facts.reports.get(name).unwrap_or_else(|| panic!("there is no report {name}"))
        {
            ReportFact::Submit(http, body) => {
                Some(submit_report(&spec.read_submit(&answer(*http, body.to_string().as_bytes()))))
            }
            ReportFact::Status(http, body) => {
                let body = body.to_string();
                match spec.read_status(&subject.render(), &answer(*http, body.as_bytes()), now) {
                    StatusAnswer::Observed(observation) => Some(Report::Observed(observation)),
                    StatusAnswer::NotFound | StatusAnswer::Unavailable { .. } => None,
                }
            }
            ReportFact::SignedCallback(body) => {
                if !spec.webhook.as_ref().is_some_and(WebhookSpec::believes) {
                    return Err("it is not believed");
                }
                let callback = read(body).filter(|callback| callback.kind != WebhookKind::Ignore);
                callback.and_then(|callback| callback.claim).map(Report::Observed)
            }
            ReportFact::Callback(body) => match read(body).map(|callback| callback.kind) {
                Some(WebhookKind::Ended) => None,
                Some(WebhookKind::Progress | WebhookKind::Ignore) | None => {
                    return Err("it causes no poll");
                }
            },
        },
    )
}
