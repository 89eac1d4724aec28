//! The request to rotate the webhook secret.

use chrono::TimeDelta;
use serde_json::Value;

use super::{SignatureType, WebhookSecret};
use crate::request::RequestError;
use crate::request::members::Members;

/// The time for which former secrets stay in force: 0 to 7 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracePeriod(u32);

/// A grace period that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a grace period is 0 to {} seconds", GracePeriod::LONGEST)]
pub struct GracePeriodError;

impl GracePeriod {
    const LONGEST: u32 = 7 * 24 * 3600;

    /// A period of this many seconds.
    ///
    /// # Errors
    /// When it is more than 7 days.
    pub fn from_seconds(seconds: u64) -> Result<Self, GracePeriodError> {
        let seconds = u32::try_from(seconds).map_err(|_| GracePeriodError)?;
        if seconds <= Self::LONGEST { Ok(Self(seconds)) } else { Err(GracePeriodError) }
    }

    /// The period as a duration.
    #[must_use]
    pub fn length(self) -> TimeDelta {
        TimeDelta::seconds(self.0.into())
    }
}

/// One day, in which the owner gives the new secret to every receiver.
impl Default for GracePeriod {
    fn default() -> Self {
        Self(24 * 3600)
    }
}

/// A checked request for a new secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// The new secret, when the owner supplies it; none means a generated one.
    pub secret: Option<WebhookSecret>,
    /// The signature type of the new secret; none means that of the newest secret.
    pub kind: Option<SignatureType>,
    /// The time for which the other secrets stay in force.
    pub grace: GracePeriod,
}

impl Rotation {
    /// Reads and checks a request body; an empty one means the defaults.
    ///
    /// # Errors
    /// The first problem of the body; the error never contains a secret.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let mut members =
            Members::parse(body, &["type", "gracePeriodSeconds", "secret"], "a rotation")?;
        let kind = members.optional("type", |value| {
            let kind = value.as_str().and_then(SignatureType::from_name);
            kind.ok_or_else(|| "must be `v1` or `v1a`".into())
        })?;
        let grace = members.optional("gracePeriodSeconds", |value| {
            let grace = value.as_u64().map(GracePeriod::from_seconds);
            grace.and_then(Result::ok).ok_or_else(|| "must be a whole number, 0 to 604800".into())
        })?;
        let secret = members.optional("secret", |value| match value {
            Value::String(text) => {
                WebhookSecret::parse(&text).map_err(|error| format!("is refused: {error}"))
            }
            _ => Err("must be a string".into()),
        })?;
        if let (Some(secret), Some(kind)) = (&secret, kind)
            && secret.kind() != kind
        {
            let problem =
                format!("is one for `{}`, and `type` says otherwise", secret.kind().name());
            return Err(RequestError::Invalid { field: "secret".into(), problem });
        }
        Ok(Self { secret, kind, grace: grace.unwrap_or_default() })
    }

    /// The secret that becomes the newest: the one that the owner supplied, or one made of 32
    /// random bytes with the requested type, by default the type `newest`.
    #[must_use]
    pub fn into_secret(self, newest: SignatureType, random: [u8; 32]) -> WebhookSecret {
        let kind = self.kind.unwrap_or(newest);
        self.secret.unwrap_or_else(|| WebhookSecret::from_random(kind, random))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &Value) -> Result<Rotation, RequestError> {
        Rotation::parse(body.to_string().as_bytes())
    }

    #[test]
    fn rotation_defaults_to_a_day_of_grace() {
        let rotation = Rotation::parse(b"").unwrap();
        assert_eq!(parse(&json!({})).unwrap(), rotation);
        assert_eq!(rotation.grace.length(), TimeDelta::days(1));
        for kind in SignatureType::ALL {
            assert_eq!(rotation.clone().into_secret(kind, [7; 32]).kind(), kind);
        }
        let other = parse(&json!({"type": "v1a"})).unwrap();
        assert_eq!(other.into_secret(SignatureType::V1, [7; 32]).kind(), SignatureType::V1a);
    }

    #[test]
    fn rotation_takes_the_owners_secret() {
        let brought = WebhookSecret::from_random(SignatureType::V1a, [9; 32]);
        for body in [
            json!({"secret": brought.reveal()}),
            json!({"secret": brought.reveal(), "type": "v1a", "gracePeriodSeconds": 0}),
        ] {
            let rotation = parse(&body).unwrap();
            assert_eq!(rotation.into_secret(SignatureType::V1, [7; 32]), brought);
        }
    }

    #[test]
    fn grace_period_is_seven_days_at_most() {
        for (seconds, taken) in
            [(0, true), (604_800, true), (604_801, false), (u64::from(u32::MAX) + 1, false)]
        {
            assert_eq!(GracePeriod::from_seconds(seconds).is_ok(), taken, "{seconds}");
            assert_eq!(parse(&json!({"gracePeriodSeconds": seconds})).is_ok(), taken, "{seconds}");
        }
    }

    #[test]
    fn rotation_names_wrong_members_without_secrets() {
        let shared = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
        for (body, problem) in [
            (json!({"type": "v2"}), "`type` must be `v1` or `v1a`"),
            (json!({"type": shared}), "`type` must be `v1` or `v1a`"),
            (
                json!({"gracePeriodSeconds": -1}),
                "`gracePeriodSeconds` must be a whole number, 0 to 604800",
            ),
            (
                json!({"gracePeriodSeconds": 1.5}),
                "`gracePeriodSeconds` must be a whole number, 0 to 604800",
            ),
            (json!({"secret": [shared]}), "`secret` must be a string"),
            (
                json!({"secret": "whsec_AAAA"}),
                "`secret` is refused: a webhook secret with whsec_ has 24 to 64 bytes",
            ),
            (
                json!({"secret": shared, "type": "v1a"}),
                "`secret` is one for `v1`, and `type` says otherwise",
            ),
            (json!({"grace": 5}), "`grace` is not a member of a rotation"),
        ] {
            assert_eq!(parse(&body).unwrap_err().to_string(), problem);
        }
        assert!(matches!(Rotation::parse(b"[]"), Err(RequestError::NotAnObject(_))));
    }
}
