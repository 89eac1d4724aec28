//! Which jobs the shard has: when the index of active jobs is listed, which of the listed jobs
//! are read, and when a job that is read for the first time was last polled.

use std::collections::{BTreeMap, HashSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::{JobId, ProviderName};
use domain::job::Job;
use domain::polling::{Pause, Suspicion};
use shared::store::{Store, StoreError};
use shared::telemetry::chain;
use tracing::warn;

use crate::claim::CatchUp;
use crate::poll_queue::PollQueue;

/// How often new jobs are listed.
const LIST_NEW_EVERY: TimeDelta = TimeDelta::seconds(2);

/// How far a list of new jobs reaches back before the last list: the index lags behind the
/// table, and a job's time in it is that of its request.
const LIST_OVERLAP: TimeDelta = TimeDelta::seconds(15);

/// How often the whole index is listed.
const FULL_LIST_EVERY: TimeDelta = TimeDelta::seconds(20);

/// The whole index is listed more rarely in a large shard: each job adds this much.
const FULL_LIST_PER_JOB: TimeDelta = TimeDelta::milliseconds(1);

/// The most jobs that are polled at once, the oldest first: the smallest function has memory
/// for as many. The others follow as these settle.
const MAX_JOBS: usize = 100_000;

/// How many jobs one call reads.
const READ_BATCH: usize = 100;

const MAX_CONCURRENT_READS: usize = 8;

/// How long a new job may be missing from the index before the poller gives up on it.
const NEW_JOB_GRACE: TimeDelta = TimeDelta::seconds(6);

/// What a list covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    New,
    Full,
}

/// A list of active jobs that has completed.
#[derive(Debug)]
pub(crate) struct Listing {
    scope: Scope,
    /// When it began.
    at: DateTime<Utc>,
    ids: Result<Vec<JobId>, StoreError>,
}

/// A read of jobs that has completed.
#[derive(Debug)]
pub(crate) struct JobRead {
    /// When it began.
    pub(crate) at: DateTime<Utc>,
    jobs: Result<Vec<Job>, StoreError>,
}

/// The lists and reads of one shard.
#[derive(Debug)]
pub(crate) struct Lister {
    shard: u32,
    catch_up: CatchUp,
    /// The providers that were paused when the poller began.
    initial_pauses: BTreeMap<ProviderName, Pause>,
    /// A job created then or later has sent a wake-up call, and is not in the index yet.
    awaited_since: Option<DateTime<Utc>>,
    /// Listed jobs that are still to be read.
    pending: VecDeque<JobId>,
    is_listing: bool,
    reads_in_flight: usize,
    listed_at: DateTime<Utc>,
    full_list_at: DateTime<Utc>,
    /// All jobs that were active at the beginning are read.
    is_complete: bool,
}

impl Lister {
    pub(crate) fn new(
        shard: u32,
        catch_up: CatchUp,
        initial_pauses: BTreeMap<ProviderName, Pause>,
        start: DateTime<Utc>,
    ) -> Self {
        Self {
            shard,
            awaited_since: catch_up.new_since,
            catch_up,
            initial_pauses,
            pending: VecDeque::new(),
            is_listing: false,
            reads_in_flight: 0,
            listed_at: start,
            full_list_at: start,
            is_complete: false,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// When the last list that has completed began.
    pub(crate) fn listed_at(&self) -> DateTime<Utc> {
        self.listed_at
    }

    /// Whether the job that sent the wake-up call may still appear in the index.
    pub(crate) fn awaits_new_job(&self, at: DateTime<Utc>) -> bool {
        self.awaited_since.is_some_and(|since| at < since + NEW_JOB_GRACE)
    }

    /// What is to be listed now in a shard with so many jobs.
    pub(crate) fn due_list(&self, jobs: usize, at: DateTime<Utc>) -> Option<Scope> {
        let is_busy = self.is_listing || !self.pending.is_empty();
        match is_busy {
            true => None,
            false => due_scope(self.listed_at, self.full_list_at, jobs, at),
        }
    }

    /// When new jobs are to be listed next; none before the first list is read.
    pub(crate) fn next_list_at(&self) -> Option<DateTime<Utc>> {
        (self.is_complete && !self.is_listing).then(|| self.listed_at + LIST_NEW_EVERY)
    }

    /// Begins to list the index.
    pub(crate) fn list<'a>(
        &mut self,
        store: &'a Store,
        scope: Scope,
        at: DateTime<Utc>,
    ) -> impl Future<Output = Listing> + use<'a> {
        let from = match scope {
            Scope::New => Some(self.listed_at - LIST_OVERLAP),
            Scope::Full => None,
        };
        let shard = self.shard;
        self.is_listing = true;
        async move { Listing { scope, at, ids: store.active(shard, from).await } }
    }

    /// Takes what was listed: unknown jobs are to be read, and so are known jobs that may have
    /// changed. A full list also removes the jobs that it lacks.
    ///
    /// # Errors
    /// When the first list has failed. A later one is repeated.
    pub(crate) fn take_listing(
        &mut self,
        Listing { scope, at, ids }: Listing,
        poll_queue: &mut PollQueue,
    ) -> Result<(), StoreError> {
        self.is_listing = false;
        self.listed_at = at;
        let ids = match ids {
            Ok(ids) => ids,
            Err(cause) if !self.is_complete => return Err(cause),
            Err(cause) => {
                warn!(
                    shard = self.shard,
                    error = chain(&cause),
                    "active jobs list failed; will retry"
                );
                return Ok(());
            }
        };
        let room = MAX_JOBS.saturating_sub(poll_queue.len());
        let unknown = ids.iter().filter(|id| !poll_queue.contains(id));
        let unknown: Vec<JobId> = unknown.take(room).cloned().collect();
        if scope == Scope::Full && poll_queue.len() + unknown.len() >= MAX_JOBS {
            warn!(
                shard = self.shard,
                max = MAX_JOBS,
                "shard over job limit; youngest jobs not polled"
            );
        }
        self.pending.extend(unknown);
        if scope == Scope::Full {
            self.full_list_at = at;
            poll_queue.remove_unlisted(&ids.into_iter().collect::<HashSet<_>>(), at);
        }
        self.pending.extend(poll_queue.stale(at));
        Ok(())
    }

