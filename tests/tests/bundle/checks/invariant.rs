//! The invariants of the bundle, numbered as in ARCHITECTURE.md.

use std::fmt;

/// What must hold in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    OneRenderPerRequest,
    EveryJobSettles,
    StoredBeforeSaid,
    OneTerminalTruth,
    SecretsStaySecret,
    InputNeverPanics,
    IndependentRetries,
}

impl Invariant {
    const fn number(self) -> u8 {
        match self {
            Self::OneRenderPerRequest => 1,
            Self::EveryJobSettles => 2,
            Self::StoredBeforeSaid => 3,
            Self::OneTerminalTruth => 4,
            Self::SecretsStaySecret => 5,
            Self::InputNeverPanics => 6,
            Self::IndependentRetries => 7,
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::OneRenderPerRequest => "one accepted request makes at most one render",
            Self::EveryJobSettles => "every accepted job ends settled",
            Self::StoredBeforeSaid => {
                "no 2xx before the fact is stored, and no event before the result is stored"
            }
            Self::OneTerminalTruth => {
                "a job has one terminal truth, and every repeat of an event has the same bytes"
            }
            Self::SecretsStaySecret => "secrets and keys never appear in clear",
            Self::InputNeverPanics => {
                "no input makes a function panic, and only what the spec points to decides"
            }
            Self::IndependentRetries => {
                "render, delivery and archive are retried independently of each other"
            }
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} ({})", self.number(), self.sentence())
    }
}
