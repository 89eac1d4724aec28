//! A provider account's signing secret, and its webhook for all renders of the account.

use ::http::Method;
use anyhow::{Context, Result};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use super::TestStack;
use crate::http::HttpAnswer;
use crate::test_job::{SimulatedProvider, TestJob};

impl TestStack {
    /// Our URL for the callbacks of a provider's account.
    #[must_use]
    pub fn account_url(&self, provider: SimulatedProvider) -> String {
        format!("{}/v1/webhooks/{}", self.description.api_url, provider.name())
    }

    /// Registers that URL at the job's provider, for this job's renders only.
    ///
    /// # Errors
    /// When the provider has no account webhooks.
    pub async fn register_account_webhook(&self, test_job: &TestJob) -> Result<()> {
        let webhook = json!({
            "url": self.account_url(test_job.provider),
            "secret": self.provider_secret(test_job.provider)?,
            "tag": test_job.tag,
        });
        let url = self.control(&format!("/account-webhooks/{}", test_job.provider.simulated_as()));
        self.http.put(&url, &webhook).await?.expect(204).map(drop)
    }

    /// The provider's signature header and its value for this body.
    ///
    /// # Errors
    /// When the provider signs nothing, or more than the body.
    pub fn signature(
        &self,
        provider: SimulatedProvider,
        body: &str,
    ) -> Result<(&'static str, String)> {
        let header = match provider {
            SimulatedProvider::ViralSync | SimulatedProvider::Studio => Some("x-render-signature"),
            SimulatedProvider::RenderIo => Some("x-webhook-signature"),
            SimulatedProvider::Zvid
            | SimulatedProvider::Shotstack
            | SimulatedProvider::Json2Video => None,
        };
        let header = header.with_context(|| format!("{} does not sign so", provider.name()))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.provider_secret(provider)?.as_bytes())?;
        mac.update(body.as_bytes());
        Ok((header, hex::encode(mac.finalize().into_bytes())))
    }

    /// Posts to a job's or an account's callback URL with any signature.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn call_back_signed(
        &self,
        url: &str,
        (header, signature): &(&str, String),
        body: &str,
    ) -> Result<HttpAnswer> {
        let headers = [("content-type", "application/json"), (*header, signature.as_str())];
        self.http.send(Method::POST, url, &headers, body.to_owned()).await
    }

    fn provider_secret(&self, provider: SimulatedProvider) -> Result<&str> {
        let name = provider.name();
        let secret = self.description.provider_secrets.get(name);
        secret.map(String::as_str).with_context(|| format!("{name} signs nothing"))
    }
}
