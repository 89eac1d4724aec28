//! Credentials of requests to us: the API keys of clients, and the tokens in callback URLs.

mod api_key;
mod scope;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::{JobId, ProviderName};

pub use api_key::{
    ApiKey, ApiKeyHash, ApiKeyHashError, ApiKeys, CreateRefusal, KeyCreator, KeyRecord,
    MAX_API_KEYS, Revocation, RevokeRefusal,
};
pub use scope::{Scope, ScopeSet};

/// The key that makes callback tokens: 32 bytes, stored as base64url.
#[derive(Clone)]
pub struct CallbackSecret([u8; 32]);

/// Why a text is not a callback secret. The error never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the callback secret is 32 bytes in base64url without padding")]
pub struct CallbackSecretError;

impl CallbackSecret {
    /// A new secret from random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a stored secret.
    ///
    /// # Errors
    /// When it is not 32 bytes in base64url.
    pub fn parse(text: &str) -> Result<Self, CallbackSecretError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| CallbackSecretError)?;
        bytes.try_into().map(Self).map_err(|_| CallbackSecretError)
    }

    /// The text for the secret store.
    #[must_use]
    pub fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The token in the callback URL of one job at one provider: 43 characters of base64url.
    /// It is all that authenticates an unsigned callback, so it is a whole HMAC.
    #[must_use]
    pub fn token(&self, provider: &ProviderName, job: &JobId) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(provider, job).finalize().into_bytes())
    }

    /// Whether `token` is the one of this job at this provider; in constant time.
    #[must_use]
    pub fn accept(&self, token: &str, provider: &ProviderName, job: &JobId) -> bool {
        let Ok(presented) = URL_SAFE_NO_PAD.decode(token) else { return false };
        self.mac(provider, job).verify_slice(&presented).is_ok()
    }

    fn mac(&self, provider: &ProviderName, job: &JobId) -> Hmac<Sha256> {
        // A key padded to the hash's block is the same key (RFC 2104 §2), and one of block
        // size cannot be of a wrong length.
        let mut block = [0; 64];
        block.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(b"render-relay/callback/");
        mac.update(provider.as_str().as_bytes());
        mac.update(b"/");
        mac.update(job.as_str().as_bytes());
        mac
    }
}

impl fmt::Debug for CallbackSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackSecret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callback_token_is_bound_to_job() {
        let secret = CallbackSecret::from_random([9; 32]);
        let (zvid, other) =
            (ProviderName::parse("zvid").unwrap(), ProviderName::parse("shotstack").unwrap());
        let (job, next) = (JobId::from_bytes([1; 16]), JobId::from_bytes([2; 16]));
        let token = secret.token(&zvid, &job);
        assert_eq!(token.len(), 43);
        assert!(secret.accept(&token, &zvid, &job));
        assert!(!secret.accept(&token, &other, &job));
        assert!(!secret.accept(&token, &zvid, &next));
        assert!(!secret.accept(&token[..42], &zvid, &job));
        assert!(!secret.accept("", &zvid, &job));
        assert!(!CallbackSecret::from_random([8; 32]).accept(&token, &zvid, &job));
    }

    #[test]
    fn credentials_are_hidden_in_debug() {
        let secret = CallbackSecret::from_random([9; 32]);
        assert_eq!(format!("{secret:?}"), "CallbackSecret(redacted)");
        assert!(CallbackSecret::parse(&secret.reveal()).is_ok());
        assert!(CallbackSecret::parse("short").is_err());
    }
}
