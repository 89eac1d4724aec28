//! The set of secrets in force, its stored form, and its rotation.

use chrono::{DateTime, TimeDelta, Utc};

use super::{GracePeriod, SignatureType, SigningSecretError, WebhookSecret};
use crate::time;

/// The most secrets that have not ended.
pub const MAX_SECRETS: usize = 10;

/// How long after a rotation the new secret begins, and the grace period of the others. By then
/// every process that is awake has heard of it and read it: up to 5 s, its turn among a thousand
/// others (50 s), and the read.
pub const LEAD: TimeDelta = TimeDelta::seconds(60);

/// The secrets that webhooks are signed with, newest first. There is at least one, because the
/// newest does not expire.
///
/// In the text form entries are separated by commas, each a secret and its attributes:
/// `whsec_…;created=2026-05-24T12:00:00.000Z;expires=2026-05-25T12:00:00.000Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecrets(Vec<StoredSecret>);

/// A secret and the time in which it is in force: the first instant is part of it, the last not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSecret {
    /// The secret.
    pub secret: WebhookSecret,
    /// From when it is in force; none when it was stored without that time, and always was.
    pub created_at: Option<DateTime<Utc>>,
    /// When it expires; none for the newest, until another becomes the newest.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Why a text is not a set of secrets. The error never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredSecretsError {
    /// An entry is not a secret.
    #[error(transparent)]
    Secret(#[from] SigningSecretError),
    /// An attribute of an entry is unknown, or not in our form.
    #[error(
        "what follows a webhook secret is `;created=` and `;expires=`, in this order, each with a time such as 2026-05-24T12:00:00.000Z"
    )]
    Attribute,
    /// There are more than [`MAX_SECRETS`].
    #[error("there are more than {MAX_SECRETS} webhook secrets")]
    TooMany,
    /// The first, newest secret has an end.
    #[error("the first webhook secret is the newest and does not expire")]
    NewestExpires,
}

/// A new secret would exceed [`MAX_SECRETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SECRETS} webhook secrets have not ended; the next of them ends at {}", time::text(*next_end))]
pub struct TooManySecrets {
    /// When the next of the others expires.
    pub next_end: DateTime<Utc>,
}

impl SigningSecrets {
    /// A set of one secret, in force from `now`: there is no other that a receiver could know.
    #[must_use]
    pub fn first(secret: WebhookSecret, now: DateTime<Utc>) -> Self {
        Self(vec![StoredSecret { secret, created_at: Some(whole_millis(now)), expires_at: None }])
    }

    /// Reads what [`SigningSecrets::reveal`] wrote, or just secrets separated by commas.
    ///
    /// # Errors
    /// When there is no secret, there are too many, or an entry is malformed.
    pub fn parse(text: &str) -> Result<Self, StoredSecretsError> {
        let entries = text.split(',').map(|entry| StoredSecret::parse(entry.trim()));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        if entries.len() > MAX_SECRETS {
            return Err(StoredSecretsError::TooMany);
        }
        if entries.first().is_none_or(|newest| newest.expires_at.is_some()) {
            return Err(StoredSecretsError::NewestExpires);
        }
        Ok(Self(entries))
    }

    /// The text for the secret store, at most 1.7 KB.
    #[must_use]
    pub fn reveal(&self) -> String {
        let entries: Vec<String> = self.0.iter().map(StoredSecret::reveal).collect();
        entries.join(",")
    }

    /// The secrets in force at `now`, newest first.
    pub fn in_force(&self, now: DateTime<Utc>) -> impl Iterator<Item = &StoredSecret> {
        self.0.iter().filter(move |stored| stored.is_in_force(now))
    }

    /// The signature type of the newest secret.
    #[must_use]
    pub fn newest_kind(&self) -> SignatureType {
        self.0.first().map_or(SignatureType::V1, |newest| newest.secret.kind())
    }

    /// The secrets that have not ended at `now`, newest first; the first may begin later.
    pub fn unended(&self, now: DateTime<Utc>) -> impl Iterator<Item = &StoredSecret> {
        self.0.iter().filter(move |stored| !stored.has_ended(now))
    }

