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

/// The wait before a repair that has failed is tried again. It doubles, up to the longest: while
/// the bus is missing, thousands of jobs wait for it, and none of them is in a hurry.
const REPAIR_RETRY: TimeDelta = TimeDelta::seconds(10);
const LONGEST_REPAIR_RETRY: TimeDelta = TimeDelta::seconds(320);

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

/// What a job is dispatched for, and whether its provider may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollTarget {
    Provider {
        /// The provider has failed so often in a row that this failure is not the job's.
        is_down: bool,
    },
    NoProvider,
    /// A repair, which asks no provider.
    Repair,
}

/// What a job needs until it changes. The poll queue keeps this instead of the whole job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    /// Repair it from then on.
    Repair(DateTime<Utc>),
    Poll(Tracking, PollSchedule),
    /// Both: an event that cannot be published is no reason not to look for the next one.
    RepairAndPoll {
        repair_from: DateTime<Utc>,
        tracking: Tracking,
        schedule: PollSchedule,
        /// Its polls end at the deadline, because it has timed out already.
        ends_at_deadline: bool,
    },
}

impl Plan {
    pub(crate) fn of(job: &Job, schedule: PollSchedule) -> Self {
        // The newest entry: the process that stored it publishes the older ones too.
        let repair_from = job.outbox.iter().map(|entry| entry.at + PUBLISH_GRACE).max();
        let (tracking, schedule) = match job.state {
            State::Submitting => return Self::Repair(job.created_at + SUBMIT_TIMEOUT_GRACE),
            State::Completed | State::Failed | State::Cancelled => {
                let ended_at = job.ended_at().unwrap_or(job.created_at);
                return Self::Repair(repair_from.unwrap_or(ended_at));
            }
            // While it is unknown whether there is a render, no callback is expected.
            State::SubmitUnknown => {
                let floor = schedule.floor.max(MIN_SEARCH_INTERVAL);
                (Tracking::PollOnly, PollSchedule { floor, ..schedule })
            }
            State::Queued | State::Processing | State::TimedOut => (job.request.tracking, schedule),
        };
        match repair_from {
            None => Self::Poll(tracking, schedule),
            Some(repair_from) => Self::RepairAndPoll {
                repair_from,
                tracking,
                schedule,
                ends_at_deadline: job.state == State::TimedOut,
            },
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
        let age = (last_polled - created_at).to_std().unwrap_or_default();
        let repair =
            |from| NextTask { at: next_repair(from, spread, last_polled), task: Task::Repair };
        let poll = |tracking, schedule: &PollSchedule| {
            let at = match age < schedule.deadline {
                true => created_at + schedule.next_after(tracking, age, spread),
                false => {
                    next_in_series(created_at + deadline(schedule), LATE_POLL_EVERY, last_polled)
                }
            };
            NextTask { at, task: Task::Poll }
        };
        match self {
            Self::Repair(from) => repair(*from),
            Self::Poll(tracking, schedule) => poll(*tracking, schedule),
            Self::RepairAndPoll { repair_from, tracking, schedule, ends_at_deadline } => {
                let (repair, poll) = (repair(*repair_from), poll(*tracking, schedule));
                let is_over = *ends_at_deadline && poll.at >= created_at + deadline(schedule);
                if is_over || repair.at <= poll.at { repair } else { poll }
            }
        }
    }

    /// The schedule of the job's polls, if it is polled.
    pub(crate) fn schedule_mut(&mut self) -> Option<&mut PollSchedule> {
        match self {
            Self::Repair(_) => None,
            Self::Poll(_, schedule) | Self::RepairAndPoll { schedule, .. } => Some(schedule),
        }
    }

    /// How many requests a second the job would make at its age.
    pub(crate) fn poll_rate(&self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
        match self {
            Self::Repair(_) => 0.0,
            Self::Poll(tracking, schedule) | Self::RepairAndPoll { tracking, schedule, .. } => {
                schedule.poll_rate(*tracking, (now - created_at).to_std().unwrap_or_default())
            }
        }
    }

    /// Whether the job is past its deadline by [`MAX_OUTAGE`] or more. Its next poll then gives
    /// it up even if its provider is paused.
    pub(crate) fn is_past_outage_limit(
        &self,
        created_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> bool {
        match self {
            Self::Repair(_) => false,
            Self::Poll(_, schedule) | Self::RepairAndPoll { schedule, .. } => {
                now - created_at >= deadline(schedule) + MAX_OUTAGE
            }
        }
    }
}

/// The first time after `past` at which a repair that is due from `from` is tried. Jobs that
/// ended together are spread over the longer waits.
fn next_repair(from: DateTime<Utc>, spread: f64, past: DateTime<Utc>) -> DateTime<Utc> {
    let (mut at, mut wait) = (from, REPAIR_RETRY);
    while at <= past && wait < LONGEST_REPAIR_RETRY {
        at += spread_out(wait, spread);
        wait = wait * 2;
    }
    next_in_series(at, spread_out(LONGEST_REPAIR_RETRY, spread), past)
}

/// Shorter or longer by up to a quarter.
fn spread_out(wait: TimeDelta, spread: f64) -> TimeDelta {
    let factor = 0.75 + spread / 2.0;
    wait.to_std()
        .ok()
        .and_then(|wait| TimeDelta::from_std(wait.mul_f64(factor)).ok())
        .unwrap_or(wait)
}

/// The first time after `past` in a series that begins at `first`.
fn next_in_series(first: DateTime<Utc>, step: TimeDelta, past: DateTime<Utc>) -> DateTime<Utc> {
    if past < first {
        return first;
    }
    let steps = (past - first).num_milliseconds() / step.num_milliseconds().max(1) + 1;
    first + step * i32::try_from(steps).unwrap_or(i32::MAX)
}

/// The age at which a job is given up, unless its provider is down.
pub(crate) fn deadline(schedule: &PollSchedule) -> TimeDelta {
    TimeDelta::from_std(schedule.deadline).unwrap_or(TimeDelta::days(365))
}

#[cfg(test)]
mod tests;
