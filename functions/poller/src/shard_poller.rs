//! The event loop that polls one shard under its lease.
//!
//! The shard's active jobs are read once. From then on the loop lists only new jobs, and now
//! and then the whole index, which also shows the jobs that have left it. Lists, reads, polls
//! and lease writes are all in flight at the same time.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Reading: list the whole index
//!     Reading --> Polling: all active jobs are read
//!     Polling --> Polling: poll what is due, list, renew the lease
//!     Polling --> Deciding: nothing is in flight
//!     Deciding --> Polling: awake
//!     Deciding --> Announced: write the lease (asleep, or given back)
//!     Announced --> Deciding: list new jobs once more
//!     Deciding --> [*]: idle, over
//!     Reading --> Draining: superseded, or 25 s left
//!     Polling --> Draining: superseded, 25 s left, or specs changed
//!     Draining --> [*]: superseded, out of time
//! ```
//!
//! Draining lets the polls in flight finish and begins no other; what is still in flight with
//! 5 s left is dropped. [`exit`] decides which row applies:
//!
//! | exit | condition | the lease | what happens next |
//! |---|---|---|---|
//! | none: awake | the next poll is so near that waiting for it is cheaper than to sleep and read all jobs again, a poll waits for a provider's budget, or a new job is not in the index yet | renewed as awake after 10 s, then about once a minute | the loop goes on |
//! | idle | the next poll is farther away | renewed as asleep, unless it says so already; then new jobs are listed once more, because calls for jobs that came before that write were declined | a continuation call, delayed until the next poll |
//! | over | the shard has no active job | given back; then new jobs are listed once more | nothing, until a new job's call or the tick |
//! | superseded | a lease write met a conflict with another poller's lease | untouched: it is the other poller's | nothing: the other poller carries on |
//! | out of time | 25 s before the invocation ends, or the provider specs changed: the plans and budgets of all jobs may be others | left as it is | a continuation call, at once |
//!
//! An error ends the loop too. Its [`Interrupted`] carries the continuation calls of all leases
//! that may be stored.

mod exit;
mod lease_keeper;
mod lister;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::JobId;
use domain::job::Job;
use domain::lease::Lease;
use domain::polling::{PollResult, PollSchedule, Suspicion};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use shared::queue::WakeUp;
use shared::telemetry::chain;
use shared::tracker::TrackError;
use tokio::time::Instant;
use tracing::{info, warn};

use self::exit::{Exit, LoopState, NextStep, next_step};
use self::lease_keeper::{LeaseKeeper, LeaseWrite};
use self::lister::{JobRead, Lister, Listing, Scope};
use crate::Poller;
use crate::claim::{CatchUp, Interrupted, continuation};
use crate::plan::PollTarget;
use crate::poll_job::PollOutcome;
use crate::poll_queue::{Memory, PollQueue};
use crate::provider_queues::{Dispatch, PauseChange, ProviderQueues};

/// How often the polls are fitted into the providers' budgets.
const FIT_EVERY: TimeDelta = TimeDelta::seconds(10);

/// How long before the invocation ends no poll begins any more: one may take a status call and
/// a few writes.
const DRAIN_BEFORE: TimeDelta = TimeDelta::seconds(25);

/// How long before the invocation ends the polls in flight are dropped.
const ABORT_BEFORE: TimeDelta = TimeDelta::seconds(5);

/// The most suspects that a continuation call carries, some 40 KB. The others are asked about
/// once more.
const MAX_LEFT_SUSPECTS: usize = 400;

/// What has completed of the work in flight.
enum Completion {
    Polled { dispatch: Dispatch, outcome: Result<PollOutcome, TrackError> },
    Listed(Listing),
    Read(JobRead),
    LeaseWritten(LeaseWrite),
}

/// A clock that no adjustment turns back while the loop runs.
struct MonotonicClock {
    start: DateTime<Utc>,
    since: Instant,
}

impl MonotonicClock {
    fn now(&self) -> DateTime<Utc> {
        self.start + TimeDelta::from_std(self.since.elapsed()).unwrap_or(TimeDelta::MAX)
    }
}

