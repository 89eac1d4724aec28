//! `jobs`: what operators and backends ask about jobs and deliveries, sending again, and
//! the webhook configuration.
//!
//! Wiring and routes only.

mod cancellation;
mod config;
mod reading;
mod redelivery;
mod webhook_config;

use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::Utc;
use domain::address::TargetPolicy;
use domain::id::JobId;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use shared::api::{self, Problem};
use shared::secrets::Secrets;
use shared::tracker::Tracker;

/// What the routes need.
pub(crate) struct Jobs {
    tracker: Tracker,
    secrets: Arc<Secrets>,
    policy: TargetPolicy,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a request.
    let jobs = config::jobs().await?;
    run(service_fn(|event: LambdaEvent<ApiGatewayV2httpRequest>| handle(&jobs, event.payload)))
        .await
}

async fn handle(
    jobs: &Jobs,
    request: ApiGatewayV2httpRequest,
) -> Result<ApiGatewayV2httpResponse, Error> {
    Ok(jobs.answer(&request).await.unwrap_or_else(Problem::into_response))
}

impl Jobs {
    async fn answer(
        &self,
        request: &ApiGatewayV2httpRequest,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        api::authorize(request, &self.secrets).await?;
        match request.route_key.as_deref().unwrap_or_default() {
            "GET /v1/jobs" => self.list(request).await,
            "GET /v1/jobs/{jobId}" => self.show(&job_id(request)?).await,
            "GET /v1/jobs/{jobId}/deliveries" => self.deliveries(&job_id(request)?).await,
            "POST /v1/jobs/{jobId}/redeliver" => {
                self.redeliver(&job_id(request)?, Utc::now()).await
            }
            "POST /v1/jobs/{jobId}/cancel" => self.cancel(&job_id(request)?, Utc::now).await,
            "GET /v1/webhook-config" => self.show_webhook_config().await,
            "PUT /v1/webhook-config" => self.put_webhook_config(request, Utc::now()).await,
            "DELETE /v1/webhook-config" => self.delete_webhook_config(Utc::now()).await,
            _ => Err(Problem::not_found("resource")),
        }
    }
}

/// A malformed id names no job.
fn job_id(request: &ApiGatewayV2httpRequest) -> Result<JobId, Problem> {
    JobId::parse(api::path_parameter(request, "jobId")).map_err(|_| Problem::not_found("job"))
}

#[cfg(test)]
mod tests;
