//! Headers that an owner sets on every webhook to the default receiver, such as the API key of a
//! gateway in front of it. They may be credentials, so they are kept like secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The largest number of headers.
const MAX_HEADERS: usize = 20;

/// Longest name and longest value, in bytes.
const MAX_NAME_BYTES: usize = 64;
const MAX_VALUE_BYTES: usize = 2048;

/// The capacity of a standard parameter of SSM, in bytes.
const MAX_STORED_BYTES: usize = 4096;

/// Names that an owner must not set. We set those that describe the request, its body or its
/// connection; cookies, caches and conditions have no meaning for a webhook; others are set by
/// proxies. RFC 9110 §7.6.1 names the hop-by-hop headers. The list contains what Svix forbids.
const FORBIDDEN: [&str; 35] = [
    "accept-encoding",
    "age",
    "cache-control",
    "clear-site-data",
    "connection",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "referer",
    "retry-after",
    "server",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-real-ip",
];

/// Prefixes of such names: what receivers verify, and what proxies and clouds set.
const FORBIDDEN_PREFIXES: [&str; 15] = [
    "access-control-",
    "content-",
    "if-",
    "proxy-",
    "sec-",
    "svix-",
    "webhook-",
    "x-amz-",
    "x-amzn-",
    "x-azure-",
    "x-fd-",
    "x-forwarded-",
    "x-gfe",
    "x-goog",
    "x-svix-",
];

/// Headers by lower-case name. Its Debug form shows names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct CustomHeaders(BTreeMap<String, String>);

/// Why headers are refused. Names may be shown; a value never is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// They are not an object whose members are strings.
    #[error("must be an object whose members are strings")]
    Shape,
    /// There are more than 20 of them.
    #[error("are more than {MAX_HEADERS}")]
    TooMany,
    /// A name is not allowed by HTTP, or too long.
    #[error("must have names of 1 to {MAX_NAME_BYTES} letters, digits and -._~!#$%&'*+^`|")]
    Name,
    /// A name occurs twice. The case of names does not matter in HTTP.
    #[error("name `{0}` twice")]
    Twice(String),
    /// The owner must not set this header.
    #[error("must not have `{0}`: it is the relay's, a proxy's or a cloud's to set")]
    Forbidden(String),
    /// A value is empty, too long, or not visible ASCII.
    #[error(
        "must give `{0}` 1 to {MAX_VALUE_BYTES} visible ASCII characters, with spaces only between them"
    )]
    Value(String),
    /// Together they are too large to store.
    #[error("are more than {MAX_STORED_BYTES} bytes together")]
    TooLarge,
}

impl CustomHeaders {
    /// Checks the headers in a request body.
    ///
    /// # Errors
    /// The first problem.
    pub fn from_json(value: Value) -> Result<Self, HeadersError> {
        let Value::Object(members) = value else { return Err(HeadersError::Shape) };
        let texts = members.into_iter().map(|(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            _ => Err(HeadersError::Shape),
        });
        texts.collect::<Result<BTreeMap<_, _>, _>>()?.try_into()
    }

    /// The names, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The names and values, for sending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for CustomHeaders {
    type Error = HeadersError;

    fn try_from(sent: BTreeMap<String, String>) -> Result<Self, HeadersError> {
        if sent.len() > MAX_HEADERS {
            return Err(HeadersError::TooMany);
        }
        let mut headers = BTreeMap::new();
        for (name, value) in sent {
            let name = header_name(&name)?;
            if !is_value(&value) {
                return Err(HeadersError::Value(name));
            }
            if headers.insert(name.clone(), value).is_some() {
                return Err(HeadersError::Twice(name));
            }
        }
        Ok(Self(headers))
    }
}

impl fmt::Debug for CustomHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeSet<&str> = self.names().collect();
        write!(f, "CustomHeaders({names:?}, redacted)")
    }
}

fn header_name(name: &str) -> Result<String, HeadersError> {
    // RFC 9110 §5.6.2.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_token) {
        return Err(HeadersError::Name);
    }
    let name = name.to_ascii_lowercase();
    let forbidden = FORBIDDEN.contains(&name.as_str())
        || FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if forbidden { Err(HeadersError::Forbidden(name)) } else { Ok(name) }
}

/// Stricter than HTTP, so that every receiver and proxy reads the value alike.
fn is_value(value: &str) -> bool {
    (1..=MAX_VALUE_BYTES).contains(&value.len())
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && value.trim_matches(' ').len() == value.len()
}

/// The id under which headers are stored, once and for all: other headers get another id. So
/// whatever names the id says which headers are meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadersId([u8; 8]);

impl HeadersId {
    /// An id of these random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Reads what `Display` shows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let id = Self(bytes);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for HeadersId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for HeadersId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeadersId({self})")
    }
}

/// Headers bound to one receiver, so that the credentials of one are never sent to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiverHeaders {
    /// SHA-256 of the receiver's URL in hexadecimal: a URL can be long, and a secret too.
    receiver: String,
    headers: CustomHeaders,
}

impl ReceiverHeaders {
    /// The headers for the receiver at `url`.
    ///
    /// # Errors
    /// When they are too large to store.
    pub fn new(url: &str, headers: CustomHeaders) -> Result<Self, HeadersError> {
        let bound = Self { receiver: print(url), headers };
        let stored = bound.reveal().map_err(|_| HeadersError::Shape)?;
        if stored.len() > MAX_STORED_BYTES { Err(HeadersError::TooLarge) } else { Ok(bound) }
    }

    /// Reads what [`ReceiverHeaders::reveal`] wrote.
    ///
    /// # Errors
    /// When the text is something else. The error does not contain it.
    pub fn parse(text: &str) -> Result<Self, HeadersError> {
        serde_json::from_str(text).map_err(|_| HeadersError::Shape)
    }

    /// The text for the secret store: JSON.
    ///
    /// # Errors
    /// Never in practice: the value is always valid JSON.
    pub fn reveal(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The headers, if they are for the receiver at `url`.
    #[must_use]
    pub fn for_receiver(&self, url: &str) -> Option<&CustomHeaders> {
        (self.receiver == print(url)).then_some(&self.headers)
    }
}

fn print(url: &str) -> String {
    hex::encode(Sha256::digest(url))
}

#[cfg(test)]
mod tests;
