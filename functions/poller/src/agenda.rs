//! What is due when: the active jobs of one shard, in memory for as long as somebody looks
//! after it.
//!
//! Of each job only as much is kept as its next look follows from, so that a shard may have a
//! hundred thousand. The whole job is kept of those that only we ask about, up to a limit:
//! hardly anybody else changes them, and a change that was missed is noticed by the
//! conditional write.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::{JobId, ProviderName};
use domain::job::{Job, State};
use domain::polling::{PollingLaw, Slowdown, Tracking};

use crate::plan::{NextLook, Plan, Task};

/// How many whole jobs are kept: some ten megabytes.
const MOST_KEPT: usize = 8_000;

/// After how long a job is read anew that others may have changed.
const STALE: TimeDelta = TimeDelta::minutes(2);

/// How long a job may be missing from the index before that means that it has left: the index
/// follows the table with a delay.
const INDEX_LAG: TimeDelta = TimeDelta::seconds(15);

/// The active jobs of one shard.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: HashMap<JobId, Entry>,
    /// Those that are not out, by when they are due.
    order: BTreeSet<(DateTime<Utc>, JobId)>,
    kept: usize,
}

#[derive(Debug)]
struct Entry {
    provider: ProviderName,
    plan: Plan,
    next: NextLook,
    /// When it was last looked at, or would have been.
    looked: DateTime<Utc>,
    read_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    is_submitting: bool,
    job: Option<Box<Job>>,
    /// Somebody is at it, until it is learnt or postponed.
    is_out: bool,
}

/// A job that is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) id: JobId,
    pub(crate) provider: ProviderName,
    pub(crate) task: Task,
}

impl Agenda {
    /// Takes a job as it was at `read_at`; it was last looked at, or would have been, at
    /// `looked`. One that is over is forgotten.
    pub(crate) fn learn(
        &mut self,
        job: Job,
        law: PollingLaw,
        looked: DateTime<Utc>,
        read_at: DateTime<Utc>,
    ) {
        self.forget(&job.id);
        if job.settled_at.is_some() {
            return;
        }
        let plan = Plan::of(&job, law);
        let id = job.id.clone();
        let keep = job.request.tracking == Tracking::PollOnly && self.kept < MOST_KEPT;
        let entry = Entry {
            provider: job.request.provider.clone(),
            plan,
            next: plan.next(job.created_at, id.spread(), looked),
            looked,
            read_at,
            created_at: job.created_at,
            is_submitting: job.state == State::Submitting,
            job: keep.then(|| Box::new(job)),
            is_out: false,
        };
        self.kept += usize::from(keep);
        self.order.insert((entry.next.at, id.clone()));
        self.entries.insert(id, entry);
    }

    /// Takes a known job as it was read anew, unless somebody is at it and knows better.
    pub(crate) fn refresh(&mut self, job: Job, law: PollingLaw, read_at: DateTime<Utc>) {
        match self.entries.get(&job.id) {
            Some(entry) if entry.is_out => {}
            Some(entry) => {
                let looked = entry.looked;
                self.learn(job, law, looked, read_at);
            }
            None => {}
        }
    }

    /// Puts a job back that somebody was at in vain: its next look is one later.
    pub(crate) fn postpone(&mut self, id: &JobId, now: DateTime<Utc>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.is_out = false;
            entry.looked = now;
            entry.next = entry.plan.next(entry.created_at, id.spread(), now);
            self.order.insert((entry.next.at, id.clone()));
        }
    }

    /// Forgets a job that is over.
    pub(crate) fn forget(&mut self, id: &JobId) {
        if let Some(entry) = self.entries.remove(id) {
            self.kept -= usize::from(entry.job.is_some());
            self.order.remove(&(entry.next.at, id.clone()));
        }
    }

    /// Forgets what the whole index, read at `read_at`, no longer lists.
    pub(crate) fn forget_all_but(&mut self, listed: &HashSet<JobId>, read_at: DateTime<Utc>) {
        let is_gone = |(id, entry): &(&JobId, &Entry)| {
            !listed.contains(*id) && !entry.is_out && entry.created_at < read_at - INDEX_LAG
        };
        let gone: Vec<JobId> =
            self.entries.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.forget(&id);
        }
    }

    /// Hands out what is due.
    pub(crate) fn take_due(&mut self, now: DateTime<Utc>) -> Vec<Due> {
        let mut due = Vec::new();
        while self.order.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.order.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.is_out = true;
            let task = match entry.plan.is_overripe(entry.created_at, now) {
                true => Task::GiveUp,
                false => entry.next.task,
            };
            due.push(Due { id, provider: entry.provider.clone(), task });
        }
        due
    }

    /// The job of an entry that is out, if it is kept whole.
    pub(crate) fn take_job(&mut self, id: &JobId) -> Option<Box<Job>> {
        let job = self.entries.get_mut(id)?.job.take();
        self.kept -= usize::from(job.is_some());
        job
    }

    /// When a job was due that is out.
    pub(crate) fn was_due(&self, id: &JobId) -> Option<DateTime<Utc>> {
        self.entries.get(id).map(|entry| entry.next.at)
    }

    /// When the next job is due, of those that are not out.
    pub(crate) fn next_at(&self) -> Option<DateTime<Utc>> {
        self.order.first().map(|(at, _)| *at)
    }

    /// How many jobs there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn knows(&self, id: &JobId) -> bool {
        self.entries.contains_key(id)
    }

    /// The jobs to be read anew: those that others may have changed meanwhile, and those whose
    /// submit was under way.
    pub(crate) fn stale(&self, now: DateTime<Utc>) -> Vec<JobId> {
        let is_stale = |entry: &Entry| {
            let may_have_changed = entry.job.is_none() && entry.read_at <= now - STALE;
            !entry.is_out && (entry.is_submitting || may_have_changed)
        };
        let stale = self.entries.iter().filter(|(_, entry)| is_stale(entry));
        let mut stale: Vec<JobId> = stale.map(|(id, _)| id.clone()).collect();
        stale.sort_unstable();
        stale
    }

    /// How many questions a second a provider's jobs ask for.
    pub(crate) fn wanted_rate(&self, provider: &ProviderName, now: DateTime<Utc>) -> f64 {
        let theirs = self.entries.values().filter(|entry| entry.provider == *provider);
        theirs.map(|entry| entry.plan.wanted_rate(entry.created_at, now)).sum()
    }

    /// Has a provider's jobs asked about so much more rarely.
    pub(crate) fn slow_down(&mut self, provider: &ProviderName, slowdown: Slowdown) {
        for (id, entry) in &mut self.entries {
            let Plan::Ask(tracking, law) = entry.plan else { continue };
            if entry.provider != *provider || law.slowdown == slowdown {
                continue;
            }
            entry.plan = Plan::Ask(tracking, PollingLaw { slowdown, ..law });
            if !entry.is_out {
                self.order.remove(&(entry.next.at, id.clone()));
                entry.next = entry.plan.next(entry.created_at, id.spread(), entry.looked);
                self.order.insert((entry.next.at, id.clone()));
            }
        }
    }
}
