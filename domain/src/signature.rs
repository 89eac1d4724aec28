//! The signatures of outgoing webhooks, after Standard Webhooks 1.0.0.
//!
//! The signed content is `{webhook-id}.{webhook-timestamp}.{raw body}`; the header is a
//! space-separated list with one entry per secret in force: `v1,<base64 HMAC-SHA256>` or
//! `v1a,<base64 ed25519>`. A receiver accepts the request when one entry holds, so for as
//! long as two secrets are in force, receivers may know either.

mod knowledge;
mod rotation;
mod secret;
mod secrets;

pub use knowledge::{KnownSecrets, NotKnown};
pub use rotation::{GracePeriod, GracePeriodError, Rotation};
pub use secret::{KeyPair, SharedSecret, SignatureType, SigningSecretError, WebhookSecret};
pub use secrets::{
    LEAD, MAX_SECRETS, SigningSecrets, StoredSecret, StoredSecretsError, TooManySecrets,
};
