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
mod tests {
    use super::super::fixtures::{context, render, said, secret, statuses, time_at_ms};
    use super::*;

    const BODY: &str = r#"{"kind":"movie","projectId":"p","movie":{"scenes":[{},{},{}]}}"#;

    #[test]
    fn status_follows_job() {
        let render = render(&ViralSync, BODY, r#"{"queuedMs":0,"durationMs":1000}"#);
        insta::assert_snapshot!(statuses(&ViralSync, &render, "", &[620, 1000]), @r#"
        200 {"children":{"failed":0,"queued":1,"running":1,"succeeded":1,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":null,"jobId":"11111111-1111-4111-9111-111111111111","mediaData":null,"outputUrl":null,"parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":"rendering","progress":0.62,"status":"running","type":"render","updatedAt":"2026-05-24T06:00:00.620Z"}
        200 {"children":{"failed":0,"queued":0,"running":0,"succeeded":3,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":null,"jobId":"11111111-1111-4111-9111-111111111111","mediaData":{"duration":10.0,"fileSize":8432156,"height":1080,"width":1920},"outputUrl":"https://r2.viralsync.io/outputs/11111111-1111-4111-9111-111111111111/output.mp4","parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":null,"progress":1.0,"status":"done","type":"render","updatedAt":"2026-05-24T06:00:01.000Z"}
        "#);
    }

    #[test]
    fn every_phase_has_its_status() {
        let render = render(&ViralSync, BODY, r#"{"queuedMs":500,"durationMs":1500}"#);
        let short = |ms: i64| {
            let job = job::view(&render, time_at_ms(ms));
            format!("{} {} {} {}", job["status"], job["phase"], job["progress"], job["children"])
        };
        let times = [0, 500, 650, 750, 1_000, 1_350, 1_450, 1_500];
        insta::assert_snapshot!(times.map(short).join("\n"), @r#"
        "queued" null 0.0 {"failed":0,"queued":3,"running":0,"succeeded":0,"total":3}
        "running" "planning" 0.0 {"failed":0,"queued":2,"running":1,"succeeded":0,"total":3}
        "running" "dispatching" 0.15 {"failed":0,"queued":2,"running":1,"succeeded":0,"total":3}
        "waiting" "waiting" 0.25 {"failed":0,"queued":2,"running":1,"succeeded":0,"total":3}
        "running" "rendering" 0.5 {"failed":0,"queued":1,"running":1,"succeeded":1,"total":3}
        "running" "assembling" 0.85 {"failed":0,"queued":0,"running":1,"succeeded":2,"total":3}
        "running" "uploading" 0.95 {"failed":0,"queued":0,"running":1,"succeeded":2,"total":3}
        "done" null 1.0 {"failed":0,"queued":0,"running":0,"succeeded":3,"total":3}
        "#);
    }

    #[test]
    fn failure_has_its_text() {
        let text = "SCENE_RENDER_FAILED: FFmpeg exited with code 1 on scene_2";
        let render = render(&ViralSync, BODY, &json!({"failWith": text}).to_string());
        insta::assert_snapshot!(statuses(&ViralSync, &render, "", &[3000]), @r#"200 {"children":{"failed":1,"queued":0,"running":0,"succeeded":2,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":"SCENE_RENDER_FAILED: FFmpeg exited with code 1 on scene_2","jobId":"11111111-1111-4111-9111-111111111111","mediaData":null,"outputUrl":null,"parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":null,"progress":0.33,"status":"failed","type":"render","updatedAt":"2026-05-24T06:00:03.000Z"}"#);
    }

    #[test]
    fn job_is_cancellable_until_end() {
        let mut render = render(&ViralSync, BODY, r#"{"queuedMs":0,"durationMs":1000}"#);
        let answers =
            [time_at_ms(400), time_at_ms(500)].map(|at| ViralSync.cancel(&mut render, at));
        insta::assert_snapshot!(answers.each_ref().map(said).join("\n"), @r#"
        202 {}
        409 {"code":"INVALID_STATUS_TRANSITION","error":"Job cannot be cancelled in status cancelled."}
        "#);
        assert_eq!(ViralSync.state(&render, time_at_ms(399)), "waiting");
        insta::assert_snapshot!(statuses(&ViralSync, &render, "", &[9000]), @r#"200 {"children":{"failed":0,"queued":1,"running":1,"succeeded":1,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":null,"jobId":"11111111-1111-4111-9111-111111111111","mediaData":null,"outputUrl":null,"parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":null,"progress":0.4,"status":"cancelled","type":"render","updatedAt":"2026-05-24T06:00:00.400Z"}"#);

        let mut ended = super::super::fixtures::render(&ViralSync, BODY, r#"{"durationMs":0}"#);
        let answer = ViralSync.cancel(&mut ended, time_at_ms(0));
        assert_eq!((answer.status, ended.cancelled_at), (StatusCode::CONFLICT, None));
    }

    #[test]
    fn frozen_job_is_always_cancellable() {
        let options = r#"{"durationMs":1000,"freezeProgress":0.5}"#;
        let mut render = render(&ViralSync, BODY, options);
        ViralSync.cancel(&mut render, time_at_ms(5_000));
        let end = job::end(&render);
        assert_eq!(
            (&end["status"], &end["progress"], &end["timestamp"]),
            (&json!("cancelled"), &json!(0.5), &json!("2026-05-24T06:00:05.000Z"))
        );
    }

    #[test]
    fn callbacks_report_progress_and_end() {
        let callback = |scenario, event| {
            let mut render = render(&ViralSync, BODY, scenario);
            if event == CallbackEvent::Cancelled {
                render.cancelled_at = Some(time_at_ms(740));
            }
            let callback = ViralSync.callback(&render, &context(event));
            format!("{:?} {}", callback.headers, callback.body)
        };
        let ended = CallbackEvent::Ended;
        insta::assert_snapshot!(
            [
                callback("{}", CallbackEvent::Progress(time_at_ms(1_650))),
                callback("{}", ended),
                callback(r#"{"failWith":"CODE: text"}"#, ended),
                callback(r#"{"callback":{"statusOverride":"waiting"}}"#, ended),
                callback("{}", CallbackEvent::Cancelled),
            ]
            .join("\n"), @r#"
        [] {"children":{"failed":0,"queued":1,"running":1,"succeeded":1,"total":3},"jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"phase":"rendering","progress":0.46,"status":"running","timestamp":"2026-05-24T06:00:01.650Z"}
        [] {"jobId":"11111111-1111-4111-9111-111111111111","mediaData":{"duration":10.0,"fileSize":8432156,"height":1080,"width":1920},"outputUrl":"https://r2.viralsync.io/outputs/11111111-1111-4111-9111-111111111111/output.mp4","progress":1.0,"status":"done","timestamp":"2026-05-24T06:00:03.000Z"}
        [] {"error":"CODE: text","jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"progress":0.33,"status":"failed","timestamp":"2026-05-24T06:00:03.000Z"}
        [] {"jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"progress":1.0,"status":"waiting","timestamp":"2026-05-24T06:00:03.000Z"}
        [] {"jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"progress":0.09,"status":"cancelled","timestamp":"2026-05-24T06:00:00.740Z"}
        "#);
    }

    #[test]
    fn callbacks_are_signed() {
        let render = render(&ViralSync, BODY, "{}");
        let secret = secret("whsec_test");
        let context = CallbackContext { secret: Some(&secret), ..context(CallbackEvent::Ended) };
        let callback = ViralSync.callback(&render, &context);
        let signature = secret.sign(&[callback.body.as_bytes()]);
        assert_eq!(callback.headers, [("x-render-signature", signature)]);
    }

    #[test]
    fn callbacks_leave_during_and_after_work() {
        let leave = |scenario| -> Vec<String> {
            let scheduled = ViralSync.scheduled_callbacks(&render(&ViralSync, BODY, scenario));
            let line = |callback: &ScheduledCallback| match callback.event {
                CallbackEvent::Progress(about) => {
                    let about = (about - time_at_ms(0)).num_milliseconds();
                    format!("{}: progress at {about}", callback.after.as_millis())
                }
                other => format!("{}: {other:?}", callback.after.as_millis()),
            };
            scheduled.iter().map(line).collect()
        };
        assert_eq!(
            leave(r#"{"queuedMs":100,"durationMs":400,"lateProgressMs":50}"#),
            ["200: progress at 200", "300: progress at 300", "400: Ended", "450: progress at 250"]
        );
        assert_eq!(leave(r#"{"progressCallbacks":0}"#), ["3000: Ended"]);
        assert_eq!(
            leave(r#"{"progressCallbacks":1,"freezeProgress":0.1,"lateProgressMs":5}"#),
            ["1750: progress at 1750"]
        );
        assert_eq!(
            leave(r#"{"queuedMs":500,"durationMs":400,"lateProgressMs":5}"#),
            ["400: Ended"],
            "no progress was made"
        );
        assert_eq!(leave(r#"{"callback":{"skip":true}}"#), [""; 0]);
    }
}
