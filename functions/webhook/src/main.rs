//! `webhook`: what providers post to the callback URLs we gave them.
//!
//! Wiring only. [`callback`] is the use case.

mod callback;
mod config;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use shared::api::Problem;

use crate::callback::Callbacks;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a callback.
    let callbacks = config::callbacks().await?;
    run(service_fn(|event: LambdaEvent<ApiGatewayV2httpRequest>| {
        handle(&callbacks, event.payload, Utc::now)
    }))
    .await
}

async fn handle(
    callbacks: &Callbacks,
    request: ApiGatewayV2httpRequest,
    now: fn() -> DateTime<Utc>,
) -> Result<ApiGatewayV2httpResponse, Error> {
    let answer = callbacks.receive(&request, now).await;
    Ok(answer.unwrap_or_else(Problem::into_response))
}

#[cfg(test)]
mod tests;
