//! Looking after one shard: look at every job that is due, then stay awake or go to sleep,
//! whichever is cheaper.
//!
//! The shard's active jobs are read once; from then on only what is new, and now and then the
//! whole index, which also shows what has left. All of it, and every look, is under way at
//! the same time.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::{JobId, ProviderName};
use domain::job::Job;
use domain::lease::{self, Lease};
use domain::polling::{Heard, Pause, PollingLaw};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use shared::store::{Committed, StoreError};
use shared::telemetry::chain;
use shared::tracker::TrackError;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::Poller;
use crate::claim::{CatchUp, Interrupted, continuation};
use crate::plan::PollTarget;
use crate::poll_job::PollOutcome;
use crate::poll_queue::PollQueue;
use crate::provider_queues::{Dispatch, ProviderQueues};

/// Between two readings of what is new.
const LIST_NEW_EVERY: TimeDelta = TimeDelta::seconds(2);

/// How far back what is new begins: the index follows the table with a delay, and a job is as
/// old as its request.
const LIST_OVERLAP: TimeDelta = TimeDelta::seconds(15);

/// Between two readings of the whole index, and what each of a shard's jobs adds to that.
const FULL_SCAN_EVERY: TimeDelta = TimeDelta::seconds(20);
const FULL_SCAN_PER_JOB: TimeDelta = TimeDelta::milliseconds(1);

/// The most jobs that are looked after at once, the oldest first: as many as the smallest
/// function has memory for. The others follow as these leave.
const MAX_JOBS: usize = 100_000;

/// Jobs read by one call, and such calls at once.
const READ_BATCH: usize = 100;
const MAX_CONCURRENT_READS: usize = 8;

/// How long somebody is awake before it says so in the lease: most looks are over by then.
const AWAKE_AFTER: TimeDelta = TimeDelta::seconds(10);

/// How long a job may be missing from the index that has sent for somebody.
const INDEX_LAG_GRACE: TimeDelta = TimeDelta::seconds(6);

/// Between two fittings of the polls into the providers' budgets.
const FIT_EVERY: TimeDelta = TimeDelta::seconds(10);

/// How long before the time is up no look begins any more, and how long before it those under
/// way are dropped: a look may take a status call and a few writes.
const DRAIN_BEFORE: TimeDelta = TimeDelta::seconds(25);
const ABORT_BEFORE: TimeDelta = TimeDelta::seconds(5);

enum Completion {
    Polled(JobId, Option<usize>, Result<PollOutcome, TrackError>),
    Listed { whole: bool, at: DateTime<Utc>, ids: Result<Vec<JobId>, StoreError> },
    Read { at: DateTime<Utc>, jobs: Result<Vec<Job>, StoreError> },
    Renewed(Lease, Result<Committed<Lease>, StoreError>),
}

/// A clock that no adjustment turns back while somebody is awake.
struct Clock {
    start: DateTime<Utc>,
    since: Instant,
}

impl Clock {
    fn now(&self) -> DateTime<Utc> {
        self.start + TimeDelta::from_std(self.since.elapsed()).unwrap_or(TimeDelta::MAX)
    }
}

/// One shard, watched.
pub(crate) struct ShardPoller<'a> {
    poller: &'a Poller,
    now: fn() -> DateTime<Utc>,
    clock: Clock,
    until: DateTime<Utc>,
    lease: Lease,
    catch_up: CatchUp,
    /// Providers that were not asked for a while when it began.
    paused: BTreeMap<ProviderName, Pause>,
    /// A job that was made since then is not in the index yet.
    expected: Option<DateTime<Utc>>,
    poll_queue: PollQueue,
    provider_queues: ProviderQueues,
    pending: VecDeque<JobId>,
    in_flight: FuturesUnordered<BoxFuture<'a, Completion>>,
    listing: bool,
    reads_in_flight: usize,
    lease_in_flight: bool,
    /// Up to when all looks have begun that were due.
    begun_at: DateTime<Utc>,
    /// When what is new was last read, and the whole index.
    listed_at: DateTime<Utc>,
    full_scan_at: DateTime<Utc>,
    fit_at: DateTime<Utc>,
    renew_at: DateTime<Utc>,
    /// Whether all that was active at the beginning was read.
    is_complete: bool,
    /// Leases of the next epoch that were written and may be stored.
    attempted: Vec<Lease>,
    /// When the lease was last written.
    lease_written_at: DateTime<Utc>,
    /// Whether the lease says so already that nobody is awake, or there.
    idle_announced: bool,
    is_superseded: bool,
}

