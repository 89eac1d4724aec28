//! Standard Webhooks 1.0.0: what we sign outgoing webhooks with.
//!
//! The signed content is `{webhook-id}.{webhook-timestamp}.{raw body}`; the header is a
//! space-separated list with one `v1,<base64 HMAC-SHA256>` per secret in force.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A symmetric signing secret: `whsec_` and the base64 of 24 to 64 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// Why a text is not a secret. Never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It does not begin with `whsec_`.
    #[error("a webhook secret begins with whsec_")]
    Prefix,
    /// What follows is not padded standard base64.
    #[error("a webhook secret is whsec_ and standard base64 with padding")]
    Base64,
    /// It has fewer than 24 or more than 64 bytes.
    #[error("a webhook secret has 24 to 64 bytes")]
    Length,
}

impl WebhookSecret {
    const PREFIX: &str = "whsec_";

    /// Reads a secret, strictly: what one library accepts and another refuses is refused.
    ///
    /// # Errors
    /// When prefix, base64 or length are not as the specification says.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(SecretError::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretError::Length);
        }
        Ok(Self(bytes))
    }

    /// A new secret from 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes.to_vec())
    }

    /// The text to store in a secret store, and to show its owner once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(&self.0))
    }

    /// One entry of the `webhook-signature` header.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // HMAC takes a key of any length, so this cannot fail; an empty answer would be
        // refused by every receiver, which is the safe end of "cannot".
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(id.as_bytes());
        mac.update(format!(".{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(redacted)")
    }
}

/// All secrets in force, newest first. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecrets(Vec<WebhookSecret>);

impl SigningSecrets {
    /// Reads secrets separated by commas.
    ///
    /// # Errors
    /// When there is none, or one is malformed.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let secrets = text.split(',').map(|part| WebhookSecret::parse(part.trim()));
        secrets.collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// The `webhook-signature` header: one entry per secret.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let entries: Vec<String> =
            self.0.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
        entries.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference libraries and of the Svix documentation and server tests.
    #[test]
    fn the_published_vectors_come_out_byte_for_byte() {
        let vectors = [
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_plJ3nmyCDGBKInavdOK15jsl",
                "msg_loFOjxBNrRLzqYUf",
                1_731_705_121,
                r#"{"event_type":"ping","data":{"success":true}}"#,
                "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
            ),
        ];
        for (secret, id, timestamp, body, expected) in vectors {
            let bytes = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
            let signed = WebhookSecret(bytes).sign(id, timestamp, body.as_bytes());
            assert_eq!(signed, expected);
        }
    }

    #[test]
    fn a_rotation_signs_with_every_secret_newest_first() {
        let (new, old) = (WebhookSecret::from_random([1; 32]), WebhookSecret::from_random([2; 32]));
        let both = SigningSecrets::parse(&format!("{},{}", new.reveal(), old.reveal())).unwrap();
        let header = both.sign("evt_1", 1, b"{}");
        assert_eq!(
            header,
            format!("{} {}", new.sign("evt_1", 1, b"{}"), old.sign("evt_1", 1, b"{}"))
        );
    }

    #[test]
    fn what_one_library_accepts_and_another_refuses_is_refused() {
        assert_eq!(WebhookSecret::parse("whsec_"), Err(SecretError::Length));
        assert_eq!(WebhookSecret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), {
            Err(SecretError::Prefix)
        });
        let unpadded = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGA";
        assert_eq!(WebhookSecret::parse(unpadded), Err(SecretError::Base64));
        assert_eq!(WebhookSecret::parse("whsec_!!"), Err(SecretError::Base64));
        assert_eq!(SigningSecrets::parse(""), Err(SecretError::Prefix));
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = WebhookSecret::from_random([3; 32]);
        assert_eq!(format!("{secret:?}"), "WebhookSecret(redacted)");
        assert_eq!(WebhookSecret::parse(&secret.reveal()), Ok(secret));
    }
}
