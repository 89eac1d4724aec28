//! ViralSync: `https://api.viralsync.io`.
//!
//! The documentation leaves open, and the simulator chooses: a cancel is answered 202 with an
//! empty object; the codes of 400, of 404 and of a late cancel; a wrong list parameter is 400; a
//! queued job and an ended one have no phase; child jobs send no callbacks; without an account
//! secret callbacks are unsigned.

mod job;
mod submit;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::wire::RenderPage;
use super::{
    AcceptedSubmit, ApiAnswer, ApiCall, ApiRefusal, CallbackContent, CallbackContext,
    CallbackEvent, CallbackPolicy, Destination, ProviderApi, Route, ScheduledCallback,
};
use crate::account::ProviderAccount;
use crate::render::{Phase, Render};
use crate::render_id::RenderId;

pub(crate) struct ViralSync;

const CANCELLED: &str = "cancelled";

impl ProviderApi for ViralSync {
    fn name(&self) -> &'static str {
        "viralsync"
    }

    fn provider_options(&self) -> &'static [&'static str] {
        &["progressCallbacks", "lateProgressMs"]
    }

    fn has_account_secret(&self) -> bool {
        true
    }

    fn route(&self, call: &ApiCall<'_>) -> Route {
        match (call.method, call.path) {
            (&Method::POST, "/v1/render/jobs") => Route::Submit,
            (&Method::GET, "/v1/jobs") => Route::List,
            (&Method::GET, _) => {
                call.id_between("/v1/jobs/", "").map_or(Route::Unknown, Route::Status)
            }
            (&Method::POST, _) => {
                call.id_between("/v1/jobs/", "/cancel").map_or(Route::Unknown, Route::Cancel)
            }
            _ => Route::Unknown,
        }
    }

    fn read_submit(&self, body: &Value) -> Result<AcceptedSubmit, ApiAnswer> {
        submit::read(body).map_err(invalid)
    }

    fn new_id(&self, random: [u8; 16]) -> RenderId {
        RenderId::prefixed("job_", random)
    }

    fn destinations(
        &self,
        callback_urls: Vec<String>,
        account: &ProviderAccount,
        _body: &str,
    ) -> Vec<Destination> {
        let destination = |url| Destination { url, secret: account.secret.clone() };
        callback_urls.into_iter().map(destination).collect()
    }

    fn accepted(&self, render: &Render, _now: DateTime<Utc>) -> ApiAnswer {
        let body = json!({"jobId": render.id, "status": self.status_name(Phase::Queued)});
        ApiAnswer::new(StatusCode::ACCEPTED, body)
    }

    fn status(&self, render: &Render, _call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        ApiAnswer::new(StatusCode::OK, job::view(render, now))
    }

    fn list(&self, renders: &[&Render], call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        let Some(limit) = call.number("limit", 25, 1..=100) else {
            return invalid("limit must be between 1 and 100");
        };
        let mut matching = renders.to_vec();
        if let Some(status) = call.parameter("status") {
            matching.retain(|render| self.state(render, now) == status);
        }
        if call.parameter("type").is_some_and(|kind| kind != job::TYPE) {
            matching.clear();
        }
        let cursor = call.parameter("cursor");
        let Some(page) = RenderPage::of(&matching, cursor.as_deref(), limit) else {
            return invalid("cursor is not valid");
        };
        let jobs: Vec<Value> = page.renders.iter().map(|render| job::view(render, now)).collect();
        ApiAnswer::new(StatusCode::OK, json!({"jobs": jobs, "nextCursor": page.next}))
    }

    fn cancel(&self, render: &mut Render, now: DateTime<Utc>) -> ApiAnswer {
        let has_ended = matches!(render.phase(now), Phase::Completed | Phase::Failed);
        if has_ended || render.cancelled_at.is_some() {
            let state = self.state(render, now);
            let text = format!("Job cannot be cancelled in status {state}.");
            return error(StatusCode::CONFLICT, &text, "INVALID_STATUS_TRANSITION");
        }
        render.cancelled_at = Some(now);
        ApiAnswer::new(StatusCode::ACCEPTED, json!({}))
    }

    fn status_name(&self, phase: Phase) -> &'static str {
        match phase {
            Phase::Queued => "queued",
            Phase::Working(percent) if job::is_waiting(percent) => "waiting",
            Phase::Working(_) => "running",
            Phase::Completed => "done",
            Phase::Failed => "failed",
        }
    }

    fn state(&self, render: &Render, at: DateTime<Utc>) -> &'static str {
        if render.cancelled_at.is_some_and(|cancelled_at| cancelled_at <= at) {
            return CANCELLED;
        }
        self.status_name(render.phase(at))
    }

    fn refuse(&self, refusal: ApiRefusal) -> ApiAnswer {
        let (status, text, code) = match refusal {
            ApiRefusal::NoKey | ApiRefusal::WrongKey => {
                (StatusCode::UNAUTHORIZED, "Invalid or missing API key.", "UNAUTHORIZED")
            }
            ApiRefusal::NoSuchPath => (StatusCode::NOT_FOUND, "Not found.", "NOT_FOUND"),
            ApiRefusal::UnknownRender => (StatusCode::NOT_FOUND, "Job not found.", "NOT_FOUND"),
            ApiRefusal::NotJson => return invalid("Request body is not valid JSON."),
            ApiRefusal::Forced(status) => match status {
                StatusCode::BAD_REQUEST => return invalid("Invalid request."),
                StatusCode::UNAUTHORIZED => {
                    (status, "This API key has been revoked.", "API_KEY_REVOKED")
                }
                StatusCode::PAYMENT_REQUIRED => {
                    (status, "Monthly render quota exceeded.", "RENDER_QUOTA_EXCEEDED")
                }
                StatusCode::FORBIDDEN => (status, "Forbidden.", "FORBIDDEN"),
                StatusCode::NOT_FOUND => (status, "Job not found.", "NOT_FOUND"),
                StatusCode::CONFLICT => {
                    (status, "Concurrent render limit exceeded.", "CONCURRENCY_LIMIT_EXCEEDED")
                }
                StatusCode::TOO_MANY_REQUESTS => {
                    let answer = error(status, "Rate limit exceeded.", "RATE_LIMITED");
                    return answer.with_header(header::RETRY_AFTER, HeaderValue::from_static("14"));
                }
                StatusCode::SERVICE_UNAVAILABLE => {
                    (status, "Service unavailable.", "SERVICE_UNAVAILABLE")
                }
                _ => (status, "Internal error.", "INTERNAL_ERROR"),
            },
        };
        error(status, text, code)
    }

    fn scheduled_callbacks(&self, render: &Render) -> Vec<ScheduledCallback> {
        let scenario = &render.scenario;
        if scenario.callback.skip {
            return Vec::new();
        }
        // A render that ends in the queue makes no progress.
        let end = u64::from(scenario.duration_ms);
        let queued = u64::from(scenario.queued_ms).min(end);
        let work = end - queued;
        let count = u64::from(scenario.progress_callbacks.min(MAX_PROGRESS_CALLBACKS));
        let progress = (1..=count).filter(|_| work > 0).map(|number| {
            let after = Duration::from_millis(queued + work * number / (count + 1));
            ScheduledCallback { after, event: CallbackEvent::Progress(render.submitted_at + after) }
        });

        let at_end = render.callbacks_at_end();
        let late = scenario.late_progress_ms.filter(|_| work > 0);
        let late = late.zip(at_end.last().copied()).map(|(ms, end)| {
            let half_done = TimeDelta::milliseconds((queued + work / 2).try_into().unwrap_or(0));
            ScheduledCallback {
                after: end.after + Duration::from_millis(ms.into()),
                event: CallbackEvent::Progress(render.submitted_at + half_done),
            }
        });
        progress.chain(at_end.iter().copied()).chain(late).collect()
    }

    fn callback(&self, render: &Render, context: &CallbackContext<'_>) -> CallbackContent {
        let body = match context.event {
            CallbackEvent::Progress(at) => job::progress(render, at),
            CallbackEvent::Ended | CallbackEvent::Cancelled => job::end(render),
        };
        let body = body.to_string();
        let signature = context.secret.map(|secret| secret.sign(&[body.as_bytes()]));
        let headers = signature.map(|it| ("x-render-signature", it)).into_iter().collect();
        CallbackContent { headers, content_type: "application/json", body }
    }

    fn callback_policy(&self) -> CallbackPolicy {
        CallbackPolicy {
            retry_waits_s: &[5, 30, 300, 1_800, 7_200],
            answer_timeout: Duration::from_secs(10),
            accepts_redirects: false,
        }
    }
}

/// The provider sends one every 5 to 10 seconds of a render that may take hours.
const MAX_PROGRESS_CALLBACKS: u32 = 1_000;

fn invalid(text: &str) -> ApiAnswer {
    error(StatusCode::BAD_REQUEST, text, "INVALID_REQUEST")
}

fn error(status: StatusCode, text: &str, code: &str) -> ApiAnswer {
    ApiAnswer::new(status, json!({"error": text, "code": code}))
}

#[cfg(test)]
mod tests;
