//! JSON2Video: `https://api.json2video.com/v2`.
//!
//! Its HTTP statuses are misleading, as documented: a wrong key and an unknown project are 400, a
//! used-up quota is 401. The documentation leaves open, and the simulator chooses: a success has
//! the callback shape without a status, a failure in that shape has one; a callback is tried once;
//! a form spells nested members `outer[inner]`; a deleted movie stays `done` and keeps its dead
//! URL; a wrong list parameter is 400.

mod callback;
mod list;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::wire::merged;
use super::{
    AcceptedSubmit, ApiAnswer, ApiCall, ApiRefusal, CallbackContent, CallbackContext,
    CallbackPolicy, ProviderApi, Route, iso, reported_status,
};
use crate::render::{Phase, Render};
use crate::render_id::RenderId;

pub(crate) struct Json2Video;

/// The properties of every video, in pixels, seconds and bytes.
const WIDTH: u32 = 1_920;
const HEIGHT: u32 = 1_080;
const DURATION: f64 = 10.5;
const SIZE: u32 = 4_567_890;

impl ProviderApi for Json2Video {
    fn name(&self) -> &'static str {
        "json2video"
    }

    fn provider_options(&self) -> &'static [&'static str] {
        &["timeoutAfterMs", "callbackShape", "callbackContentType"]
    }

    fn route(&self, call: &ApiCall<'_>) -> Route {
        let project = || {
            let project = call.parameter("project").or_else(|| call.parameter("id"));
            project.map(|project| RenderId::asked_for(&project))
        };
        match (call.method, call.path) {
            (&Method::POST, "/movies") => Route::Submit,
            (&Method::GET, "/movies") => project().map_or(Route::List, Route::Status),
            (&Method::DELETE, "/movies") => project().map_or(Route::Unknown, Route::Delete),
            _ => Route::Unknown,
        }
    }

    /// Accepts many submits that cannot be rendered, as the provider does.
    fn read_submit(&self, body: &Value) -> Result<AcceptedSubmit, ApiAnswer> {
        let Some(movie) = body.as_object() else {
            return Err(failure(StatusCode::BAD_REQUEST, "No valid movie JSON received"));
        };
        let has_scenes = movie.get("scenes").is_some_and(Value::is_array);
        if !has_scenes && !movie.get("template").is_some_and(Value::is_string) {
            // Validation errors have another shape than the other errors.
            let body = json!({"code": "E1002", "message": "Movie: scenes is required"});
            return Err(ApiAnswer::new(StatusCode::BAD_REQUEST, body));
        }
        let exports = movie.get("exports").and_then(Value::as_array).into_iter().flatten();
        let destinations = exports
            .filter_map(|export| export.get("destinations").and_then(Value::as_array))
            .flatten();
        let endpoints = destinations
            .filter(|destination| destination.get("type").is_some_and(|it| it == "webhook"))
            .filter_map(|destination| destination.get("endpoint").and_then(Value::as_str));
        Ok(AcceptedSubmit { id: None, callback_urls: endpoints.map(str::to_owned).collect() })
    }

    fn new_id(&self, random: [u8; 16]) -> RenderId {
        RenderId::alphanumeric(random)
    }

    fn accepted(&self, render: &Render, now: DateTime<Utc>) -> ApiAnswer {
        let body = json!({"success": true, "project": render.id, "timestamp": iso(now)});
        ApiAnswer::new(StatusCode::OK, body)
    }

    fn status(&self, render: &Render, call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        let movie = match call.parameter("format").as_deref() {
            Some("simple") => self.movie(render, now),
            _ => self.movie_and_json(render, now),
        };
        let quota = json!({"movies": 0, "drafts": 0, "time": 1_807});
        let body = json!({"success": true, "movie": movie, "remaining_quota": quota});
        ApiAnswer::new(StatusCode::OK, body)
    }

    fn list(&self, renders: &[&Render], call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        list::answer(self, renders, call, now)
    }

    /// The movie stays in lists, and a second deletion changes nothing.
    fn delete(&self, render: &mut Render, now: DateTime<Utc>) -> ApiAnswer {
        let deleted_at = *render.deleted_at.get_or_insert(now);
        let body = json!({
            "success": true,
            "project": render.id,
            "deleted_at": iso(deleted_at),
            "timestamp": iso(now),
        });
        ApiAnswer::new(StatusCode::OK, body)
    }

    fn status_name(&self, phase: Phase) -> &'static str {
        match phase {
            Phase::Queued => "pending",
            Phase::Working(_) => "running",
            Phase::Completed => "done",
            Phase::Failed => "error",
        }
    }

    fn state(&self, render: &Render, at: DateTime<Utc>) -> &'static str {
        let phase = render.phase(at);
        let is_overdue = render
            .scenario
            .timeout_after_ms
            .is_some_and(|after| at - render.submitted_at >= TimeDelta::milliseconds(after.into()));
        match phase {
            Phase::Working(_) if is_overdue => "timeout",
            _ => self.status_name(phase),
        }
    }

    fn refuse(&self, refusal: ApiRefusal) -> ApiAnswer {
        let (status, message) = match refusal {
            ApiRefusal::NoKey => (StatusCode::BAD_REQUEST, "Error: API Key not provided"),
            ApiRefusal::WrongKey => (StatusCode::BAD_REQUEST, "Error: Invalid API Key"),
            ApiRefusal::NoSuchPath => (StatusCode::NOT_FOUND, "Not Found"),
            ApiRefusal::NotJson => {
                (StatusCode::BAD_REQUEST, "Error parsing movie JSON or the movie was empty")
            }
            ApiRefusal::UnknownRender => (
                StatusCode::BAD_REQUEST,
                "TypeError: Cannot read properties of null (reading 'success')",
            ),
            ApiRefusal::Forced(StatusCode::BAD_REQUEST) => {
                (StatusCode::BAD_REQUEST, "Error: Insufficient credits")
            }
            ApiRefusal::Forced(StatusCode::UNAUTHORIZED) => (
                StatusCode::UNAUTHORIZED,
                "You exceeded the quota of movies in your plan. \
                 Please upgrade your plan to continue.",
            ),
            ApiRefusal::Forced(StatusCode::NOT_FOUND) => {
                (StatusCode::NOT_FOUND, "Template not found")
            }
            // Server errors have a third shape.
            ApiRefusal::Forced(status) if status.is_server_error() => {
                let reason = status.canonical_reason().unwrap_or("Internal Server Error");
                return ApiAnswer::new(status, json!({"error": reason}));
            }
            ApiRefusal::Forced(status) => (status, status.canonical_reason().unwrap_or("Error")),
        };
        failure(status, message)
    }

    fn callback(&self, render: &Render, _context: &CallbackContext<'_>) -> CallbackContent {
        callback::build(render, reported_status(self, render))
    }

    fn callback_policy(&self) -> CallbackPolicy {
        CallbackPolicy {
            retry_waits_s: &[],
            answer_timeout: Duration::from_secs(5),
            accepts_redirects: false,
        }
    }
}

