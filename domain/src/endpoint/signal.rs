//! What an attempt's outcome says about its endpoint.

use std::time::Duration;

use super::disabled::DisabledReason;
use crate::attempt::{AttemptError, Outcome};

/// How long a receiver that is overloaded and does not say for how long is left alone.
const OVERLOADED: Duration = Duration::from_secs(60);

/// How long an answer may take before its endpoint counts as slow. Ten times what receivers
/// take, and short beside the 15 s that an attempt may last.
pub const SLOW: Duration = Duration::from_secs(2);

/// What a receiver said beside its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// How long it asked to wait, with `Retry-After`.
    pub retry_after: Option<Duration>,
    /// What it asked to be done, with `webhook-delivery`.
    pub instruction: Option<Instruction>,
}

/// What a receiver may ask for in the header `webhook-delivery` of its answer, as the hosted
/// Svix service documents it ("Delivery control").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Send nothing more. Means the same with every status, 2xx included.
    Disable,
    /// Do not send this again. Means nothing with 2xx: it would not be.
    AbortMessage,
}

impl Instruction {
    /// Reads a header's value; none when it asks for nothing that we know.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let asked = |word: &str| header.split(',').any(|it| it.trim().eq_ignore_ascii_case(word));
        // Whoever asks for both wants no more at all.
        if asked("disable") {
            Some(Self::Disable)
        } else if asked("abort-message") {
            Some(Self::AbortMessage)
        } else {
            None
        }
    }
}

/// What an attempt taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    pub(super) effect: Effect,
    pub(super) quiet: Option<Duration>,
    pub(super) slow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It takes what is sent, or knows what it does not want.
    Alive,
    Failed,
    Disable(DisabledReason),
}

impl Lesson {
    /// What an attempt with this outcome, which took so long, teaches.
    #[must_use]
    pub fn of(outcome: Outcome, said: Said, took: Duration) -> Self {
        let effect = match (outcome, said.instruction) {
            (Outcome::Answered(_), Some(Instruction::Disable)) => {
                Effect::Disable(DisabledReason::Asked)
            }
            (Outcome::Answered(410), _) => Effect::Disable(DisabledReason::Gone),
            (Outcome::Answered(200..=299), _) => Effect::Alive,
            (Outcome::Answered(_), Some(Instruction::AbortMessage)) => Effect::Alive,
            (Outcome::Answered(_), None) | (Outcome::Failed(_), _) => Effect::Failed,
        };
        let quiet = match outcome {
            Outcome::Answered(200..=299) => None,
            Outcome::Answered(429 | 502 | 504) => Some(said.retry_after.unwrap_or(OVERLOADED)),
            Outcome::Answered(_) => said.retry_after,
            Outcome::Failed(error) => match error {
                AttemptError::Dns
                | AttemptError::Connect
                | AttemptError::Tls
                | AttemptError::Timeout
                | AttemptError::Reset
                | AttemptError::Blocked
                | AttemptError::TooLarge => None,
            },
        };
        let quiet = quiet.filter(|wait| !wait.is_zero());
        Self { effect, quiet, slow: took >= SLOW }
    }
}
