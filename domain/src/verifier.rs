//! Verification of the signature of an incoming webhook, by a table of schemes.
//!
//! A [`SignatureScheme`] is data: the place of the signature, its content and its largest age. No
//! sender's name occurs in this code.
//!
//! To add a sender, write its row: `webhook.signature` in its provider spec, and the same row in
//! `verifier/schemes.json`, which the tests check against every way to forge it. To add a kind of
//! authentication that no row can express, add a variant in its module below (a proof in
//! [`method`], a place in [`carrier`], a piece in [`content`]), the same words in
//! `providers/schema.json`, and a row that uses it.
//!
//! - [`scheme`]: a row, and the checks for contradictions in it.
//! - [`incoming`]: the request, as bytes.
//! - [`carrier`]: the place of the signatures in the request.
//! - [`timestamp`]: the signed time, and its largest distance from now.
//! - [`content`]: the signed bytes.
//! - [`method`]: the computation of a signature from a secret and these bytes.
//! - [`secrets`]: the secrets in force, several at once.
//!
//! No row can fetch a key. The operator stores the keys, shared secrets and public keys alike. So
//! senders that name their key by an id in a key set or by a certificate's URL (JWT, JWS, RSA)
//! have no row, and neither have those whose format is undocumented; decision 12 names them.
//! Their callbacks are hints, as all callbacks without a valid signature are.
//!
//! These rules hold for every row: malformed input is [`Verification::Invalid`], never an error;
//! the bytes of a header are what is signed, so numbers have one spelling; a header that occurs
//! twice is refused; the placeholder that some senders put where a signature should be is
//! refused; every entry is tried with every secret, in constant time; age is judged only
//! once the signature holds, so [`Reason::TooOld`] speaks of an authentic request.

pub mod carrier;
pub mod content;
pub mod incoming;
pub mod method;
pub mod scheme;
pub mod secrets;
pub mod timestamp;

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use carrier::CarriedSignatures;
use content::Parts;
use scheme::Proof;
use secrets::Encoding;

pub use incoming::Incoming;
pub use scheme::{SchemeError, SchemeSpec, SignatureScheme};
pub use secrets::{SecretsError, VerifierSecrets};

/// The placeholder that some senders send instead of a signature when they have no secret.
pub const NO_SECRET_PROVIDED: &str = "NO_SECRET_PROVIDED";

/// The result of the verification of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// The request was signed with one of the secrets, recently enough.
    Verified {
        /// The same for every copy of the request, and different for any other. Never empty.
        replay_id: String,
        /// The signed time; none when the scheme signs no time.
        signed_at: Option<DateTime<Utc>>,
    },
    /// The request is not signed: a header or form field of the scheme is missing.
    Missing,
    /// The request is signed, but the signature does not hold.
    Invalid(Reason),
}

/// Why a signature does not hold. For logs: the sender must not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A part of it does not follow the scheme, or occurs twice.
    #[error("the signature is malformed")]
    Malformed,
    /// No secret in force made any of the signatures.
    #[error("no secret in force made the signature")]
    Mismatch,
    /// The signature holds, and is older than the scheme allows.
    #[error("the signature is too old")]
    TooOld,
    /// The signature holds, and is further in the future than the scheme allows.
    #[error("the signature is from the future")]
    TooNew,
    /// The sender has no secret, and sent the placeholder.
    #[error("the sender was given no secret")]
    NoSecretProvided,
}

/// Why a request is not verified: a [`Verification`] other than `Verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Missing,
    Invalid(Reason),
}

impl Refusal {
    const MALFORMED: Self = Self::Invalid(Reason::Malformed);
}

impl From<Refusal> for Verification {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::Missing,
            Refusal::Invalid(reason) => Self::Invalid(reason),
        }
    }
}

impl SignatureScheme {
    /// Verifies one request at the time `now`.
    #[must_use]
    pub fn verify(
        &self,
        incoming: &Incoming<'_>,
        secrets: &VerifierSecrets,
        now: DateTime<Utc>,
    ) -> Verification {
        self.check(incoming, secrets, now).unwrap_or_else(Verification::from)
    }

    fn check(
        &self,
        incoming: &Incoming<'_>,
        secrets: &VerifierSecrets,
        now: DateTime<Utc>,
    ) -> Result<Verification, Refusal> {
        let carried = self.carrier.read(incoming)?;
        let timestamp =
            self.timestamp.as_ref().map(|source| source.read(incoming, &carried)).transpose()?;
        let id = self.replay_id.in_header(incoming)?;
        let token = self.token.as_ref().map(|token| token.read(incoming)).transpose()?;

        let (body, proved) = match &self.proof {
            Proof::Token { encoding } => {
                let tokens = match encoding {
                    None => carried.entries,
                    Some(encoding) => {
                        decoded(&carried, *encoding)?.into_iter().map(Cow::Owned).collect()
                    }
                };
                (Cow::Borrowed(incoming.body), secrets.contain_any(&tokens))
            }
            Proof::Signed { method, encoding, content } => {
                let signatures = decoded(&carried, *encoding)?;
                let body = content.signed_body(incoming)?;
                let timestamp = timestamp.map(|timestamp| timestamp.written);
                let parts = Parts { incoming, body: &body, timestamp, id };
                let proved =
                    method.proved(content, &parts, &signatures, token.as_deref(), secrets)?;
                (body, proved)
            }
        };
        if !proved {
            return Err(Refusal::Invalid(Reason::Mismatch));
        }
        if let (Some(source), Some(timestamp)) = (&self.timestamp, &timestamp) {
            source.judge(timestamp, now)?;
        }
        let replay_id = match id {
            Some(id) => id.to_owned(),
            None => self.replay_id.in_body(&body),
        };
        Ok(Verification::Verified { replay_id, signed_at: timestamp.map(|timestamp| timestamp.at) })
    }
}

/// The entries that can be decoded; there must be one.
fn decoded(carried: &CarriedSignatures<'_>, encoding: Encoding) -> Result<Vec<Vec<u8>>, Refusal> {
    let decoded: Vec<Vec<u8>> =
        carried.entries.iter().filter_map(|entry| encoding.decode(entry)).collect();
    if decoded.is_empty() { Err(Refusal::MALFORMED) } else { Ok(decoded) }
}
