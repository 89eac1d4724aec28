//! HTTP answer in, its meaning out. The spec says what a provider's answers mean; this module
//! decides what may follow from each meaning, for all providers alike.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::echo::{EchoMask, MASK};
use super::pointer::first_text;
use super::request::{ListPage, escaped};
use super::spec::{CancelSpec, ErrorClass, ListSpec, NextPage, Operation, ProviderSpec, Reading};
use crate::failure::{Failure, FailureCode};
use crate::id::{JobId, RenderJobId};
use crate::job::{Observation, RenderResult, RenderStatus};
use crate::retry::later;

/// An answer of a provider. What is read from it has no secret of ours.
#[derive(Clone, Debug)]
pub struct ProviderAnswer {
    status: u16,
    retry_after: Option<Duration>,
    body: Value,
    had_secret: bool,
}

impl ProviderAnswer {
    /// Reads an answer: its HTTP status, the wait that `Retry-After` asks for, and the bytes of its
    /// body. `mask` has the secrets of the request.
    #[must_use]
    pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8], mask: &EchoMask) -> Self {
        let mut body = serde_json::from_slice(body).unwrap_or_default();
        let had_secret = mask.mask(&mut body);
        Self { status, retry_after, body, had_secret }
    }

    /// Whether the body had a secret of ours in it, which is masked.
    #[must_use]
    pub fn had_secret(&self) -> bool {
        self.had_secret
    }
}

/// The meaning of the answer to a submit.
#[derive(Clone, Debug, PartialEq)]
pub enum SubmitAnswer {
    /// The provider accepted the render under this id.
    Accepted(RenderJobId),
    /// The provider certainly did not accept.
    Rejected(Rejection),
    /// Whether the provider accepted is unknown.
    Unclear,
}

/// A rejection of a submit.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The class of the error answer.
    pub class: ErrorClass,
    /// The HTTP status it came with.
    pub status: u16,
    /// The failure of the job.
    pub failure: Failure,
    /// The wait that the provider asks for.
    pub retry_after: Option<Duration>,
}

/// The meaning of the answer to a status call.
#[derive(Clone, Debug, PartialEq)]
pub enum StatusAnswer {
    /// The provider reported the status of the render.
    Observed(Observation),
    /// The provider does not know the render, or not yet.
    NotFound,
    /// The provider could not answer. That says nothing about the render.
    Unavailable {
        /// The class of the error answer.
        class: ErrorClass,
        /// The HTTP status, if there was an answer.
        status: Option<u16>,
        /// The wait that the provider asks for.
        retry_after: Option<Duration>,
    },
}

/// The result of a search for a job on a page of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum ListAnswer {
    /// The list has the job, under this id.
    Found(RenderJobId),
    /// The job is not on this page, and there is another page.
    Next(ListPage),
    /// The job is not in the list.
    Absent,
    /// The provider could not answer.
    Unavailable {
        /// The class of the error answer.
        class: ErrorClass,
        /// The HTTP status.
        status: Option<u16>,
        /// The wait that the provider asks for.
        retry_after: Option<Duration>,
    },
}

/// The meaning of the answer to a cancel call.
#[derive(Clone, Debug, PartialEq)]
pub enum CancelAnswer {
    /// The provider took the request; the next status call shows the result.
    Accepted,
    /// The provider refused, for instance because the render has ended.
    Refused {
        /// The provider's message.
        message: String,
    },
    /// The provider could not answer.
    Unavailable {
        /// The class of the error answer.
        class: ErrorClass,
        /// The wait that the provider asks for.
        retry_after: Option<Duration>,
    },
}

impl ProviderSpec {
    /// Reads the answer to a submit.
    #[must_use]
    pub fn read_submit(&self, answer: &ProviderAnswer) -> SubmitAnswer {
        let body = &answer.body;
        let accepted = self.submit.accepted.contains(&answer.status);
        let id = first_text(&self.submit.id, body).and_then(|id| render_id(&id));
        if let Some(id) = id.filter(|_| accepted) {
            return SubmitAnswer::Accepted(id);
        }
        // What may hide a render is no refusal: a caller who is told of one asks for another.
        let refused = match self.rule(Operation::Submit, answer.status, body) {
            Some(class) => Some(class),
            None if REFUSES_A_SUBMIT.contains(&answer.status) => Some(usual_class(answer.status)),
            None => None,
        };
        let (class, code) = match refused {
            Some(class @ ErrorClass::Auth) => (class, FailureCode::ProviderAuth),
            Some(class @ ErrorClass::Quota) => (class, FailureCode::ProviderQuota),
            Some(class @ (ErrorClass::Rate | ErrorClass::Busy)) => {
                (class, FailureCode::ProviderBusy)
            }
            Some(class @ (ErrorClass::Invalid | ErrorClass::NotFound)) => {
                (class, FailureCode::ProviderRejected)
            }
            Some(ErrorClass::Transient) | None => return SubmitAnswer::Unclear,
        };
        let message = first_text(&self.submit.error, body)
            .unwrap_or_else(|| format!("HTTP status {}", answer.status));
        SubmitAnswer::Rejected(Rejection {
            class,
            status: answer.status,
            failure: Failure::new(code, &message),
            retry_after: answer.retry_after,
        })
    }

