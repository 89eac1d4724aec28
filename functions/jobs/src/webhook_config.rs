//! The default receiver, its events, limits and headers.
//!
//! The configuration is an item of the table. Headers and secrets are SSM parameters, because
//! they must not be in the table. Every change first takes a lock on all of it, so that two
//! changes cannot mix.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::endpoint::EndpointLimits;
use domain::event::EventName;
use domain::headers::ReceiverHeaders;
use domain::request::{ReceiverSettings, SettingsError};
use domain::signature::{SignatureType, SigningSecrets, WebhookSecret};
use serde_json::json;
use shared::api::{self, Problem};
use shared::endpoint_cache::EndpointCache;
use shared::secrets::{Origin, SecretError, SecretName};
use shared::store::{ConfigLock, Consistency, LockOutcome, StoreError, WebhookConfig};
use shared::telemetry::chain;
use shared::view;
use shared::webhook_changes::WebhookChanges;
use tracing::warn;

use crate::Jobs;

const MAX_BODY_BYTES: usize = 16 * 1024;

impl Jobs {
    /// GET /v1/webhook-config. The response shows no secret and no header's value.
    pub(crate) async fn show_webhook_config(
        &self,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let config = self.tracker.store.webhook_config().await?;
        let Some((url, config)) = config.and_then(|it| Some((it.url.clone()?, it))) else {
            return Err(Problem::new(
                404,
                "webhook_not_configured",
                "Webhooks are not configured",
                "Call PUT /v1/webhook-config with a `url` first.",
            ));
        };
        // Another process may have changed them a moment ago.
        let changes = WebhookChanges::new(self.tracker.store.clone());
        changes.follow(&self.secrets, Consistency::Strong, now).await?;
        self.secrets.expect([SecretName::WebhookHeaders]);
        let secrets = self.secrets.find(&SecretName::WebhookSecrets, SigningSecrets::parse).await?;
        let headers =
            self.secrets.find(&SecretName::WebhookHeaders, ReceiverHeaders::parse).await?;
        let endpoint = self.tracker.store.endpoint(&url, Consistency::Strong).await?;
        let (headers, secrets) = (headers.as_ref(), secrets.as_ref());
        let shown = view::webhook_config(&config, &endpoint, headers, secrets, now);
        Ok(api::json(200, &shown))
    }

    /// PUT /v1/webhook-config. The response shows the secret if this call created it, and no
    /// later one does. The receiver's endpoint is enabled, and its failures are reset.
    pub(crate) async fn put_webhook_config(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let body = api::body(request, MAX_BODY_BYTES)?;
        let settings = ReceiverSettings::parse(&body, &self.policy).map_err(refused)?;
        let mut lock = self.lock_webhook_config(now()).await?;
        let outcome = self.configure(&settings, &mut lock, now()).await;
        self.unlock_webhook_config(&lock).await;
        outcome
    }

