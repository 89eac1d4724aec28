//! The signal that an attempt's outcome gives about its endpoint.
//!
//! This is where a receiver's HTTP 429 is handled: it counts as a failure, and throttles the
//! endpoint until its `Retry-After`, or for a minute. A provider's 429 is handled in
//! [`crate::polling`] (`ProviderThrottle`). The 429 that callers of our API get is API Gateway's:
//! `ThrottlingRateLimit` in `template.yaml`.

use std::time::Duration;

use super::disabled::DisabledReason;
use crate::attempt::{AttemptError, AttemptOutcome};

/// The throttle after an overload answer (429, 502 or 504) without a `Retry-After`.
const OVERLOAD_THROTTLE: Duration = Duration::from_secs(60);

/// An endpoint whose answer takes this long counts as slow. It is ten times a usual answer time,
/// and short beside the 15 s that an attempt may last.
pub const SLOW: Duration = Duration::from_secs(2);

/// The hints in the headers of a receiver's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseHints {
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
pub struct AttemptSignal {
    pub(super) effect: SignalEffect,
    pub(super) throttle: Option<Duration>,
    pub(super) slow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalEffect {
    /// The receiver works: it took the event, or refused it with an instruction.
    Alive,
    Failed,
    Disable(DisabledReason),
}

impl AttemptSignal {
    /// The signal of an attempt with this outcome, these hints and this duration.
    #[must_use]
    pub fn of(outcome: AttemptOutcome, hints: ResponseHints, took: Duration) -> Self {
        let effect = match (outcome, hints.instruction) {
            (AttemptOutcome::Answered(_), Some(Instruction::Disable)) => {
                SignalEffect::Disable(DisabledReason::Asked)
            }
            (AttemptOutcome::Answered(410), _) => SignalEffect::Disable(DisabledReason::Gone),
            (AttemptOutcome::Answered(200..=299), _) => SignalEffect::Alive,
            (AttemptOutcome::Answered(_), Some(Instruction::AbortMessage)) => SignalEffect::Alive,
            (AttemptOutcome::Answered(_), None) | (AttemptOutcome::Failed(_), _) => {
                SignalEffect::Failed
            }
        };
        let throttle = match outcome {
            AttemptOutcome::Answered(200..=299) => None,
            AttemptOutcome::Answered(429 | 502 | 504) => {
                Some(hints.retry_after.unwrap_or(OVERLOAD_THROTTLE))
            }
            AttemptOutcome::Answered(_) => hints.retry_after,
            AttemptOutcome::Failed(error) => match error {
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
