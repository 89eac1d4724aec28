//! What belongs to an account at a provider: the secret that it signs with, and the
//! webhook that hears of every render.

use ::http::Method;
use anyhow::{Context, Result};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use super::World;
use crate::http::Answer;
use crate::order::{Order, Provider};

impl World {
    /// Our URL for everything that a provider's account tells.
    #[must_use]
    pub fn account_url(&self, provider: Provider) -> String {
        format!("{}/v1/webhooks/{}", self.stack.api_url, provider.name())
    }

    /// Registers that URL at the order's provider, for this order's renders only.
    ///
    /// # Errors
    /// When the provider's accounts have no webhooks.
    pub async fn register_account_webhook(&self, order: &Order) -> Result<()> {
        let webhook = json!({
            "url": self.account_url(order.provider),
            "secret": self.provider_secret(order.provider)?,
            "tag": order.mark,
        });
        let url = self.control(&format!("/account-webhooks/{}", order.provider.speaks()));
        self.http.put(&url, &webhook).await?.expect(204).map(drop)
    }

    /// The header in which a provider would sign this body, and what it would say.
    ///
    /// # Errors
    /// When the provider does not sign, or not only the body.
    pub fn signature(&self, provider: Provider, body: &str) -> Result<(&'static str, String)> {
        let header = match provider {
            Provider::ViralSync | Provider::Studio => Some("x-render-signature"),
            Provider::RenderIo => Some("x-webhook-signature"),
            Provider::Zvid | Provider::Shotstack | Provider::Json2Video => None,
        };
        let header = header.with_context(|| format!("{} does not sign so", provider.name()))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.provider_secret(provider)?.as_bytes())?;
        mac.update(body.as_bytes());
        Ok((header, hex::encode(mac.finalize().into_bytes())))
    }

    /// Posts to a callback URL, or an account's, with a signature, right or wrong.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn call_back_signed(
        &self,
        url: &str,
        (header, signature): &(&str, String),
        body: &str,
    ) -> Result<Answer> {
        let headers = [("content-type", "application/json"), (*header, signature.as_str())];
        self.http.send(Method::POST, url, &headers, body.to_owned()).await
    }

    fn provider_secret(&self, provider: Provider) -> Result<&str> {
        let name = provider.name();
        let secret = self.stack.provider_secrets.get(name);
        secret.map(String::as_str).with_context(|| format!("{name} signs nothing"))
    }
}
