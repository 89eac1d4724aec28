//! The active jobs of one shard in memory, ordered by when each is due.
//!
//! An entry holds only what its next poll follows from, so that a shard may have a hundred
//! thousand. Jobs that have no callback are also cached whole, up to a limit: other functions
//! hardly ever change them, and a write based on a stale copy ends in a conflict.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::{JobId, ProviderName};
use domain::job::{Job, State};
use domain::polling::{PollSchedule, Slowdown, Tracking};

use crate::plan::{NextTask, Plan, Task};

/// The most jobs that are cached whole: some ten megabytes.
const MAX_CACHED_JOBS: usize = 8_000;

/// After how long a job that is not cached is read again, because a callback may have changed
/// it.
const STALE: TimeDelta = TimeDelta::minutes(2);

/// The index lags behind the table. A job younger than this is not removed because a list lacks
/// it.
const UNLISTED_GRACE: TimeDelta = TimeDelta::seconds(15);

#[derive(Debug, Default)]
pub(crate) struct PollQueue {
    entries: HashMap<JobId, QueuedJob>,
    /// The entries that are not in flight, by when they are due.
    order: BTreeSet<(DateTime<Utc>, JobId)>,
    cached: usize,
}

#[derive(Debug)]
struct QueuedJob {
    provider: ProviderName,
    plan: Plan,
    next: NextTask,
    /// When it was last polled, or would have been had the last holder known of it.
    last_polled: DateTime<Utc>,
    read_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    is_submitting: bool,
    job: Option<Box<Job>>,
    /// It was handed out, and is neither upserted nor postponed yet.
    in_flight: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) id: JobId,
    pub(crate) provider: ProviderName,
    pub(crate) task: Task,
}

impl PollQueue {
    /// Takes a job as it was at `read_at`. One that has settled is removed.
    pub(crate) fn upsert(
        &mut self,
        job: Job,
        schedule: PollSchedule,
        last_polled: DateTime<Utc>,
        read_at: DateTime<Utc>,
    ) {
        self.remove(&job.id);
        if job.settled_at.is_some() {
            return;
        }
        let plan = Plan::of(&job, schedule);
        let id = job.id.clone();
        let cache = job.request.tracking == Tracking::PollOnly && self.cached < MAX_CACHED_JOBS;
        let entry = QueuedJob {
            provider: job.request.provider.clone(),
            plan,
            next: plan.next(job.created_at, id.spread(), last_polled),
            last_polled,
            read_at,
            created_at: job.created_at,
            is_submitting: job.state == State::Submitting,
            job: cache.then(|| Box::new(job)),
            in_flight: false,
        };
        self.cached += usize::from(cache);
        self.order.insert((entry.next.at, id.clone()));
        self.entries.insert(id, entry);
    }

    /// Takes a known job that was read again, unless it is in flight: its poll will know better.
    pub(crate) fn refresh(&mut self, job: Job, schedule: PollSchedule, read_at: DateTime<Utc>) {
        match self.entries.get(&job.id) {
            Some(entry) if entry.in_flight => {}
            Some(entry) => {
                let last_polled = entry.last_polled;
                self.upsert(job, schedule, last_polled, read_at);
            }
            None => {}
        }
    }

    /// Puts a job back whose poll has failed. It is due again at its next time.
    pub(crate) fn postpone(&mut self, id: &JobId, now: DateTime<Utc>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.in_flight = false;
            entry.last_polled = now;
            entry.next = entry.plan.next(entry.created_at, id.spread(), now);
            self.order.insert((entry.next.at, id.clone()));
        }
    }

    pub(crate) fn remove(&mut self, id: &JobId) {
        if let Some(entry) = self.entries.remove(id) {
            self.cached -= usize::from(entry.job.is_some());
            self.order.remove(&(entry.next.at, id.clone()));
        }
    }

    /// Removes the jobs that the whole index, read at `read_at`, no longer lists.
    pub(crate) fn remove_unlisted(&mut self, listed: &HashSet<JobId>, read_at: DateTime<Utc>) {
        let is_gone = |(id, entry): &(&JobId, &QueuedJob)| {
            !listed.contains(*id) && !entry.in_flight && entry.created_at < read_at - UNLISTED_GRACE
        };
        let gone: Vec<JobId> =
            self.entries.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove(&id);
        }
    }

    /// Hands out the jobs that are due. Each is in flight from then on.
    pub(crate) fn take_due(&mut self, now: DateTime<Utc>) -> Vec<Due> {
        let mut due = Vec::new();
        while self.order.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.order.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.in_flight = true;
            let task = match entry.next.task {
                Task::Poll if entry.plan.is_past_outage_limit(entry.created_at, now) => {
                    Task::GiveUp
                }
                task @ (Task::Poll | Task::Repair | Task::GiveUp) => task,
            };
            due.push(Due { id, provider: entry.provider.clone(), task });
        }
        due
    }

    /// Takes a cached job out of its entry, which must be in flight.
    pub(crate) fn take_job(&mut self, id: &JobId) -> Option<Box<Job>> {
        let job = self.entries.get_mut(id)?.job.take();
        self.cached -= usize::from(job.is_some());
        job
    }

    /// When a job in flight was due.
    pub(crate) fn due_at(&self, id: &JobId) -> Option<DateTime<Utc>> {
        self.entries.get(id).map(|entry| entry.next.at)
    }

    /// When the next job is due that is not in flight.
    pub(crate) fn next_at(&self) -> Option<DateTime<Utc>> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn contains(&self, id: &JobId) -> bool {
        self.entries.contains_key(id)
    }

    /// The jobs to be read again: those that another function may have changed meanwhile, and
    /// those whose submit had no answer yet.
    pub(crate) fn stale(&self, now: DateTime<Utc>) -> Vec<JobId> {
        let is_stale = |entry: &QueuedJob| {
            let may_have_changed = entry.job.is_none() && entry.read_at <= now - STALE;
            !entry.in_flight && (entry.is_submitting || may_have_changed)
        };
        let stale = self.entries.iter().filter(|(_, entry)| is_stale(entry));
        let mut stale: Vec<JobId> = stale.map(|(id, _)| id.clone()).collect();
        stale.sort_unstable();
        stale
    }

    /// How many requests a second a provider's jobs would make.
    pub(crate) fn poll_rate(&self, provider: &ProviderName, now: DateTime<Utc>) -> f64 {
        let theirs = self.entries.values().filter(|entry| entry.provider == *provider);
        theirs.map(|entry| entry.plan.poll_rate(entry.created_at, now)).sum()
    }

    /// Slows the polls of a provider's jobs down.
    pub(crate) fn slow_down(&mut self, provider: &ProviderName, slowdown: Slowdown) {
        for (id, entry) in &mut self.entries {
            let Some(schedule) = entry.plan.schedule_mut() else { continue };
            if entry.provider != *provider || schedule.slowdown == slowdown {
                continue;
            }
            schedule.slowdown = slowdown;
            if !entry.in_flight {
                self.order.remove(&(entry.next.at, id.clone()));
                entry.next = entry.plan.next(entry.created_at, id.spread(), entry.last_polled);
                self.order.insert((entry.next.at, id.clone()));
            }
        }
    }
}
