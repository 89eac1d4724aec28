//! The secrets in force, and the text encodings of bytes.

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

/// A text encoding of bytes.
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

/// The form of a secret's text. It is never guessed from the text, because some senders sign with
/// the bytes after `whsec_` and others with the whole text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "form", rename_all = "camelCase", deny_unknown_fields)]
pub enum KeyForm {
    // The braces make serde refuse unknown members; it overlooks them in unit variants.
    /// The key is the text itself.
    Text {},
    /// The key is the text without its prefix, decoded.
    Encoded {
        /// The encoding of the key.
        encoding: Encoding,
        /// The prefix, which must be there.
        #[serde(default)]
        prefix: String,
    },
}

/// All secrets in force, or public keys for a scheme with those. Never empty.
#[derive(Clone)]
pub struct VerifierSecrets(Vec<VerifierSecret>);

/// One secret.
#[derive(Clone)]
pub(super) struct VerifierSecret {
    pub(super) key: VerifierKey,
    /// The digest of the token of this secret, if the scheme has tokens.
    token: Option<[u8; 32]>,
}

/// The key in a secret.
#[derive(Clone)]
pub(super) enum VerifierKey {
    /// A shared secret; not empty.
    Shared(Vec<u8>),
    /// A public key that is not of small order: under those, one signature fits many messages.
    Public(VerifyingKey),
}

/// Why a text is not a list of secrets. The error never contains the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// There is no secret, or one is empty.
    #[error("a secret is empty")]
    Empty,
    /// A secret is the placeholder of senders without a secret.
    #[error("{NO_SECRET_PROVIDED} is not a secret")]
    Placeholder,
    /// A secret lacks the prefix of this scheme.
    #[error("a secret of this scheme begins with `{0}`")]
    Prefix(String),
    /// A secret does not have the encoding of the scheme.
    #[error("a secret of this scheme is {0}")]
    Encoding(Encoding),
    /// A secret is the version of a signature, as in `v1,whsec_…`, which is no list of two secrets.
    #[error("`v` and a number is the version of a signature, and no secret")]
    Version,
    /// A secret has no token.
    #[error("a secret of this scheme is a token, a colon and a key")]
    Token,
    /// A key is not a valid public key.
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
    /// Decodes the text; none when it is malformed or empty.
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

impl VerifierSecrets {
    /// Reads secrets separated by commas; blanks around each are not part of it. With
    /// `tokens`, each is a token and a key, separated by the last colon.
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
                text if is_version(text) => return Err(SecretsError::Version),
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
            let key = if public { public_key(&bytes)? } else { VerifierKey::Shared(bytes) };
            Ok(VerifierSecret { key, token })
        });
        secrets.collect::<Result<Vec<_>, _>>().map(Self)
    }

    pub(super) fn all(&self) -> &[VerifierSecret] {
        &self.0
    }

    /// Whether one of the tokens is one of the secrets. It compares digests, so that the time does
    /// not even depend on the lengths.
    pub(super) fn contain_any(&self, tokens: &[Cow<'_, [u8]>]) -> bool {
        let mut found = Choice::from(0);
        for token in tokens {
            let presented = Sha256::digest(token);
            for secret in &self.0 {
                let VerifierKey::Shared(secret) = &secret.key else { continue };
                found |= Sha256::digest(secret).ct_eq(&presented);
            }
        }
        found.into()
    }
}

impl VerifierSecret {
    /// Whether the token that a request carries beside its signature is this secret's.
    pub(super) fn admits(&self, token: Option<&[u8]>) -> Choice {
        match (&self.token, token) {
            (None, None) => Choice::from(1),
            (Some(own), Some(token)) => own.as_slice().ct_eq(&Sha256::digest(token)),
            (None, Some(_)) | (Some(_), None) => Choice::from(0),
        }
    }
}

/// Whether a text is `v1`, `v1a` or the like. Anyone could sign with it.
fn is_version(text: &str) -> bool {
    let digits = text.strip_prefix('v').unwrap_or_default();
    digits.len() <= 3
        && digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn public_key(bytes: &[u8]) -> Result<VerifierKey, SecretsError> {
    let bytes = bytes.try_into().map_err(|_| SecretsError::PublicKey)?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| SecretsError::PublicKey)?;
    if key.is_weak() { Err(SecretsError::PublicKey) } else { Ok(VerifierKey::Public(key)) }
}

impl fmt::Debug for VerifierSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierSecrets({}, redacted)", self.0.len())
    }
}
