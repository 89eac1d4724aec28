//! One HTTP POST of an event to its receiver, and its outcome.

use chrono::{DateTime, TimeDelta, Utc};

/// How long a delivery is leased to one attempt: the attempt's time limit (15 s) plus the
/// time to store its outcome. A process that crashes delays the next attempt by at most this.
pub const ATTEMPT_LEASE: TimeDelta = TimeDelta::seconds(30);

/// How much of its lease an attempt must have left when it posts: its time limit, so that it is over
/// when the lease is.
pub const LEAST_LEASE: TimeDelta = TimeDelta::seconds(15);

/// One attempt and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: DateTime<Utc>,
    /// Its duration in milliseconds.
    pub duration_ms: u64,
    /// The outcome.
    pub outcome: AttemptOutcome,
    /// The first part of the receiver's answer, as text.
    pub excerpt: String,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver answered with this HTTP status.
    Answered(u16),
    /// There was no answer.
    Failed(AttemptError),
}

/// Why a receiver did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptError {
    /// The host name could not be resolved, or not in time.
    Dns,
    /// None of its addresses took a TCP connection in time.
    Connect,
    /// No TLS session: the certificate is not trusted, expired or another name's, or the
    /// server does not speak TLS 1.2 or later.
    Tls,
    /// No complete answer head within the attempt's time limit.
    Timeout,
    /// The connection ended, or turned into something else than HTTP, before an answer.
    Reset,
    /// The policy does not allow the URL, or an address behind its host name.
    Blocked,
    /// The answer's head has more or longer headers than we read.
    TooLarge,
}

impl AttemptError {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Blocked,
        Self::TooLarge,
    ];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Blocked => "blocked",
            Self::TooLarge => "too_large",
        }
    }
}
