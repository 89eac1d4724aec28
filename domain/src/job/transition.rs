//! The transition table of a job: what each kind of report does in each state.

use super::{RenderStatus, Report, State};
use crate::failure::{Failure, FailureCode};

/// The entry of the transition table for one state and one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The state stays; the report is a repeat or late.
    Stay,
    /// The job enters this state.
    To(State),
}

/// The kind of a [`Report`], which is all that the transition table depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// [`Report::Accepted`]
    Accepted,
    /// [`Report::Rejected`]
    Rejected,
    /// [`Report::SubmitUnclear`]
    SubmitUnclear,
    /// [`RenderStatus::Queued`]
    Queued,
    /// [`RenderStatus::Processing`]
    Processing,
    /// [`RenderStatus::Completed`]
    Completed,
    /// [`RenderStatus::Failed`]
    Failed,
    /// [`RenderStatus::Cancelled`]
    Cancelled,
    /// [`RenderStatus::TimedOut`]
    TimedOut,
    /// [`Report::DeadlinePassed`]
    DeadlinePassed,
}

impl ReportKind {
    /// All kinds, in the order of the table's columns.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::Rejected,
        Self::SubmitUnclear,
        Self::Queued,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::DeadlinePassed,
    ];
}

/// The whole transition table.
#[must_use]
pub fn next(state: State, report: ReportKind) -> Move {
    use Move::{Stay, To};
    use ReportKind as R;
    use State as S;
    match (state, report) {
        (S::Submitting | S::SubmitUnknown, R::Accepted | R::Queued) => To(S::Queued),
        (S::Submitting, R::SubmitUnclear) => To(S::SubmitUnknown),
        // A rejection that arrives after the submit timed out still resolves the doubt.
        (S::Submitting | S::SubmitUnknown, R::Rejected) => To(S::Failed),
        // Whether a render exists stays unknown: the job fails with `submit_unknown`.
        (S::Submitting | S::SubmitUnknown, R::DeadlinePassed) => To(S::Failed),
        (S::SubmitUnknown, R::SubmitUnclear) => Stay,

        // A callback has proved acceptance, so a late answer to our submit adds nothing.
        (S::Queued | S::Processing, R::Accepted | R::Rejected | R::SubmitUnclear) => Stay,
        (S::Queued | S::Processing, R::DeadlinePassed) => To(S::TimedOut),
        (S::Queued | S::Processing, R::Queued) => Stay,
        (S::Processing, R::Processing) => Stay,
        (S::Submitting | S::SubmitUnknown | S::Queued, R::Processing) => To(S::Processing),

        // A callback can come before the acceptance is stored, so any live state can end.
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::Completed) => {
            To(S::Completed)
        }
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::Failed) => To(S::Failed),
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::Cancelled) => {
            To(S::Cancelled)
        }
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::TimedOut) => {
            To(S::TimedOut)
        }

        // Our time-out cancels nothing at the provider, so the render may still be completed.
        (S::TimedOut, R::Completed) => To(S::Completed),
        (
            S::TimedOut,
            R::Accepted
            | R::Rejected
            | R::SubmitUnclear
            | R::Queued
            | R::Processing
            | R::Failed
            | R::Cancelled
            | R::TimedOut
            | R::DeadlinePassed,
        ) => Stay,

        // Late reports change nothing. A `Failed` job that may still complete is in the row of
        // `TimedOut`: see `effective_state`.
        (
            S::Completed | S::Failed | S::Cancelled,
            R::Accepted
            | R::Rejected
            | R::SubmitUnclear
            | R::Queued
            | R::Processing
            | R::Completed
            | R::Failed
            | R::Cancelled
            | R::TimedOut
            | R::DeadlinePassed,
        ) => Stay,
    }
}

/// Whether no report can change the state of a job that entered `state` for this reason.
#[must_use]
pub fn is_final(state: State, failure: Option<&Failure>) -> bool {
    next(effective_state(state, failure), ReportKind::Completed) == Move::Stay
}

/// The row of the table for a job in `state`. A job whose submit was never confirmed has failed
/// for its customer, and is treated as timed out: the provider may have rendered it, and its
/// callback is the only proof.
pub(super) fn effective_state(state: State, failure: Option<&Failure>) -> State {
    let unconfirmed = |failure: &Failure| failure.code == FailureCode::SubmitUnknown;
    match state {
        State::Failed if failure.is_some_and(unconfirmed) => State::TimedOut,
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::Completed
        | State::Failed
        | State::Cancelled
        | State::TimedOut => state,
    }
}

impl Report {
    /// The column of the transition table.
    #[must_use]
    pub fn kind(&self) -> ReportKind {
        match self {
            Self::Accepted(_) => ReportKind::Accepted,
            Self::Rejected(_) => ReportKind::Rejected,
            Self::SubmitUnclear => ReportKind::SubmitUnclear,
            Self::DeadlinePassed => ReportKind::DeadlinePassed,
            Self::Observed(observation) => match observation.status {
                RenderStatus::Queued => ReportKind::Queued,
                RenderStatus::Processing => ReportKind::Processing,
                RenderStatus::Completed(_) => ReportKind::Completed,
                RenderStatus::Failed(_) => ReportKind::Failed,
                RenderStatus::Cancelled => ReportKind::Cancelled,
                RenderStatus::TimedOut => ReportKind::TimedOut,
            },
        }
    }
}
