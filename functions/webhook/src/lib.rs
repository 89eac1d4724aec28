//! `webhook`: the callbacks that providers post.
//!
//! [`callback`] is the use case.

mod callback;
pub mod config;
mod echoes;

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use lambda_runtime::Error;
use shared::api::Problem;
use shared::http_event::HttpEvent;

pub use crate::callback::Callbacks;

/// Answers a callback; `now` is the clock.
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
    let answer = callbacks.receive(&request, now).await;
    callbacks.tracker.duration_models.flush().await;
    Ok(answer.unwrap_or_else(|error| Problem::from(error).into_response()))
}

#[cfg(test)]
mod tests;