impl<'a> ShardPoller<'a> {
    /// Looks after the lease's shard, until `until` at the latest.
    pub(crate) fn new(
        poller: &'a Poller,
        lease: Lease,
        catch_up: CatchUp,
        until: DateTime<Utc>,
        now: fn() -> DateTime<Utc>,
    ) -> Self {
        let start = now();
        let provider_queues = ProviderQueues::new(
            poller.budgets(lease.shard),
            &lease.pauses,
            &catch_up.failures,
            start,
        );
        Self {
            poller,
            now,
            clock: Clock { start, since: Instant::now() },
            until,
            paused: lease.pauses.clone(),
            expected: catch_up.new_since,
            begun_at: catch_up.since,
            lease,
            catch_up,
            poll_queue: PollQueue::default(),
            provider_queues,
            pending: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            listing: false,
            reads_in_flight: 0,
            lease_in_flight: false,
            listed_at: start,
            full_scan_at: start,
            fit_at: start,
            renew_at: start,
            is_complete: false,
            attempted: Vec::new(),
            lease_written_at: start,
            idle_announced: false,
            is_superseded: false,
        }
    }

    /// Polls the shard until one of the exits, and sends the continuation call if one is needed.
    ///
    /// # Errors
    /// When the active jobs cannot be read, the lease cannot be given back, or the continuation
    /// call cannot be sent.
    pub(crate) async fn run(mut self) -> Result<(), Interrupted> {
        match self.poll_until_exit().await {
            Ok(Done::Superseded) => {
                let shard = self.lease.shard;
                info!(shard, "somebody else looks after shard {shard}");
                Ok(())
            }
            Ok(Done::Over) => Ok(()),
            Ok(Done::Asleep(delay)) => {
                let call = continuation(&self.lease, self.seen(), self.provider_queues.failures());
                // What is in flight is dropped before the next holder may begin.
                self.in_flight.clear();
                let sent = self.poller.wakes.send(&call, delay).await;
                sent.map_err(|cause| Interrupted { cause: cause.into(), continuations: vec![call] })
            }
            Err(cause) => {
                let leases = [Some(&self.lease), self.attempted.last()].into_iter().flatten();
                let calls = leases
                    .map(|lease| continuation(lease, self.seen(), self.provider_queues.failures()));
                Err(Interrupted { cause, continuations: calls.collect() })
            }
        }
    }

    /// The same, until it may rest.
    async fn poll_until_exit(&mut self) -> Result<Done, TrackError> {
        self.list(true);
        loop {
            let at = self.clock.now();
            let may_begin = !self.is_superseded && at < self.until - DRAIN_BEFORE;
            if may_begin && self.is_complete {
                self.begin(at);
            }
            self.read_pending();
            if self.in_flight.is_empty() || at >= self.until - ABORT_BEFORE {
                if self.is_superseded {
                    return Ok(Done::Superseded);
                }
                if !may_begin {
                    return Ok(Done::Asleep(Duration::ZERO));
                }
                match self.idle_decision(at) {
                    IdleDecision::Awake => {}
                    IdleDecision::Asleep(_) if self.lease_is_stale(false, at) => {
                        let lease =
                            self.lease.renewed(false, at, self.provider_queues.pauses(), at);
                        self.go_idle(lease).await?;
                        continue;
                    }
                    IdleDecision::Over if !self.idle_announced => {
                        self.go_idle(self.lease.ended(self.provider_queues.pauses(), at)).await?;
                        continue;
                    }
                    // A job that came before that write has waked nobody.
                    IdleDecision::Asleep(_) if self.listed_at < self.lease_written_at => {
                        self.list(false);
                        continue;
                    }
                    IdleDecision::Asleep(delay) => return Ok(Done::Asleep(delay)),
                    IdleDecision::Over => return Ok(Done::Over),
                }
            }
            if may_begin {
                self.keep_lease(at);
            }
            if may_begin && self.is_complete {
                self.tend(at);
            }
            let wait = (self.next_at(at) - at).to_std().unwrap_or_default();
            let event = match self.in_flight.is_empty() {
                true => {
                    tokio::time::sleep(wait).await;
                    None
                }
                false => tokio::time::timeout(wait, self.in_flight.next()).await.ok().flatten(),
            };
            if let Some(event) = event {
                self.take(event)?;
            }
        }
    }

