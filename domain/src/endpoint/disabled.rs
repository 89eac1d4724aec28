//! That nothing is sent to an endpoint any more, and why.

use chrono::{DateTime, Utc};

/// Why and when an endpoint was disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// When.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: DisabledReason,
    /// Whether an event has said so.
    pub announced: bool,
}

/// Why an endpoint was disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// It asked for it, with `webhook-delivery: disable`.
    Asked,
    /// Five days of nothing but failures.
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
