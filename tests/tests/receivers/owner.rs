//! Somebody who owns the default receiver, and is alone with it.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use http::Method;
use serde_json::{Value, json};
use tests::{HttpAnswer, TestStack, VerificationKey};
use tokio::sync::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::const_new(());

pub(crate) struct Owner {
    pub(crate) stack: TestStack,
    _alone: MutexGuard<'static, ()>,
}

impl Owner {
    pub(crate) async fn alone(story: &str) -> Result<Self> {
        let alone = ALONE.lock().await;
        Ok(Self { stack: TestStack::connect(story).await?, _alone: alone })
    }

    pub(crate) async fn put(&self, config: &Value) -> Result<HttpAnswer> {
        self.stack.webhook_config(Method::PUT, "", Some(config)).await
    }

    pub(crate) async fn config(&self) -> Result<Value> {
        self.stack.webhook_config(Method::GET, "", None).await?.expect(200)?.json()
    }

    /// A new secret: what receivers have to know, and until when the others go on.
    pub(crate) async fn rotate(&self, wanted: &Value) -> Result<Rotated> {
        let path = "/rotate-secret";
        let answer = self.stack.webhook_config(Method::POST, path, Some(wanted)).await?;
        let answer: Value = answer.expect(200)?.json()?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let known = match (text("secret"), text("publicKey")) {
            (Some(secret), None) => VerificationKey::Secret(secret),
            (None, Some(key)) => VerificationKey::PublicKey(key),
            other => anyhow::bail!("a rotation shows one of the two, not {other:?}"),
        };
        let ends = answer["secrets"].as_array().into_iter().flatten();
        let ends = ends.filter_map(|secret| secret["expiresAt"].as_str());
        let ends = ends.map(|end| Ok(DateTime::parse_from_rfc3339(end)?.to_utc()));
        Ok(Rotated { known, ends: ends.collect::<Result<_>>()? })
    }

    /// A new shared secret without grace for those of before: a clean beginning.
    pub(crate) async fn begin(&self) -> Result<VerificationKey> {
        let wanted = json!({"type": "v1", "gracePeriodSeconds": 0});
        let rotated = self.rotate(&wanted).await?;
        anyhow::ensure!(rotated.ends.is_empty(), "somebody else is still in force");
        Ok(rotated.known)
    }
}

pub(crate) struct Rotated {
    pub(crate) known: VerificationKey,
    /// When the others end.
    pub(crate) ends: Vec<DateTime<Utc>>,
}

/// What the libraries of a receiver said of the last attempt.
pub(crate) fn verdict(attempts: &[tests::AttemptView]) -> Result<(u16, Value)> {
    let last = attempts.last().context("no attempt")?;
    let status = last.status.with_context(|| format!("{:?}", last.error))?;
    Ok((status, serde_json::from_str(&last.excerpt)?))
}
