//! The signature scheme of one sender, as data.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Refusal;
use super::carrier::Carrier;
use super::content::{Content, ContentError, Piece};
use super::incoming::{HeaderName, Incoming};
use super::method::{ProofMethod, Signing};
use super::secrets::{Encoding, KeyForm, SecretsError, VerifierSecrets};
use super::timestamp::{TimestampPlace, TimestampSource};
use crate::provider::pointer::{Pointer, first_text};

/// The vocabulary of a scheme, as written in a spec. Becomes a [`SignatureScheme`] unless it
/// contradicts itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchemeSpec {
    /// The method of the proof.
    pub method: ProofMethod,
    /// The place of the signatures.
    pub carrier: Carrier,
    /// The encoding of a signature. A token without one is compared as text.
    #[serde(default)]
    pub encoding: Option<Encoding>,
    /// The form of a secret's text.
    pub key: KeyForm,
    /// The template of the signed bytes, see [`Content`]; none for a token, which signs nothing.
    #[serde(default)]
    pub content: Option<String>,
    /// The place of the signed time; none when no time is signed.
    #[serde(default)]
    pub timestamp: Option<TimestampSource>,
    /// The token beside the signature; none without one.
    #[serde(default)]
    pub token: Option<TokenSource>,
    /// The source of the replay id.
    #[serde(default)]
    pub replay_id: ReplayId,
}

/// A token beside a signature, such as the user and password of HTTP Basic. Every secret then
/// begins with it, and a colon separates it from the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenSource {
    /// The header of the token.
    pub header: HeaderName,
    /// The prefix of the token, which must be there.
    #[serde(default)]
    pub prefix: String,
    /// The encoding of the token; none when it is plain text.
    #[serde(default)]
    pub encoding: Option<Encoding>,
}

/// The source of the replay id, which is the same for copies of a request only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum ReplayId {
    /// The value of a header, which is `{id}` in the content. A signature must cover it: a
    /// copy with another id would pass for a new request. A token covers nothing anyway.
    Header {
        /// The name of the header.
        header: HeaderName,
    },
    /// The first text or number that the pointer finds in the signed part of the body; the
    /// hash when it finds none.
    Pointer {
        /// The pointer into the body.
        pointer: Pointer,
    },
    /// SHA-256 of the signed part of the body, in hexadecimal digits.
    BodyHash {},
}

impl Default for ReplayId {
    fn default() -> Self {
        Self::BodyHash {}
    }
}

/// The signature scheme of one sender, checked for contradictions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SchemeSpec")]
pub struct SignatureScheme {
    pub(super) carrier: Carrier,
    pub(super) proof: Proof,
    pub(super) timestamp: Option<TimestampSource>,
    pub(super) token: Option<TokenSource>,
    pub(super) replay_id: ReplayId,
    key: KeyForm,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Token { encoding: Option<Encoding> },
    Signed { method: Signing, encoding: Encoding, content: Content },
}

/// How a scheme contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// The content is not a template.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A token has a member that only signatures have.
    #[error("a token signs nothing: it has neither content, timestamp nor another token")]
    TokenSigns,
    /// The form of the secret of a token is not `text`.
    #[error("a token is the secret itself: its key has the form `text`")]
    TokenKey,
    /// A signature has no encoding or no content.
    #[error("a signature needs both encoding and content")]
    Unsigned,
    /// A public key has the form `text`, but it is bytes.
    #[error("an ed25519 public key is encoded: its form is not `text`")]
    PublicKeyText,
    /// The keys of pairs are missing, empty, repeated or contain `=`.
    #[error("a list of pairs needs keys, each of them once, not empty and without `=`")]
    Keys,
    /// Without a prefix every entry of the list would count as a signature.
    #[error("a list by spaces needs a prefix, without spaces, that tells its version")]
    ListPrefix,
    /// The content does not cover the body, or covers it more than once.
    #[error("content must have the body exactly once: whole, hashed or one form field of it")]
    Body,
    /// The signature would sign itself.
    #[error("the signature is in the form that it signs: content must be another field of it")]
    SelfSigned,
    /// A hash without a secret is no proof, and with one in front it can be extended.
    #[error("a plain hash needs the secret in its content, once and at the end")]
    SecretPlace,
    /// Only a plain hash has the secret in its content.
    #[error("only a plain hash has the secret in its content")]
    SecretSigned,
    /// The timestamp is not signed, or there is none to sign.
    #[error("content must have {{timestamp}} if and only if there is a timestamp")]
    Timestamp,
    /// The carrier has no pairs in which the key of the timestamp could be.
    #[error("a timestamp can be a key only in a list of pairs, and not one of the signatures'")]
    TimestampKey,
    /// Two values come from the same header.
    #[error("the signature, the timestamp, the id and the token need a header each")]
    SameHeader,
    /// Without a separator digits could move between timestamp and body.
    #[error("nothing parts {{timestamp}} from the body: that needs a maxAgeSeconds")]
    TimestampTouches,
    /// Without a separator characters could move between a header and its neighbour.
    #[error("{{id}} and {{header:…}} need text between them and their neighbours")]
    HeaderTouches,
    /// There is no id to sign.
    #[error("content has {{id}}, but replayId is not a header")]
    NoId,
    /// A copy with another id would pass for a new request.
    #[error("replayId is a header that content does not sign: a copy could change it")]
    IdUnsigned,
}

