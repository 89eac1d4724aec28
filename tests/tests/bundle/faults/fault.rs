//! What can go wrong at one call of an invocation.

use crate::harness::invocation::CallRecord;

/// A fault at one call of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends before the call is made.
    DiesBefore,
    /// The process ends after the call, before it sees the answer.
    DiesAfter,
    /// The call and its repeats never arrive.
    Lost,
    /// The call is made, and neither its answer nor that of a repeat arrives.
    Unanswered,
    /// AWS throttles the call and its repeats.
    Busy,
    /// The call is made twice.
    Twice,
    /// A copy of the invocation runs to its end before the call.
    OvertakenBefore,
    /// A copy runs to its end after the call, before its answer is seen.
    OvertakenAfter,
    /// The process stalls before the call.
    StallsBefore,
    /// The process stalls after the call, before it sees the answer.
    StallsAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 10] = [
        Self::DiesBefore,
        Self::DiesAfter,
        Self::Lost,
        Self::Unanswered,
        Self::Busy,
        Self::Twice,
        Self::OvertakenBefore,
        Self::OvertakenAfter,
        Self::StallsBefore,
        Self::StallsAfter,
    ];

    /// Whether the fault can happen at a call. Only AWS throttles, and a submit is never repeated
    /// blindly. A second read, or the loss of its answer, is no different from no read.
    pub(crate) fn applies_to(self, call: &CallRecord) -> bool {
        match self {
            Self::Busy => call.to_aws,
            Self::Twice => call.to_aws && !call.reads,
            Self::Unanswered => !call.reads,
            Self::DiesBefore
            | Self::DiesAfter
            | Self::Lost
            | Self::OvertakenBefore
            | Self::OvertakenAfter
            | Self::StallsBefore
            | Self::StallsAfter => true,
        }
    }
}

/// A fault at call number `call`, counted from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedFault {
    pub(crate) call: usize,
    pub(crate) fault: Fault,
}
