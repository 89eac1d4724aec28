//! Zvid: `https://api.zvid.io`.
//!
//! The documentation leaves open, and the simulator chooses: the bodies of 401 and 404; a repeated
//! `jobId` is answered 202 like the first; progress is a number while queued and an object
//! afterwards (both forms have been seen); a list has few rows by default, and a wrong list
//! parameter is 400.

mod list;
mod submit;

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    AcceptedSubmit, AccountWebhooks, ApiAnswer, ApiCall, ApiRefusal, CallbackContent,
    CallbackContext, CallbackPolicy, Destination, ProviderApi, Route, iso, reported_status,
};
use crate::account::ProviderAccount;
use crate::render::{Phase, Render};
use crate::scenario::ResultShape;
use crate::signature::SigningSecret;

pub(crate) struct Zvid;

/// A wrong field of a submit, and the reason.
type Complaint = (&'static str, String);

impl ProviderApi for Zvid {
    fn name(&self) -> &'static str {
        "zvid"
    }

    fn provider_options(&self) -> &'static [&'static str] {
        &["resultShape"]
    }

    fn account_webhooks(&self) -> AccountWebhooks {
        AccountWebhooks::AlwaysSigned
    }

    fn route(&self, call: &ApiCall<'_>) -> Route {
        match (call.method, call.path) {
            (&Method::POST, "/api/render/api-key") => Route::Submit,
            (&Method::GET, "/api/jobs") => Route::List,
            (&Method::GET, _) => {
                call.id_between("/api/jobs/", "").map_or(Route::Unknown, Route::Status)
            }
            _ => Route::Unknown,
        }
    }

    fn read_submit(&self, body: &Value) -> Result<AcceptedSubmit, ApiAnswer> {
        submit::read(body).map_err(|complaints| invalid(&complaints))
    }

    /// The submit's own URL gets unsigned callbacks, the account's webhooks get signed ones. A URL
    /// that is both gets two.
    fn destinations(
        &self,
        callback_urls: Vec<String>,
        account: &ProviderAccount,
        body: &str,
    ) -> Vec<Destination> {
        let own = callback_urls.into_iter().map(Destination::unsigned);
        own.chain(account.destinations(body)).collect()
    }

    fn accepted(&self, render: &Render, now: DateTime<Utc>) -> ApiAnswer {
        let body = json!({
            "jobId": render.id,
            "status": self.status_name(render.phase(now)),
            "queuePosition": 1,
            "creditsReserved": 15,
        });
        ApiAnswer::new(StatusCode::ACCEPTED, body)
    }

    fn status(&self, render: &Render, _call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        let phase = render.phase(now);
        let (progress, result, failed_reason, finished) = match phase {
            Phase::Queued => (json!(0), Value::Null, None, None),
            Phase::Working(percent) => {
                let doing = json!({
                    "phase": "rendering",
                    "percentage": percent.get(),
                    "message": "Rendering frames...",
                });
                (doing, Value::Null, None, None)
            }
            Phase::Completed => {
                let done =
                    json!({"phase": "completed", "percentage": 100, "message": "Render completed"});
                (done, result(render), None, Some(render.finished_at()))
            }
            Phase::Failed => {
                let failed =
                    json!({"phase": "failed", "percentage": 100, "message": "Render failed"});
                let reason = render.scenario.fail_with.as_deref();
                (failed, Value::Null, reason, Some(render.finished_at()))
            }
        };
        let body = json!({
            "id": render.id,
            "state": self.status_name(phase),
            "progress": progress,
            "result": result,
            "failedReason": failed_reason,
            "ts": {
                "created": render.submitted_at.timestamp_millis(),
                "updated": render.updated_at(now).timestamp_millis(),
                "finished": finished.map(|at| at.timestamp_millis()),
            },
        });
        ApiAnswer::new(StatusCode::OK, body)
    }

    fn list(&self, renders: &[&Render], call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        list::answer(self, renders, call, now)
    }

    fn status_name(&self, phase: Phase) -> &'static str {
        match phase {
            Phase::Queued => "queued",
            Phase::Working(_) => "active",
            Phase::Completed => "completed",
            Phase::Failed => "failed",
        }
    }

    fn refuse(&self, refusal: ApiRefusal) -> ApiAnswer {
        let (status, error, message) = match refusal {
            ApiRefusal::NoKey | ApiRefusal::WrongKey => {
                (StatusCode::UNAUTHORIZED, "Unauthorized", "Invalid API key")
            }
            ApiRefusal::NoSuchPath => (StatusCode::NOT_FOUND, "Not found", "Route not found"),
            ApiRefusal::UnknownRender => (StatusCode::NOT_FOUND, "Not found", "Job not found"),
            ApiRefusal::NotJson => return invalid(&[("body", "must be valid JSON".to_owned())]),
            ApiRefusal::Forced(StatusCode::TOO_MANY_REQUESTS) => (
                StatusCode::TOO_MANY_REQUESTS,
                "hourly_limit_exceeded",
                "Hourly limit exceeded. Try again later.",
            ),
            ApiRefusal::Forced(StatusCode::PAYMENT_REQUIRED) => (
                StatusCode::PAYMENT_REQUIRED,
                "Insufficient credits",
                "You do not have enough credits for this render",
            ),
            ApiRefusal::Forced(status) => {
                (status, status.canonical_reason().unwrap_or("Error"), "Please try again later")
            }
        };
        ApiAnswer::new(status, json!({"error": error, "message": message}))
    }

    fn callback(&self, render: &Render, context: &CallbackContext<'_>) -> CallbackContent {
        let status = reported_status(self, render);
        let event = format!("render.{status}");
        let timestamp = iso(render.finished_at());
        let body = if status == self.status_name(Phase::Failed) {
            let reason = render.scenario.fail_with.as_deref().unwrap_or("Render failed");
            let data =
                json!({"status": status, "type": "video", "error": reason, "creditsCharged": 0});
            json!({"event": event, "jobId": render.id, "timestamp": timestamp, "data": data})
        } else {
            let data = json!({
                "status": status,
                "type": "video",
                "url": result_url(render),
                "thumbnailUrl": thumbnail_url(render),
                "duration": 10,
                "size": 1_048_576,
                "renderDuration": f64::from(render.scenario.duration_ms) / 1_000.0,
                "creditsCharged": 15,
            });
            json!({
                "event": event,
                "jobId": render.id,
                "timestamp": timestamp,
                "test": false,
                "data": data,
            })
        };
        let body = body.to_string();
        let timestamp = context.at.timestamp().to_string();
        let signature = context.secret.map(|secret| signature(secret, &timestamp, &body));
        let mut headers = vec![
            ("x-zvid-event", event),
            ("x-zvid-job-id", render.id.to_string()),
            ("x-zvid-delivery-id", context.delivery_id.to_string()),
            ("x-zvid-timestamp", timestamp),
        ];
        headers.extend(signature.map(|signature| ("x-zvid-signature", signature)));
        CallbackContent { headers, content_type: "application/json", body }
    }

    fn callback_policy(&self) -> CallbackPolicy {
        CallbackPolicy {
            retry_waits_s: &[30, 60, 120, 240],
            answer_timeout: Duration::from_secs(10),
            accepts_redirects: true,
        }
    }
}

