//! Who signed an incoming webhook, decided from a table.
//!
//! A [`SignatureScheme`] is data: where the signature stands, what it is made of and how old
//! it may be. No sender's name occurs in this code: a new sender is one more row.
//!
//! - [`scheme`]: a row, and what makes it contradict itself.
//! - [`incoming`]: the request, as bytes.
//! - [`carrier`]: where the signatures stand in it.
//! - [`timestamp`]: when it says it was signed, and how far from now that may be.
//! - [`content`]: which bytes were signed.
//! - [`method`]: how a secret and those bytes make a signature.
//! - [`secrets`]: the secrets in force, several at once.
//!
//! What no row can say: that a key is to be fetched. Keys are what the operator stored, shared
//! secrets and public keys alike, so senders that change theirs by an id in a key set or a
//! certificate's URL (JWT, JWS, RSA) have no row, nor have those whose format nobody has seen;
//! decision 12 names them. Their callbacks are hints, as all are that nothing proves.
//!
//! What no row can switch off: malformed input is [`Verdict::Invalid`], never an error; the
//! bytes of a header are what is signed, so numbers have one spelling; a header that occurs
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

use carrier::Carried;
use content::Parts;
use scheme::Proof;
use secrets::Encoding;

pub use incoming::Incoming;
pub use scheme::{SchemeError, SchemeSpec, SignatureScheme};
pub use secrets::{Secrets, SecretsError};

/// What some senders write where a signature should be, when they were given no secret.
pub const NO_SECRET_PROVIDED: &str = "NO_SECRET_PROVIDED";

/// Whether a request is from whom it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was signed with one of the secrets, recently enough.
    Verified {
        /// The same for every copy of the request, and for no other. Never empty.
        replay_id: String,
        /// When it says it was signed; none where the scheme signs no time.
        signed_at: Option<DateTime<Utc>>,
    },
    /// It lacks a header (or the form field) that the scheme reads: it is not signed.
    Missing,
    /// It is signed, and the signature does not hold.
    Invalid(Reason),
}

/// Why a signature does not hold. For logs: the sender must not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A part of it is not written as the scheme says, or there twice.
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
    /// The sender was given no secret, and says so.
    #[error("the sender was given no secret")]
    NoSecretProvided,
}

/// Why a request is not verified; a [`Verdict`] without its good end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Missing,
    Invalid(Reason),
}

impl Refusal {
    const MALFORMED: Self = Self::Invalid(Reason::Malformed);
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::Missing,
            Refusal::Invalid(reason) => Self::Invalid(reason),
        }
    }
}

impl SignatureScheme {
    /// Decides about one request at the time `now`.
    #[must_use]
    pub fn verify(
        &self,
        incoming: &Incoming<'_>,
        secrets: &Secrets,
        now: DateTime<Utc>,
    ) -> Verdict {
        self.check(incoming, secrets, now).unwrap_or_else(Verdict::from)
    }

    fn check(
        &self,
        incoming: &Incoming<'_>,
        secrets: &Secrets,
        now: DateTime<Utc>,
    ) -> Result<Verdict, Refusal> {
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
        Ok(Verdict::Verified { replay_id, signed_at: timestamp.map(|timestamp| timestamp.at) })
    }
}

/// The entries that can be decoded; there must be one.
fn decoded(carried: &Carried<'_>, encoding: Encoding) -> Result<Vec<Vec<u8>>, Refusal> {
    let decoded: Vec<Vec<u8>> =
        carried.entries.iter().filter_map(|entry| encoding.decode(entry)).collect();
    if decoded.is_empty() { Err(Refusal::MALFORMED) } else { Ok(decoded) }
}
