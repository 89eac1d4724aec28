//! Why and how long a provider is left alone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The kind of answer that tells nothing of a render.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// The provider limits our rate.
    RateLimited,
    /// It did not answer, or not in time.
    #[default]
    Unreachable,
    /// It answered with an error of its own.
    ServerError,
    /// Its answer could not be read.
    UnreadableAnswer,
    /// It refused our key. Without a status we have none for the render's host, and nothing was
    /// asked.
    RefusedKey,
}

impl PauseReason {
    /// The wire name, such as `rate_limited`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Unreachable => "unreachable",
            Self::ServerError => "server_error",
            Self::UnreadableAnswer => "unreadable_answer",
            Self::RefusedKey => "refused_key",
        }
    }
}

/// Why a poll told nothing of its render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The kind of answer.
    pub reason: PauseReason,
    /// Its HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The wait that it asked for.
    pub retry_after: Option<Duration>,
}

impl Trouble {
    /// Whether the provider was asked, so that the trouble may be its own.
    #[must_use]
    pub fn is_of_provider(self) -> bool {
        self.reason != PauseReason::RefusedKey || self.status.is_some()
    }
}

/// The result of a poll, as far as it affects the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollResult {
    /// The provider told of the render.
    Told,
    /// The poll was admitted but not made.
    NotAsked,
    /// The provider told nothing of it.
    NotTold(Trouble),
}

/// A pause of a provider in one shard, as the lease keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The polls that were due from this time on were not made.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub since: DateTime<Utc>,
    /// When a suspect is asked about as a probe.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub until: DateTime<Utc>,
    /// How often the pause was made longer.
    pub failures: u32,
    /// The last answer before the pause began or was made longer.
    #[serde(default)]
    pub reason: PauseReason,
    /// Its HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How many renders had failed by then.
    #[serde(default)]
    pub renders: u32,
    /// The version of the provider's spec under which it began.
    #[serde(default)]
    pub spec: u64,
}
