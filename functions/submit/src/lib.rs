//! `submit`: POST /v1/jobs.
//!
//! [`submission`] is the use case; `domain` checks the request and decides,
//! `shared` reaches the table and the providers.

pub mod config;
mod submission;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use lambda_runtime::Error;
use shared::api::Problem;

pub use crate::submission::Submitter;

/// Answers a request; `now` is the clock.
///
/// # Errors
/// Never: a failure becomes a problem document.
pub async fn handle(
    submitter: &Submitter,
    request: ApiGatewayV2httpRequest,
    now: fn() -> DateTime<Utc>,
) -> Result<ApiGatewayV2httpResponse, Error> {
    let answer = submitter.submit(&request, now).await;
    Ok(answer.unwrap_or_else(Problem::into_response))
}

#[cfg(test)]
mod tests;
