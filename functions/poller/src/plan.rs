//! What a job needs next and when: a pure function of the job and of the time of its last poll.
//! A task either repairs what a crash left unfinished or polls the provider. Poll times are never
//! stored.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::job::{Job, State};
use domain::polling::{LONGEST_OUTAGE, PollSchedule, Suspicion, Tracking};

/// How old a submit without an answer is when it is repaired. The submit function times out
/// after 29 s, so by then it no longer waits for the answer.
pub(crate) const SUBMIT_TIMEOUT_GRACE: TimeDelta = TimeDelta::seconds(45);

/// How long a function that stored an outbox may take to publish it. After that it has crashed.
pub(crate) const PUBLISH_GRACE: TimeDelta = TimeDelta::seconds(15);

/// How often a job is polled that is past its deadline and has not timed out yet.
const LATE_POLL_EVERY: TimeDelta = TimeDelta::seconds(60);

/// The wait before a job that timed out is polled again. It doubles, up to the longest.
const TIMED_OUT_WAIT: TimeDelta = TimeDelta::minutes(1);
const LONGEST_TIMED_OUT_WAIT: TimeDelta = TimeDelta::minutes(32);

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
    /// Ask once more, also while the provider is paused: the job's deadline is over, or the time
    /// for which it is asked about after that.
    Deadline,
}

/// What a job is dispatched for, and whether its provider may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollTarget {
    Provider,
    /// The provider is paused, and so many deadlines are over that this job's turn does not come.
    NoProvider,
    /// A repair, which asks no provider.
    Repair,
}

/// What a job needs until it changes. The poll queue keeps this instead of the whole job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    /// Repair it from then on.
    Repair(DateTime<Utc>),
    Poll(Polls),
    /// Both: an event that cannot be published is no reason not to look for the next one.
    RepairAndPoll(DateTime<Utc>, Polls),
}

/// How a job is polled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Polls {
    tracking: Tracking,
    schedule: PollSchedule,
    /// It has timed out, and may still complete.
    has_ended: bool,
}

