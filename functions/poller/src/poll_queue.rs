//! The active jobs of one shard in memory, ordered by when each is due.
//!
//! An entry holds only what its next poll follows from, so that a shard may have a hundred
//! thousand. Jobs that have no callback are also cached whole, up to a limit: other functions
//! hardly ever change them, and a write based on a stale copy ends in a conflict.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::{JobId, ProviderName};
use domain::job::{Job, State};
use domain::polling::{PollSchedule, Slowdown, Suspicion, Tracking};

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
    memory: Memory,
    /// It was handed out, and is neither upserted nor postponed yet.
    in_flight: bool,
}

/// What this poller remembers of a job's polls. The job is not written for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Boxed, because few jobs have one.
    pub(crate) suspicion: Option<Box<Suspicion>>,
    /// Its provider has told of it.
    pub(crate) was_told: bool,
}

/// Requests a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Demand {
    pub(crate) regular: f64,
    pub(crate) suspects: f64,
}

/// A job that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) id: JobId,
    pub(crate) provider: ProviderName,
    pub(crate) task: Task,
    /// When it is asked about in any case.
    pub(crate) last_at: DateTime<Utc>,
    /// When it was asked about last, if it is a suspect.
    pub(crate) suspect_since: Option<DateTime<Utc>>,
    /// It is a suspect, and asked about like any other render.
    pub(crate) is_pardoned: bool,
    pub(crate) was_told: bool,
}

impl PollQueue {
    /// Takes a job as it was at `read_at`. One that has settled is removed.
    pub(crate) fn upsert(
        &mut self,
        job: Job,
        schedule: PollSchedule,
        last_polled: DateTime<Utc>,
        read_at: DateTime<Utc>,
        memory: Memory,
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
            next: plan.next(job.created_at, id.spread(), last_polled, memory.suspicion.as_deref()),
            last_polled,
            read_at,
            created_at: job.created_at,
            is_submitting: job.state == State::Submitting,
            job: cache.then(|| Box::new(job)),
            memory,
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
                let (last_polled, memory) = (entry.last_polled, entry.memory.clone());
                self.upsert(job, schedule, last_polled, read_at, memory);
            }
            None => {}
        }
    }

    /// Puts a job back whose poll has failed. It is due again at its next time.
    pub(crate) fn postpone(&mut self, id: &JobId, now: DateTime<Utc>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.in_flight = false;
            entry.last_polled = now;
            entry.plan_next(id);
            self.order.insert((entry.next.at, id.clone()));
        }
    }

    /// What is remembered of a job.
    pub(crate) fn memory(&self, id: &JobId) -> Memory {
        self.entries.get(id).map(|entry| entry.memory.clone()).unwrap_or_default()
    }

    /// Has a suspect asked about again soon that failed in an outage which is over. `from_pause`
    /// says whether it was more than its own.
    pub(crate) fn pardon(&mut self, id: &JobId, from_pause: bool, now: DateTime<Utc>) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(suspicion) = &mut entry.memory.suspicion else { return };
        if !from_pause && (suspicion.failures < 2 || !suspicion.may_probe(now)) {
            return;
        }
        **suspicion = suspicion.pardoned(id.spread(), now);
        if !entry.in_flight {
            self.order.remove(&(entry.next.at, id.clone()));
            entry.plan_next(id);
            self.order.insert((entry.next.at, id.clone()));
        }
    }

    /// Makes the provider's suspect due that is the best probe: one that is evidence of the outage
    /// if there is one, and of those the one that was asked about the longest time ago.
    pub(crate) fn bring_forward(
        &mut self,
        provider: &ProviderName,
        is_evidence: impl Fn(&JobId) -> bool,
        is_last_probe: impl Fn(&JobId) -> bool,
        now: DateTime<Utc>,
    ) {
        let suspects = self.entries.iter().filter_map(|(id, entry)| {
            let suspicion = entry.memory.suspicion.as_ref()?;
            let may = entry.provider == *provider
                && !entry.in_flight
                && entry.next.task == Task::Poll
                && suspicion.may_probe(now);
            may.then(|| (is_last_probe(id), !is_evidence(id), suspicion.asked_at, id))
        });
        let Some((_, _, _, id)) = suspects.min() else { return };
        let id = id.clone();
        if let Some(entry) = self.entries.get_mut(&id) {
            self.order.remove(&(entry.next.at, id.clone()));
            entry.next.at = entry.next.at.min(now);
            self.order.insert((entry.next.at, id));
        }
    }

    /// The suspects, at most so many: those that failed most often.
    pub(crate) fn suspects(&self, most: usize) -> Vec<(&JobId, &ProviderName, &Suspicion)> {
        let suspects = self.entries.iter().filter_map(|(id, entry)| {
            Some((id, &entry.provider, entry.memory.suspicion.as_deref()?))
        });
        let mut suspects: Vec<_> = suspects.collect();
        suspects.sort_unstable_by_key(|(id, _, it)| (std::cmp::Reverse(it.failures), *id));
        suspects.truncate(most);
        suspects
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
            due.push(entry.due(id, now));
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

    /// Whether the shard has jobs of this provider.
    pub(crate) fn has_jobs_of(&self, provider: &ProviderName) -> bool {
        self.entries.values().any(|entry| entry.provider == *provider)
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
    pub(crate) fn demand(&self, provider: &ProviderName, now: DateTime<Utc>) -> Demand {
        let theirs = self.entries.values().filter(|entry| entry.provider == *provider);
        theirs.fold(Demand::default(), |sum, entry| match &entry.memory.suspicion {
            Some(it) => Demand { suspects: sum.suspects + it.poll_rate(), ..sum },
            None => {
                let rate = entry.plan.poll_rate(entry.created_at, now);
                Demand { regular: sum.regular + rate, ..sum }
            }
        })
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
                entry.plan_next(id);
                self.order.insert((entry.next.at, id.clone()));
            }
        }
    }
}

impl QueuedJob {
    fn plan_next(&mut self, id: &JobId) {
        let suspicion = self.memory.suspicion.as_deref();
        self.next = self.plan.next(self.created_at, id.spread(), self.last_polled, suspicion);
    }

    /// The job handed out now.
    fn due(&self, id: JobId, now: DateTime<Utc>) -> Due {
        let last_at = self.plan.last_at(self.created_at, self.last_polled);
        let last_at = last_at.unwrap_or(self.next.at);
        let task = match self.next.task {
            Task::Poll if last_at <= now => Task::Deadline,
            task @ (Task::Poll | Task::Repair | Task::Deadline) => task,
        };
        let suspicion = self.memory.suspicion.as_deref();
        Due {
            id,
            provider: self.provider.clone(),
            task,
            last_at: if task == Task::Deadline { last_at.min(now) } else { last_at },
            suspect_since: suspicion.map(|suspicion| suspicion.asked_at),
            is_pardoned: suspicion.is_some_and(|suspicion| suspicion.is_pardoned),
            was_told: self.memory.was_told,
        }
    }
}