    /// Begins every look whose turn it is.
    fn begin(&mut self, at: DateTime<Utc>) {
        self.begun_at = at;
        for due in self.poll_queue.take_due(at) {
            self.provider_queues.push(due, at);
        }
        while let Some(Dispatch { id, queue, target }) = self.provider_queues.dispatch(at) {
            self.idle_announced = false;
            let job = self.poll_queue.take_job(&id);
            self.in_flight.push(poll(self.poller, id, queue, job, target, self.now).boxed());
        }
    }

    /// Reads jobs that are not known yet.
    fn read_pending(&mut self) {
        while self.reads_in_flight < MAX_CONCURRENT_READS && !self.pending.is_empty() {
            let batch = self.pending.len().min(READ_BATCH);
            let ids: Vec<JobId> = self.pending.drain(..batch).collect();
            let (store, at) = (&self.poller.tracker.store, self.clock.now());
            self.reads_in_flight += 1;
            self.in_flight.push(
                async move { Completion::Read { at, jobs: store.jobs_lately(&ids).await } }.boxed(),
            );
        }
    }

    /// Reads what is new, or the whole index.
    fn list(&mut self, whole: bool) {
        let at = self.clock.now();
        let from = (!whole).then(|| self.listed_at - LIST_OVERLAP);
        let (store, shard) = (&self.poller.tracker.store, self.lease.shard);
        self.listing = true;
        self.in_flight.push(
            async move { Completion::Listed { whole, at, ids: store.active(shard, from).await } }
                .boxed(),
        );
    }

    /// Sees to what has to be done while somebody is awake.
    fn tend(&mut self, at: DateTime<Utc>) {
        if !self.listing && self.pending.is_empty() && at >= self.listed_at + LIST_NEW_EVERY {
            self.list(at >= self.full_scan_at + self.full_scan_every());
        }
        if at >= self.fit_at + FIT_EVERY {
            self.fit(at);
        }
    }

    /// Renews the lease when it is time, and when it says something else than what is so.
    fn keep_lease(&mut self, at: DateTime<Utc>) {
        let stays = self.lease.is_awake(at) || at >= self.clock.start + AWAKE_AFTER;
        let stays = stays && !self.idle_announced;
        let is_to_be_renewed = stays && self.lease.is_to_be_renewed(at);
        let lease_is_stale = !self.idle_announced && self.lease_is_stale(stays, at);
        if (lease_is_stale || is_to_be_renewed) && !self.lease_in_flight && at >= self.renew_at {
            let lease = self.lease.renewed(stays, self.seen(), self.provider_queues.pauses(), at);
            let store = &self.poller.tracker.store;
            (self.lease_in_flight, self.renew_at, self.lease_written_at) =
                (true, at + LIST_NEW_EVERY, at);
            self.attempted.push(lease.clone());
            self.in_flight.push(
                async move {
                    let outcome = store.commit_lease(&lease).await;
                    Completion::Renewed(lease, outcome)
                }
                .boxed(),
            );
        }
    }

    /// Up to when all looks were taken. Who still waits for a share of a budget was not looked
    /// at: a poll too many of others is cheaper than one too few.
    fn seen(&self) -> DateTime<Utc> {
        let backlog = self.provider_queues.backlog().filter_map(|id| self.poll_queue.due_at(id));
        let owed = backlog.map(|due| due - TimeDelta::milliseconds(1)).min();
        owed.map_or(self.begun_at, |owed| owed.min(self.begun_at))
    }

    /// Whether the lease says something else than what is so.
    fn lease_is_stale(&self, is_awake: bool, at: DateTime<Utc>) -> bool {
        !self.lease.is_held(at)
            || self.lease.is_awake(at) != is_awake
            || self.lease.pauses != self.provider_queues.pauses()
    }