    /// The `webhook-signature` header of an attempt at `now`, with one entry per secret in force.
    /// The signed `webhook-timestamp` is `now` in whole seconds.
    #[must_use]
    pub fn sign(&self, id: &str, now: DateTime<Utc>, body: &[u8]) -> String {
        let head = format!("{id}.{}.", now.timestamp());
        let entries: Vec<String> =
            self.in_force(now).map(|stored| stored.secret.sign(&head, body)).collect();
        entries.join(" ")
    }

    /// The secrets after `secret` became the newest. It begins [`LEAD`] after `now`; the others
    /// end `grace` after that, or earlier if an earlier rotation said so, and those that have
    /// ended are dropped. A `secret` that is among the others and is still in force when a new
    /// one would begin moves to the front and no longer ends.
    ///
    /// # Errors
    /// When too many others have not ended. None of them is dropped, because a receiver may know
    /// only that one.
    pub fn rotate(
        &self,
        secret: WebhookSecret,
        grace: GracePeriod,
        now: DateTime<Utc>,
    ) -> Result<Self, TooManySecrets> {
        let now = whole_millis(now);
        let begins = now + LEAD;
        let end = begins + grace.length();
        // Until the new set is known everywhere, each secret ends when the old set says so.
        let goes_on = |stored: &&StoredSecret| {
            stored.secret == secret && stored.expires_at.is_none_or(|settled| begins <= settled)
        };
        let known = self.0.iter().find(goes_on);
        let created_at = known.map_or(Some(begins), |known| known.created_at);
        let others = self.0.iter().filter(|stored| Some(*stored) != known).map(|stored| {
            let expires_at = stored.expires_at.map_or(end, |settled| settled.min(end));
            StoredSecret { expires_at: Some(expires_at), ..stored.clone() }
        });
        let others: Vec<_> = others.filter(|stored| !stored.has_ended(now)).collect();
        if others.len() >= MAX_SECRETS {
            let ends = others.iter().filter_map(|stored| stored.expires_at);
            return Err(TooManySecrets { next_end: ends.min().unwrap_or(end) });
        }
        let newest = StoredSecret { secret, created_at, expires_at: None };
        Ok(Self([newest].into_iter().chain(others).collect()))
    }
}

impl StoredSecret {
    fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.created_at.is_none_or(|begin| begin <= now) && !self.has_ended(now)
    }

    fn has_ended(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    fn parse(text: &str) -> Result<Self, StoredSecretsError> {
        let mut parts = text.split(';');
        let secret = WebhookSecret::parse(parts.next().unwrap_or_default())?;
        let mut attributes = parts.peekable();
        let mut attribute = |name: &str| {
            let value = attributes.peek().and_then(|part| part.strip_prefix(name));
            let Some(value) = value else { return Ok(None) };
            attributes.next();
            instant(value).map(Some)
        };
        let created_at = attribute("created=")?;
        let expires_at = attribute("expires=")?;
        match attributes.next() {
            None => Ok(Self { secret, created_at, expires_at }),
            Some(_) => Err(StoredSecretsError::Attribute),
        }
    }

    fn reveal(&self) -> String {
        let attribute = |name: &str, at: Option<DateTime<Utc>>| {
            at.map(|at| format!(";{name}={}", time::text(at))).unwrap_or_default()
        };
        let created = attribute("created", self.created_at);
        let expires = attribute("expires", self.expires_at);
        format!("{}{created}{expires}", self.secret.reveal())
    }
}

/// Reads a time only in the exact form of [`time::text`].
fn instant(text: &str) -> Result<DateTime<Utc>, StoredSecretsError> {
    let at = DateTime::parse_from_rfc3339(text).map_err(|_| StoredSecretsError::Attribute)?;
    let at = at.with_timezone(&Utc);
    if time::text(at) == text { Ok(at) } else { Err(StoredSecretsError::Attribute) }
}

/// The instant in the precision of its text form.
fn whole_millis(at: DateTime<Utc>) -> DateTime<Utc> {
    time::from_millis(time::millis(at)).unwrap_or(at)
}

#[cfg(test)]
mod tests;
