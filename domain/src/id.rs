//! Ids and names. Each type has one checking constructor, so every value is valid.
//!
//! Ids that follow from others make repeats harmless: one idempotency key always leads to one
//! request record, and one event always has one id, by which receivers and subscribers deduplicate.
//! A job's id follows from nothing: a provider keeps it, and knows other stacks than this one.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::invisible::is_invisible;

/// Why a text is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than the type allows.
    #[error("must be at most {limit} characters long")]
    TooLong {
        /// The longest allowed length, in characters.
        limit: usize,
    },
    /// The text has a character that the type does not allow.
    #[error("{rule}")]
    Malformed {
        /// The rule of the type, as the rest of a sentence.
        rule: &'static str,
    },
}

/// The accessors and conversions of a checked text. A stored one is read by its constructor, or by
/// a rule of its own that also takes what older releases stored.
macro_rules! parsed_text {
    ($name:ident) => {
        parsed_text!($name, parse);
    };
    ($name:ident, $stored:ident) => {
        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::$stored(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

/// Declares a newtype over a checked string: private field, one constructor `parse`. What `stored`
/// allows is still read where it is stored, because a job with it has to end.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, limit $limit:literal, $rule:literal, |$c:ident| $allowed:expr) => {
        checked_text! {
            $(#[$doc])* $name, limit $limit, $rule, |$c| $allowed, stored |$c| $allowed
        }
    };
    (
        $(#[$doc:meta])* $name:ident, limit $limit:literal, $rule:literal,
        |$c:ident| $allowed:expr, stored |$k:ident| $kept:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and keeps it unchanged.
            ///
            /// # Errors
            /// When it is empty, too long, or has a character that the type does not allow.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                Self::checked(text, |$c| $allowed)
            }

            fn stored(text: &str) -> Result<Self, NameError> {
                Self::checked(text, |$k| $kept)
            }

            fn checked(text: &str, is_allowed: impl Fn(char) -> bool) -> Result<Self, NameError> {
                if text.is_empty() {
                    return Err(NameError::Empty);
                }
                if text.chars().count() > $limit {
                    return Err(NameError::TooLong { limit: $limit });
                }
                if !text.chars().all(is_allowed) {
                    return Err(NameError::Malformed { rule: $rule });
                }
                Ok(Self(text.to_owned()))
            }
        }

        parsed_text!($name, stored);
    };
}

checked_text! {
    /// The customer's own id of what is rendered, such as `product-123`.
    SourceRecordId, limit 256, "must not contain control or invisible characters",
    |c| is_readable(c), stored |c| !c.is_control()
}
checked_text! {
    /// The customer's own name for the shape of the payload, such as `product-promo-v4`.
    PayloadVersion, limit 128, "must not contain control or invisible characters",
    |c| is_readable(c), stored |c| !c.is_control()
}
checked_text! {
    /// The provider's id of a render. It is opaque, so what is invisible in it stays; it is escaped
    /// in URLs, and where people read it.
    RenderJobId, limit 256, "must not contain control characters", |c| !c.is_control()
}
checked_text! {
    /// The `Idempotency-Key` of a request: 1 to 255 visible ASCII characters.
    IdempotencyKey, limit 255, "must be visible ASCII without spaces", |c| c.is_ascii_graphic()
}
checked_text! {
    /// Who answers for an API key, such as a team or an address.
    KeyOwner, limit 128, "must not contain control or invisible characters",
    |c| is_readable(c), stored |c| !c.is_control()
}
checked_text! {
    /// The name of a provider, which is also the name of its spec file.
    ProviderName, limit 32, "must be lower-case letters, digits and hyphens",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

/// Our id of a render job: `job_` and 32 lower-case hexadecimal digits.
///
/// The digits are those of a UUID (version 8, RFC 9562 §5.8). Providers that let the client
/// choose an id get that UUID, and it leads back to the job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// An id from 16 random bytes. It is unique among all stacks, because it finds a render at
    /// a provider whose account other stacks may share.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::of(Builder::from_custom_bytes(bytes).into_uuid())
    }

    fn of(uuid: Uuid) -> Self {
        Self(format!("job_{}", uuid.simple()))
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When `text` is not `job_` and 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        prefixed_hex("job_", text, "must be job_ and 32 hexadecimal digits").map(Self)
    }

    /// The id as a hyphenated UUID, for providers that let the client choose the render's id.
    #[must_use]
    pub fn as_uuid(&self) -> String {
        let digits = self.0.strip_prefix("job_").unwrap_or_default();
        Uuid::try_parse(digits).unwrap_or_default().hyphenated().to_string()
    }

    /// The id of the job whose [`JobId::as_uuid`] is `uuid`, in any spelling; none when `uuid`
    /// is not a UUID.
    #[must_use]
    pub fn from_uuid(uuid: &str) -> Option<Self> {
        any_uuid(uuid).map(Self::of)
    }

    /// A number in `0.0..1.0` that is a pure function of the id: the jitter of its polls.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let bytes = first_16(&["render-relay/spread/", &self.0]);
        let [a, b, c, d, ..] = bytes;
        f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }

    /// The shard of this job among `shards` (at least 1).
    #[must_use]
    pub fn shard(&self, shards: u32) -> u32 {
        let bytes = first_16(&["render-relay/shard/", &self.0]);
        let [a, b, c, d, ..] = bytes;
        u32::from_be_bytes([a, b, c, d]) % shards.max(1)
    }
}

