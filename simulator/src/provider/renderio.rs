//! RenderIO: `https://renderio.dev`.
//!
//! The documents contradict each other on two points: a submit is accepted with 200 or 202 (option
//! `acceptedStatus`), and a wrong JSON submit is 422, all other errors 400. The documentation
//! leaves open, and the simulator chooses: errors other than 422 have the shape `{"error": …}` of
//! the provider's mock; callbacks to the URL of one command are signed like the account's (option
//! `callbackSigned`); redirects are refused; a failed command lists its files without a URL.

mod command;

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::{
    AcceptedSubmit, AccountWebhooks, ApiAnswer, ApiCall, ApiRefusal, CallbackContent,
    CallbackContext, CallbackPolicy, Destination, ProviderApi, Route, reported_status,
};
use crate::account::ProviderAccount;
use crate::render::{Phase, Render};

pub(crate) struct RenderIo;

const MAX_METADATA_KEYS: usize = 10;

impl ProviderApi for RenderIo {
    fn name(&self) -> &'static str {
        "renderio"
    }

    fn provider_options(&self) -> &'static [&'static str] {
        &["acceptedStatus", "storedAfterPolls", "callbackSigned"]
    }

    fn has_account_secret(&self) -> bool {
        true
    }

    fn account_webhooks(&self) -> AccountWebhooks {
        AccountWebhooks::SignedWithSecret
    }

    fn route(&self, call: &ApiCall<'_>) -> Route {
        match (call.method, call.path) {
            (&Method::POST, "/api/v1/run-ffmpeg-command") => Route::Submit,
            (&Method::GET, "/api/v1/commands") => Route::List,
            (&Method::GET, _) => {
                call.id_between("/api/v1/commands/", "").map_or(Route::Unknown, Route::Status)
            }
            _ => Route::Unknown,
        }
    }

    fn read_submit(&self, body: &Value) -> Result<AcceptedSubmit, ApiAnswer> {
        let complaints = complaints(body);
        if !complaints.is_empty() {
            let detail: Vec<Value> = complaints
                .iter()
                .map(|(field, text)| json!({"loc": [field], "msg": text, "type": "value_error"}))
                .collect();
            let body = json!({"detail": detail});
            return Err(ApiAnswer::new(StatusCode::UNPROCESSABLE_ENTITY, body));
        }
        let url = body.get("webhook_url").and_then(Value::as_str).map(str::to_owned);
        Ok(AcceptedSubmit { id: None, callback_urls: url.into_iter().collect() })
    }

    /// The URL of a command overrides the account's.
    fn destinations(
        &self,
        callback_urls: Vec<String>,
        account: &ProviderAccount,
        body: &str,
    ) -> Vec<Destination> {
        let own = callback_urls.into_iter().next();
        let own = own.map(|url| Destination { url, secret: account.secret.clone() });
        own.or_else(|| account.destinations(body).pop()).into_iter().collect()
    }

    fn accepted(&self, render: &Render, _now: DateTime<Utc>) -> ApiAnswer {
        ApiAnswer::new(render.scenario.accepted_status.get(), json!({"command_id": render.id}))
    }

    fn status(&self, render: &Render, _call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        ApiAnswer::new(StatusCode::OK, command::view(render, self.state(render, now), now))
    }

    fn list(&self, renders: &[&Render], call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer {
        let limit = call.number("limit", 50, 1..=100);
        let (Some(limit), Some(offset)) = (limit, call.number("offset", 0, 0..=usize::MAX)) else {
            return error(StatusCode::BAD_REQUEST, "INVALID_REQUEST");
        };
        let mut matching = renders.to_vec();
        if let Some(status) = call.parameter("status") {
            if !["QUEUED", "PROCESSING", "SUCCESS", "FAILED"].contains(&status.as_str()) {
                return error(StatusCode::BAD_REQUEST, "INVALID_REQUEST");
            }
            matching.retain(|render| self.state(render, now) == status);
        }
        let page = matching.into_iter().skip(offset).take(limit);
        let commands: Vec<Value> =
            page.map(|render| command::view(render, self.state(render, now), now)).collect();
        let body = json!({"commands": commands, "limit": limit, "offset": offset});
        ApiAnswer::new(StatusCode::OK, body)
    }

    fn status_name(&self, phase: Phase) -> &'static str {
        match phase {
            Phase::Queued => "QUEUED",
            Phase::Working(_) => "PROCESSING",
            Phase::Completed => "SUCCESS",
            Phase::Failed => "FAILED",
        }
    }

    fn refuse(&self, refusal: ApiRefusal) -> ApiAnswer {
        match refusal {
            ApiRefusal::NoKey | ApiRefusal::WrongKey => {
                error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED")
            }
            ApiRefusal::NoSuchPath | ApiRefusal::UnknownRender => {
                error(StatusCode::NOT_FOUND, "Not found")
            }
            ApiRefusal::NotJson => error(StatusCode::BAD_REQUEST, "INVALID_REQUEST"),
            ApiRefusal::Forced(status) => match status {
                StatusCode::BAD_REQUEST => error(status, "INVALID_REQUEST"),
                StatusCode::UNAUTHORIZED => error(status, "UNAUTHORIZED"),
                StatusCode::NOT_FOUND => error(status, "Not found"),
                StatusCode::TOO_MANY_REQUESTS => error(status, "RATE_LIMITED")
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("30")),
                StatusCode::UNPROCESSABLE_ENTITY => {
                    let complaint =
                        json!({"loc": ["ffmpeg_command"], "msg": "invalid", "type": "value_error"});
                    ApiAnswer::new(status, json!({"detail": [complaint]}))
                }
                _ => error(status, "INTERNAL_ERROR"),
            },
        }
    }

    fn callback(&self, render: &Render, context: &CallbackContext<'_>) -> CallbackContent {
        let ended_at = render.finished_at();
        let body = json!({
            "data": command::callback_view(render, reported_status(self, render)),
            "timestamp": ended_at.timestamp_millis(),
        });
        let body = body.to_string();
        let mut headers = vec![("user-agent", "RenderIO-Webhook/1.0".to_owned())];
        if let Some(secret) = context.secret.filter(|_| render.scenario.callback_signed) {
            headers.push(("x-webhook-signature", secret.sign(&[body.as_bytes()])));
        }
        CallbackContent { headers, content_type: "application/json", body }
    }

    fn callback_policy(&self) -> CallbackPolicy {
        CallbackPolicy {
            retry_waits_s: &[5, 300, 1_800, 7_200, 18_000, 36_000, 36_000],
            answer_timeout: Duration::from_secs(15),
            accepts_redirects: false,
        }
    }
}

