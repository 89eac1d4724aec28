//! The secret that the stack's webhooks are signed with.

use ::http::Method;
use anyhow::{Context, Result, bail};
use chrono::Utc;
use domain::signature::{SigningSecrets, WebhookSecret};
use serde_json::json;

use super::parameter;
use crate::eventually::eventually;
use crate::http::Http;
use crate::stack_description::StackDescription;

/// A shared secret that webhooks are signed with. The first test of a stack creates it. The
/// API shows a secret only once, so all tests read it from the parameter store.
pub(super) async fn webhook_secret(
    description: &StackDescription,
    http: &Http,
    ssm: &aws_sdk_ssm::Client,
) -> Result<String> {
    let name = format!("{}/webhook-secrets", description.parameter_prefix);
    let receiver = json!({"url": format!("{}/receiver/default", description.simulator_url)});
    let url = format!("{}/v1/webhook-config", description.api_url);
    let bearer = format!("Bearer {}", description.api_key);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    // All tests do this at once, and all but one of them get 409 `change_in_progress`.
    eventually("a webhook secret", async || {
        if let Some(stored) = parameter(ssm, &name).await? {
            return shared_secret(&stored);
        }
        http.send(Method::PUT, &url, &headers, receiver.to_string()).await?.expect(200)?;
        bail!("PUT /v1/webhook-config created no secret")
    })
    .await
}

/// The newest shared secret in force.
fn shared_secret(stored: &str) -> Result<String> {
    let secrets = SigningSecrets::parse(stored)?;
    let shared = secrets.in_force(Utc::now()).find_map(|stored| match &stored.secret {
        WebhookSecret::Shared(secret) => Some(secret.reveal()),
        WebhookSecret::Pair(_) => None,
    });
    shared.context("no shared secret is in force")
}