/// The id of a request record: 32 lower-case hexadecimal digits. It is the partition key of the
/// record, and kept in the job, which leads back to what was submitted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// The id that follows from an idempotency key, so that repeats find the same record.
    #[must_use]
    pub fn of_key(key: &IdempotencyKey) -> Self {
        Self(hex::encode(first_16(&["render-relay/request/key/", key.as_str()])))
    }

    /// The id for a request without an idempotency key, which is never repeated.
    #[must_use]
    pub fn of_job(job: &JobId) -> Self {
        Self(hex::encode(first_16(&["render-relay/request/job/", job.as_str()])))
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When `text` is not 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        prefixed_hex("", text, "must be 32 hexadecimal digits").map(Self)
    }
}

impl RenderJobId {
    /// Whether `other` is this id. Two spellings of one UUID are the same id, because providers
    /// vary them; any other id has one spelling.
    #[must_use]
    pub fn is_same(&self, other: &str) -> bool {
        self.0 == other || any_uuid(&self.0).is_some_and(|ours| any_uuid(other) == Some(ours))
    }
}

/// The id of one event of one job: `evt_` and 32 lower-case hexadecimal digits.
///
/// A pure function of job and event, so it is the same after any crash, retry or
/// redelivery. It is what receivers see as `webhook-id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(String);

impl EventId {
    /// The id of `event` (its wire name) for `job`.
    #[must_use]
    pub fn of(job: &JobId, event: &str) -> Self {
        Self::from_bytes(first_16(&["render-relay/event/", job.as_str(), "/", event]))
    }

    /// An id from 16 random bytes, for an event without a job.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(format!("evt_{}", hex::encode(bytes)))
    }

    /// The id of `event`, which is about an endpoint.
    #[must_use]
    pub fn of_endpoint(endpoint: &EndpointId, event: &str) -> Self {
        Self::from_bytes(first_16(&["render-relay/event/", endpoint.as_str(), "/", event]))
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When `text` is not `evt_` and 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        prefixed_hex("evt_", text, "must be evt_ and 32 hexadecimal digits").map(Self)
    }
}

/// The id of an endpoint (a receiver's URL): `ep_` and 32 lower-case hexadecimal digits.
///
/// It is a hash, because a URL may be long, and its path may be the receiver's secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointId(String);

impl EndpointId {
    /// The id of the endpoint at `url`, the same for every spelling of the URL.
    #[must_use]
    pub fn of(url: &str) -> Self {
        let normal = url::Url::parse(url).map_or_else(|_| url.to_owned(), String::from);
        Self(format!("ep_{}", hex::encode(first_16(&["render-relay/endpoint/", &normal]))))
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When `text` is not `ep_` and 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        prefixed_hex("ep_", text, "must be ep_ and 32 hexadecimal digits").map(Self)
    }
}

/// The id of an API key: `key_` and 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    const PREFIX: &str = "key_";

    /// An id from 16 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(format!("{}{}", Self::PREFIX, hex::encode(bytes)))
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When `text` is not `key_` and 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        prefixed_hex(Self::PREFIX, text, "must be key_ and 32 hexadecimal digits").map(Self)
    }
}