/// Polls one shard. It owns the work in flight; the lease, the lists and the two queues of due
/// jobs each keep their own state.
pub(crate) struct ShardPoller<'a> {
    poller: &'a Poller,
    shard: u32,
    now: fn() -> DateTime<Utc>,
    clock: MonotonicClock,
    /// When the invocation ends.
    until: DateTime<Utc>,
    /// The revision of the provider specs by which the polls are planned.
    specs: u64,
    lease: LeaseKeeper,
    lister: Lister,
    poll_queue: PollQueue,
    provider_queues: ProviderQueues,
    in_flight: FuturesUnordered<BoxFuture<'a, Completion>>,
    /// All jobs that were due up to then have gone to the provider queues.
    dispatched_at: DateTime<Utc>,
    fitted_at: DateTime<Utc>,
}

impl<'a> ShardPoller<'a> {
    /// A poller of the lease's shard that stops at `until` at the latest.
    pub(crate) fn new(
        poller: &'a Poller,
        lease: Lease,
        catch_up: CatchUp,
        until: DateTime<Utc>,
        now: fn() -> DateTime<Utc>,
    ) -> Self {
        let (start, shard) = (now(), lease.shard);
        let facts = poller.provider_facts(shard);
        let specs = poller.tracker.providers.in_force();
        let is_over = |provider: &_, pause: &_| specs.ends(provider, pause);
        Self {
            poller,
            shard,
            now,
            clock: MonotonicClock { start, since: Instant::now() },
            until,
            specs: specs.revision,
            poll_queue: PollQueue::default(),
            provider_queues: ProviderQueues::new(facts, &lease.pauses, is_over, start),
            in_flight: FuturesUnordered::new(),
            dispatched_at: catch_up.since,
            fitted_at: start,
            lister: Lister::new(shard, catch_up, lease.pauses.clone(), start),
            lease: LeaseKeeper::new(lease, start),
        }
    }

    /// Polls the shard until one of the exits, and sends the continuation call if one is needed.
    ///
    /// # Errors
    /// When the active jobs cannot be read, the lease cannot be given back, or the continuation
    /// call cannot be sent.
    pub(crate) async fn run(mut self) -> Result<(), Interrupted> {
        match self.poll_until_exit().await {
            Ok(Exit::Idle(delay)) => self.send_continuation(delay).await,
            Ok(Exit::OutOfTime) => self.send_continuation(Duration::ZERO).await,
            Ok(Exit::Over) => Ok(()),
            Ok(Exit::Superseded) => {
                info!(shard = self.shard, "lease held by another poller");
                Ok(())
            }
            Err(cause) => {
                let leases = self.lease.possibly_stored();
                let continuations = leases.map(|lease| self.continuation(lease)).collect();
                Err(Interrupted { cause, continuations })
            }
        }
    }

    async fn send_continuation(mut self, delay: Duration) -> Result<(), Interrupted> {
        let call = self.continuation(self.lease.current());
        // Polls in flight are dropped before the next holder may begin.
        self.in_flight.clear();
        let sent = self.poller.wakes.send(&call, delay).await;
        sent.map_err(|cause| Interrupted { cause: cause.into(), continuations: vec![call] })
    }

    fn continuation(&self, lease: &Lease) -> WakeUp {
        let suspects = self.suspects();
        self.poller.leave_suspects(lease, &suspects);
        continuation(lease, self.seen(), suspects)
    }

    /// The renders that their providers could not tell of, and whether that is evidence.
    fn suspects(&self) -> BTreeMap<JobId, Suspicion> {
        let suspects = self.poll_queue.suspects(MAX_LEFT_SUSPECTS).into_iter();
        let left = suspects.map(|(id, provider, suspicion)| {
            let evidence = self.provider_queues.evidence(provider, id);
            (id.clone(), Suspicion { evidence, ..suspicion.clone() })
        });
        left.collect()
    }

