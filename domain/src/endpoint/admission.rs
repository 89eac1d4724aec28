//! What an attempt asks of its endpoint before it is made, and what it gets.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Where an attempt is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// With everybody else's.
    #[default]
    Quick,
    /// With those of other slow endpoints.
    Slow,
}

/// An attempt that is due.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Somebody asked for this very attempt, to see whether the endpoint is well again.
    pub deliberate: bool,
    /// It waited for its place in the rate, and this is it.
    pub has_slot: bool,
    /// Where it would be made.
    pub lane: Lane,
    /// Its name among the attempts under way.
    pub token: u64,
    /// A random number in `0.0..1.0`.
    pub luck: f64,
}

/// What keeps an attempt waiting that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The endpoint fails; one other attempt finds out whether it still does.
    Failing,
    /// The endpoint asked for silence.
    Throttled,
    /// Its owner allows no more a second. The place in the rate is taken.
    Rate,
    /// Its owner allows no more at once.
    InFlight,
}

impl Hold {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Failing, Self::Throttled, Self::Rate, Self::InFlight];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failing => "endpoint_failing",
            Self::Throttled => "endpoint_throttled",
            Self::Rate => "rate_limited",
            Self::InFlight => "in_flight_limited",
        }
    }
}

/// What an attempt that may be made holds while it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// It is the probe, under a lease that ends then.
    pub(super) probe: Option<DateTime<Utc>>,
    /// Its name among the attempts under way, where they are counted.
    pub(super) token: Option<u64>,
    pub(super) deliberate: bool,
}
