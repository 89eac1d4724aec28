//! What is to be done for a job and when: a pure function of the job, and of when it was last
//! looked at. Nothing is written to keep the time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::job::{Job, State};
use domain::polling::{PollingLaw, Tracking};

/// How old an unanswered submit is before nobody can still be waiting for the answer: the
/// submit function is gone after 29 s.
pub(crate) const SUBMIT_IS_OVER: TimeDelta = TimeDelta::seconds(45);

/// How long whoever stored a change may take to tell of it, before it must have crashed.
pub(crate) const TELLING: TimeDelta = TimeDelta::seconds(15);

/// How long past its deadline a job waits for a provider that is down: its render may be done
/// all the same.
pub(crate) const LONGEST_OUTAGE: TimeDelta = TimeDelta::hours(6);

/// How often a job past its deadline is looked at.
const LATE_LOOK: TimeDelta = TimeDelta::seconds(60);

/// After how long a repair that did not work is tried again.
const RETRY: TimeDelta = TimeDelta::seconds(10);

/// The least time between two searches for a render whose submit was not answered.
const SEARCH_FLOOR: Duration = Duration::from_secs(20);

/// What is to be done for a job next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextLook {
    /// Not before.
    pub(crate) at: DateTime<Utc>,
    /// What.
    pub(crate) task: Task,
}

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// To ask the provider.
    Ask,
    /// To finish what somebody has begun. That asks no provider, and waits for none.
    Mend,
    /// To ask once more if the provider may be asked now, and to give the job up if it does
    /// not tell.
    GiveUp,
}

/// Whom a look may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// The job's provider, which answers nobody if it is down.
    Provider {
        /// Whether it is.
        is_down: bool,
    },
    /// Nobody.
    Nobody,
}

/// What is to be done for a job until something changes: all that its looks follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    /// To finish what somebody has begun, and who must have crashed by then.
    Mend(DateTime<Utc>),
    /// To ask by this law.
    Ask(Tracking, PollingLaw),
}

impl Plan {
    /// What a job needs. `law` is the one it is polled by.
    pub(crate) fn of(job: &Job, law: PollingLaw) -> Self {
        if let Some(oldest) = job.outbox.iter().map(|notice| notice.at).min() {
            return Self::Mend(oldest + TELLING);
        }
        match job.state {
            State::Submitting => Self::Mend(job.created_at + SUBMIT_IS_OVER),
            State::Completed | State::Failed | State::Cancelled => Self::Mend(job.created_at),
            // As long as nobody knows whether there is a render, only we ask.
            State::SubmitUnknown => {
                let floor = law.floor.max(SEARCH_FLOOR);
                Self::Ask(Tracking::PollOnly, PollingLaw { floor, ..law })
            }
            State::Queued | State::Processing | State::TimedOut => {
                Self::Ask(job.request.tracking, law)
            }
        }
    }

    /// The next look at a job that was last looked at, or would have been, at `looked`: one of
    /// a series that is the same whenever it is asked for. Nobody remembers over a sleep when
    /// a job was looked at, only up to when all looks were taken.
    pub(crate) fn next(
        &self,
        created_at: DateTime<Utc>,
        spread: f64,
        looked: DateTime<Utc>,
    ) -> NextLook {
        match self {
            Self::Mend(at) => NextLook { at: series(*at, RETRY, looked), task: Task::Mend },
            Self::Ask(tracking, law) => {
                let age = (looked - created_at).to_std().unwrap_or_default();
                let at = match age < law.deadline {
                    true => created_at + law.next_after(*tracking, age, spread),
                    false => series(created_at + deadline(law), LATE_LOOK, looked),
                };
                NextLook { at, task: Task::Ask }
            }
        }
    }

    /// How many questions a second it asks for.
    pub(crate) fn wanted_rate(&self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
        match self {
            Self::Mend(_) => 0.0,
            Self::Ask(tracking, law) => {
                law.wanted_rate(*tracking, (now - created_at).to_std().unwrap_or_default())
            }
        }
    }

    /// Whether the job is given up by now even if its provider stays silent, so that it must
    /// not wait until the provider may be asked.
    pub(crate) fn is_overripe(&self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        match self {
            Self::Mend(_) => false,
            Self::Ask(_, law) => now - created_at >= deadline(law) + LONGEST_OUTAGE,
        }
    }
}

/// The first time after `past` in a series that begins at `first`.
fn series(first: DateTime<Utc>, step: TimeDelta, past: DateTime<Utc>) -> DateTime<Utc> {
    if past < first {
        return first;
    }
    let steps = (past - first).num_seconds() / step.num_seconds() + 1;
    first + step * i32::try_from(steps).unwrap_or(i32::MAX)
}

/// The age at which a job's provider is no longer asked.
pub(crate) fn deadline(law: &PollingLaw) -> TimeDelta {
    TimeDelta::from_std(law.deadline).unwrap_or(TimeDelta::days(365))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