impl Plan {
    pub(crate) fn of(job: &Job, schedule: PollSchedule) -> Self {
        // The newest entry: the process that stored it publishes the older ones too.
        let repair_from = job.outbox.iter().map(|entry| entry.at + PUBLISH_GRACE).max();
        let (tracking, schedule) = match job.state {
            State::Submitting => return Self::Repair(job.created_at + SUBMIT_TIMEOUT_GRACE),
            // Its submit was never confirmed, and its render may be found all the same.
            State::Failed if !job.is_final() => (Tracking::PollOnly, schedule),
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
        let polls = Polls { tracking, schedule, has_ended: job.state.has_ended() };
        match repair_from {
            None => Self::Poll(polls),
            Some(repair_from) => Self::RepairAndPoll(repair_from, polls),
        }
    }

    /// The first task after `last_polled`. The times form a fixed series per job, so any time
    /// between two of its members gives the same answer: a poller that continues after a sleep
    /// knows only up to when all polls were made, and not when each job was polled. The polls of
    /// a suspect are put off.
    pub(crate) fn next(
        &self,
        created_at: DateTime<Utc>,
        spread: f64,
        last_polled: DateTime<Utc>,
        suspicion: Option<&Suspicion>,
    ) -> NextTask {
        let repair =
            |from| NextTask { at: next_repair(from, spread, last_polled), task: Task::Repair };
        let poll = |polls: &Polls| polls.next(created_at, spread, last_polled, suspicion);
        match self {
            Self::Repair(from) => repair(*from),
            Self::Poll(polls) => poll(polls),
            Self::RepairAndPoll(repair_from, polls) => {
                let (repair, poll) = (repair(*repair_from), poll(polls));
                if repair.at <= poll.at { repair } else { poll }
            }
        }
    }

    /// When the job is asked about in any case, if it is polled.
    pub(crate) fn last_at(
        &self,
        created_at: DateTime<Utc>,
        last_polled: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        match self {
            Self::Repair(_) => None,
            Self::Poll(polls) | Self::RepairAndPoll(_, polls) => {
                Some(polls.last_at(created_at, last_polled))
            }
        }
    }

    /// The schedule of the job's polls, if it is polled.
    pub(crate) fn schedule_mut(&mut self) -> Option<&mut PollSchedule> {
        match self {
            Self::Repair(_) => None,
            Self::Poll(polls) | Self::RepairAndPoll(_, polls) => Some(&mut polls.schedule),
        }
    }

    /// How many requests a second the job would make at its age.
    pub(crate) fn poll_rate(&self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
        match self {
            Self::Repair(_) => 0.0,
            Self::Poll(Polls { tracking, schedule, .. })
            | Self::RepairAndPoll(_, Polls { tracking, schedule, .. }) => {
                schedule.poll_rate(*tracking, (now - created_at).to_std().unwrap_or_default())
            }
        }
    }
}

impl Polls {
    fn next(
        &self,
        created_at: DateTime<Utc>,
        spread: f64,
        last_polled: DateTime<Utc>,
        suspicion: Option<&Suspicion>,
    ) -> NextTask {
        let due_at = created_at + deadline(&self.schedule);
        let given_up_at = due_at + LONGEST_OUTAGE;
        let age = (last_polled - created_at).to_std().unwrap_or_default();
        let planned = if age < self.schedule.deadline {
            created_at + self.schedule.next_after(self.tracking, age, spread)
        } else if self.has_ended && last_polled < given_up_at {
            let (first, most) = (TIMED_OUT_WAIT, LONGEST_TIMED_OUT_WAIT);
            next_of_growing(due_at, first, most, spread, last_polled).min(given_up_at)
        } else {
            next_in_series(due_at, LATE_POLL_EVERY, last_polled)
        };
        let last_at = self.last_at(created_at, last_polled);
        let at = match suspicion {
            Some(suspicion) if self.has_ended || last_polled < due_at => {
                suspicion.due(planned, last_at)
            }
            // A job that is to time out now does not wait for its render.
            Some(_) | None => planned,
        };
        let is_last = at >= last_at || !self.has_ended && at >= due_at;
        NextTask { at, task: if is_last { Task::Deadline } else { Task::Poll } }
    }

    /// When the job is asked about in any case: at its deadline, then before it is given up.
    fn last_at(&self, created_at: DateTime<Utc>, last_polled: DateTime<Utc>) -> DateTime<Utc> {
        let due_at = created_at + deadline(&self.schedule);
        if last_polled < due_at { due_at } else { due_at + LONGEST_OUTAGE }
    }
}

/// The first time after `past` at which a repair that is due from `from` is tried. Jobs that
/// ended together are spread over the longer waits.
fn next_repair(from: DateTime<Utc>, spread: f64, past: DateTime<Utc>) -> DateTime<Utc> {
    next_of_growing(from, REPAIR_RETRY, LONGEST_REPAIR_RETRY, spread, past)
}

/// The first time after `past` in a series that begins at `from`, with waits that double from
/// `first` to `longest`.
fn next_of_growing(
    from: DateTime<Utc>,
    first: TimeDelta,
    longest: TimeDelta,
    spread: f64,
    past: DateTime<Utc>,
) -> DateTime<Utc> {
    let (mut at, mut wait) = (from, first);
    while at <= past && wait < longest {
        at += spread_out(wait, spread);
        wait = wait * 2;
    }
    next_in_series(at, spread_out(longest, spread), past)
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

/// The age at which a job times out.
pub(crate) fn deadline(schedule: &PollSchedule) -> TimeDelta {
    TimeDelta::from_std(schedule.deadline).unwrap_or(TimeDelta::days(365))
}

#[cfg(test)]
mod tests;
