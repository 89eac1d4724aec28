//! The names of a render's events, and sets of them.
//!
//! To add an event, add it to [`EventName`], with its wire name and its bit, and to
//! [`EventName::ALL`]; say in [`State::event`](crate::job::State::event) which state it is about;
//! and add the name to `docs/openapi.yaml` and `docs/events.schema.json`: contract tests compare
//! them. A bit is stored, so it is never used for another event.

use serde::{Deserialize, Serialize};

/// The name of an event: the bus's detail-type and the body's `event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventName {
    /// The provider accepted.
    #[serde(rename = "video.render.queued")]
    Queued,
    /// The provider started.
    #[serde(rename = "video.render.processing")]
    Processing,
    /// The video is done.
    #[serde(rename = "video.render.completed")]
    Completed,
    /// The render failed or timed out.
    #[serde(rename = "video.render.failed")]
    Failed,
    /// The render was cancelled.
    #[serde(rename = "video.render.cancelled")]
    Cancelled,
}

impl EventName {
    /// All names, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// The wire name, such as `video.render.completed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "video.render.queued",
            Self::Processing => "video.render.processing",
            Self::Completed => "video.render.completed",
            Self::Failed => "video.render.failed",
            Self::Cancelled => "video.render.cancelled",
        }
    }

    /// The event with this wire name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Queued => 1,
            Self::Processing => 2,
            Self::Completed => 4,
            Self::Failed => 8,
            Self::Cancelled => 16,
        }
    }
}

/// A set of events that a client subscribes to: one byte in the job's item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSet(u8);

impl EventSet {
    /// The default: completion, failure and cancellation. Each event on the bus costs money, so
    /// the others are opt-in.
    #[must_use]
    pub fn terminal() -> Self {
        [EventName::Completed, EventName::Failed, EventName::Cancelled].into_iter().collect()
    }

    /// Whether `event` is in the set.
    #[must_use]
    pub fn contains(self, event: EventName) -> bool {
        self.0 & event.bit() != 0
    }

    /// The set without events.
    #[must_use]
    pub fn none() -> Self {
        Self(0)
    }

    /// The events of both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The events that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set has no event.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as one byte, for storing.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        self.0
    }

    /// Reads a stored set; unknown bits are dropped.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        EventName::ALL.into_iter().filter(|event| bits & event.bit() != 0).collect()
    }
}

impl From<EventName> for EventSet {
    fn from(event: EventName) -> Self {
        Self(event.bit())
    }
}

impl FromIterator<EventName> for EventSet {
    fn from_iter<I: IntoIterator<Item = EventName>>(events: I) -> Self {
        Self(events.into_iter().fold(0, |bits, event| bits | event.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_set_default_is_terminal() {
        let subscribed = EventSet::terminal();
        let contained: Vec<_> =
            EventName::ALL.into_iter().filter(|e| subscribed.contains(*e)).collect();
        assert_eq!(contained, [EventName::Completed, EventName::Failed, EventName::Cancelled]);
        assert_eq!(EventSet::from_bits(subscribed.to_bits()), subscribed);
        assert_eq!(EventSet::from_bits(0xff), EventName::ALL.into_iter().collect());
    }
}