    /// Begins to read the next batch of pending jobs; none while enough reads are in flight.
    pub(crate) fn read_next<'a>(
        &mut self,
        store: &'a Store,
        at: DateTime<Utc>,
    ) -> Option<impl Future<Output = JobRead> + use<'a>> {
        if self.reads_in_flight >= MAX_CONCURRENT_READS || self.pending.is_empty() {
            return None;
        }
        let batch = self.pending.len().min(READ_BATCH);
        let ids: Vec<JobId> = self.pending.drain(..batch).collect();
        self.reads_in_flight += 1;
        Some(async move { JobRead { at, jobs: store.jobs_eventual(&ids).await } })
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// When jobs of the first list cannot be read. Later ones stay unknown, and so the next
    /// list has them read again.
    pub(crate) fn take_read(&mut self, read: JobRead) -> Result<Vec<Job>, StoreError> {
        self.reads_in_flight = self.reads_in_flight.saturating_sub(1);
        match read.jobs {
            Ok(jobs) => Ok(jobs),
            Err(cause) if !self.is_complete => Err(cause),
            Err(cause) => {
                warn!(shard = self.shard, error = chain(&cause), "job read failed; will retry");
                Ok(Vec::new())
            }
        }
    }

    /// Answers true once: when the jobs that were active at the beginning are read.
    pub(crate) fn becomes_complete(&mut self) -> bool {
        let is_read = !self.is_listing && self.reads_in_flight == 0 && self.pending.is_empty();
        let becomes = !self.is_complete && is_read;
        self.is_complete |= is_read;
        becomes
    }

    /// Takes a job that is read for the first time. Answers when it was last polled, or would
    /// have been: its creation if it never was.
    pub(crate) fn take_new_job(&mut self, job: &Job) -> DateTime<Utc> {
        self.awaited_since = self.awaited_since.filter(|since| job.created_at < *since);
        let pause = self.initial_pauses.get(&job.request.provider);
        let last_polled = match self.is_complete {
            true => job.created_at,
            false => last_polled(&self.catch_up, pause, job.created_at),
        };
        // A job that timed out was polled then.
        last_polled.max(job.created_at).max(job.ended_at().unwrap_or(job.created_at))
    }

    /// What the last holder knew of a job that its provider could not tell of.
    pub(crate) fn take_suspicion(&mut self, id: &JobId) -> Option<Suspicion> {
        self.catch_up.suspects.remove(id)
    }
}

fn due_scope(
    listed_at: DateTime<Utc>,
    full_list_at: DateTime<Utc>,
    jobs: usize,
    at: DateTime<Utc>,
) -> Option<Scope> {
    let jobs = i32::try_from(jobs).unwrap_or(i32::MAX);
    let full_scan_every = FULL_LIST_EVERY.max(FULL_LIST_PER_JOB * jobs);
    if at < listed_at + LIST_NEW_EVERY {
        None
    } else if at < full_list_at + full_scan_every {
        Some(Scope::New)
    } else {
        Some(Scope::Full)
    }
}

/// When a job of the first list was last polled, as far as the lease and the calls say.
fn last_polled(
    catch_up: &CatchUp,
    pause: Option<&Pause>,
    created_at: DateTime<Utc>,
) -> DateTime<Utc> {
    match pause {
        _ if catch_up.new_since.is_some_and(|since| created_at >= since) => created_at,
        Some(pause) => pause.since.min(catch_up.since),
        None => catch_up.since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{pause, start};

    fn after(seconds: i64) -> DateTime<Utc> {
        start() + TimeDelta::seconds(seconds)
    }

    #[test]
    fn new_jobs_are_listed_every_two_seconds() {
        let due = |listed, at| due_scope(after(listed), start(), 1, after(at));
        assert_eq!([due(0, 1), due(0, 2)], [None, Some(Scope::New)]);
        assert_eq!([due(17, 19), due(18, 20)], [Some(Scope::New), Some(Scope::Full)]);
    }

    #[test]
    fn large_shard_is_scanned_more_rarely() {
        let due = |jobs, at| due_scope(start(), start(), jobs, after(at));
        assert_eq!(due(60_000, 59), Some(Scope::New));
        assert_eq!(due(60_000, 60), Some(Scope::Full));
    }

    #[test]
    fn unread_jobs_delay_the_next_list() {
        let catch_up = CatchUp { since: start(), new_since: None, suspects: BTreeMap::new() };
        let mut lister = Lister::new(0, catch_up, BTreeMap::new(), start());
        assert_eq!(lister.due_list(1, after(2)), Some(Scope::New));
        lister.pending.push_back(JobId::from_bytes([1; 16]));
        assert_eq!(lister.due_list(1, after(2)), None);
        assert!(!lister.becomes_complete());
    }

    #[test]
    fn polls_missed_in_a_pause_are_made() {
        let catch_up =
            CatchUp { since: after(60), new_since: Some(after(50)), suspects: BTreeMap::new() };
        let pause = pause(after(20), after(90));
        assert_eq!(last_polled(&catch_up, None, after(10)), after(60));
        assert_eq!(last_polled(&catch_up, Some(&pause), after(10)), after(20));
        assert_eq!(last_polled(&catch_up, Some(&pause), after(50)), after(50), "it is new");
    }
}
