//! The signal that an attempt's outcome gives about its endpoint.

use std::time::Duration;

use super::disabled::DisabledReason;
use crate::attempt::{AttemptError, Outcome};

/// The throttle after an overload answer (429, 502 or 504) without a `Retry-After`.
const OVERLOAD_THROTTLE: Duration = Duration::from_secs(60);

/// An endpoint whose answer takes this long counts as slow. It is ten times a usual answer time,
/// and short beside the 15 s that an attempt may last.
pub const SLOW: Duration = Duration::from_secs(2);

/// The hints in the headers of a receiver's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The wait that `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// The instruction in `webhook-delivery`.
    pub instruction: Option<Instruction>,
}

/// An instruction in the `webhook-delivery` header of an answer, as the hosted Svix service
/// documents it ("Delivery control").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// No more webhooks are wanted. It holds with every status, 2xx included.
    Disable,
    /// This event must not be sent again. It has no effect with 2xx.
    AbortMessage,
}

impl Instruction {
    /// Reads the value of the header; none when it has no known instruction.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let asked = |word: &str| header.split(',').any(|it| it.trim().eq_ignore_ascii_case(word));
        // The stronger of the two instructions wins.
        if asked("disable") {
            Some(Self::Disable)
        } else if asked("abort-message") {
            Some(Self::AbortMessage)
        } else {
            None
        }
    }
}

/// The effect of one attempt on its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    pub(super) effect: Effect,
    pub(super) throttle: Option<Duration>,
    pub(super) slow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The receiver works: it took the event, or refused it with an instruction.
    Alive,
    Failed,
    Disable(DisabledReason),
}

impl Lesson {
    /// The signal of an attempt with this outcome, these hints and this duration.
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
        let throttle = match outcome {
            Outcome::Answered(200..=299) => None,
            Outcome::Answered(429 | 502 | 504) => {
                Some(said.retry_after.unwrap_or(OVERLOAD_THROTTLE))
            }
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
        let throttle = throttle.filter(|wait| !wait.is_zero());
        Self { effect, throttle, slow: took >= SLOW }
    }
}