    fn full_scan_every(&self) -> TimeDelta {
        let jobs = i32::try_from(self.poll_queue.len()).unwrap_or(i32::MAX);
        FULL_SCAN_EVERY.max(FULL_SCAN_PER_JOB * jobs)
    }

    /// Fits polls into the providers' budgets.
    fn fit(&mut self, at: DateTime<Utc>) {
        self.fit_at = at;
        let poll_queue = &self.poll_queue;
        for (provider, slowdown) in
            self.provider_queues.fit(|name| poll_queue.wanted_rate(name, at), at)
        {
            warn!(
                provider.name = %provider, factor = slowdown.factor(),
                "polls of {provider} are thinned out to keep within its budget"
            );
            self.poll_queue.slow_down(&provider, slowdown);
        }
    }

    /// When something has to be done at the latest.
    fn next_at(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let last_word = self.until - ABORT_BEFORE;
        let may_begin = at < self.until - DRAIN_BEFORE;
        let news = self.listed_at + LIST_NEW_EVERY;
        let times = [
            self.poll_queue.next_at().filter(|_| may_begin && self.is_complete),
            self.provider_queues.next_at().filter(|_| may_begin && self.is_complete),
            Some(news).filter(|_| may_begin && self.is_complete && !self.listing),
            Some(self.until - DRAIN_BEFORE).filter(|_| may_begin),
        ];
        let next = times.into_iter().flatten().filter(|then| *then > at).min();
        next.unwrap_or(last_word).min(last_word)
    }

    fn take(&mut self, event: Completion) -> Result<(), TrackError> {
        let at = self.clock.now();
        match event {
            Completion::Polled(id, queue, outcome) => self.take_poll(&id, queue, outcome, at),
            Completion::Listed { whole, at: listed_at, ids } => {
                self.listing = false;
                self.listed_at = listed_at;
                match ids {
                    Ok(ids) => self.take_list(ids, whole, listed_at),
                    Err(cause) if !self.is_complete => return Err(cause.into()),
                    Err(cause) => warn!(error = chain(&cause), "new jobs cannot be listed"),
                }
            }
            Completion::Read { at: read_at, jobs } => {
                self.reads_in_flight = self.reads_in_flight.saturating_sub(1);
                match jobs {
                    Ok(jobs) => jobs.into_iter().for_each(|job| self.take_job(job, read_at)),
                    Err(cause) if !self.is_complete => return Err(cause.into()),
                    // They are unknown still, and so read with the next list.
                    Err(cause) => warn!(error = chain(&cause), "jobs cannot be read"),
                }
            }
            Completion::Renewed(lease, outcome) => {
                self.lease_in_flight = false;
                match outcome {
                    Ok(outcome) => self.take_lease(lease, outcome),
                    Err(cause) => warn!(error = chain(&cause), "the lease is not renewed"),
                }
            }
        }
        if !self.is_complete
            && !self.listing
            && self.reads_in_flight == 0
            && self.pending.is_empty()
        {
            self.is_complete = true;
            self.fit(at);
        }
        Ok(())
    }

    fn take_poll(
        &mut self,
        id: &JobId,
        queue: Option<usize>,
        outcome: Result<PollOutcome, TrackError>,
        at: DateTime<Utc>,
    ) {
        match outcome {
            Ok(PollOutcome { job, result }) => {
                self.provider_queues.finish(queue, result, at);
                match job {
                    Some(job) => {
                        let schedule = self.law(&job);
                        self.poll_queue.upsert(*job, schedule, at, at);
                    }
                    None => self.poll_queue.remove(id),
                }
            }
            Err(cause) => {
                error!(job.id = %id, error = chain(&cause), "looking at job {id} failed");
                self.provider_queues.finish(queue, Heard::Nothing, at);
                self.poll_queue.postpone(id, at);
            }
        }
    }

    fn take_list(&mut self, ids: Vec<JobId>, whole: bool, at: DateTime<Utc>) {
        let room = MAX_JOBS.saturating_sub(self.poll_queue.len());
        let unknown = ids.iter().filter(|id| !self.poll_queue.contains(id));
        let unknown: Vec<JobId> = unknown.take(room).cloned().collect();
        if whole && self.poll_queue.len() + unknown.len() >= MAX_JOBS {
            let shard = self.lease.shard;
            warn!(shard, "shard {shard} has more jobs than can be looked after at once");
        }
        self.pending.extend(unknown);
        if whole {
            self.full_scan_at = at;
            self.poll_queue.remove_unlisted(&ids.into_iter().collect::<HashSet<_>>(), at);
        }
        self.pending.extend(self.poll_queue.stale(at));
    }

