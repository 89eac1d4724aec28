//! The owner of the default receiver. Only one owner exists at a time.

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use http::Method;
use serde_json::{Value, json};
use tests::{HttpAnswer, TestStack, VerificationKey};
use tokio::sync::{Mutex, MutexGuard};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

pub(crate) struct Owner {
    pub(crate) stack: TestStack,
    _guard: MutexGuard<'static, ()>,
}

impl Owner {
    pub(crate) async fn lock(test_name: &str) -> Result<Self> {
        let guard = ONE_AT_A_TIME.lock().await;
        Ok(Self { stack: TestStack::connect(test_name).await?, _guard: guard })
    }

    pub(crate) async fn put(&self, config: &Value) -> Result<HttpAnswer> {
        self.stack.webhook_config(Method::PUT, "", Some(config)).await
    }

    pub(crate) async fn config(&self) -> Result<Value> {
        self.stack.webhook_config(Method::GET, "", None).await?.expect(200)?.json()
    }

    /// Rotates the secret. Returns the receivers' new key, and the ends of the previous secrets.
    pub(crate) async fn rotate(&self, request: &Value) -> Result<Rotated> {
        let path = "/rotate-secret";
        let answer = self.stack.webhook_config(Method::POST, path, Some(request)).await?;
        let answer: Value = answer.expect(200)?.json()?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let key = match (text("secret"), text("publicKey")) {
            (Some(secret), None) => VerificationKey::Secret(secret),
            (None, Some(public)) => VerificationKey::PublicKey(public),
            other => anyhow::bail!("a rotation shows one of the two, not {other:?}"),
        };
        let begins = text("createdAt").context("a rotation says when the secret begins")?;
        let begins = DateTime::parse_from_rfc3339(&begins)?.to_utc();
        let ends = answer["secrets"].as_array().into_iter().flatten();
        let ends = ends.filter_map(|secret| secret["expiresAt"].as_str());
        let ends = ends.map(|end| Ok(DateTime::parse_from_rfc3339(end)?.to_utc()));
        Ok(Rotated { key, begins, ends: ends.collect::<Result<_>>()? })
    }

    /// Rotates to a shared secret without a grace period, so that it is the only one in force.
    pub(crate) async fn reset_secret(&self) -> Result<VerificationKey> {
        let request = json!({"type": "v1", "gracePeriodSeconds": 0});
        let rotated = self.rotate(&request).await?;
        rotated.until_begun().await;
        Ok(rotated.key)
    }
}

pub(crate) struct Rotated {
    pub(crate) key: VerificationKey,
    /// From when webhooks are signed with it.
    pub(crate) begins: DateTime<Utc>,
    /// The ends of the previous secrets that are still in force.
    pub(crate) ends: Vec<DateTime<Utc>>,
}

impl Rotated {
    /// Waits until the new secret is in force, and the one of before is not without grace.
    pub(crate) async fn until_begun(&self) {
        let left = self.begins - Utc::now() + TimeDelta::seconds(1);
        tokio::time::sleep(left.to_std().unwrap_or_default()).await;
    }
}

/// The results of a receiver's libraries for the last attempt.
pub(crate) fn verification(attempts: &[tests::AttemptView]) -> Result<(u16, Value)> {
    let last = attempts.last().context("no attempt")?;
    let status = last.status.with_context(|| format!("{:?}", last.error))?;
    Ok((status, serde_json::from_str(&last.excerpt)?))
}
