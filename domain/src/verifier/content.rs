//! The bytes that a signature covers.

use std::borrow::Cow;
use std::iter;

use sha2::{Digest, Sha256};

use super::Refusal;
use super::incoming::{HeaderName, HeaderNameError, Incoming};

/// A template such as `{id}.{timestamp}.{body}`. Text outside braces is literal; in braces may be
/// `body`, `sha256Hex(body)`, `form:NAME`, `timestamp`, `id`, `header:NAME` and `secret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Body,
    /// SHA-256 of the body in lower-case hexadecimal digits.
    BodyDigest,
    FormField(String),
    Timestamp,
    Id,
    Header(HeaderName),
    Secret,
}

/// Why a text is not a template of signed content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// A brace has no counterpart.
    #[error("`{0}` has a brace without its partner")]
    Brace(String),
    /// The name in the braces is unknown.
    #[error("`{{{0}}}` stands for nothing in signed content")]
    Unknown(String),
    /// `{header:…}` without the name of a header.
    #[error(transparent)]
    Header(#[from] HeaderNameError),
}

/// The values for a template.
pub(super) struct Parts<'a> {
    pub(super) incoming: &'a Incoming<'a>,
    /// The result of [`Content::signed_body`].
    pub(super) body: &'a [u8],
    pub(super) timestamp: Option<&'a [u8]>,
    pub(super) id: Option<&'a str>,
}

impl Content {
    /// Reads a template.
    ///
    /// # Errors
    /// When a brace has no counterpart or an unknown name in it.
    pub fn parse(text: &str) -> Result<Self, ContentError> {
        let lone_brace = || ContentError::Brace(text.to_owned());
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (before, after) = match rest.split_once('{') {
                Some((before, after)) => (before, Some(after)),
                None => (rest, None),
            };
            if before.contains('}') {
                return Err(lone_brace());
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let Some(after) = after else { break };
            let (name, after) = after.split_once('}').ok_or_else(lone_brace)?;
            pieces.push(Piece::parse(name)?);
            rest = after;
        }
        Ok(Self { pieces })
    }

    /// The signed field of a form; none when the whole body is signed.
    pub(super) fn form_field(&self) -> Option<&str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::FormField(name) => Some(name.as_str()),
            _ => None,
        })
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The pieces, each with its neighbours.
    pub(super) fn neighbours(
        &self,
    ) -> impl Iterator<Item = (Option<&Piece>, &Piece, Option<&Piece>)> {
        let before = iter::once(None).chain(self.pieces.iter().map(Some));
        let after = self.pieces.iter().skip(1).map(Some).chain(iter::once(None));
        before.zip(&self.pieces).zip(after).map(|((before, piece), after)| (before, piece, after))
    }

    /// The part of the body that the signature covers: all of it, or one form field.
    pub(super) fn signed_body<'a>(
        &self,
        incoming: &Incoming<'a>,
    ) -> Result<Cow<'a, [u8]>, Refusal> {
        match self.form_field() {
            None => Ok(Cow::Borrowed(incoming.body)),
            Some(name) => incoming.form_field(name).map(Cow::Owned),
        }
    }

    /// The signed bytes, if they were signed with `secret`.
    pub(super) fn fill(&self, parts: &Parts<'_>, secret: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::with_capacity(parts.body.len() + 256);
        for (before, piece, after) in self.neighbours() {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::Body | Piece::FormField(_) => bytes.extend_from_slice(parts.body),
                Piece::BodyDigest => {
                    bytes.extend_from_slice(hex::encode(Sha256::digest(parts.body)).as_bytes());
                }
                // A scheme whose content has one of these pieces also has its source.
                Piece::Timestamp => bytes.extend_from_slice(parts.timestamp.unwrap_or_default()),
                Piece::Id => {
                    let id = parts.id.unwrap_or_default().as_bytes();
                    bytes.extend_from_slice(kept_apart(id, [before, after])?);
                }
                Piece::Header(name) => {
                    let value = parts.incoming.header(name)?;
                    bytes.extend_from_slice(kept_apart(value, [before, after])?);
                }
                Piece::Secret => bytes.extend_from_slice(secret),
            }
        }
        Ok(bytes)
    }
}

/// Refuses a value that contains its own separator: the same signed bytes could then be split
/// differently, into another id and another body.
fn kept_apart<'a>(value: &'a [u8], beside: [Option<&Piece>; 2]) -> Result<&'a [u8], Refusal> {
    let cut = beside.into_iter().flatten().any(|piece| match piece {
        Piece::Text(text) => value.windows(text.len()).any(|window| window == text.as_bytes()),
        _ => false,
    });
    if cut { Err(Refusal::MALFORMED) } else { Ok(value) }
}

impl Piece {
    fn parse(name: &str) -> Result<Self, ContentError> {
        if let Some(header) = name.strip_prefix("header:") {
            return Ok(Self::Header(HeaderName::parse(header)?));
        }
        if let Some(field) = name.strip_prefix("form:")
            && !field.is_empty()
        {
            return Ok(Self::FormField(field.to_owned()));
        }
        match name {
            "body" => Ok(Self::Body),
            "sha256Hex(body)" => Ok(Self::BodyDigest),
            "timestamp" => Ok(Self::Timestamp),
            "id" => Ok(Self::Id),
            "secret" => Ok(Self::Secret),
            unknown => Err(ContentError::Unknown(unknown.to_owned())),
        }
    }

    pub(super) fn is_body(&self) -> bool {
        matches!(self, Self::Body | Self::BodyDigest | Self::FormField(_))
    }
}