impl Json2Video {
    /// The view of `render` without the submitted JSON.
    fn movie(&self, render: &Render, now: DateTime<Utc>) -> Value {
        let phase = render.phase(now);
        let status = self.state(render, now);
        let always = json!({
            "success": phase != Phase::Failed,
            "status": status,
            "message": "",
            "project": render.id,
            "created_at": iso(render.submitted_at),
            "client-data": client_data(render),
        });
        let more = match phase {
            Phase::Queued => Value::Null,
            Phase::Working(_) if status == "timeout" => json!({"message": "The movie timed out"}),
            Phase::Working(percent) => json!({"progress": percent.get()}),
            Phase::Failed => json!({
                "message": render.scenario.fail_with,
                "ended_at": iso(render.finished_at()),
            }),
            Phase::Completed => json!({
                "url": result_url(render),
                "ass": asset_url(render, "ass"),
                "ended_at": iso(render.finished_at()),
                "duration": DURATION,
                "size": SIZE,
                "width": WIDTH,
                "height": HEIGHT,
                "rendering_time": render.scenario.duration_ms / 1_000,
                "consumed_credits": [],
            }),
        };
        merged([always, own_id(render), more])
    }

    fn movie_and_json(&self, render: &Render, now: DateTime<Utc>) -> Value {
        merged([self.movie(render, now), json!({"json": render.submitted()})])
    }
}

fn failure(status: StatusCode, message: &str) -> ApiAnswer {
    ApiAnswer::new(status, json!({"success": false, "message": message}))
}

/// The data that the caller attached.
fn client_data(render: &Render) -> Value {
    render.submitted().get("client-data").cloned().unwrap_or_else(|| json!({}))
}

/// The caller's own id of the movie as a member, or nothing. It is not the project.
fn own_id(render: &Render) -> Value {
    render.submitted().get("id").map_or(Value::Null, |id| json!({"id": id}))
}

fn result_url(render: &Render) -> String {
    render.scenario.result_url.clone().unwrap_or_else(|| asset_url(render, "mp4"))
}