    async fn poll_until_exit(&mut self) -> Result<Exit, TrackError> {
        self.list(Scope::Full);
        loop {
            let at = self.clock.now();
            let may_begin =
                !self.lease.is_superseded() && at < self.drain_at() && !self.is_outdated();
            if may_begin && self.lister.is_complete() {
                self.begin_polls(at);
            }
            self.read_pending();
            if self.in_flight.is_empty() || at >= self.abort_at() {
                match next_step(&self.state(may_begin, at), at) {
                    NextStep::StayAwake => {}
                    NextStep::AnnounceIdle => {
                        self.forget_gone();
                        self.tell_pauses(true, at);
                        let lease = self.lease.asleep(self.provider_queues.pauses(), at);
                        self.go_idle(lease).await?;
                        continue;
                    }
                    NextStep::GiveLeaseBack => {
                        self.forget_gone();
                        self.tell_pauses(true, at);
                        let lease = self.lease.given_back(self.provider_queues.pauses(), at);
                        self.go_idle(lease).await?;
                        continue;
                    }
                    NextStep::ListNew => {
                        self.list(Scope::New);
                        continue;
                    }
                    NextStep::Exit(exit) => return Ok(exit),
                }
            }
            if may_begin {
                self.renew_lease(at);
            }
            if may_begin && self.lister.is_complete() {
                self.tend(at);
            }
            if let Some(completion) = self.next_completion(at).await {
                self.take(completion)?;
            }
        }
    }

    /// Whether the provider specs changed since the polls were planned. The continuation plans
    /// them anew.
    fn is_outdated(&self) -> bool {
        self.poller.tracker.providers.in_force().revision != self.specs
    }

    fn drain_at(&self) -> DateTime<Utc> {
        self.until - DRAIN_BEFORE
    }

    fn abort_at(&self) -> DateTime<Utc> {
        self.until - ABORT_BEFORE
    }

    /// What the exit decision depends on.
    fn state(&self, may_begin: bool, at: DateTime<Utc>) -> LoopState {
        let next_at = [self.poll_queue.next_at(), self.provider_queues.next_at(at)];
        LoopState {
            policy: self.poller.awake_policy,
            is_superseded: self.lease.is_superseded(),
            is_draining: !may_begin,
            awaits_new_job: self.lister.awaits_new_job(at),
            jobs: self.poll_queue.len(),
            next_at: next_at.into_iter().flatten().min(),
            has_backlog: self.provider_queues.backlog().next().is_some(),
            lease_says_asleep: !self.lease.is_stale(false, &self.provider_queues.pauses(), at),
            idle_announced: self.lease.idle_announced(),
            listed_since_lease_write: self.lister.listed_at() >= self.lease.written_at(),
        }
    }

    /// Announces in the lease that this poller sleeps or leaves, and then lists once more: the
    /// calls for new jobs that came before that write were declined.
    async fn go_idle(&mut self, lease: Lease) -> Result<(), TrackError> {
        self.lease.go_idle(&self.poller.tracker.store, lease).await?;
        if self.lease.idle_announced() {
            self.list(Scope::New);
        }
        Ok(())
    }

    /// Begins every poll that is due and that its provider's queue lets through.
    fn begin_polls(&mut self, at: DateTime<Utc>) {
        self.dispatched_at = at;
        for provider in self.provider_queues.wanting_probe(at) {
            let queues = &self.provider_queues;
            self.poll_queue.bring_forward(
                &provider,
                |id| queues.evidence(&provider, id).is_some(),
                |id| queues.was_last_probe(&provider, id),
                at,
            );
        }
        for due in self.poll_queue.take_due(at) {
            self.provider_queues.push(due, at);
        }
        while let Some(dispatch) = self.provider_queues.dispatch(at) {
            self.lease.withdraw_idle();
            let job = self.poll_queue.take_job(&dispatch.id);
            self.in_flight.push(poll(self.poller, dispatch, job, self.now).boxed());
        }
    }

    fn read_pending(&mut self) {
        let store = &self.poller.tracker.store;
        while let Some(read) = self.lister.read_next(store, self.clock.now()) {
            self.in_flight.push(read.map(Completion::Read).boxed());
        }
    }

    fn list(&mut self, scope: Scope) {
        let store = &self.poller.tracker.store;
        let listing = self.lister.list(store, scope, self.clock.now());
        self.in_flight.push(listing.map(Completion::Listed).boxed());
    }

