//! The invariants of ARCHITECTURE.md, with its numbers and sentences.

use std::fmt;

/// What must hold in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    OneRenderPerRequest,
    EveryJobSettles,
    StoredBeforeAnswered,
    OneTerminalTruth,
    SecretsStaySecret,
    InputNeverPanics,
    IndependentRetries,
}

impl Invariant {
    const ALL: [Self; 7] = [
        Self::OneRenderPerRequest,
        Self::EveryJobSettles,
        Self::StoredBeforeAnswered,
        Self::OneTerminalTruth,
        Self::SecretsStaySecret,
        Self::InputNeverPanics,
        Self::IndependentRetries,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::OneRenderPerRequest => 1,
            Self::EveryJobSettles => 2,
            Self::StoredBeforeAnswered => 3,
            Self::OneTerminalTruth => 4,
            Self::SecretsStaySecret => 5,
            Self::InputNeverPanics => 6,
            Self::IndependentRetries => 7,
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::OneRenderPerRequest => "One accepted request makes at most one render",
            Self::EveryJobSettles => "Every accepted job ends settled",
            Self::StoredBeforeAnswered => {
                "No 2xx before the fact is stored, no event before the result is stored"
            }
            Self::OneTerminalTruth => "One terminal truth per job",
            Self::SecretsStaySecret => {
                "Secrets and keys never appear in logs at any level, events, errors or the table \
                 in clear"
            }
            Self::InputNeverPanics => "No input makes a function panic",
            Self::IndependentRetries => "Render and delivery are separate states",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} ({})", self.number(), self.sentence())
    }
}

/// The numbered items of the architecture's list, each reduced to its bold text.
fn documented() -> Vec<String> {
    let document = include_str!("../../../../ARCHITECTURE.md");
    let (_, section) = document.split_once("## Invariants").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let items = section.lines().filter_map(|line| {
        let (number, item) = line.split_once(". **")?;
        let bold: Vec<&str> = item.split("**").step_by(2).collect();
        let bold = bold.join(", ");
        Some(format!("invariant {number} ({})", bold.trim_end_matches('.')))
    });
    items.collect()
}

#[test]
fn invariants_match_the_architecture() {
    assert_eq!(Invariant::ALL.map(|invariant| invariant.to_string()).to_vec(), documented());
}