    async fn configure(
        &self,
        settings: &ReceiverSettings,
        lock: &mut ConfigLock,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        // Headers are stored before the receiver that needs them. They are bound to its URL, so
        // after a crash in between they are sent nowhere.
        if let Some(headers) = &settings.headers {
            let text = headers.reveal().map_err(|cause| Problem::unavailable(&cause))?;
            lock.changes_secrets(now);
            self.secrets.replace(&SecretName::WebhookHeaders, &text).await?;
        }
        let before = self.tracker.store.webhook_config().await?;
        if before.is_none() {
            // From then on, jobs that miss a receiver say so.
            self.tracker.store.put_first_receiver(now).await?;
        }
        if let Some(other) = before.and_then(|it| it.url).filter(|it| it != settings.url.as_str()) {
            self.lift_limits(&other, now).await?;
        }
        let limits = settings.limits;
        let endpoints = EndpointCache::new(self.tracker.store.clone());
        let endpoint = endpoints
            .update(settings.url.as_str(), Consistency::Strong, now, |it| {
                it.configured(limits, now)
            })
            .await?;
        let url = Some(settings.url.as_str().to_owned());
        let config = WebhookConfig { url, events: settings.events, limits, updated_at: now };
        self.tracker.store.put_webhook_config(&config).await?;
        if settings.headers.is_none() {
            self.delete_headers(lock, now).await?;
        }
        // The secret is created last: only this response shows it.
        let fresh = self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))?;
        let fresh = WebhookSecret::from_random(SignatureType::V1, fresh);
        let first = SigningSecrets::first(fresh.clone(), now);
        let made = self
            .secrets
            .get_or_create(
                &SecretName::WebhookSecrets,
                || {
                    lock.changes_secrets(now);
                    first.reveal()
                },
                SigningSecrets::parse,
            )
            .await;
        let (secrets, origin) = made?;
        let headers = settings.headers.as_ref();
        let mut shown = view::webhook_config(&config, &endpoint, headers, Some(&secrets), now);
        if let (Origin::Created, Some(members)) = (origin, shown.as_object_mut()) {
            members.insert("secret".into(), fresh.reveal().into());
        }
        Ok(api::json(200, &shown))
    }

    /// DELETE /v1/webhook-config. The secrets stay: jobs with a `callbackUrl` still need them.
    pub(crate) async fn delete_webhook_config(
        &self,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let mut lock = self.lock_webhook_config(now()).await?;
        let outcome = self.unconfigure(&mut lock, now()).await;
        self.unlock_webhook_config(&lock).await;
        outcome
    }

    async fn unconfigure(
        &self,
        lock: &mut ConfigLock,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let before = self.tracker.store.webhook_config().await?;
        if let Some(url) = before.and_then(|config| config.url) {
            self.lift_limits(&url, now).await?;
            let events = EventName::ALL.into_iter().collect();
            let limits = EndpointLimits::default();
            let none = WebhookConfig { url: None, events, limits, updated_at: now };
            self.tracker.store.put_webhook_config(&none).await?;
        }
        self.delete_headers(lock, now).await?;
        Ok(api::json(200, &json!({"url": null})))
    }

    /// Removes the limits of a receiver that is no longer the default one.
    async fn lift_limits(&self, url: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        let endpoints = EndpointCache::new(self.tracker.store.clone());
        endpoints.update(url, Consistency::Strong, now, |it| it.unlimited(now)).await.map(drop)
    }

    async fn delete_headers(
        &self,
        lock: &mut ConfigLock,
        now: DateTime<Utc>,
    ) -> Result<(), SecretError> {
        let removed = self.secrets.remove(&SecretName::WebhookHeaders).await;
        // Without an answer they may be gone.
        if removed.as_ref().copied().unwrap_or(true) {
            lock.changes_secrets(now);
        }
        removed.map(drop)
    }

    /// Takes the lock on the configuration; [`Jobs::unlock_webhook_config`] releases it.
    pub(crate) async fn lock_webhook_config(
        &self,
        now: DateTime<Utc>,
    ) -> Result<ConfigLock, Problem> {
        match self.tracker.store.lock_webhook_config(now).await? {
            LockOutcome::Acquired(lock) => Ok(lock),
            LockOutcome::Busy(until) => {
                let left = u64::try_from((until - now).num_seconds()).unwrap_or_default();
                Err(Problem::new(
                    409,
                    "change_in_progress",
                    "Another change is under way",
                    "Another request is changing the webhook configuration right now. Nothing was \
                     changed; try again.",
                )
                .retry_after(left.max(1)))
            }
        }
    }

    /// Releases the lock. The change is made, so a failure is not an error: the lock expires.
    pub(crate) async fn unlock_webhook_config(&self, lock: &ConfigLock) {
        if let Err(cause) = self.tracker.store.unlock_webhook_config(lock).await {
            warn!(
                error = chain(&cause),
                "webhook configuration lock not released; it expires by itself"
            );
        }
    }
}

/// The problem document when the secrets cannot be read.
pub(crate) fn not_configured(cause: &SecretError) -> Problem {
    match cause {
        SecretError::Missing(_) => Problem::new(
            409,
            "webhook_not_configured",
            "Webhooks are not configured",
            "There is no secret yet; PUT /v1/webhook-config makes the first one.",
        ),
        SecretError::Unavailable { .. } | SecretError::Stale(_) | SecretError::Malformed { .. } => {
            Problem::unavailable(cause)
        }
    }
}

fn refused(error: SettingsError) -> Problem {
    let detail = format!("{error}.");
    match error {
        SettingsError::Request(error) => error.into(),
        SettingsError::Url(_) => {
            Problem::new(422, "invalid_webhook_url", "Invalid webhook URL", detail).about("url")
        }
        SettingsError::Headers(_) => {
            Problem::new(422, "invalid_header", "Invalid header", detail).about("headers")
        }
    }
}