/// The name of an API key, unique in its stack. It cannot be taken for an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

impl KeyName {
    /// Checks `text` and keeps it unchanged.
    ///
    /// # Errors
    /// When it is empty, longer than 64 characters, has others than letters, digits, dots,
    /// hyphens and underscores, or begins as an id does.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule =
            "must be letters, digits, dots, hyphens and underscores, and not begin with key_";
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.chars().count() > 64 {
            return Err(NameError::TooLong { limit: 64 });
        }
        if !text.chars().all(is_allowed) || text.starts_with(KeyId::PREFIX) {
            return Err(NameError::Malformed { rule });
        }
        Ok(Self(text.to_owned()))
    }
}

/// A UUID in any of its spellings: in either case, with or without hyphens, in braces, and as a
/// URN (RFC 9562 section 4).
fn any_uuid(text: &str) -> Option<Uuid> {
    let text = text.to_ascii_lowercase();
    let bare = text.strip_prefix("urn:uuid:").unwrap_or(&text);
    let bare = bare.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(bare);
    let is_bare = matches!(bare.len(), 32 | 36);
    is_bare.then(|| Uuid::try_parse(bare).ok()).flatten()
}

fn is_readable(c: char) -> bool {
    !c.is_control() && !is_invisible(c)
}

fn first_16(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&[0; 16]));
    first
}

fn prefixed_hex(prefix: &str, text: &str, rule: &'static str) -> Result<String, NameError> {
    let digits = text.strip_prefix(prefix).ok_or(NameError::Malformed { rule })?;
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if digits.len() != 32 || !digits.chars().all(is_hex) {
        return Err(NameError::Malformed { rule });
    }
    Ok(text.to_owned())
}

parsed_text!(JobId);
parsed_text!(RequestId);
parsed_text!(EventId);
parsed_text!(EndpointId);
parsed_text!(KeyId);
parsed_text!(KeyName);

#[cfg(test)]
mod tests {
    use super::*;

    /// The digits are those that `sha256sum` gives: a stored record must be found by any release.
    #[test]
    fn request_id_follows_from_key() {
        let key = IdempotencyKey::parse("order-1").unwrap();
        let id = RequestId::of_key(&key);
        assert_eq!(id.as_str(), "8829512c3afd3faa72081614b3aa1b39");
        assert_eq!(RequestId::parse(id.as_str()), Ok(id.clone()));
        assert_ne!(id, RequestId::of_key(&IdempotencyKey::parse("order-2").unwrap()));
        let (job, other) = (JobId::from_bytes([1; 16]), JobId::from_bytes([2; 16]));
        assert_ne!(RequestId::of_job(&job), RequestId::of_job(&other));
        let named_like_a_job = IdempotencyKey::parse(job.as_str()).unwrap();
        assert_ne!(RequestId::of_key(&named_like_a_job), RequestId::of_job(&job));
    }

    #[test]
    fn event_id_follows_from_job_and_name() {
        let job = JobId::from_bytes([7; 16]);
        let id = EventId::of(&job, "video.render.completed");
        assert_eq!(id, EventId::of(&job, "video.render.completed"));
        assert_ne!(id, EventId::of(&job, "video.render.failed"));
        assert_eq!(EventId::parse(id.as_str()), Ok(id));
    }

    #[test]
    fn endpoint_id_ignores_url_spelling() {
        let name = EndpointId::of("https://shop.example/hooks?a=1");
        assert_eq!(name, EndpointId::of("HTTPS://shop.example:443/hooks?a=1"));
        assert_ne!(name, EndpointId::of("https://shop.example/hooks?a=2"));
        assert_eq!(EndpointId::parse(name.as_str()), Ok(name));
    }

    #[test]
    fn job_id_round_trips_as_uuid_v8() {
        for job in [JobId::from_bytes([0xff; 16]), JobId::from_bytes([0; 16])] {
            let uuid = job.as_uuid();
            let parts: Vec<&str> = uuid.split('-').collect();
            assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
            assert!(parts[2].starts_with('8'));
            assert!(parts[3].starts_with(['8', '9', 'a', 'b']));
            assert_eq!(JobId::from_uuid(&uuid.to_uppercase()), Some(job));
        }
        for no_uuid in ["", "----", "0707070707070707-0707-0707-0707", "é"] {
            assert_eq!(JobId::from_uuid(no_uuid), None, "{no_uuid}");
        }
    }