    fn take_job(&mut self, job: Job, read_at: DateTime<Utc>) {
        let schedule = self.law(&job);
        if self.poll_queue.contains(&job.id) {
            return self.poll_queue.refresh(job, schedule, read_at);
        }
        self.expected = self.expected.filter(|since| job.created_at < *since);
        let last_polled = self.last_polled(&job).max(job.created_at);
        self.poll_queue.upsert(job, schedule, last_polled, read_at);
    }

    /// When a job that was not known before was last looked at, or would have been.
    fn last_polled(&self, job: &Job) -> DateTime<Utc> {
        let is_new = self.catch_up.new_since.is_some_and(|since| job.created_at >= since);
        match self.paused.get(&job.provider) {
            _ if is_new || self.is_complete => job.created_at,
            Some(pause) => pause.since.min(self.catch_up.since),
            None => self.catch_up.since,
        }
    }

    fn law(&self, job: &Job) -> PollingLaw {
        let slowdown = self.provider_queues.slowdown(&job.provider);
        PollingLaw { slowdown, ..self.poller.tracker.law(job) }
    }

    /// What is cheaper, when nothing is under way.
    fn idle_decision(&self, at: DateTime<Utc>) -> IdleDecision {
        if self.expected.is_some_and(|since| at < since + INDEX_LAG_GRACE) {
            return IdleDecision::Awake;
        }
        if self.poll_queue.len() == 0 {
            return IdleDecision::Over;
        }
        let next =
            [self.poll_queue.next_at(), self.provider_queues.next_at()].into_iter().flatten().min();
        let wait = next.map(|next| (next - at).to_std().unwrap_or_default());
        let wait = wait.unwrap_or(lease::LONGEST_SLEEP).min(lease::LONGEST_SLEEP);
        match self.provider_queues.backlog().next().is_some()
            || lease::is_worth_waiting(self.poll_queue.len(), wait)
        {
            true => IdleDecision::Awake,
            false => IdleDecision::Asleep(wait),
        }
    }

    /// Says in the lease that nobody is awake, or there, and looks once more for what came
    /// meanwhile: its wake-up call has gone back to sleep, because somebody was awake.
    async fn go_idle(&mut self, lease: Lease) -> Result<(), TrackError> {
        self.attempted.push(lease.clone());
        let outcome = self.poller.tracker.store.commit_lease(&lease).await?;
        self.idle_announced = outcome == Committed::Stored;
        self.take_lease(lease, outcome);
        if self.idle_announced {
            self.list(false);
        }
        Ok(())
    }

    /// Takes what came of writing a lease. One that was written in vain, as far as was known,
    /// may be what is there now.
    fn take_lease(&mut self, lease: Lease, outcome: Committed<Lease>) {
        let attempted = std::mem::take(&mut self.attempted);
        match outcome {
            Committed::Stored => self.lease = lease,
            Committed::Overtaken(Some(current))
                if attempted.iter().any(|ours| ours.is_written_as(&current)) =>
            {
                self.lease = current;
            }
            Committed::Overtaken(_) => self.is_superseded = true,
        }
    }
}

/// Why nobody looks after the shard any more.
enum Done {
    Asleep(Duration),
    Over,
    Superseded,
}

enum IdleDecision {
    Awake,
    Asleep(Duration),
    Over,
}

async fn poll(
    poller: &Poller,
    id: JobId,
    queue: Option<usize>,
    job: Option<Box<Job>>,
    target: PollTarget,
    now: fn() -> DateTime<Utc>,
) -> Completion {
    let outcome = async {
        let job = match job {
            Some(job) => Some(*job),
            None => poller.tracker.store.job(&id).await?,
        };
        match job.filter(|job| job.settled_at.is_none()) {
            Some(job) => poller.poll_job(job, target, now).await,
            None => Ok(PollOutcome { job: None, result: Heard::Nothing }),
        }
    };
    let outcome = outcome.await;
    Completion::Polled(id, queue, outcome)
}