    /// Reads the answer to a status call about `render`.
    #[must_use]
    pub fn read_status(
        &self,
        render: &RenderJobId,
        answer: &ProviderAnswer,
        now: DateTime<Utc>,
    ) -> StatusAnswer {
        let body = &answer.body;
        let (status, retry_after) = (Some(answer.status), answer.retry_after);
        let unavailable = |class| StatusAnswer::Unavailable { class, status, retry_after };
        if !(200..=299).contains(&answer.status) {
            return match self.class(Operation::Status, answer.status, body) {
                ErrorClass::NotFound => StatusAnswer::NotFound,
                class => unavailable(class),
            };
        }
        let id = first_text(&self.status.id, body);
        if id.is_some_and(|id| !render.is_same(&id)) {
            return unavailable(ErrorClass::Transient);
        }
        match observe(&self.status.answer, body, now) {
            Some(mut observation) => {
                observation.render_job_id = Some(render.clone());
                StatusAnswer::Observed(observation)
            }
            None => unavailable(ErrorClass::Transient),
        }
    }

    /// Looks for `job` on a page of a list. `seen` is how many rows came before it.
    #[must_use]
    pub fn read_list(
        &self,
        list: &ListSpec,
        job: &JobId,
        seen: usize,
        answer: &ProviderAnswer,
    ) -> ListAnswer {
        let body = &answer.body;
        if !(200..=299).contains(&answer.status) {
            let class = self.class(Operation::Status, answer.status, body);
            let (status, retry_after) = (Some(answer.status), answer.retry_after);
            return ListAnswer::Unavailable { class, status, retry_after };
        }
        // Only the first pointer that finds rows is used, so each row counts once.
        let mut rows = list.rows.iter().map(|rows| {
            rows.find(body).into_iter().filter(|row| row.is_object()).collect::<Vec<_>>()
        });
        let rows = rows.find(|rows| !rows.is_empty()).unwrap_or_default();
        let ours = rows.iter().find(|row| {
            first_text(&list.correlation, row).is_some_and(|ours| is_id_of(&ours, job))
        });
        if let Some(id) =
            ours.and_then(|row| first_text(&list.id, row)).and_then(|id| render_id(&id))
        {
            return ListAnswer::Found(id);
        }
        match &list.next {
            Some(NextPage::Token { token, .. }) => match first_text(token, body) {
                // A masked token leads nowhere.
                Some(token) if !token.contains(MASK) => ListAnswer::Next(ListPage::Token(token)),
                Some(_) | None => ListAnswer::Absent,
            },
            Some(NextPage::Offset { .. }) if !rows.is_empty() => {
                ListAnswer::Next(ListPage::Offset(seen + rows.len()))
            }
            Some(NextPage::Offset { .. }) | None => ListAnswer::Absent,
        }
    }

    /// Reads the answer to a cancel call.
    #[must_use]
    pub fn read_cancel(&self, cancel: &CancelSpec, answer: &ProviderAnswer) -> CancelAnswer {
        if cancel.accepted.contains(&answer.status) {
            return CancelAnswer::Accepted;
        }
        let body = &answer.body;
        match self.class(Operation::Cancel, answer.status, body) {
            ErrorClass::Invalid | ErrorClass::NotFound => CancelAnswer::Refused {
                message: first_text(&self.submit.error, body)
                    .map(|message| Failure::new(FailureCode::ProviderRejected, &message).message)
                    .unwrap_or_else(|| format!("HTTP status {}", answer.status)),
            },
            class => CancelAnswer::Unavailable { class, retry_after: answer.retry_after },
        }
    }

    fn class(&self, operation: Operation, status: u16, body: &Value) -> ErrorClass {
        self.rule(operation, status, body).unwrap_or_else(|| usual_class(status))
    }

    /// What the first rule of the spec that fits says.
    fn rule(&self, operation: Operation, status: u16, body: &Value) -> Option<ErrorClass> {
        let fits = self.errors.iter().find(|rule| {
            rule.on.is_none_or(|on| on == operation)
                && rule.http.contains(&status)
                && rule.contains.as_ref().is_none_or(|searched| {
                    let text = first_text(rule.pointer.as_slice(), body).unwrap_or_default();
                    text.to_lowercase().contains(&searched.to_lowercase())
                })
        });
        fits.map(|rule| rule.means)
    }
}

