//! `jobs`: reading and cancelling jobs, reading, restarting and dropping deliveries, the
//! webhook configuration, API keys, and the provider specs.
//!
//! This file routes requests. To add a route, add it to `shared/src/api/route.rs`, its line to
//! `Jobs::answer` and a method in the module of its subject, an `AWS::ApiGatewayV2::Route` to
//! `template.yaml`, and its operation to `docs/openapi.yaml`: contract tests compare them.

mod api_keys;
mod cancellation;
pub mod config;
mod deliveries;
mod destination;
mod dropping;
mod provider_pauses;
mod provider_specs;
mod query;
mod reading;
mod recovery;
mod redelivery;
mod rotation;
mod webhook_config;
mod webhook_test;

use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::id::{EventId, JobId, KeyId, ProviderName};
use lambda_runtime::Error;
use shared::api::{self, Problem, Route};
use shared::api_key_cache::ApiKeyCache;
use shared::entropy::Entropy;
use shared::http_event::HttpEvent;
use shared::secrets::Secrets;
use shared::shards::Shards;
use shared::tracker::Tracker;

/// What the routes need.
pub struct Jobs {
    /// Reads and changes jobs and deliveries.
    pub tracker: Tracker,
    pub secrets: Arc<Secrets>,
    /// Whom requests are from, and what they may do.
    pub keys: ApiKeyCache,
    /// Which receivers may be configured.
    pub policy: TargetPolicy,
    /// The shards that deliveries are spread over.
    pub shards: Shards,
    /// Where secrets and ids of test events come from.
    pub entropy: Entropy,
}

/// Answers a request; `now` is the clock.
///
/// # Errors
/// Never: a failure becomes a problem document.
pub async fn handle(
    jobs: &Jobs,
    event: HttpEvent,
    now: fn() -> DateTime<Utc>,
) -> Result<ApiGatewayV2httpResponse, Error> {
    let request = match event.read() {
        Ok(request) => request,
        Err(problem) => return Ok(problem.into_response()),
    };
    Ok(jobs.answer(&request, now).await.unwrap_or_else(Problem::into_response))
}

impl Jobs {
    async fn answer(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let route = request.route_key.as_deref().and_then(Route::parse);
        let route = route.ok_or_else(|| Problem::not_found("resource"))?;
        let caller = api::authorize(request, route, &self.keys, now()).await?;
        match route {
            Route::ListJobs => self.list(request).await,
            Route::ShowJob => self.show(&job_id(request)?).await,
            Route::ShowJobDeliveries => self.deliveries(&job_id(request)?).await,
            Route::RedeliverJob => self.redeliver(&job_id(request)?, request, now()).await,
            Route::DropDelivery => self.drop_delivery(&job_id(request)?, request, now()).await,
            Route::ListDeliveries => self.list_deliveries(request, now()).await,
            Route::RecoverDeliveries => self.recover(request, now).await,
            Route::CancelJob => self.cancel(&job_id(request)?, now).await,
            Route::ShowWebhookConfig => self.show_webhook_config(now()).await,
            Route::PutWebhookConfig => self.put_webhook_config(request, now).await,
            Route::DeleteWebhookConfig => self.delete_webhook_config(now).await,
            Route::RotateSecret => self.rotate_secret(request, now).await,
            Route::TestWebhook => self.test_webhook(now()).await,
            Route::ShowWebhookTest => self.show_webhook_test(&event_id(request)?).await,
            Route::ListKeys => self.list_keys(now()).await,
            Route::CreateKey => self.create_key(request, &caller, now()).await,
            Route::RevokeKey => self.revoke_key(&key_id(request)?, &caller, now()).await,
            Route::ListProviders => self.list_providers().await,
            Route::ShowProvider => self.show_provider(&provider_name(request)?).await,
            Route::PutProvider => {
                self.put_provider(&provider_name(request)?, request, &caller, now()).await
            }
            Route::RemoveProvider => {
                self.remove_provider(&provider_name(request)?, request, &caller, now()).await
            }
            Route::ResumeProvider => self.resume_provider(&provider_name(request)?, now()).await,
            // Of another function.
            Route::SubmitJob => Err(Problem::not_found("resource")),
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

/// The same for an API key.
fn key_id(request: &ApiGatewayV2httpRequest) -> Result<KeyId, Problem> {
    KeyId::parse(api::path_parameter(request, "keyId")).map_err(|_| Problem::not_found("key"))
}

/// A malformed name is a mistake of the caller that puts a spec, so the answer says what is wrong.
fn provider_name(request: &ApiGatewayV2httpRequest) -> Result<ProviderName, Problem> {
    ProviderName::parse(api::path_parameter(request, "name")).map_err(|error| {
        let detail = format!("The name in the path {error}.");
        Problem::new(422, "invalid_field", "Invalid field", detail).about("name")
    })
}

#[cfg(test)]
mod tests;
