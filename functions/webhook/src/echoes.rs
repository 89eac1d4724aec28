//! The secrets that a callback may send back.

use std::convert::Infallible;

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use domain::provider::EchoMask;
use domain::provider::catalogue::Provider;
use domain::verifier::Incoming;
use shared::secrets::{SecretError, SecretName};

use crate::callback::Callbacks;
use shared::api;

impl Callbacks {
    /// What masks them: our key, the token of the URL, the secret that the provider signs with,
    /// and the signature itself.
    pub(crate) async fn echo_mask(
        &self,
        provider: &Provider,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
    ) -> Result<EchoMask, SecretError> {
        let mask = self.tracker.providers.echo_mask(&provider.spec.name).await?;
        let mut mask = mask.with_secret(api::path_parameter(request, "token"));
        let webhook = provider.spec.webhook.as_ref();
        let Some(scheme) = webhook.and_then(|webhook| webhook.signature.as_ref()) else {
            return Ok(mask);
        };
        let name = SecretName::ProviderWebhookSecrets(provider.spec.name.clone());
        let secrets = self.secrets.find(&name, |text| Ok::<_, Infallible>(text.to_owned())).await?;
        for secret in secrets.iter().flat_map(|secrets| secrets.split(',')) {
            mask = mask.with_secret(secret);
        }
        let headers: Vec<(&str, &[u8])> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        for proof in scheme.proofs(&Incoming { headers: &headers, body }) {
            mask = mask.with_signatures(&String::from_utf8_lossy(proof));
        }
        Ok(mask)
    }
}
