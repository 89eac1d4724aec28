//! The faults of the load test, chosen by a job's number, so that every run is the same.

use serde_json::{Value, json};
use tests::SimulatedProvider;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    None,
    PostedTwice,
    CallbackThrice,
    CallbackLate,
    CallbackLost,
    StatusBreaks,
    StatusThrottles,
    SubmitHangs,
    SubmitThrottles,
    RenderFails,
}

/// The number of jobs with each fault among a hundred. The others have none.
const SHARES: [(Fault, usize); 9] = [
    (Fault::PostedTwice, 10),
    (Fault::CallbackThrice, 10),
    (Fault::CallbackLate, 5),
    (Fault::CallbackLost, 2),
    (Fault::StatusBreaks, 5),
    (Fault::StatusThrottles, 5),
    (Fault::SubmitHangs, 2),
    (Fault::SubmitThrottles, 3),
    (Fault::RenderFails, 5),
];

/// The limit of a render's duration. Most renders are much shorter.
const MAX_DURATION_MS: usize = 4_000;

impl Fault {
    /// The fault of job `number`. Among five hundred jobs, each provider has its share of each
    /// fault.
    pub(crate) fn of(number: usize) -> Self {
        let mut place = number / 5 * 37 % 100;
        for (fault, share) in SHARES {
            match place.checked_sub(share) {
                Some(left) => place = left,
                None => return fault,
            }
        }
        Self::None
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PostedTwice => "posted twice",
            Self::CallbackThrice => "callback three times",
            Self::CallbackLate => "callback again, late",
            Self::CallbackLost => "callback lost",
            Self::StatusBreaks => "status 503",
            Self::StatusThrottles => "status 429",
            Self::SubmitHangs => "accepted, no answer",
            Self::SubmitThrottles => "submit 429",
            Self::RenderFails => "render fails",
        }
    }

    /// The simulator's options for the render of job `number`.
    pub(crate) fn options(self, number: usize) -> Value {
        let mut options = match self {
            Self::None | Self::PostedTwice => json!({}),
            Self::CallbackThrice => json!({"callback": {"times": 3}}),
            Self::CallbackLate => json!({"callback": {"lateMs": 3_000}}),
            Self::CallbackLost => json!({"callback": {"skip": true}}),
            Self::StatusBreaks => json!({"statusCode": 503, "statusCodeTimes": 2}),
            Self::StatusThrottles => {
                json!({"statusCode": 429, "statusCodeTimes": 2, "retryAfter": "1"})
            }
            Self::SubmitHangs => json!({"submitAnswer": "never"}),
            Self::SubmitThrottles => json!({"submitStatus": 429}),
            Self::RenderFails => json!({"failWith": "no codec"}),
        };
        // Most durations are short, and some are long.
        let duration = (number * 7_919 % MAX_DURATION_MS).min(number * 104_729 % MAX_DURATION_MS);
        options["durationMs"] = duration.into();
        options["queuedMs"] = (duration / 4).into();
        options
    }

    /// The status of our answer to the submit. A submit that the provider rejects is answered
    /// with its reason, and makes a job all the same.
    pub(crate) fn answer(self) -> u16 {
        if self == Self::SubmitThrottles { 503 } else { 202 }
    }

    /// The state in which such a job ends.
    pub(crate) fn end(self) -> &'static str {
        match self {
            Self::SubmitThrottles | Self::RenderFails => "failed",
            Self::None
            | Self::PostedTwice
            | Self::CallbackThrice
            | Self::CallbackLate
            | Self::CallbackLost
            | Self::StatusBreaks
            | Self::StatusThrottles
            | Self::SubmitHangs => "completed",
        }
    }

    /// The number of renders of such a job.
    pub(crate) fn renders(self) -> usize {
        usize::from(self != Self::SubmitThrottles)
    }
}

/// The provider of job `number`.
pub(crate) fn provider(number: usize) -> SimulatedProvider {
    match number % 5 {
        0 => SimulatedProvider::Shotstack,
        1 => SimulatedProvider::Zvid,
        2 => SimulatedProvider::Json2Video,
        3 => SimulatedProvider::ViralSync,
        _ => SimulatedProvider::RenderIo,
    }
}
