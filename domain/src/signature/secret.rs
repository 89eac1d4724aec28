//! One webhook secret, and its entry in the `webhook-signature` header.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::ed25519::signature::MultipartSigner;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The type of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureType {
    /// HMAC-SHA256 with a shared secret.
    V1,
    /// ed25519: the receiver has the public key only.
    V1a,
}

impl SignatureType {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V1, Self::V1a];

    /// The identifier in the header, which is also the wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }

    /// The type with this wire name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A secret that webhooks are signed with. Its Debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub enum WebhookSecret {
    /// `whsec_…`, for [`SignatureType::V1`].
    Shared(SharedSecret),
    /// `whsk_…`, for [`SignatureType::V1a`].
    Pair(KeyPair),
}

/// Why a text is not a secret. The error never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningSecretError {
    /// It has neither of the two prefixes.
    #[error("a webhook secret begins with whsec_ or whsk_")]
    Prefix,
    /// The text after the prefix is not padded standard base64.
    #[error("a webhook secret is whsec_ or whsk_ and standard base64 with padding")]
    Base64,
    /// A shared secret has fewer than 24 or more than 64 bytes.
    #[error("a webhook secret with whsec_ has 24 to 64 bytes")]
    Length,
    /// The bytes are not a seed with its public key.
    #[error(
        "a webhook secret with whsk_ has 64 bytes: an ed25519 seed and the public key that belongs to it"
    )]
    Pair,
}

impl WebhookSecret {
    /// Reads a secret strictly: a text that only some libraries accept is refused.
    ///
    /// # Errors
    /// When prefix, base64 or length do not follow the specification, or the public key does not
    /// belong to the seed.
    pub fn parse(text: &str) -> Result<Self, SigningSecretError> {
        let decode = |text| STANDARD.decode(text).map_err(|_| SigningSecretError::Base64);
        if let Some(encoded) = text.strip_prefix(SharedSecret::PREFIX) {
            SharedSecret::from_bytes(decode(encoded)?).map(Self::Shared)
        } else if let Some(encoded) = text.strip_prefix(KeyPair::PREFIX) {
            KeyPair::from_bytes(&decode(encoded)?).map(Self::Pair)
        } else {
            Err(SigningSecretError::Prefix)
        }
    }

    /// A new secret of this type from 32 random bytes.
    #[must_use]
    pub fn from_random(kind: SignatureType, bytes: [u8; 32]) -> Self {
        match kind {
            SignatureType::V1 => Self::Shared(SharedSecret(bytes.to_vec())),
            SignatureType::V1a => Self::Pair(KeyPair(SigningKey::from_bytes(&bytes))),
        }
    }

    /// The text for the secret store.
    #[must_use]
    pub fn reveal(&self) -> String {
        match self {
            Self::Shared(secret) => secret.reveal(),
            Self::Pair(pair) => pair.reveal(),
        }
    }

    /// The public key `whpk_…` for receivers; none for a shared secret.
    #[must_use]
    pub fn public_key(&self) -> Option<String> {
        match self {
            Self::Shared(_) => None,
            Self::Pair(pair) => Some(pair.public_key()),
        }
    }

    /// Its signature type.
    #[must_use]
    pub fn kind(&self) -> SignatureType {
        match self {
            Self::Shared(_) => SignatureType::V1,
            Self::Pair(_) => SignatureType::V1a,
        }
    }

    /// One entry of the `webhook-signature` header.
    pub(super) fn sign(&self, head: &str, body: &[u8]) -> String {
        let signature = match self {
            Self::Shared(secret) => secret.sign(head, body),
            Self::Pair(pair) => pair.sign(head, body),
        };
        format!("{},{signature}", self.kind().name())
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecret({}, redacted)", self.kind().name())
    }
}

/// A symmetric secret: `whsec_` and the base64 of 24 to 64 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret(Vec<u8>);

impl SharedSecret {
    const PREFIX: &str = "whsec_";

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, SigningSecretError> {
        if !(24..=64).contains(&bytes.len()) {
            return Err(SigningSecretError::Length);
        }
        Ok(Self(bytes))
    }

    /// The text that the owner gives to receivers.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(&self.0))
    }

    fn sign(&self, head: &str, body: &[u8]) -> String {
        // HMAC takes a key of any length, so this cannot fail. If it did, every receiver would
        // refuse the empty signature.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(head.as_bytes());
        mac.update(body);
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(redacted)")
    }
}

/// An ed25519 key pair: `whsk_` and the base64 of seed and public key, as Svix writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    const PREFIX: &str = "whsk_";

    fn from_bytes(bytes: &[u8]) -> Result<Self, SigningSecretError> {
        let bytes = bytes.try_into().map_err(|_| SigningSecretError::Pair)?;
        // A public key that does not belong to the seed is refused: two signatures of one seed
        // under two public keys would reveal the seed.
        SigningKey::from_keypair_bytes(bytes).map(Self).map_err(|_| SigningSecretError::Pair)
    }

    /// The public key `whpk_…`, with which receivers verify.
    #[must_use]
    pub fn public_key(&self) -> String {
        format!("whpk_{}", STANDARD.encode(self.0.verifying_key().as_bytes()))
    }

    fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(self.0.to_keypair_bytes()))
    }

    fn sign(&self, head: &str, body: &[u8]) -> String {
        // This cannot fail either, and receivers would refuse an empty signature too.
        match self.0.try_multipart_sign(&[head.as_bytes(), body]) {
            Ok(signature) => STANDARD.encode(signature.to_bytes()),
            Err(_) => String::new(),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, redacted)", self.public_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference libraries and of Svix's documentation and server tests. The
    /// specification has none for v1a; Svix's is what others test against.
    #[test]
    fn signature_matches_published_vectors() {
        let vectors = [
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk.1649367553.",
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.",
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
                "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.",
                r#"{"test": 2432232314}"#,
                "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
            ),
        ];
        for (secret, head, body, expected) in vectors {
            let secret = WebhookSecret::parse(secret).unwrap();
            assert_eq!(secret.sign(head, body.as_bytes()), expected);
        }
    }

    /// Svix's documentation signs with 18 bytes, fewer than a secret may have.
    #[test]
    fn signature_matches_short_secret_vector() {
        let short = "whsec_plJ3nmyCDGBKInavdOK15jsl";
        assert_eq!(WebhookSecret::parse(short), Err(SigningSecretError::Length));
        let bytes = STANDARD.decode(short.trim_start_matches("whsec_")).unwrap();
        let signed = WebhookSecret::Shared(SharedSecret(bytes)).sign(
            "msg_loFOjxBNrRLzqYUf.1731705121.",
            br#"{"event_type":"ping","data":{"success":true}}"#,
        );
        assert_eq!(signed, "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=");
    }

    #[test]
    fn public_key_matches_published_seed() {
        let pair = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
        let pair = WebhookSecret::parse(pair).unwrap();
        let WebhookSecret::Pair(pair) = pair else { panic!("no pair") };
        assert_eq!(pair.public_key(), "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
    }
}
