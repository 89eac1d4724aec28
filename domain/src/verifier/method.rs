//! The computation of a signature from a secret and the signed bytes.

use ed25519_dalek::Signature;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};

use super::Refusal;
use super::content::{Content, Parts};
use super::secrets::{VerifierKey, VerifierSecrets};

/// The method by which a request proves its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum ProofMethod {
    /// HMAC with a shared secret.
    Hmac {
        /// The hash function.
        hash: Hash,
    },
    /// A plain hash over content that ends with the shared secret.
    Digest {
        /// The hash function.
        hash: Hash,
    },
    // The braces make serde refuse unknown members; it overlooks them in unit variants.
    /// An ed25519 signature; the secrets are public keys.
    Ed25519 {},
    /// The shared secret itself: a bearer token, or `user:password` in base64 with HTTP
    /// Basic. It says nothing about the body.
    Token {},
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hash {
    /// SHA-1, because some senders still use it.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A [`ProofMethod`] other than a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signing {
    Hmac(Hash),
    Digest(Hash),
    Ed25519,
}

impl Signing {
    /// Whether one of the secrets made one of the signatures. It always tries all of them, so the
    /// time does not show which one matched.
    ///
    /// `token` is the token beside the signatures, if the scheme has one. It must belong to the
    /// same secret as the signature.
    pub(super) fn proved(
        self,
        content: &Content,
        parts: &Parts<'_>,
        signatures: &[Vec<u8>],
        token: Option<&[u8]>,
        secrets: &VerifierSecrets,
    ) -> Result<bool, Refusal> {
        let mut proved = Choice::from(0);
        for secret in secrets.all() {
            let made = match (self, &secret.key) {
                (Self::Hmac(hash), VerifierKey::Shared(secret)) => {
                    let message = content.fill(parts, secret)?;
                    any_equal(signatures, &hash.hmac(secret, &message))
                }
                (Self::Digest(hash), VerifierKey::Shared(secret)) => {
                    let message = content.fill(parts, secret)?;
                    any_equal(signatures, &hash.digest(&message))
                }
                (Self::Ed25519, VerifierKey::Public(key)) => {
                    let message = content.fill(parts, &[])?;
                    let holds = |signature: &Vec<u8>| {
                        Signature::from_slice(signature)
                            .is_ok_and(|signature| key.verify_strict(&message, &signature).is_ok())
                    };
                    let held = signatures.iter().filter(|signature| holds(signature)).count();
                    Choice::from(u8::from(held > 0))
                }
                // The secret belongs to another method.
                (Self::Hmac(_) | Self::Digest(_), VerifierKey::Public(_))
                | (Self::Ed25519, VerifierKey::Shared(_)) => Choice::from(0),
            };
            proved |= made & secret.admits(token);
        }
        Ok(proved.into())
    }
}

/// Compares with all signatures; [`Encoding`](super::secrets::Encoding) refuses empty ones.
fn any_equal(signatures: &[Vec<u8>], expected: &[u8]) -> Choice {
    signatures
        .iter()
        .fold(Choice::from(0), |found, signature| found | signature.as_slice().ct_eq(expected))
}

impl Hash {
    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => mac::<Hmac<Sha1>>(key, message),
            Self::Sha256 => mac::<Hmac<Sha256>>(key, message),
            Self::Sha384 => mac::<Hmac<Sha384>>(key, message),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, message),
        }
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(message).to_vec(),
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length, so this cannot fail; an empty result equals no signature.
    let Ok(mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
    mac.chain_update(message).finalize().into_bytes().to_vec()
}