/// The wrong fields of a submit, and the reasons.
fn complaints(body: &Value) -> Vec<(&'static str, String)> {
    let mut complaints = Vec::new();
    let command = body.get("ffmpeg_command").and_then(Value::as_str);
    if command.is_none_or(str::is_empty) {
        complaints.push(("ffmpeg_command", "field required".to_owned()));
    }
    let inputs = body.get("input_files");
    if inputs.is_some_and(|files| !are_files(files, "in_")) {
        complaints.push(("input_files", "keys must start with in_".to_owned()));
    }
    match body.get("output_files") {
        None => complaints.push(("output_files", "field required".to_owned())),
        Some(files) if !are_files(files, "out_") => {
            complaints.push(("output_files", "keys must start with out_".to_owned()));
        }
        Some(_) => {}
    }
    match body.get("metadata").map(Value::as_object) {
        None => {}
        Some(Some(metadata))
            if metadata.len() <= MAX_METADATA_KEYS
                && !metadata.values().any(|it| it.is_object() || it.is_array()) => {}
        Some(_) => {
            let text = format!("at most {MAX_METADATA_KEYS} keys with scalar values");
            complaints.push(("metadata", text));
        }
    }
    if body.get("webhook_url").is_some_and(|url| !url.is_string()) {
        complaints.push(("webhook_url", "str type expected".to_owned()));
    }
    complaints
}

fn are_files(files: &Value, prefix: &str) -> bool {
    files.as_object().is_some_and(|files| {
        files.iter().all(|(alias, file)| alias.starts_with(prefix) && file.is_string())
    })
}

