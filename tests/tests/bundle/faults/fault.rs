//! What can go wrong at one call of an invocation.

use crate::harness::invocation::CallRecord;

/// What befalls an invocation at one of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends before the call is made.
    DiesBefore,
    /// It ends when the call was made, before it hears of it.
    DiesAfter,
    /// The call cannot be made, however often it is tried.
    Lost,
    /// The call is made, and neither its answer nor that of a repeat arrives.
    Unanswered,
    /// AWS answers that it is too busy, however often it is asked.
    Busy,
    /// The call is made twice.
    Twice,
    /// A second copy of the invocation runs to its end before the call is made.
    OvertakenBefore,
    /// A second copy runs to its end when the call was made, before its answer is seen.
    OvertakenAfter,
    /// It stands still for a while before the call is made, and everybody else goes on.
    StallsBefore,
    /// It stands still for a while when the call was made, before it hears of it.
    StallsAfter,
}

impl Fault {
    /// All of them.
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

    /// Whether it can happen to a call: only AWS says that it is busy, and nobody repeats a
    /// request to render. To read twice, or to read and not hear of it, is as good as not to
    /// read at all.
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

/// A fault at call number `call` (from 0).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedFault {
    pub(crate) call: usize,
    pub(crate) fault: Fault,
}