    fn renew_lease(&mut self, at: DateTime<Utc>) {
        let pauses = self.provider_queues.announced_pauses();
        if let Some(awake) = self.lease.due_heartbeat(&pauses, at) {
            let seen = self.seen();
            let write = self.lease.renew(&self.poller.tracker.store, awake, seen, pauses, at);
            self.in_flight.push(write.map(Completion::LeaseWritten).boxed());
        }
    }

    /// Does the regular work of a poller that stays awake.
    fn tend(&mut self, at: DateTime<Utc>) {
        if let Some(scope) = self.lister.due_list(self.poll_queue.len(), at) {
            self.list(scope);
        }
        if at >= self.fitted_at + FIT_EVERY {
            self.fit(at);
        }
        self.tell_pauses(false, at);
    }

    /// Ends the pauses whose cause has left the shard.
    fn forget_gone(&mut self) {
        let poll_queue = &self.poll_queue;
        self.provider_queues.retain(|id| poll_queue.contains(id), |it| poll_queue.has_jobs_of(it));
    }

    /// Logs the pauses that began or ended.
    fn tell_pauses(&mut self, is_final: bool, at: DateTime<Utc>) {
        let shard = self.shard;
        for change in self.provider_queues.pause_changes(is_final, at) {
            match change {
                PauseChange::Begins(provider, pause) => warn!(
                    shard,
                    provider.name = %provider,
                    pause.reason = pause.reason.name(),
                    pause.status = pause.status,
                    pause.renders = pause.renders,
                    pause.until = %pause.until,
                    "provider paused"
                ),
                PauseChange::Ends(provider, pause) => info!(
                    shard,
                    provider.name = %provider,
                    pause.since = %pause.since,
                    "provider pause ended"
                ),
            }
        }
    }

    /// Fits the polls into the providers' budgets.
    fn fit(&mut self, at: DateTime<Utc>) {
        self.fitted_at = at;
        self.forget_gone();
        let poll_queue = &self.poll_queue;
        let changed = self.provider_queues.fit(|name| poll_queue.demand(name, at), at);
        for (provider, slowdown) in changed {
            warn!(
                provider.name = %provider, factor = slowdown.factor(),
                "poll rate adjusted to the provider budget"
            );
            self.poll_queue.slow_down(&provider, slowdown);
        }
    }

    /// Waits for the next completion, or until the clock calls for something.
    async fn next_completion(&mut self, at: DateTime<Utc>) -> Option<Completion> {
        let wait = (self.next_at(at) - at).to_std().unwrap_or_default();
        match self.in_flight.is_empty() {
            true => {
                tokio::time::sleep(wait).await;
                None
            }
            false => tokio::time::timeout(wait, self.in_flight.next()).await.ok().flatten(),
        }
    }

    /// When the loop has to run again at the latest.
    fn next_at(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let may_begin = at < self.drain_at();
        let may_poll = may_begin && self.lister.is_complete();
        let times = [
            self.poll_queue.next_at().filter(|_| may_poll),
            self.provider_queues.next_at(at).filter(|_| may_poll),
            self.lister.next_list_at().filter(|_| may_poll),
            Some(self.drain_at()).filter(|_| may_begin),
        ];
        let next = times.into_iter().flatten().filter(|then| *then > at).min();
        next.unwrap_or(self.abort_at()).min(self.abort_at())
    }

    fn take(&mut self, completion: Completion) -> Result<(), TrackError> {
        let at = self.clock.now();
        match completion {
            Completion::Polled { dispatch, outcome } => self.take_poll(&dispatch, outcome, at),
            Completion::Listed(listing) => {
                self.lister.take_listing(listing, &mut self.poll_queue)?;
            }
            Completion::Read(read) => {
                let read_at = read.at;
                for job in self.lister.take_read(read)? {
                    self.take_job(job, read_at);
                }
            }
            Completion::LeaseWritten(write) => self.lease.take_write(write),
        }
        if self.lister.becomes_complete() {
            self.fit(at);
        }
        Ok(())
    }