impl TryFrom<SchemeSpec> for SignatureScheme {
    type Error = SchemeError;

    fn try_from(spec: SchemeSpec) -> Result<Self, SchemeError> {
        let signing = match spec.method {
            ProofMethod::Token {} => None,
            ProofMethod::Hmac { hash } => Some(Signing::Hmac(hash)),
            ProofMethod::Digest { hash } => Some(Signing::Digest(hash)),
            ProofMethod::Ed25519 {} => Some(Signing::Ed25519),
        };
        let only = spec.timestamp.is_none() && spec.token.is_none();
        let proof = match (signing, spec.encoding, &spec.content) {
            (None, encoding, None) if only => Proof::Token { encoding },
            (None, _, _) => return Err(SchemeError::TokenSigns),
            (Some(method), Some(encoding), Some(content)) => {
                Proof::Signed { method, encoding, content: Content::parse(content)? }
            }
            (Some(_), _, _) => return Err(SchemeError::Unsigned),
        };
        let scheme = Self {
            carrier: spec.carrier,
            proof,
            timestamp: spec.timestamp,
            token: spec.token,
            replay_id: spec.replay_id,
            key: spec.key,
        };
        match scheme.contradiction() {
            Some(error) => Err(error),
            None => Ok(scheme),
        }
    }
}

