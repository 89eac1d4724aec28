//! Rotation of the signing secret.
//!
//! The secrets are one SSM parameter, which is read, changed and replaced. SSM has no
//! conditional write, so the lock on the configuration excludes concurrent rotations. A crash
//! before the write changes nothing. After a crash after it the new secret begins at its time,
//! but was not shown: the other secrets stay in force for their grace period, and another
//! rotation returns a secret that its owner sees.
//!
//! What changes is announced before it is written and once more after it, so that no process
//! signs by the old set at a time at which the new one may be in force.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::signature::{LEAD, Rotation, SigningSecrets, TooManySecrets, WebhookSecret};
use domain::time;
use serde_json::json;
use shared::api::{self, Problem};
use shared::secrets::{SecretChange, SecretName};
use shared::store::ConfigLock;
use shared::view;
use tracing::info;

use crate::Jobs;
use crate::webhook_config::not_configured;

const MAX_BODY_BYTES: usize = 4 * 1024;

impl Jobs {
    /// POST /v1/webhook-config/rotate-secret. The response shows a secret that this call created.
    pub(crate) async fn rotate_secret(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let body = api::body(request, MAX_BODY_BYTES)?;
        let rotation = Rotation::parse(&body)?;
        let mut lock = self.lock_webhook_config(None, now()).await?;
        let outcome = self.rotate(rotation, &mut lock, now).await;
        self.unlock_webhook_config(&lock).await;
        outcome
    }

    async fn rotate(
        &self,
        rotation: Rotation,
        lock: &mut ConfigLock,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let name = SecretName::WebhookSecrets;
        let least = lock.least_version(now());
        let before = self.secrets.read_since(&name, least, SigningSecrets::parse).await;
        let before = before.map_err(|cause| not_configured(&cause))?;

        let random = self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))?;
        let (grace, brought) = (rotation.grace, rotation.secret.is_some());
        let secret = rotation.into_secret(before.newest_kind(), random);
        // A process that has not heard of it trusts the old set for less than the lead, from now on.
        let at = now();
        let after = before.rotate(secret.clone(), grace, at).map_err(|full| too_many(&full))?;
        let from = at + LEAD;
        self.announce(&name, |id| SecretChange::begun(id, from, at)).await?;
        let version = self.secrets.replace(&name, &after.reveal()).await?;
        lock.wrote(version, now());
        self.announce_made(&name, |id| SecretChange::finished(id, from, Some(version), now()))
            .await;
        info!(
            secret.kind = secret.kind().name(),
            secret.count = after.unended(at).count(),
            "webhook secret rotated"
        );
        let newest = after.unended(at).next();
        let mut shown = json!({
            "type": secret.kind().name(),
            "publicKey": secret.public_key(),
            "createdAt": newest.and_then(|newest| newest.created_at).map(time::text),
            "secrets": view::unended(&after, at),
        });
        // A secret from the caller is not repeated. Of a key pair, receivers need the public key.
        if let (WebhookSecret::Shared(made), false, Some(members)) =
            (&secret, brought, shown.as_object_mut())
        {
            members.insert("secret".into(), made.reveal().into());
        }
        Ok(api::json(200, &shown))
    }
}

fn too_many(full: &TooManySecrets) -> Problem {
    let detail = format!(
        "{full}. Wait until then, or give a shorter `gracePeriodSeconds`, which ends the others \
         sooner."
    );
    Problem::new(409, "too_many_secrets", "Too many secrets", detail)
}