    fn take_poll(
        &mut self,
        dispatch: &Dispatch,
        outcome: Result<PollOutcome, TrackError>,
        at: DateTime<Utc>,
    ) {
        let id = &dispatch.id;
        let pardon = match outcome {
            Ok(PollOutcome { job, result }) => {
                let memory = remembered(self.poll_queue.memory(id), id, result, at);
                let pardon = self.provider_queues.finish(dispatch, result, at);
                match job {
                    Some(job) => {
                        let schedule = self.poll_schedule(&job);
                        self.poll_queue.upsert(*job, schedule, at, at, memory);
                    }
                    None => self.poll_queue.remove(id),
                }
                pardon
            }
            Err(cause) => {
                warn!(job.id = %id, error = chain(&cause), "job poll failed; will retry");
                let pardon = self.provider_queues.finish(dispatch, PollResult::NotAsked, at);
                self.poll_queue.postpone(id, at);
                pardon
            }
        };
        for render in &pardon.renders {
            self.poll_queue.pardon(render, pardon.from_pause, at);
        }
    }

    fn take_job(&mut self, job: Job, read_at: DateTime<Utc>) {
        // The keys of all providers are read in one call.
        self.poller.tracker.providers.expect_key(&job.request.provider);
        let schedule = self.poll_schedule(&job);
        if self.poll_queue.contains(&job.id) {
            return self.poll_queue.refresh(job, schedule, read_at);
        }
        let last_polled = self.lister.take_new_job(&job);
        let mut suspicion = self.lister.take_suspicion(&job.id);
        let provider = &job.request.provider;
        match suspicion.as_mut().map(|suspicion| (suspicion.evidence, suspicion)) {
            // It failed in an outage that is declared to be over.
            Some((Some(_), suspicion)) if self.provider_queues.was_resumed(provider) => {
                *suspicion = suspicion.pardoned(job.id.spread(), read_at);
            }
            Some((Some(evidence), _)) => {
                self.provider_queues.restore(provider, &job.id, evidence, read_at);
            }
            Some((None, _)) | None => {}
        }
        let last_polled = suspicion.as_ref().map_or(last_polled, |it| it.asked_at.max(last_polled));
        let memory = Memory { suspicion: suspicion.map(Box::new), was_told: false };
        self.poll_queue.upsert(job, schedule, last_polled, read_at, memory);
    }

    fn poll_schedule(&self, job: &Job) -> PollSchedule {
        let slowdown = self.provider_queues.slowdown(&job.request.provider);
        PollSchedule { slowdown, ..self.poller.tracker.poll_schedule(job) }
    }

    /// All polls that were due up to then are made. A job in the backlog of a budget was not
    /// polled, so a few polls of others may be repeated: that is cheaper than a missed one.
    fn seen(&self) -> DateTime<Utc> {
        let backlog = self.provider_queues.backlog().filter_map(|id| self.poll_queue.due_at(id));
        let before_first = backlog.map(|due| due - TimeDelta::milliseconds(1)).min();
        before_first.map_or(self.dispatched_at, |seen| seen.min(self.dispatched_at))
    }
}

async fn poll(
    poller: &Poller,
    dispatch: Dispatch,
    job: Option<Box<Job>>,
    now: fn() -> DateTime<Utc>,
) -> Completion {
    let outcome = poll_if_active(poller, &dispatch.id, job, dispatch.target, now).await;
    Completion::Polled { dispatch, outcome }
}

/// What is remembered of a job after a poll with this result.
fn remembered(before: Memory, id: &JobId, result: PollResult, at: DateTime<Utc>) -> Memory {
    match result {
        PollResult::Told => Memory { suspicion: None, was_told: true },
        PollResult::NotAsked => before,
        PollResult::NotTold(trouble) => {
            let (before, wait) = (before.suspicion.as_deref(), trouble.retry_after);
            let suspicion = Suspicion::after(before, wait, id.spread(), at);
            Memory { suspicion: Some(Box::new(suspicion)), was_told: false }
        }
    }
}

async fn poll_if_active(
    poller: &Poller,
    id: &JobId,
    cached: Option<Box<Job>>,
    target: PollTarget,
    now: fn() -> DateTime<Utc>,
) -> Result<PollOutcome, TrackError> {
    let job = match cached {
        Some(job) => Some(*job),
        None => poller.tracker.store.job(id).await?,
    };
    match job.filter(|job| job.settled_at.is_none()) {
        Some(job) => poller.poll_job(job, target, now).await,
        None => Ok(PollOutcome { job: None, result: PollResult::NotAsked }),
    }
}