fn invalid(complaints: &[Complaint]) -> ApiAnswer {
    let details: Vec<Value> = complaints
        .iter()
        .map(|(field, message)| json!({"field": field, "message": message}))
        .collect();
    let body = json!({
        "error": "Validation failed",
        "message": "Please check your input and try again",
        "details": details,
    });
    ApiAnswer::new(StatusCode::BAD_REQUEST, body)
}

fn signature(secret: &SigningSecret, timestamp: &str, body: &str) -> String {
    format!("sha256={}", secret.sign(&[timestamp.as_bytes(), b".", body.as_bytes()]))
}

fn result(render: &Render) -> Value {
    match render.scenario.result_shape {
        ResultShape::Url => result_url(render).into(),
        ResultShape::Object => {
            json!({"url": result_url(render), "thumbnailUrl": thumbnail_url(render)})
        }
    }
}

fn result_url(render: &Render) -> String {
    let own = || format!("https://cdn.zvid.io/{}.mp4", render.id);
    render.scenario.result_url.clone().unwrap_or_else(own)
}

fn thumbnail_url(render: &Render) -> String {
    format!("https://cdn.zvid.io/{}.jpg", render.id)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{first_context, render, secret, statuses};
    use super::*;

    #[test]
    fn status_follows_render() {
        let render = render(&Zvid, "{}", r#"{"queuedMs":500,"durationMs":3000}"#);
        insta::assert_snapshot!(statuses(&Zvid, &render, "", &[0, 500, 1750, 3000]), @r#"
        200 {"failedReason":null,"id":"11111111-1111-4111-9111-111111111111","progress":0,"result":null,"state":"queued","ts":{"created":1779602400000,"finished":null,"updated":1779602400000}}
        200 {"failedReason":null,"id":"11111111-1111-4111-9111-111111111111","progress":{"message":"Rendering frames...","percentage":0,"phase":"rendering"},"result":null,"state":"active","ts":{"created":1779602400000,"finished":null,"updated":1779602400500}}
        200 {"failedReason":null,"id":"11111111-1111-4111-9111-111111111111","progress":{"message":"Rendering frames...","percentage":50,"phase":"rendering"},"result":null,"state":"active","ts":{"created":1779602400000,"finished":null,"updated":1779602401750}}
        200 {"failedReason":null,"id":"11111111-1111-4111-9111-111111111111","progress":{"message":"Render completed","percentage":100,"phase":"completed"},"result":"https://cdn.zvid.io/11111111-1111-4111-9111-111111111111.mp4","state":"completed","ts":{"created":1779602400000,"finished":1779602403000,"updated":1779602403000}}
        "#);
    }

    #[test]
    fn failure_has_its_reason() {
        let render = render(&Zvid, "{}", r#"{"failWith":"Failed to download image"}"#);
        insta::assert_snapshot!(statuses(&Zvid, &render, "", &[3000]), @r#"200 {"failedReason":"Failed to download image","id":"11111111-1111-4111-9111-111111111111","progress":{"message":"Render failed","percentage":100,"phase":"failed"},"result":null,"state":"failed","ts":{"created":1779602400000,"finished":1779602403000,"updated":1779602403000}}"#);
    }

    #[test]
    fn result_may_be_object() {
        let render = render(&Zvid, "{}", r#"{"resultShape":"object","resultUrl":"https://r/v"}"#);
        insta::assert_snapshot!(statuses(&Zvid, &render, "", &[3000]), @r#"200 {"failedReason":null,"id":"11111111-1111-4111-9111-111111111111","progress":{"message":"Render completed","percentage":100,"phase":"completed"},"result":{"thumbnailUrl":"https://cdn.zvid.io/11111111-1111-4111-9111-111111111111.jpg","url":"https://r/v"},"state":"completed","ts":{"created":1779602400000,"finished":1779602403000,"updated":1779602403000}}"#);
    }

    #[test]
    fn callbacks_report_end() {
        let callback = |scenario| {
            let callback = Zvid.callback(&render(&Zvid, "{}", scenario), &first_context());
            format!("{:?}\n{}", callback.headers, callback.body)
        };
        insta::assert_snapshot!(
            [
                callback("{}"),
                callback(r#"{"failWith":"no codec"}"#),
                callback(r#"{"callback":{"statusOverride":"failed"}}"#),
            ]
            .join("\n"), @r#"
            [("x-zvid-event", "render.completed"), ("x-zvid-job-id", "11111111-1111-4111-9111-111111111111"), ("x-zvid-delivery-id", "22222222-2222-4222-a222-222222222222"), ("x-zvid-timestamp", "1779602403")]
            {"data":{"creditsCharged":15,"duration":10,"renderDuration":3.0,"size":1048576,"status":"completed","thumbnailUrl":"https://cdn.zvid.io/11111111-1111-4111-9111-111111111111.jpg","type":"video","url":"https://cdn.zvid.io/11111111-1111-4111-9111-111111111111.mp4"},"event":"render.completed","jobId":"11111111-1111-4111-9111-111111111111","test":false,"timestamp":"2026-05-24T06:00:03.000Z"}
            [("x-zvid-event", "render.failed"), ("x-zvid-job-id", "11111111-1111-4111-9111-111111111111"), ("x-zvid-delivery-id", "22222222-2222-4222-a222-222222222222"), ("x-zvid-timestamp", "1779602403")]
            {"data":{"creditsCharged":0,"error":"no codec","status":"failed","type":"video"},"event":"render.failed","jobId":"11111111-1111-4111-9111-111111111111","timestamp":"2026-05-24T06:00:03.000Z"}
            [("x-zvid-event", "render.failed"), ("x-zvid-job-id", "11111111-1111-4111-9111-111111111111"), ("x-zvid-delivery-id", "22222222-2222-4222-a222-222222222222"), ("x-zvid-timestamp", "1779602403")]
            {"data":{"creditsCharged":0,"error":"Render failed","status":"failed","type":"video"},"event":"render.failed","jobId":"11111111-1111-4111-9111-111111111111","timestamp":"2026-05-24T06:00:03.000Z"}
            "#);
    }

    /// The expected value was computed outside this program.
    #[test]
    fn signature_matches_known_value() {
        let body =
            r#"{"event":"render.completed","jobId":"j1","data":{"url":"https://cdn/x.mp4"}}"#;
        assert_eq!(
            signature(&secret("whsec_test"), "1700000000", body),
            "sha256=aeb21fc6d59450923dde16428fe883ed44a0279f021bd5422e6afc2785cc91de"
        );
    }

    #[test]
    fn only_account_webhooks_are_signed() {
        let mut account = ProviderAccount::default();
        let webhook = r#"{"url":"http://account","secret":"whsec_test"}"#;
        account.put_webhook(serde_json::from_str(webhook).unwrap());
        let own = Destination::unsigned("http://own".to_owned());
        let registered =
            Destination { url: "http://account".to_owned(), secret: Some(secret("whsec_test")) };
        let destinations = Zvid.destinations(vec!["http://own".to_owned()], &account, "{}");
        assert_eq!(destinations, [own, registered.clone()]);

        let context = CallbackContext { secret: registered.secret.as_ref(), ..first_context() };
        let callback = Zvid.callback(&render(&Zvid, "{}", "{}"), &context);
        let signature = signature(&secret("whsec_test"), "1779602403", &callback.body);
        assert_eq!(callback.headers.last(), Some(&("x-zvid-signature", signature)));
    }
}
