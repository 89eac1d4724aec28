//! The request of an attempt to its endpoint, the reasons to hold it, and the permit.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::headers::HeadersId;

/// The delivery queue in which an attempt is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// The lane of endpoints that answer in time.
    #[default]
    Quick,
    /// The lane of slow endpoints, which delay only each other.
    Slow,
}

/// The request of an attempt that is due.
#[derive(Clone, Copy, Debug)]
pub struct AttemptRequest {
    /// Whether the attempt was requested by hand. It ignores the circuit breaker.
    pub manual: bool,
    /// Whether a slot of the rate limit is reserved for it.
    pub has_slot: bool,
    /// The lane in which it would be made.
    pub lane: Lane,
    /// A random token that names it among the attempts in flight.
    pub token: u64,
    /// A random number in `0.0..1.0`, for jitter.
    pub jitter_sample: f64,
}

/// The reason why an attempt that is due is held: by its endpoint, except for the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// The circuit breaker is open, or another attempt is its probe.
    Failing,
    /// The receiver asked for a throttle.
    Throttled,
    /// The owner's rate limit. The attempt has a slot reserved.
    Rate,
    /// The owner's limit of attempts in flight.
    InFlight,
    /// It is not known which secrets are in force, or what the owner's headers are. This is no
    /// trouble of the receiver's.
    Secrets,
}

impl HoldReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Failing, Self::Throttled, Self::Rate, Self::InFlight, Self::Secrets];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failing => "endpoint_failing",
            Self::Throttled => "endpoint_throttled",
            Self::Rate => "rate_limited",
            Self::InFlight => "in_flight_limited",
            Self::Secrets => "secrets_not_read",
        }
    }
}

/// The permit of an attempt that may be made, valid until its outcome is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The end of its lease when it is the probe of the circuit breaker.
    pub(super) probe: Option<DateTime<Utc>>,
    /// Its token, when attempts in flight are limited.
    pub(super) token: Option<u64>,
    pub(super) manual: bool,
    /// The headers that its owner had configured when it was given.
    pub headers: Option<HeadersId>,
}
