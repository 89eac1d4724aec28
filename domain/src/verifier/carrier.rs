//! The place of the signatures in a request.

use std::borrow::Cow;

use serde::Deserialize;

use super::incoming::{HeaderName, Incoming};
use super::{NO_SECRET_PROVIDED, Reason, Refusal};

/// The most entries of a list. A rotation needs fewer, and with ed25519 each costs a pass over the
/// body.
const MAX_ENTRIES: usize = 32;

/// Where a request carries its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Carrier {
    /// A header with one signature: `X-Hub-Signature-256: sha256=757107…`.
    Header {
        /// The name of the header or field.
        header: HeaderName,
        /// The prefix of the signature, which must be there.
        #[serde(default)]
        prefix: String,
    },
    /// A header with a list of `key=value`: `Stripe-Signature: t=1,v1=aa,v1=bb`. Keys that
    /// are not listed are skipped, as are blanks before a key.
    Pairs {
        /// The name of the header or field.
        header: HeaderName,
        /// The separator of pairs.
        separator: Separator,
        /// The keys whose values are signatures; each may occur several times.
        keys: Vec<String>,
    },
    /// A header with a list separated by spaces: `webhook-signature: v1,aa v1,bb v1a,cc`. Entries
    /// of other versions are skipped.
    List {
        /// The name of the header or field.
        header: HeaderName,
        /// The prefix of each signature: its version.
        prefix: String,
    },
    /// A field of a form body, urlencoded or multipart: `signature=sha384%3A…&payload=…`.
    Form {
        /// The name of the header or field.
        field: String,
        /// The prefix of the signature, which must be there.
        #[serde(default)]
        prefix: String,
    },
}

/// The separator of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Separator {
    /// `,`
    #[serde(rename = ",")]
    Comma,
    /// `;`
    #[serde(rename = ";")]
    Semicolon,
}

/// The values at the place of the signatures.
pub(super) struct CarriedSignatures<'a> {
    /// The signatures, still encoded, without their prefixes. Not empty.
    pub(super) entries: Vec<Cow<'a, [u8]>>,
    /// All pairs; empty unless the carrier is [`Carrier::Pairs`].
    pairs: Vec<(&'a [u8], &'a [u8])>,
}

impl Carrier {
    /// The header of the signatures; none when they are in the body.
    pub(super) fn header_name(&self) -> Option<&HeaderName> {
        match self {
            Self::Header { header, .. }
            | Self::Pairs { header, .. }
            | Self::List { header, .. } => Some(header),
            Self::Form { .. } => None,
        }
    }

    pub(super) fn read<'a>(
        &self,
        incoming: &Incoming<'a>,
    ) -> Result<CarriedSignatures<'a>, Refusal> {
        let carried = match self {
            Self::Header { header, prefix } => {
                CarriedSignatures::one(Cow::Borrowed(incoming.header(header)?), prefix)?
            }
            Self::Form { field, prefix } => {
                CarriedSignatures::one(Cow::Owned(incoming.form_field(field)?), prefix)?
            }
            Self::Pairs { header, separator, keys } => {
                CarriedSignatures::pairs(incoming.header(header)?, *separator, keys)?
            }
            Self::List { header, prefix } => {
                CarriedSignatures::list(incoming.header(header)?, prefix)?
            }
        };
        let too_many = carried.entries.len().max(carried.pairs.len()) > MAX_ENTRIES;
        let nothing = carried.entries.iter().all(|entry| entry.is_empty());
        if too_many || nothing { Err(Refusal::MALFORMED) } else { Ok(carried) }
    }
}

impl<'a> CarriedSignatures<'a> {
    fn one(value: Cow<'a, [u8]>, prefix: &str) -> Result<Self, Refusal> {
        refuse_placeholder(&value)?;
        let entry = match value {
            Cow::Borrowed(value) => value.strip_prefix(prefix.as_bytes()).map(Cow::Borrowed),
            Cow::Owned(value) => {
                value.strip_prefix(prefix.as_bytes()).map(|entry| Cow::Owned(entry.to_vec()))
            }
        };
        let entry = entry.ok_or(Refusal::MALFORMED)?;
        Ok(Self { entries: vec![entry], pairs: Vec::new() })
    }

    fn pairs(value: &'a [u8], separator: Separator, keys: &[String]) -> Result<Self, Refusal> {
        refuse_placeholder(value)?;
        let separator = match separator {
            Separator::Comma => b',',
            Separator::Semicolon => b';',
        };
        let pairs = value.split(|byte| *byte == separator).map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let key = halves.next()?.trim_ascii_start();
            Some((key, halves.next()?))
        });
        let pairs = pairs.collect::<Option<Vec<_>>>().ok_or(Refusal::MALFORMED)?;
        let entries = pairs
            .iter()
            .filter(|(key, _)| keys.iter().any(|name| name.as_bytes() == *key))
            .map(|(_, entry)| Cow::Borrowed(*entry))
            .collect();
        Ok(Self { entries, pairs })
    }

    fn list(value: &'a [u8], prefix: &str) -> Result<Self, Refusal> {
        refuse_placeholder(value)?;
        let entries = value
            .split(|byte| *byte == b' ')
            .filter_map(|entry| entry.strip_prefix(prefix.as_bytes()))
            .map(Cow::Borrowed)
            .collect();
        Ok(Self { entries, pairs: Vec::new() })
    }

    /// The value of a key that must occur once.
    pub(super) fn only(&self, key: &str) -> Result<&'a [u8], Refusal> {
        let mut values = self.pairs.iter().filter(|(other, _)| *other == key.as_bytes());
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Ok(value),
            _ => Err(Refusal::MALFORMED),
        }
    }
}

/// Refuses the placeholder anywhere in the value: a sender without a secret proves nothing.
fn refuse_placeholder(value: &[u8]) -> Result<(), Refusal> {
    let mut windows = value.windows(NO_SECRET_PROVIDED.len());
    if windows.any(|window| window == NO_SECRET_PROVIDED.as_bytes()) {
        return Err(Refusal::Invalid(Reason::NoSecretProvided));
    }
    Ok(())
}
