//! An incoming request as bytes, before verification.

use serde::Deserialize;

use super::Refusal;
use crate::form;

/// One request. No `Debug`: a header may be the secret itself.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// Names, in any case, and values, one pair per header line.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The body as it was sent, after any transport encoding and before any parsing.
    pub body: &'a [u8],
}

/// The name of a header; its case does not matter.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderName(String);

/// Why a text is not the name of a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a header")]
pub struct HeaderNameError(String);

impl HeaderName {
    /// Reads a name.
    ///
    /// # Errors
    /// When it is empty or has a character that RFC 9110 does not allow in a token.
    pub fn parse(text: &str) -> Result<Self, HeaderNameError> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || !text.bytes().all(token) {
            return Err(HeaderNameError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for HeaderName {
    type Error = HeaderNameError;
    fn try_from(text: String) -> Result<Self, HeaderNameError> {
        Self::parse(&text)
    }
}

impl PartialEq for HeaderName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for HeaderName {}

impl<'a> Incoming<'a> {
    /// The value of a header that must occur once: with two, different readers may take different
    /// ones.
    pub(super) fn header(&self, name: &HeaderName) -> Result<&'a [u8], Refusal> {
        let mut values =
            self.headers.iter().filter(|(other, _)| name.0.eq_ignore_ascii_case(other));
        match (values.next(), values.next()) {
            (None, _) => Err(Refusal::Missing),
            (Some((_, value)), None) => Ok(*value),
            (Some(_), Some(_)) => Err(Refusal::MALFORMED),
        }
    }

    /// The decoded value of a field of a form, urlencoded or multipart. It must occur once, like a
    /// header.
    pub(super) fn form_field(&self, name: &str) -> Result<Vec<u8>, Refusal> {
        let fields = form::fields(self.body).ok_or(Refusal::MALFORMED)?;
        let mut fields = fields.into_iter().filter(|field| field.name == name.as_bytes());
        match (fields.next(), fields.next()) {
            (None, _) => Err(Refusal::Missing),
            (Some(field), None) => Ok(field.value),
            (Some(_), Some(_)) => Err(Refusal::MALFORMED),
        }
    }
}
