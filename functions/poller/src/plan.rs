//! What a job needs next and when: a pure function of the job and of the time of its last poll.
//! A task either repairs what a crash left unfinished or polls the provider. Poll times are never
//! stored.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::job::{Job, State};
use domain::polling::{PollSchedule, Tracking};

/// How old a submit without an answer is when it is repaired. The submit function times out
/// after 29 s, so by then it no longer waits for the answer.
pub(crate) const SUBMIT_TIMEOUT_GRACE: TimeDelta = TimeDelta::seconds(45);

/// How long a function that stored an outbox may take to publish it. After that it has crashed.
pub(crate) const PUBLISH_GRACE: TimeDelta = TimeDelta::seconds(15);

/// How long past its deadline a job waits for a provider that is down, because the render may
/// have completed all the same.
pub(crate) const MAX_OUTAGE: TimeDelta = TimeDelta::hours(6);

/// How often a job past its deadline is polled.
const LATE_POLL_EVERY: TimeDelta = TimeDelta::seconds(60);

/// How often a repair is tried until it works.
const REPAIR_RETRY_EVERY: TimeDelta = TimeDelta::seconds(10);

/// The least time between two searches for a render whose submit had no answer.
const MIN_SEARCH_INTERVAL: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextTask {
    pub(crate) at: DateTime<Utc>,
    pub(crate) task: Task,
}

/// What a due job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Ask the provider for the render's status.
    Poll,
    /// Finish what a crashed function has begun. That asks no provider.
    Repair,
    /// Ask once more if the provider is not paused, and give the job up unless the answer ends
    /// it.
    GiveUp,
}

/// Whether a poll may ask the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollTarget {
    Provider {
        /// The provider has failed so often in a row that this failure is not the job's.
        is_down: bool,
    },
    NoProvider,
}

/// What a job needs until it changes. The poll queue keeps this instead of the whole job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    /// Repair it from then on.
    Repair(DateTime<Utc>),
    Poll(Tracking, PollSchedule),
}

impl Plan {
    pub(crate) fn of(job: &Job, schedule: PollSchedule) -> Self {
        if let Some(oldest) = job.outbox.iter().map(|entry| entry.at).min() {
            return Self::Repair(oldest + PUBLISH_GRACE);
        }
        match job.state {
            State::Submitting => Self::Repair(job.created_at + SUBMIT_TIMEOUT_GRACE),
            State::Completed | State::Failed | State::Cancelled => Self::Repair(job.created_at),
            // While it is unknown whether there is a render, no callback is expected.
            State::SubmitUnknown => {
                let floor = schedule.floor.max(MIN_SEARCH_INTERVAL);
                Self::Poll(Tracking::PollOnly, PollSchedule { floor, ..schedule })
            }
            State::Queued | State::Processing | State::TimedOut => {
                Self::Poll(job.request.tracking, schedule)
            }
        }
    }

    /// The first task after `last_polled`. The times form a fixed series per job, so any time
    /// between two of its members gives the same answer: a poller that continues after a sleep
    /// knows only up to when all polls were made, and not when each job was polled.
    pub(crate) fn next(
        &self,
        created_at: DateTime<Utc>,
        spread: f64,
        last_polled: DateTime<Utc>,
    ) -> NextTask {
        match self {
            Self::Repair(at) => NextTask {
                at: next_in_series(*at, REPAIR_RETRY_EVERY, last_polled),
                task: Task::Repair,
            },
            Self::Poll(tracking, schedule) => {
                let age = (last_polled - created_at).to_std().unwrap_or_default();
                let at = match age < schedule.deadline {
                    true => created_at + schedule.next_after(*tracking, age, spread),
                    false => next_in_series(
                        created_at + deadline(schedule),
                        LATE_POLL_EVERY,
                        last_polled,
                    ),
                };
                NextTask { at, task: Task::Poll }
            }
        }
    }

    /// How many requests a second the job would make at its age.
    pub(crate) fn poll_rate(&self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
        match self {
            Self::Repair(_) => 0.0,
            Self::Poll(tracking, schedule) => {
                schedule.poll_rate(*tracking, (now - created_at).to_std().unwrap_or_default())
            }
        }
    }

    /// Whether the job is past its deadline by [`MAX_OUTAGE`] or more. It is then given up even
    /// if its provider is paused.
    pub(crate) fn is_past_outage_limit(
        &self,
        created_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> bool {
        match self {
            Self::Repair(_) => false,
            Self::Poll(_, schedule) => now - created_at >= deadline(schedule) + MAX_OUTAGE,
        }
    }
}

/// The first time after `past` in a series that begins at `first`.
fn next_in_series(first: DateTime<Utc>, step: TimeDelta, past: DateTime<Utc>) -> DateTime<Utc> {
    if past < first {
        return first;
    }
    let steps = (past - first).num_seconds() / step.num_seconds() + 1;
    first + step * i32::try_from(steps).unwrap_or(i32::MAX)
}

/// The age at which a job is given up, unless its provider is down.
pub(crate) fn deadline(schedule: &PollSchedule) -> TimeDelta {
    TimeDelta::from_std(schedule.deadline).unwrap_or(TimeDelta::days(365))
}

#[cfg(test)]
mod tests;
