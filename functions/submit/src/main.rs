//! `submit`: POST /v1/jobs.
//!
//! Wiring only. [`submission`] is the use case; `domain` checks the request and decides,
//! `shared` reaches the table and the providers.

mod config;
mod submission;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::Utc;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use shared::api::Problem;

use crate::submission::Submitter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a job.
    let submitter = config::submitter().await?;
    run(service_fn(|event: LambdaEvent<ApiGatewayV2httpRequest>| handle(&submitter, event.payload)))
        .await
}

async fn handle(
    submitter: &Submitter,
    request: ApiGatewayV2httpRequest,
) -> Result<ApiGatewayV2httpResponse, Error> {
    let answer = submitter.submit(&request, Utc::now).await;
    Ok(answer.unwrap_or_else(Problem::into_response))
}

#[cfg(test)]
mod tests;
