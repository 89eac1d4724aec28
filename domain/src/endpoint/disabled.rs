//! When and why an endpoint was disabled.

use chrono::{DateTime, Utc};

/// When and why an endpoint was disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// The time.
    pub at: DateTime<Utc>,
    /// The reason.
    pub reason: DisabledReason,
    /// Whether the event about it was published.
    pub announced: bool,
}

/// Why an endpoint was disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// It answered with `webhook-delivery: disable`.
    Asked,
    /// It failed for five days without a success.
    Failing,
}

impl DisabledReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gone, Self::Asked, Self::Failing];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Asked => "asked",
            Self::Failing => "failing",
        }
    }
}