impl SignatureScheme {
    /// The values of the headers that prove the sender: its signatures, and its token. A request
    /// that has one of them twice proves nothing.
    #[must_use]
    pub fn proofs<'a>(&self, incoming: &Incoming<'a>) -> Vec<&'a [u8]> {
        let token = self.token.as_ref().map(|token| &token.header);
        let names = [self.carrier.header_name(), token].into_iter().flatten();
        names.filter_map(|name| incoming.header(name).ok()).collect()
    }

    /// Reads the secrets in force for this scheme, separated by commas; blanks around each
    /// are not part of it. For ed25519 they are public keys.
    ///
    /// # Errors
    /// When there is no secret, or one does not have the form of this scheme's keys.
    pub fn parse_secrets(&self, text: &str) -> Result<VerifierSecrets, SecretsError> {
        let public = matches!(self.proof, Proof::Signed { method: Signing::Ed25519, .. });
        VerifierSecrets::parse(text, &self.key, public, self.token.is_some())
    }

    /// The signed field of a form; none when the whole body is signed. The other fields of the
    /// form are not authenticated.
    #[must_use]
    pub fn signed_field(&self) -> Option<&str> {
        match &self.proof {
            Proof::Token { .. } => None,
            Proof::Signed { content, .. } => content.form_field(),
        }
    }

    /// Whether a verified request proves its body, and not only its sender.
    #[must_use]
    pub fn proves_body(&self) -> bool {
        match self.proof {
            Proof::Token { .. } => false,
            Proof::Signed { .. } => true,
        }
    }

    fn contradiction(&self) -> Option<SchemeError> {
        let carrier = self.carrier_contradiction();
        let timestamp = || self.timestamp_contradiction();
        let proof = || match &self.proof {
            Proof::Token { .. } if matches!(self.key, KeyForm::Encoded { .. }) => {
                Some(SchemeError::TokenKey)
            }
            Proof::Token { .. } => None,
            Proof::Signed { method, content, .. } => self
                .key_contradiction(*method, content)
                .or_else(|| self.content_contradiction(content)),
        };
        carrier.or_else(timestamp).or_else(proof)
    }

    fn carrier_contradiction(&self) -> Option<SchemeError> {
        match &self.carrier {
            Carrier::Header { .. } | Carrier::Form { .. } => None,
            Carrier::Pairs { keys, .. } => {
                let sound = |key: &String| {
                    !key.is_empty()
                        && !key.contains(['=', ',', ';', ' '])
                        && keys.iter().filter(|other| *other == key).count() == 1
                };
                (keys.is_empty() || !keys.iter().all(sound)).then_some(SchemeError::Keys)
            }
            Carrier::List { prefix, .. } => {
                (prefix.is_empty() || prefix.contains(' ')).then_some(SchemeError::ListPrefix)
            }
        }
    }

    fn timestamp_contradiction(&self) -> Option<SchemeError> {
        let place = self.timestamp.as_ref().map(|timestamp| &timestamp.place);
        if let Some(TimestampPlace::Key { key }) = place {
            let Carrier::Pairs { keys, .. } = &self.carrier else {
                return Some(SchemeError::TimestampKey);
            };
            if keys.contains(key) {
                return Some(SchemeError::TimestampKey);
            }
        }
        let signature = self.carrier.header_name();
        let timestamp = match place {
            Some(TimestampPlace::Header { header }) => Some(header),
            Some(TimestampPlace::Key { .. }) | None => None,
        };
        let token = self.token.as_ref().map(|token| &token.header);
        let headers = [signature, timestamp, self.replay_id.header(), token];
        let shared = |header: &&HeaderName| {
            headers.iter().flatten().filter(|other| *other == header).count() > 1
        };
        headers.iter().flatten().any(shared).then_some(SchemeError::SameHeader)
    }

    fn key_contradiction(&self, method: Signing, content: &Content) -> Option<SchemeError> {
        let secrets = content.pieces().iter().filter(|piece| **piece == Piece::Secret).count();
        match method {
            Signing::Ed25519 if matches!(self.key, KeyForm::Text {}) => {
                Some(SchemeError::PublicKeyText)
            }
            Signing::Digest(_) => {
                let last = content.pieces().last() == Some(&Piece::Secret);
                (secrets != 1 || !last).then_some(SchemeError::SecretPlace)
            }
            Signing::Hmac(_) | Signing::Ed25519 => {
                (secrets > 0).then_some(SchemeError::SecretSigned)
            }
        }
    }

    fn content_contradiction(&self, content: &Content) -> Option<SchemeError> {
        let pieces = content.pieces();
        if pieces.iter().filter(|piece| piece.is_body()).count() != 1 {
            return Some(SchemeError::Body);
        }
        if let Carrier::Form { field, .. } = &self.carrier {
            let other = |piece: &Piece| matches!(piece, Piece::FormField(name) if name != field);
            if !pieces.iter().any(other) {
                return Some(SchemeError::SelfSigned);
            }
        }
        if pieces.contains(&Piece::Timestamp) != self.timestamp.is_some() {
            return Some(SchemeError::Timestamp);
        }
        if pieces.contains(&Piece::Id) && self.replay_id.header().is_none() {
            return Some(SchemeError::NoId);
        }
        if let Some(header) = self.replay_id.header() {
            let signs = |piece: &Piece| match piece {
                Piece::Id => true,
                Piece::Header(name) => name == header,
                _ => false,
            };
            if !pieces.iter().any(signs) {
                return Some(SchemeError::IdUnsigned);
            }
        }
        self.boundary_contradiction(content)
    }

    /// Whether two adjacent values without a separator could be split differently.
    fn boundary_contradiction(&self, content: &Content) -> Option<SchemeError> {
        let ageless =
            self.timestamp.as_ref().is_none_or(|timestamp| timestamp.max_age_seconds.is_none());
        content.neighbours().find_map(|(before, piece, after)| {
            let mut beside = before.into_iter().chain(after);
            match piece {
                Piece::Timestamp if ageless && beside.any(Piece::is_body) => {
                    Some(SchemeError::TimestampTouches)
                }
                Piece::Id | Piece::Header(_)
                    if beside.any(|piece| !matches!(piece, Piece::Text(_))) =>
                {
                    Some(SchemeError::HeaderTouches)
                }
                _ => None,
            }
        })
    }
}

impl TokenSource {
    pub(super) fn read(&self, incoming: &Incoming<'_>) -> Result<Vec<u8>, Refusal> {
        let carrier = Carrier::Header { header: self.header.clone(), prefix: self.prefix.clone() };
        let carried = carrier.read(incoming)?;
        let token = carried.entries.first().ok_or(Refusal::MALFORMED)?;
        match self.encoding {
            None => Ok(token.to_vec()),
            Some(encoding) => encoding.decode(token).ok_or(Refusal::MALFORMED),
        }
    }
}

impl ReplayId {
    fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header { header } => Some(header),
            Self::Pointer { .. } | Self::BodyHash {} => None,
        }
    }

    /// The id in its header; none for another source.
    pub(super) fn in_header<'a>(
        &self,
        incoming: &Incoming<'a>,
    ) -> Result<Option<&'a str>, Refusal> {
        let Some(header) = self.header() else { return Ok(None) };
        match std::str::from_utf8(incoming.header(header)?) {
            Ok(id) if !id.is_empty() => Ok(Some(id)),
            _ => Err(Refusal::MALFORMED),
        }
    }

    /// The id from the signed part of the body.
    pub(super) fn in_body(&self, body: &[u8]) -> String {
        let found = match self {
            Self::Pointer { pointer } => serde_json::from_slice::<Value>(body)
                .ok()
                .and_then(|body| first_text(std::slice::from_ref(pointer), &body)),
            Self::Header { .. } | Self::BodyHash {} => None,
        };
        found.unwrap_or_else(|| hex::encode(Sha256::digest(body)))
    }
}
