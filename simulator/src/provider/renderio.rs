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
mod tests;
