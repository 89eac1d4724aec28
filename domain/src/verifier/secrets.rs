//! The secrets in force, and how bytes are written as text.

use std::borrow::Cow;
use std::fmt;

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::NO_SECRET_PROVIDED;

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Encoding {
    /// Hexadecimal digits in either case.
    Hex,
    /// RFC 4648 §4, with padding.
    Base64,
    /// RFC 4648 §5, with or without padding.
    Base64Url,
}

/// What a secret's text is. Never guessed from the text: some senders sign with the bytes
/// that follow `whsec_`, and others with the whole text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "form", rename_all = "camelCase", deny_unknown_fields)]
pub enum KeyForm {
    // The braces make serde refuse unknown members; it overlooks them in unit variants.
    /// The key is the text itself.
    Text {},
    /// The key is the text without its prefix, decoded.
    Encoded {
        /// How it is encoded.
        encoding: Encoding,
        /// What stands before it; not optional in the secret.
        #[serde(default)]
        prefix: String,
    },
}

/// All secrets in force, or public keys where the scheme has those. Never empty.
#[derive(Clone)]
pub struct Secrets(Vec<Secret>);

/// One secret.
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) key: Key,
    /// The digest of the token that goes with it, where the scheme has one.
    token: Option<[u8; 32]>,
}

/// What one secret is used as.
#[derive(Clone)]
pub(super) enum Key {
    /// A shared secret; not empty.
    Shared(Vec<u8>),
    /// A public key; not one of the few under which a signature fits many messages.
    Public(VerifyingKey),
}

/// Why a text is not a list of secrets. Never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// There is none, or one of them is empty.
    #[error("a secret is empty")]
    Empty,
    /// One is what senders write when they have no secret.
    #[error("{NO_SECRET_PROVIDED} is not a secret")]
    Placeholder,
    /// One does not begin as all of this scheme do.
    #[error("a secret of this scheme begins with `{0}`")]
    Prefix(String),
    /// One is not encoded as the scheme says.
    #[error("a secret of this scheme is {0}")]
    Encoding(Encoding),
    /// One lacks the token that goes with its key.
    #[error("a secret of this scheme is a token, a colon and a key")]
    Token,
    /// One is not a public key.
    #[error("a key of this scheme is an ed25519 public key of 32 bytes")]
    PublicKey,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hex => "hexadecimal",
            Self::Base64 => "standard base64 with padding",
            Self::Base64Url => "base64url",
        })
    }
}

impl Encoding {
    /// Reads bytes, at least one.
    pub(super) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
            &alphabet::URL_SAFE,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        match self {
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64Url => URL_SAFE.decode(text).ok(),
        }
        .filter(|bytes| !bytes.is_empty())
    }
}

impl KeyForm {
    fn decode(&self, text: &str) -> Result<Vec<u8>, SecretsError> {
        match self {
            Self::Text {} => Ok(text.as_bytes().to_vec()),
            Self::Encoded { encoding, prefix } => {
                let encoded = text
                    .strip_prefix(prefix.as_str())
                    .ok_or_else(|| SecretsError::Prefix(prefix.clone()))?;
                if encoded.is_empty() {
                    return Err(SecretsError::Empty);
                }
                encoding.decode(encoded.as_bytes()).ok_or(SecretsError::Encoding(*encoding))
            }
        }
    }
}

impl Secrets {
    /// Reads secrets separated by commas; blanks around each are not part of it. With
    /// `tokens`, each is a token and a key, parted by the last colon.
    pub(super) fn parse(
        text: &str,
        form: &KeyForm,
        public: bool,
        tokens: bool,
    ) -> Result<Self, SecretsError> {
        let secrets = text.split(',').map(str::trim).map(|text| {
            let (token, key) = match text {
                "" => return Err(SecretsError::Empty),
                NO_SECRET_PROVIDED => return Err(SecretsError::Placeholder),
                text if tokens => {
                    let (token, key) = text.rsplit_once(':').ok_or(SecretsError::Token)?;
                    if token.is_empty() || key.is_empty() {
                        return Err(SecretsError::Token);
                    }
                    (Some(Sha256::digest(token).into()), key)
                }
                text => (None, text),
            };
            let bytes = form.decode(key)?;
            let key = if public { public_key(&bytes)? } else { Key::Shared(bytes) };
            Ok(Secret { key, token })
        });
        secrets.collect::<Result<Vec<_>, _>>().map(Self)
    }

    pub(super) fn all(&self) -> &[Secret] {
        &self.0
    }

    /// Whether one of the tokens is one of the secrets. Compares digests, so that not even
    /// the lengths tell anything.
    pub(super) fn contain_any(&self, tokens: &[Cow<'_, [u8]>]) -> bool {
        let mut found = Choice::from(0);
        for token in tokens {
            let presented = Sha256::digest(token);
            for secret in &self.0 {
                let Key::Shared(secret) = &secret.key else { continue };
                found |= Sha256::digest(secret).ct_eq(&presented);
            }
        }
        found.into()
    }
}

impl Secret {
    /// Whether the token that a request carries beside its signature is this secret's.
    pub(super) fn admits(&self, token: Option<&[u8]>) -> Choice {
        match (&self.token, token) {
            (None, None) => Choice::from(1),
            (Some(own), Some(token)) => own.as_slice().ct_eq(&Sha256::digest(token)),
            (None, Some(_)) | (Some(_), None) => Choice::from(0),
        }
    }
}

fn public_key(bytes: &[u8]) -> Result<Key, SecretsError> {
    let bytes = bytes.try_into().map_err(|_| SecretsError::PublicKey)?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| SecretsError::PublicKey)?;
    if key.is_weak() { Err(SecretsError::PublicKey) } else { Ok(Key::Public(key)) }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({}, redacted)", self.0.len())
    }
}
