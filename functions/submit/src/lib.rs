//! `submit`: POST /v1/jobs.
//!
//! [`submission`] is the use case, [`draft`] what it refuses before it stores anything; `domain` checks the request and decides,
//! `shared` reaches the table and the providers.

pub mod config;
mod draft;
mod submission;

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use lambda_runtime::Error;
use shared::api::Problem;
use shared::http_event::HttpEvent;

pub use crate::submission::Submitter;

/// Answers a request; `now` is the clock.
///
/// # Errors
/// Never: a failure becomes a problem document.
pub async fn handle(
    submitter: &Submitter,
    event: HttpEvent,
    now: fn() -> DateTime<Utc>,
) -> Result<ApiGatewayV2httpResponse, Error> {
    let request = match event.read() {
        Ok(request) => request,
        Err(problem) => return Ok(problem.into_response()),
    };
    Ok(submitter.submit(&request, now).await.unwrap_or_else(Problem::into_response))
}

#[cfg(test)]
mod tests;
