//! The results of the interpreter as text, in the form that the facts have.

use std::time::Duration;

use domain::job::{Observation, RenderStatus};
use domain::provider::spec::webhook::WebhookKind;
use domain::provider::{
    Callback, CancelAnswer, ErrorClass, ListAnswer, StatusAnswer, SubmitAnswer,
};

use crate::tested_provider::job_id;

/// `accepted r-1`, `refused quota provider_quota: no credits`, `unclear`.
pub(crate) fn submit(answer: &SubmitAnswer) -> String {
    match answer {
        SubmitAnswer::Accepted(id) => format!("accepted {id}"),
        SubmitAnswer::Rejected(no) => {
            let (class, code) = (class(no.class), no.failure.code.name());
            format!("refused {class} {code}: {}{}", no.failure.message, wait(no.retry_after))
        }
        SubmitAnswer::Unclear => "unclear".to_owned(),
    }
}

/// `processing at 42%`, `not found`, `unavailable: rate, wait 14 s`.
pub(crate) fn status(answer: &StatusAnswer) -> String {
    match answer {
        StatusAnswer::Observed(observation) => self::observation(observation),
        StatusAnswer::NotFound => "not found".to_owned(),
        StatusAnswer::Unavailable { class, retry_after, .. } => unavailable(*class, *retry_after),
    }
}

/// `completed https://… at 100%`, `failed [CODE] text`, `timed_out`.
pub(crate) fn observation(observation: &Observation) -> String {
    let state = match &observation.status {
        RenderStatus::Completed(result) => match &result.url {
            Some(url) => format!("completed {url}"),
            None => "completed without a URL".to_owned(),
        },
        RenderStatus::Failed(failure) => match &failure.provider_code {
            Some(code) => format!("failed [{code}] {}", failure.message),
            None => format!("failed {}", failure.message),
        },
        other => word(other).to_owned(),
    };
    match observation.progress {
        Some(progress) => format!("{state} at {:.0}%", progress * 100.0),
        None => state,
    }
}

/// The name of a state.
pub(crate) fn word(status: &RenderStatus) -> &'static str {
    match status {
        RenderStatus::Queued => "queued",
        RenderStatus::Processing => "processing",
        RenderStatus::Completed(_) => "completed",
        RenderStatus::Failed(_) => "failed",
        RenderStatus::Cancelled => "cancelled",
        RenderStatus::TimedOut => "timed_out",
    }
}

/// `ended r-1 of our job, claims completed https://…`, `progress r-1`, `ignored`.
pub(crate) fn callback(callback: &Callback) -> String {
    let mut text = match callback.kind {
        WebhookKind::Ended => "ended".to_owned(),
        WebhookKind::Progress => "progress".to_owned(),
        WebhookKind::Ignore => return "ignored".to_owned(),
    };
    if let Some(id) = &callback.render_job_id {
        text = format!("{text} {id}");
    }
    if let Some(job) = &callback.job_id {
        let whose = if *job == job_id() { "our" } else { "another" };
        text = format!("{text} of {whose} job");
    }
    match &callback.claim {
        Some(claim) => format!("{text}, claims {}", observation(claim)),
        None => text,
    }
}

/// `found r-1`, `absent`, `next`, `unavailable: auth`.
pub(crate) fn list(answer: &ListAnswer) -> String {
    match answer {
        ListAnswer::Found(id) => format!("found {id}"),
        ListAnswer::Next(_) => "next".to_owned(),
        ListAnswer::Absent => "absent".to_owned(),
        ListAnswer::Unavailable { class, retry_after, .. } => unavailable(*class, *retry_after),
    }
}

/// `accepted`, `refused: it is over`, `unavailable: rate`.
pub(crate) fn cancel(answer: &CancelAnswer) -> String {
    match answer {
        CancelAnswer::Accepted => "accepted".to_owned(),
        CancelAnswer::Refused { message } => format!("refused: {message}"),
        CancelAnswer::Unavailable { class, retry_after } => unavailable(*class, *retry_after),
    }
}

fn unavailable(why: ErrorClass, retry_after: Option<Duration>) -> String {
    format!("unavailable: {}{}", class(why), wait(retry_after))
}

fn wait(retry_after: Option<Duration>) -> String {
    retry_after.map(|wait| format!(", wait {} s", wait.as_secs())).unwrap_or_default()
}

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