fn asset_url(render: &Render, extension: &str) -> String {
    format!("https://assets.json2video.com/clients/simulated/renders/{}.{extension}", render.id)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{render, statuses, submit_results};
    use super::*;

    #[test]
    fn status_follows_movie() {
        let body = r#"{"id":"my-movie","client-data":{"order_id":"A-1042"},"scenes":[]}"#;
        let render = render(&Json2Video, body, r#"{"queuedMs":500,"durationMs":3000}"#);
        insta::assert_snapshot!(
            statuses(&Json2Video, &render, "format=simple", &[0, 1750, 3000]), @r#"
        200 {"movie":{"client-data":{"order_id":"A-1042"},"created_at":"2026-05-24T06:00:00.000Z","id":"my-movie","message":"","project":"11111111-1111-4111-9111-111111111111","status":"pending","success":true},"remaining_quota":{"drafts":0,"movies":0,"time":1807},"success":true}
        200 {"movie":{"client-data":{"order_id":"A-1042"},"created_at":"2026-05-24T06:00:00.000Z","id":"my-movie","message":"","progress":50,"project":"11111111-1111-4111-9111-111111111111","status":"running","success":true},"remaining_quota":{"drafts":0,"movies":0,"time":1807},"success":true}
        200 {"movie":{"ass":"https://assets.json2video.com/clients/simulated/renders/11111111-1111-4111-9111-111111111111.ass","client-data":{"order_id":"A-1042"},"consumed_credits":[],"created_at":"2026-05-24T06:00:00.000Z","duration":10.5,"ended_at":"2026-05-24T06:00:03.000Z","height":1080,"id":"my-movie","message":"","project":"11111111-1111-4111-9111-111111111111","rendering_time":3,"size":4567890,"status":"done","success":true,"url":"https://assets.json2video.com/clients/simulated/renders/11111111-1111-4111-9111-111111111111.mp4","width":1920},"remaining_quota":{"drafts":0,"movies":0,"time":1807},"success":true}
        "#);
    }

    #[test]
    fn failure_text_is_in_message() {
        let text = "Scene #1, element #1: Failed to download 'x' (404)";
        let render = render(&Json2Video, "{}", &json!({"failWith": text}).to_string());
        insta::assert_snapshot!(statuses(&Json2Video, &render, "format=simple", &[3000]), @r#"200 {"movie":{"client-data":{},"created_at":"2026-05-24T06:00:00.000Z","ended_at":"2026-05-24T06:00:03.000Z","message":"Scene #1, element #1: Failed to download 'x' (404)","project":"11111111-1111-4111-9111-111111111111","status":"error","success":false},"remaining_quota":{"drafts":0,"movies":0,"time":1807},"success":true}"#);
    }

    #[test]
    fn timeout_passes() {
        let options = r#"{"queuedMs":0,"durationMs":3000,"timeoutAfterMs":1000}"#;
        let render = render(&Json2Video, "{}", options);
        let words = |ms| Json2Video.state(&render, super::super::fixtures::time_at_ms(ms));
        assert_eq!(
            [0, 999, 1000, 2999, 3000].map(words),
            ["running", "running", "timeout", "timeout", "done"]
        );
        insta::assert_snapshot!(statuses(&Json2Video, &render, "format=simple", &[1000]), @r#"200 {"movie":{"client-data":{},"created_at":"2026-05-24T06:00:00.000Z","message":"The movie timed out","project":"11111111-1111-4111-9111-111111111111","status":"timeout","success":true},"remaining_quota":{"drafts":0,"movies":0,"time":1807},"success":true}"#);
    }

    #[test]
    fn submitted_json_returns_unless_declined() {
        let render = render(&Json2Video, r#"{"scenes":[]}"#, "{}");
        for (query, expected) in [("", true), ("format=full", true), ("format=simple", false)] {
            let shown = statuses(&Json2Video, &render, query, &[0]);
            assert_eq!(shown.contains("scenes"), expected, "{query}: {shown}");
        }
    }

    #[test]
    fn wrong_submits_are_refused() {
        let bodies = [
            r#"{"scenes":[{"elements":[{"type":"video"}]}]}"#,
            r#"{"template":"0123456789abcdefghij","exports":[{"destinations":[{"type":"email","endpoint":"http://no"},{"type":"webhook","endpoint":"http://a"}]},{"destinations":[{"type":"webhook","endpoint":"http://a"}]},{}]}"#,
            r#"{"scenes":{}}"#,
            r#"[]"#,
        ];
        insta::assert_snapshot!(submit_results(&Json2Video, &bodies), @r#"
        {"scenes":[{"elements":[{"type":"video"}]}]} -> []
        {"template":"0123456789abcdefghij","exports":[{"destinations":[{"type":"email","endpoint":"http://no"},{"type":"webhook","endpoint":"http://a"}]},{"destinations":[{"type":"webhook","endpoint":"http://a"}]},{}]} -> ["http://a", "http://a"]
        {"scenes":{}} -> 400 {"code":"E1002","message":"Movie: scenes is required"}
        [] -> 400 {"message":"No valid movie JSON received","success":false}
        "#);
    }
}
