//! `webhook`: the callbacks that providers post.
//!
//! [`callback`] is the use case; [`hint`] is what it does with a callback that proves nothing.

mod address;
mod callback;
pub mod config;
mod echoes;
mod hint;

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use lambda_runtime::Error;
use shared::api::Problem;
use shared::http_event::HttpEvent;

use crate::address::CallbackAddress;

pub use crate::callback::Callbacks;

/// The methods that a callback URL answers.
const ALLOWED: &str = "GET, HEAD, OPTIONS, POST";

/// Answers a request to a callback URL; `now` is the clock. Only a POST is a callback.
///
/// # Errors
/// Never: a failure becomes a problem document.
pub async fn handle(
    callbacks: &Callbacks,
    event: HttpEvent,
    now: fn() -> DateTime<Utc>,
) -> Result<ApiGatewayV2httpResponse, Error> {
    let request = match event.read() {
        Ok(request) => request,
        Err(problem) => return Ok(problem.into_response()),
    };
    let Some(address) = CallbackAddress::of(&request) else {
        return Ok(Problem::not_found("callback URL").into_response());
    };
    // Vendors check an address before they register it. What they learn is the same for every
    // provider, job and token.
    match request.request_context.http.method.as_str() {
        "POST" => {}
        "GET" | "HEAD" => return Ok(empty(200)),
        "OPTIONS" => return Ok(empty(204)),
        _ => return Ok(method_not_allowed()),
    }
    let answer = callbacks.receive(&request, address, now).await;
    callbacks.tracker.duration_models.flush().await;
    Ok(answer.unwrap_or_else(|error| Problem::from(error).into_response()))
}

fn empty(status: i64) -> ApiGatewayV2httpResponse {
    let mut response = ApiGatewayV2httpResponse::default();
    response.status_code = status;
    response
}

fn method_not_allowed() -> ApiGatewayV2httpResponse {
    let detail = format!("A callback URL answers {ALLOWED}.");
    let problem = Problem::new(405, "method_not_allowed", "Method not allowed", detail);
    let mut response = problem.into_response();
    if let Ok(allowed) = ALLOWED.parse() {
        response.headers.insert("allow", allowed);
    }
    response
}

#[cfg(test)]
mod tests;
