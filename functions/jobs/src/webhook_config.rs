//! Where webhooks go by default, and the secret they are signed with.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::address::ReceiverUrl;
use domain::signature::{SignatureType, SigningSecrets, WebhookSecret};
use domain::time;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::api::{self, Problem};
use shared::secrets::{Origin, SecretName};
use shared::store::WebhookConfig;

use crate::Jobs;

const MAX_BODY_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    url: String,
}

impl Jobs {
    /// GET /v1/webhook-config. Never shows the secret.
    pub(crate) async fn show_webhook_config(&self) -> Result<ApiGatewayV2httpResponse, Problem> {
        let config = self.tracker.store.webhook_config().await;
        let config = config.map_err(|cause| Problem::unavailable(&cause))?;
        match config.filter(|config| config.url.is_some()) {
            Some(config) => Ok(api::json(200, &shown(&config, None))),
            None => Err(Problem::new(
                404,
                "webhook_not_configured",
                "Webhooks are not configured",
                "Call PUT /v1/webhook-config with a `url` first.",
            )),
        }
    }

    /// PUT /v1/webhook-config. Shows the secret if this call made it, and never again.
    pub(crate) async fn put_webhook_config(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let body = api::body(request, MAX_BODY_BYTES)?;
        let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
            let detail = format!("The body must be {{\"url\": \"https://…\"}}: {error}.");
            Problem::new(400, "malformed_json", "Malformed JSON", detail).about("url")
        })?;
        let url = ReceiverUrl::parse(&wanted.url, &self.policy).map_err(|error| {
            let detail = format!("`url`: {error}.");
            Problem::new(422, "invalid_webhook_url", "Invalid webhook URL", detail).about("url")
        })?;

        // The secret last: once it is made, only this answer stands between it and its owner.
        let config = WebhookConfig { url: Some(url.as_str().to_owned()), updated_at: now };
        self.tracker
            .store
            .put_webhook_config(&config)
            .await
            .map_err(|cause| Problem::unavailable(&cause))?;
        let fresh = shared::random_bytes().map_err(|cause| Problem::unavailable(&cause))?;
        let fresh = WebhookSecret::from_random(SignatureType::V1, fresh);
        let (_, origin) = self
            .secrets
            .get_or_create(
                &SecretName::WebhookSecrets,
                || SigningSecrets::first(fresh.clone(), now).reveal(),
                SigningSecrets::parse,
            )
            .await
            .map_err(|cause| Problem::unavailable(&cause))?;
        let secret = (origin == Origin::Created).then(|| fresh.reveal());
        Ok(api::json(200, &shown(&config, secret.as_deref())))
    }

    /// DELETE /v1/webhook-config. Keeps the secret: jobs with a callbackUrl still need it.
    pub(crate) async fn delete_webhook_config(
        &self,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let before = self.tracker.store.webhook_config().await;
        let before = before.map_err(|cause| Problem::unavailable(&cause))?;
        if before.is_some_and(|config| config.url.is_some()) {
            let none = WebhookConfig { url: None, updated_at: now };
            self.tracker
                .store
                .put_webhook_config(&none)
                .await
                .map_err(|cause| Problem::unavailable(&cause))?;
        }
        Ok(api::json(200, &json!({"url": null})))
    }
}

fn shown(config: &WebhookConfig, secret: Option<&str>) -> Value {
    let mut shown = Map::from_iter([
        ("url".to_owned(), Value::from(config.url.as_deref())),
        ("updatedAt".to_owned(), time::text(config.updated_at).into()),
    ]);
    if let Some(secret) = secret {
        shown.insert("secret".into(), secret.into());
    }
    Value::Object(shown)
}