/// The statuses by which a server certainly did nothing with a submit, when no rule of the spec
/// applies. The others leave open whether there is a render: a 303 names the place of one, a 409
/// may be about the very one that we asked for, and after a 408, 425, 499 or 5xx the request may
/// be under way. A status that HTTP does not define says nothing.
pub const REFUSES_A_SUBMIT: [u16; 22] = [
    400, 401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 413, 414, 415, 417, 421, 422, 426, 428,
    429, 431, 451,
];

/// The default class of an HTTP status, when no rule of the spec applies. What follows a 429 of
/// a poll is decided in `polling/throttle.rs`.
fn usual_class(status: u16) -> ErrorClass {
    match status {
        401 | 403 => ErrorClass::Auth,
        402 => ErrorClass::Quota,
        404 => ErrorClass::NotFound,
        408 | 425 => ErrorClass::Transient,
        429 => ErrorClass::Rate,
        300..=499 => ErrorClass::Invalid,
        _ => ErrorClass::Transient,
    }
}

/// The observation in a body; none when the body has no word for the status.
pub(super) fn observe(reading: &Reading, body: &Value, now: DateTime<Utc>) -> Option<Observation> {
    let word = first_text(&reading.status, body)?;
    let is = |words: &[String]| words.iter().any(|known| known.eq_ignore_ascii_case(&word));
    let words = &reading.words;
    let status = if is(&words.completed) {
        let found = first_text(&reading.result, body);
        if found.is_none() && reading.result_follows {
            RenderStatus::Processing
        } else {
            let url = found.filter(|found| !found.contains(MASK)).map(|found| {
                match &reading.result_url {
                    Some(template) => template.replace("{result}", &escaped(&found)),
                    None => found,
                }
            });
            let kept = reading.result_expires_after_seconds;
            RenderStatus::Completed(RenderResult {
                url: url.filter(|url| is_result_url(url)),
                expires_at: kept.map(|seconds| later(now, Duration::from_secs(seconds.into()))),
            })
        }
    } else if is(&words.failed) {
        RenderStatus::Failed(failure(reading, body))
    } else if is(&words.cancelled) {
        RenderStatus::Cancelled
    } else if is(&words.timed_out) {
        RenderStatus::TimedOut
    } else if is(&words.queued) {
        RenderStatus::Queued
    } else {
        RenderStatus::Processing
    };
    let progress = reading.progress.iter().find_map(|progress| {
        let found = progress.pointer.find(body).into_iter().find_map(Value::as_f64)?;
        // Some providers send -1 for "unknown".
        (found >= 0.0).then_some((found * progress.scale).clamp(0.0, 1.0))
    });
    // A long word is a vendor's mistake, and must not fill the item.
    let provider_status = word.chars().filter(|c| !c.is_control()).take(64).collect();
    Some(Observation { render_job_id: None, status, provider_status, progress })
}

/// The longest result URL that is kept, in bytes. A presigned URL has a few hundred, and every
/// write of the job pays for it.
const MAX_RESULT_URL_BYTES: usize = 8192;

/// Whether a text is a URL that customers can use. A job may complete without one. A URL with a
/// secret of ours cannot be shown, and is useless without it.
fn is_result_url(text: &str) -> bool {
    let scheme = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    text.len() <= MAX_RESULT_URL_BYTES
        && !text.contains(MASK)
        && ["https://", "http://", "s3://", "gs://"].iter().any(|known| scheme.starts_with(known))
}

fn failure(reading: &Reading, body: &Value) -> Failure {
    let message = first_text(&reading.error, body)
        .unwrap_or_else(|| "the provider gave no reason".to_owned());
    let split = reading.error_code_separator.as_ref();
    match split.and_then(|separator| message.split_once(separator.as_str())) {
        Some((code, text)) => {
            Failure::new(FailureCode::RenderFailed, text).with_provider_code(code)
        }
        None => Failure::new(FailureCode::RenderFailed, &message),
    }
}

/// Whether `ours`, which we put into a submit, is the id of this job or its UUID, in any spelling.
fn is_id_of(ours: &str, job: &JobId) -> bool {
    ours == job.as_str() || JobId::from_uuid(ours).as_ref() == Some(job)
}

/// The provider's id of a render, if `text` can be one. A dot segment cannot, because it would
/// change the path of the status call, escaped or not. Nor can a text with a masked secret.
pub(super) fn render_id(text: &str) -> Option<RenderJobId> {
    let is_id = |id: &RenderJobId| !matches!(id.as_str(), "." | "..") && !text.contains(MASK);
    RenderJobId::parse(text).ok().filter(is_id)
}

#[cfg(test)]
mod tests;
