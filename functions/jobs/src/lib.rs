//! `jobs`: reading and cancelling jobs, reading and restarting deliveries, the webhook
//! configuration, and the provider specs.
//!
//! This file routes requests. To add a route, add its line to `Jobs::answer` and a method in the
//! module of its subject, an `AWS::ApiGatewayV2::Route` to `template.yaml`, and its operation to
//! `docs/openapi.yaml`: a contract test compares the last two.

mod cancellation;
pub mod config;
mod deliveries;
mod provider_specs;
mod reading;
mod redelivery;
mod rotation;
mod webhook_config;
mod webhook_test;

use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::id::{EventId, JobId, ProviderName};
use lambda_runtime::Error;
use shared::api::{self, Problem};
use shared::entropy::Entropy;
use shared::secrets::Secrets;
use shared::tracker::Tracker;

/// What the routes need.
pub struct Jobs {
    /// Reads and changes jobs and deliveries.
    pub tracker: Tracker,
    pub secrets: Arc<Secrets>,
    /// Which receivers may be configured.
    pub policy: TargetPolicy,
    /// The number of shards that new jobs and their deliveries are spread over.
    pub shards: u32,
    /// Where secrets and ids of test events come from.
    pub entropy: Entropy,
}

/// Answers a request; `now` is the clock.
///
/// # Errors
/// Never: a failure becomes a problem document.
pub async fn handle(
    jobs: &Jobs,
    request: ApiGatewayV2httpRequest,
    now: fn() -> DateTime<Utc>,
) -> Result<ApiGatewayV2httpResponse, Error> {
    Ok(jobs.answer(&request, now).await.unwrap_or_else(Problem::into_response))
}

impl Jobs {
    async fn answer(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        api::authorize(request, &self.secrets).await?;
        match request.route_key.as_deref().unwrap_or_default() {
            "GET /v1/jobs" => self.list(request).await,
            "GET /v1/jobs/{jobId}" => self.show(&job_id(request)?).await,
            "GET /v1/jobs/{jobId}/deliveries" => self.deliveries(&job_id(request)?).await,
            "POST /v1/jobs/{jobId}/redeliver" => self.redeliver(&job_id(request)?, now()).await,
            "GET /v1/deliveries" => self.list_deliveries(request, now()).await,
            "POST /v1/deliveries/recover" => self.recover(request, now).await,
            "POST /v1/jobs/{jobId}/cancel" => self.cancel(&job_id(request)?, now).await,
            "GET /v1/webhook-config" => self.show_webhook_config(now()).await,
            "PUT /v1/webhook-config" => self.put_webhook_config(request, now).await,
            "DELETE /v1/webhook-config" => self.delete_webhook_config(now).await,
            "POST /v1/webhook-config/rotate-secret" => self.rotate_secret(request, now).await,
            "POST /v1/webhook-config/test" => self.test_webhook(now()).await,
            "GET /v1/webhook-config/test/{eventId}" => {
                self.show_webhook_test(&event_id(request)?).await
            }
            "GET /v1/providers" => self.list_providers().await,
            "GET /v1/providers/{name}" => self.show_provider(&provider_name(request)?).await,
            "PUT /v1/providers/{name}" => {
                self.put_provider(&provider_name(request)?, request, now()).await
            }
            "DELETE /v1/providers/{name}" => {
                self.remove_provider(&provider_name(request)?, request, now()).await
            }
            _ => Err(Problem::not_found("resource")),
        }
    }
}

/// A malformed id names no job.
fn job_id(request: &ApiGatewayV2httpRequest) -> Result<JobId, Problem> {
    JobId::parse(api::path_parameter(request, "jobId")).map_err(|_| Problem::not_found("job"))
}

/// The same for an event.
fn event_id(request: &ApiGatewayV2httpRequest) -> Result<EventId, Problem> {
    EventId::parse(api::path_parameter(request, "eventId")).map_err(|_| Problem::not_found("event"))
}

/// A malformed name is a mistake of whoever puts a spec, so the answer says what is wrong.
fn provider_name(request: &ApiGatewayV2httpRequest) -> Result<ProviderName, Problem> {
    ProviderName::parse(api::path_parameter(request, "name")).map_err(|error| {
        let detail = format!("The name in the path {error}.");
        Problem::new(422, "invalid_field", "Invalid field", detail).about("name")
    })
}

#[cfg(test)]
mod tests;
