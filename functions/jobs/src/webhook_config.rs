//! The default receiver, its events, limits and headers.
//!
//! The configuration is an item of the table. Headers and secrets are SSM parameters, because
//! they must not be in the table. Every change first takes a lock on all of it, so that two
//! changes cannot mix.
//!
//! One transaction switches to another receiver, with its events, limits and headers. What is
//! done before it has no effect, and what is left to do after it (former headers are deleted,
//! the first secret is made) a later change does too.

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::endpoint::{Endpoint, EndpointLimits};
use domain::event::EventName;
use domain::headers::{HeadersId, ReceiverHeaders};
use domain::request::{ReceiverSettings, SettingsError};
use domain::signature::{SignatureType, SigningSecrets, WebhookSecret};
use serde_json::json;
use shared::api::{self, Problem};
use shared::secrets::{Origin, SecretChange, SecretError, SecretName};
use shared::store::{ConfigLock, Consistency, LockOutcome, Switched, WebhookConfig};
use shared::telemetry::chain;
use shared::view;
use tokio::time::sleep;
use tracing::warn;

use crate::Jobs;

const MAX_BODY_BYTES: usize = 16 * 1024;

/// How often a switch is tried while attempts change the endpoints, and the longest wait between
/// two tries.
const MAX_SWITCHES: usize = 40;
const SWITCH_WAIT: Duration = Duration::from_millis(50);

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
        let endpoint = self.tracker.store.endpoint(&url, Consistency::Strong).await?;
        // Another process may have changed them a moment ago.
        let secrets =
            self.secrets.current(&SecretName::WebhookSecrets, SigningSecrets::parse).await?;
        let headers = match endpoint.headers.map(SecretName::WebhookHeaders) {
            Some(name) => self.secrets.find(&name, ReceiverHeaders::parse).await?,
            None => None,
        };
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
        let headers = match &settings.headers {
            Some(_) => {
                let random = self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))?;
                Some(HeadersId::from_random(random))
            }
            None => None,
        };
        let mut lock = self.lock_webhook_config(headers, now()).await?;
        let outcome = self.configure(&settings, headers, &mut lock, now).await;
        self.unlock_webhook_config(&lock).await;
        outcome
    }

    async fn configure(
        &self,
        settings: &ReceiverSettings,
        id: Option<HeadersId>,
        lock: &mut ConfigLock,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        if let (Some(headers), Some(id)) = (&settings.headers, id) {
            let text = headers.reveal().map_err(|cause| Problem::unavailable(&cause))?;
            self.secrets.create(&SecretName::WebhookHeaders(id), &text).await?;
        }
        let (limits, at) = (settings.limits, now());
        let url = Some(settings.url.as_str().to_owned());
        let config = WebhookConfig { url, events: settings.events, limits, updated_at: at };
        let configured = self.switch(&config, id, lock, at).await?;
        self.delete_other_headers(id, lock).await;
        // The first secret is made last: only this response shows it.
        let (secrets, made) = self.secrets_or_first(now).await?;
        let headers = settings.headers.as_ref();
        let endpoint = configured.unwrap_or_else(|| Endpoint::unknown(settings.url.as_str()));
        let mut shown = view::webhook_config(&config, &endpoint, headers, Some(&secrets), now());
        if let (Some(made), Some(members)) = (made, shown.as_object_mut()) {
            members.insert("secret".into(), made.reveal().into());
        }
        Ok(api::json(200, &shown))
    }

    /// DELETE /v1/webhook-config. The secrets stay: jobs with a `callbackUrl` still need them.
    pub(crate) async fn delete_webhook_config(
        &self,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let mut lock = self.lock_webhook_config(None, now()).await?;
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
        if before.is_some_and(|config| config.url.is_some()) {
            let events = EventName::ALL.into_iter().collect();
            let limits = EndpointLimits::default();
            let none = WebhookConfig { url: None, events, limits, updated_at: now };
            self.switch(&none, None, lock, now).await?;
        }
        self.delete_other_headers(None, lock).await;
        Ok(api::json(200, &json!({"url": null})))
    }

    /// Switches to this configuration and these headers, and returns the receiver's endpoint.
    async fn switch(
        &self,
        config: &WebhookConfig,
        headers: Option<HeadersId>,
        lock: &ConfigLock,
        now: DateTime<Utc>,
    ) -> Result<Option<Endpoint>, Problem> {
        let store = &self.tracker.store;
        for _ in 0..MAX_SWITCHES {
            let mut changed = Vec::new();
            let before = store.webhook_config().await?;
            if before.is_none() {
                // From then on, jobs that miss a receiver say so.
                store.put_first_receiver(now).await?;
            }
            let other = before.and_then(|it| it.url);
            if let Some(other) = other.filter(|it| config.url.as_ref() != Some(it)) {
                let endpoint = store.endpoint(&other, Consistency::Strong).await?;
                let after = endpoint.unconfigured(now);
                changed.extend(after.map(|after| (endpoint, after)));
            }
            let mut receiver = None;
            if let Some(url) = &config.url {
                let endpoint = store.endpoint(url, Consistency::Strong).await?;
                let after = endpoint.configured(config.limits, headers, now);
                receiver = Some(after.clone().unwrap_or_else(|| endpoint.clone()));
                changed.extend(after.map(|after| (endpoint, after)));
            }
            match store.switch_webhook_config(config, &changed, lock).await? {
                Switched::Made => return Ok(receiver),
                // Attempts change a limited endpoint up to a hundred times a second.
                Switched::Outdated => {
                    sleep(SWITCH_WAIT.mul_f64(self.entropy.jitter_sample())).await;
                }
                Switched::Unlocked => {
                    // The request that has the lock now may have deleted them before they were stored.
                    if let Some(id) = headers {
                        drop(self.secrets.remove(&SecretName::WebhookHeaders(id)).await);
                    }
                    return Err(in_progress(now, now));
                }
            }
        }
        Err(Problem::unavailable(&SwitchError))
    }

    /// Deletes headers that nothing names any more, of this change and of earlier ones that
    /// crashed. What is left is deleted by a later change.
    async fn delete_other_headers(&self, kept: Option<HeadersId>, lock: &mut ConfigLock) {
        let others: Vec<HeadersId> = lock.other_headers(kept).collect();
        for id in others {
            match self.secrets.remove(&SecretName::WebhookHeaders(id)).await {
                Ok(_) => lock.deleted_headers(id),
                Err(cause) => {
                    warn!(error = chain(&cause), "former webhook headers not deleted");
                }
            }
        }
    }

    /// The secrets; and the first one, if it is made now.
    async fn secrets_or_first(
        &self,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(SigningSecrets, Option<WebhookSecret>), Problem> {
        let name = SecretName::WebhookSecrets;
        match self.secrets.read_since(&name, 0, SigningSecrets::parse).await {
            Ok(secrets) => return Ok((secrets, None)),
            Err(SecretError::Missing(_)) => {}
            Err(cause) => return Err(cause.into()),
        }
        let fresh = self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))?;
        let fresh = WebhookSecret::from_random(SignatureType::V1, fresh);
        let (first, from) = (SigningSecrets::first(fresh.clone(), now()), now());
        self.announce(&name, |id| SecretChange::begun(id, from, from)).await?;
        let (secrets, origin) =
            self.secrets.get_or_create(&name, || first.reveal(), SigningSecrets::parse).await?;
        self.announce_made(&name, |id| SecretChange::finished(id, from, None, now())).await;
        Ok((secrets, (origin == Origin::Created).then_some(fresh)))
    }

    /// Announces a change of secrets.
    pub(crate) async fn announce(
        &self,
        name: &SecretName,
        change: impl FnOnce(u64) -> SecretChange,
    ) -> Result<(), Problem> {
        let id = self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))?;
        let change = change(u64::from_be_bytes(id));
        Ok(self.tracker.store.announce_secret_change(name, &change).await?)
    }

    /// Announces a change that is made and was announced before. A failure is not an error: the
    /// change counts as made after a while.
    pub(crate) async fn announce_made(
        &self,
        name: &SecretName,
        change: impl FnOnce(u64) -> SecretChange,
    ) {
        let id = u64::from_be_bytes(self.entropy.bytes().unwrap_or_default());
        let announced = self.tracker.store.announce_secret_change(name, &change(id)).await;
        if let Err(cause) = announced {
            warn!(error = chain(&cause), "secret change not announced");
        }
    }

    /// Takes the lock on the configuration; [`Jobs::unlock_webhook_config`] releases it.
    pub(crate) async fn lock_webhook_config(
        &self,
        headers: Option<HeadersId>,
        now: DateTime<Utc>,
    ) -> Result<ConfigLock, Problem> {
        match self.tracker.store.lock_webhook_config(headers, now).await? {
            LockOutcome::Acquired(lock) => Ok(lock),
            LockOutcome::Busy(until) => Err(in_progress(until, now)),
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

/// Too many attempts to the receivers came in between.
#[derive(Debug, thiserror::Error)]
#[error("the receivers' endpoints were changed meanwhile, again and again")]
struct SwitchError;

fn in_progress(until: DateTime<Utc>, now: DateTime<Utc>) -> Problem {
    let left = u64::try_from((until - now).num_seconds()).unwrap_or_default();
    Problem::new(
        409,
        "change_in_progress",
        "Another change is under way",
        "Another request is changing the webhook configuration right now. Nothing was changed; try \
         again.",
    )
    .retry_after(left.max(1))
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
