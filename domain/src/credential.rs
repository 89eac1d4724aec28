//! Credentials of requests to us: the API keys of clients, and the tokens in callback URLs.

mod api_key;
mod scope;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::id::{JobId, ProviderName};

pub use api_key::{
    ApiKey, ApiKeyHash, ApiKeyHashError, ApiKeys, CreateRefusal, KeyCreator, KeyRecord,
    MAX_API_KEYS, RevokeRefusal,
};
pub use scope::{Scope, ScopeSet};

/// The SHA-256 digests of the API keys in force. Several keys may be valid at once.
#[derive(Clone)]
pub struct ApiKeyHashes(Vec<[u8; 32]>);

/// Why a text is not a list of API key hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("API key hashes are SHA-256 digests of 64 hexadecimal digits, separated by commas")]
pub struct ApiKeyHashesError;

impl ApiKeyHashes {
    /// Reads one or more digests of 64 hexadecimal digits, separated by commas.
    ///
    /// # Errors
    /// When one is not such a digest.
    pub fn parse(text: &str) -> Result<Self, ApiKeyHashesError> {
        let hashes = text.split(',').map(|part| {
            let mut hash = [0; 32];
            hex::decode_to_slice(part.trim(), &mut hash).map_err(|_| ApiKeyHashesError)?;
            Ok(hash)
        });
        hashes.collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// Whether `key` is one of the keys. It compares with every digest in constant time, so the
    /// time of the answer reveals nothing.
    #[must_use]
    pub fn accept(&self, key: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let matches =
            self.0.iter().fold(Choice::from(0), |found, hash| found | hash.ct_eq(&presented));
        matches.into()
    }
}

impl fmt::Debug for ApiKeyHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyHashes({} keys, redacted)", self.0.len())
    }
}

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

    fn sha256_hex(text: &str) -> String {
        hex::encode(Sha256::digest(text))
    }

    #[test]
    fn api_keys_admit_only_keys_in_force() {
        let hashes = format!("{}, {}", sha256_hex("rr_one"), sha256_hex("rr_two"));
        let keys = ApiKeyHashes::parse(&hashes).unwrap();
        assert!(keys.accept("rr_one"));
        assert!(keys.accept("rr_two"));
        for wrong in ["", "rr_on", "rr_one ", &sha256_hex("rr_one")] {
            assert!(!keys.accept(wrong), "{wrong}");
        }
        assert!(ApiKeyHashes::parse("").is_err());
        assert!(ApiKeyHashes::parse("abc").is_err());
    }

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