fn error(status: StatusCode, text: &str) -> ApiAnswer {
    ApiAnswer::new(status, json!({"error": text}))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{
        first_context, render, said, secret, statuses, submit_results, time_at_ms,
    };
    use super::*;

    const BODY: &str = r#"{"input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"},"ffmpeg_command":"-i {{in_video}} {{out_video}}","metadata":{"order":7}}"#;

    #[test]
    fn status_follows_command() {
        let render = render(&RenderIo, BODY, r#"{"queuedMs":500,"durationMs":3000}"#);
        insta::assert_snapshot!(statuses(&RenderIo, &render, "", &[0, 500, 3000]), @r#"
        200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":null,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"PROCESSING","storage_url":null}},"status":"QUEUED","total_processing_seconds":null}
        200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":null,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"PROCESSING","storage_url":null}},"status":"PROCESSING","total_processing_seconds":null}
        200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":1.24,"status":"STORED","storage_url":"https://storage.renderio.dev/files/e3d0ed4d-c24e-49f5-8bed-95d8357db3e5"}},"status":"SUCCESS","total_processing_seconds":3.0}
        "#);
    }

    #[test]
    fn failure_has_its_text() {
        let options = r#"{"failWith":"Input file could not be reached"}"#;
        let render = render(&RenderIo, BODY, options);
        insta::assert_snapshot!(statuses(&RenderIo, &render, "", &[3000]), @r#"200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":"Input file could not be reached","error_status":"FFMPEG_COMMAND_FAILED","ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"FAILED","storage_url":null}},"status":"FAILED","total_processing_seconds":3.0}"#);
    }

    #[test]
    fn result_may_lack_url_at_first() {
        let options = r#"{"durationMs":0,"storedAfterPolls":2,"resultUrl":"https://r/v"}"#;
        let render = render(&RenderIo, BODY, options);
        let file = |answer: Value| {
            let file = &answer["output_files"]["out_video"];
            format!("{} {}", file["status"], file["storage_url"])
        };
        let asked = |polls| {
            let render = Render { polls, ..render.clone() };
            file(command::view(&render, "SUCCESS", time_at_ms(0)))
        };
        let (none, url) = (r#""PROCESSING" null"#, r#""STORED" "https://r/v""#);
        assert_eq!([1, 2, 3].map(asked), [none, none, url]);
        let late = Render { polls: 3, ..render.clone() };
        assert_eq!(
            file(command::callback_view(&late, "SUCCESS")),
            none,
            "repeats have the same bytes"
        );
    }

    #[test]
    fn callbacks_report_end() {
        let secret = secret("whsec_test");
        let callback = |scenario, secret| {
            let context = CallbackContext { secret, ..first_context() };
            let callback = RenderIo.callback(&render(&RenderIo, BODY, scenario), &context);
            format!("{:?} {}", callback.headers, callback.body)
        };
        insta::assert_snapshot!(
            [
                callback("{}", None),
                callback(r#"{"failWith":"no codec"}"#, None),
                callback(r#"{"callback":{"statusOverride":"PROCESSING"}}"#, None),
            ]
            .join("\n"), @r#"
        [("user-agent", "RenderIO-Webhook/1.0")] {"data":{"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":1.24,"status":"STORED","storage_url":"https://storage.renderio.dev/files/e3d0ed4d-c24e-49f5-8bed-95d8357db3e5"}},"status":"SUCCESS","total_processing_seconds":3.0},"timestamp":1779602403000}
        [("user-agent", "RenderIO-Webhook/1.0")] {"data":{"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":"no codec","error_status":"FFMPEG_COMMAND_FAILED","ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"FAILED","storage_url":null}},"status":"FAILED","total_processing_seconds":3.0},"timestamp":1779602403000}
        [("user-agent", "RenderIO-Webhook/1.0")] {"data":{"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":1.24,"status":"STORED","storage_url":"https://storage.renderio.dev/files/e3d0ed4d-c24e-49f5-8bed-95d8357db3e5"}},"status":"PROCESSING","total_processing_seconds":3.0},"timestamp":1779602403000}
        "#);

        let signed = RenderIo.callback(
            &render(&RenderIo, BODY, "{}"),
            &CallbackContext { secret: Some(&secret), ..first_context() },
        );
        let signature = secret.sign(&[signed.body.as_bytes()]);
        assert_eq!(signed.headers.last(), Some(&("x-webhook-signature", signature)));
        let unsigned = r#"{"callbackSigned":false}"#;
        assert_eq!(callback(unsigned, Some(&secret)), callback("{}", None));
    }

    #[test]
    fn own_url_overrides_account_webhook() {
        let mut account = ProviderAccount::default();
        account.secret = Some(secret("s"));
        let destinations = |account: &ProviderAccount, own: &[&str]| -> Vec<Destination> {
            RenderIo.destinations(own.iter().map(|url| (*url).to_owned()).collect(), account, "b")
        };
        let to = |url: &str| Destination { url: url.to_owned(), secret: Some(secret("s")) };

        assert_eq!(destinations(&account, &[]), []);
        account.put_webhook(serde_json::from_str(r#"{"url":"http://all"}"#).unwrap());
        account.put_webhook(serde_json::from_str(r#"{"url":"http://b","tag":"b"}"#).unwrap());
        assert_eq!(destinations(&account, &[]), [to("http://b")]);
        assert_eq!(destinations(&account, &["http://own"]), [to("http://own")]);
    }

    #[test]
    fn wrong_submits_are_refused() {
        let many: String = (0..11).map(|n| format!(r#""k{n}":{n},"#)).collect();
        let many = format!(
            r#"{{"ffmpeg_command":"x","output_files":{{"out_v":"v"}},"metadata":{{{}}}}}"#,
            many.trim_end_matches(',')
        );
        let bodies = [
            BODY,
            r#"{"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":"http://h/x"}"#,
            r#"{}"#,
            r#"{"ffmpeg_command":"x","output_files":{"v":"v"},"input_files":{"v":"v"}}"#,
            r#"{"ffmpeg_command":"x","output_files":{"out_v":"v"},"metadata":{"a":[]}}"#,
            many.as_str(),
            r#"{"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":7}"#,
        ];
        insta::assert_snapshot!(submit_results(&RenderIo, &bodies), @r#"
        {"input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"},"ffmpeg_command":"-i {{in_video}} {{out_video}}","metadata":{"order":7}} -> []
        {"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":"http://h/x"} -> ["http://h/x"]
        {} -> 422 {"detail":[{"loc":["ffmpeg_command"],"msg":"field required","type":"value_error"},{"loc":["output_files"],"msg":"field required","type":"value_error"}]}
        {"ffmpeg_command":"x","output_files":{"v":"v"},"input_files":{"v":"v"}} -> 422 {"detail":[{"loc":["input_files"],"msg":"keys must start with in_","type":"value_error"},{"loc":["output_files"],"msg":"keys must start with out_","type":"value_error"}]}
        {"ffmpeg_command":"x","output_files":{"out_v":"v"},"metadata":{"a":[]}} -> 422 {"detail":[{"loc":["metadata"],"msg":"at most 10 keys with scalar values","type":"value_error"}]}
        {"ffmpeg_command":"x","output_files":{"out_v":"v"},"metadata":{"k0":0,"k1":1,"k2":2,"k3":3,"k4":4,"k5":5,"k6":6,"k7":7,"k8":8,"k9":9,"k10":10}} -> 422 {"detail":[{"loc":["metadata"],"msg":"at most 10 keys with scalar values","type":"value_error"}]}
        {"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":7} -> 422 {"detail":[{"loc":["webhook_url"],"msg":"str type expected","type":"value_error"}]}
        "#);
    }

    #[test]
    fn lists_are_paged_and_filtered() {
        let renders = [0, 1, 2].map(|_| render(&RenderIo, BODY, r#"{"durationMs":0}"#));
        let renders: Vec<&Render> = renders.iter().collect();
        let list = |query: &str| {
            let call = ApiCall { method: &Method::GET, path: "/api/v1/commands", query };
            let answer = RenderIo.list(&renders, &call, time_at_ms(0));
            match answer.body["commands"].as_array() {
                None => format!("{query} -> {}", said(&answer)),
                Some(commands) => format!("{query} -> {}", commands.len()),
            }
        };
        let queries = [
            "",
            "limit=2",
            "limit=2&offset=2",
            "offset=9",
            "status=SUCCESS",
            "status=FAILED",
            "status=done",
            "limit=101",
            "offset=x",
        ];
        insta::assert_snapshot!(queries.map(list).join("\n"), @r#"
         -> 3
        limit=2 -> 2
        limit=2&offset=2 -> 1
        offset=9 -> 0
        status=SUCCESS -> 3
        status=FAILED -> 0
        status=done -> 400 {"error":"INVALID_REQUEST"}
        limit=101 -> 400 {"error":"INVALID_REQUEST"}
        offset=x -> 400 {"error":"INVALID_REQUEST"}
        "#);
    }
}