    #[test]
    fn render_id_is_same_in_any_uuid_spelling() {
        let uuid = "5b6a0e2c-9d4f-8a13-b7c2-5e6f70819234";
        let spellings = [
            uuid.to_owned(),
            uuid.to_uppercase(),
            uuid.replace('-', ""),
            uuid.replace('-', "").to_uppercase(),
            format!("{{{uuid}}}"),
            format!("{{{}}}", uuid.replace('-', "").to_uppercase()),
            format!("urn:uuid:{uuid}"),
            format!("URN:UUID:{}", uuid.to_uppercase()),
        ];
        let job = JobId::from_uuid(uuid).unwrap();
        for ours in &spellings {
            let id = RenderJobId::parse(ours).unwrap();
            for theirs in &spellings {
                assert!(id.is_same(theirs), "{ours} {theirs}");
            }
            assert!(!id.is_same("5b6a0e2c-9d4f-8a13-b7c2-5e6f70819235"), "{ours}");
            assert_eq!(JobId::from_uuid(ours).as_ref(), Some(&job), "{ours}");
        }
    }

    #[test]
    fn render_id_without_uuid_is_exact() {
        for (ours, theirs) in [
            ("WAEE8PohgVwv2teP", "waee8pohgvwv2tep"),
            ("job_a1b2c3d4e5f6", "JOB_A1B2C3D4E5F6"),
            ("a-b", "ab"),
            ("{r-1}", "r-1"),
            ("urn:uuid:r-1", "r-1"),
            // As long as a UUID, with hyphens elsewhere.
            ("5b6a0e2c9-d4f-8a13-b7c2-5e6f70819234", "5b6a0e2c-9d4f-8a13-b7c2-5e6f70819234"),
        ] {
            let id = RenderJobId::parse(ours).unwrap();
            assert!(id.is_same(ours) && !id.is_same(theirs), "{ours} {theirs}");
        }
    }

    #[test]
    fn key_name_is_no_key_id() {
        let id = KeyId::from_bytes([7; 16]);
        assert_eq!(KeyId::parse(id.as_str()), Ok(id.clone()));
        assert!(KeyName::parse("Shop.backend_2-eu").is_ok());
        for bad in [id.as_str(), "key_", "", "two words", "a/b", "ä", &"x".repeat(65)] {
            assert!(KeyName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn name_malformed_is_refused() {
        assert_eq!(IdempotencyKey::parse(""), Err(NameError::Empty));
        assert!(IdempotencyKey::parse("two words").is_err());
        assert!(ProviderName::parse("Zvid").is_err());
        assert!(SourceRecordId::parse("a\nb").is_err());
        for hidden in ["a\u{200b}b", "\u{202e}321-tcudorp", "a\u{feff}", "a\u{2066}b", "a\u{2028}b"]
        {
            let rule = "must not contain control or invisible characters";
            let refused = NameError::Malformed { rule };
            assert_eq!(SourceRecordId::parse(hidden), Err(refused.clone()), "{hidden:?}");
            assert_eq!(PayloadVersion::parse(hidden), Err(refused.clone()), "{hidden:?}");
            assert_eq!(KeyOwner::parse(hidden), Err(refused), "{hidden:?}");
            assert!(IdempotencyKey::parse(hidden).is_err(), "{hidden:?}");
            assert!(RenderJobId::parse(hidden).is_ok(), "opaque: {hidden:?}");
            let stored: Result<SourceRecordId, _> = hidden.to_owned().try_into();
            assert!(stored.is_ok(), "a job that was stored with it has to end");
        }
        assert!(SourceRecordId::parse("Größe 日本 №5 😀").is_ok());
        assert_eq!(SourceRecordId::parse(&"ä".repeat(257)), Err(NameError::TooLong { limit: 256 }));
        assert!(SourceRecordId::parse(&"ä".repeat(256)).is_ok());
        for bad in ["job_", "job_0", "JOB_00000000000000000000000000000000", "evt_0"] {
            assert!(JobId::parse(bad).is_err(), "{bad}");
        }
        assert!(JobId::parse("job_0000000000000000000000000000000G").is_err());
    }
}
