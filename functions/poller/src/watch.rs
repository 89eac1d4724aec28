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
use tracing::{error, warn};

use crate::Poller;
use crate::agenda::Agenda;
use crate::lanes::{Lanes, Turn};
use crate::plan::Asks;
use crate::shard::{Interrupted, successor};
use crate::visit::Looked;

/// Between two readings of what is new.
const NEWS: TimeDelta = TimeDelta::seconds(2);

/// How far back what is new begins: the index follows the table with a delay, and a job is as
/// old as its request.
const OVERLAP: TimeDelta = TimeDelta::seconds(15);

/// Between two readings of the whole index, and what each of a shard's jobs adds to that.
const WHOLE: TimeDelta = TimeDelta::seconds(20);
const WHOLE_PER_JOB: TimeDelta = TimeDelta::milliseconds(1);

/// The most jobs that are looked after at once, the oldest first: as many as the smallest
/// function has memory for. The others follow as these leave.
const MOST_KNOWN: usize = 100_000;

/// Jobs read by one call, and such calls at once.
const READ_BATCH: usize = 100;
const READS_AT_ONCE: usize = 8;

/// How long somebody is awake before it says so in the lease: most looks are over by then.
const AWAKE_AFTER: TimeDelta = TimeDelta::seconds(10);

/// How long a job may be missing from the index that has sent for somebody.
const EXPECTED: TimeDelta = TimeDelta::seconds(6);

/// Between two fittings of the polls into the providers' budgets.
const FITTING: TimeDelta = TimeDelta::seconds(10);

/// How long before the time is up no look begins any more, and how long before it those under
/// way are dropped: a look may take a status call and a few writes.
const LAST_LOOK: TimeDelta = TimeDelta::seconds(25);
const LAST_WORD: TimeDelta = TimeDelta::seconds(5);

/// Since when looks are owed.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    /// Since then, for all jobs.
    pub(crate) since: DateTime<Utc>,
    /// Jobs made since then were never looked at.
    pub(crate) new_since: Option<DateTime<Utc>>,
    /// How often in a row providers have failed that are asked all the same.
    pub(crate) failures: BTreeMap<ProviderName, u32>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// There is something to do later.
    Sleep {
        /// The lease as it is now.
        lease: Lease,
        /// After how long.
        delay: Duration,
        /// Up to when all polls were made.
        seen: DateTime<Utc>,
        /// How often in a row providers have failed that are asked all the same.
        failures: BTreeMap<ProviderName, u32>,
    },
    /// Nothing is active.
    Over,
    /// Somebody else looks after the shard now.
    Superseded,
}

enum Event {
    Looked(JobId, Option<usize>, Result<Looked, TrackError>),
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
pub(crate) struct Watch<'a> {
    poller: &'a Poller,
    now: fn() -> DateTime<Utc>,
    clock: Clock,
    until: DateTime<Utc>,
    lease: Lease,
    owed: Owed,
    /// Providers that were not asked for a while when it began.
    paused: BTreeMap<ProviderName, Pause>,
    /// A job that was made since then is not in the index yet.
    expected: Option<DateTime<Utc>>,
    agenda: Agenda,
    lanes: Lanes,
    unread: VecDeque<JobId>,
    work: FuturesUnordered<BoxFuture<'a, Event>>,
    listing: bool,
    reading: usize,
    renewing: bool,
    /// Up to when all looks have begun that were due.
    begun_at: DateTime<Utc>,
    /// When what is new was last read, and the whole index.
    listed_at: DateTime<Utc>,
    whole_at: DateTime<Utc>,
    fit_at: DateTime<Utc>,
    renew_at: DateTime<Utc>,
    /// Whether all that was active at the beginning was read.
    is_complete: bool,
    /// Leases of the next epoch that were written and may be stored.
    attempted: Vec<Lease>,
    /// When the lease was last written.
    said_at: DateTime<Utc>,
    /// Whether the lease says so already that nobody is awake, or there.
    is_lying_down: bool,
    is_superseded: bool,
}

impl<'a> Watch<'a> {
    /// Looks after the lease's shard, until `until` at the latest.
    pub(crate) fn new(
        poller: &'a Poller,
        lease: Lease,
        owed: Owed,
        until: DateTime<Utc>,
        now: fn() -> DateTime<Utc>,
    ) -> Self {
        let start = now();
        let lanes = Lanes::new(poller.budgets(lease.shard), &lease.pauses, &owed.failures, start);
        Self {
            poller,
            now,
            clock: Clock { start, since: Instant::now() },
            until,
            paused: lease.pauses.clone(),
            expected: owed.new_since,
            begun_at: owed.since,
            lease,
            owed,
            agenda: Agenda::default(),
            lanes,
            unread: VecDeque::new(),
            work: FuturesUnordered::new(),
            listing: false,
            reading: 0,
            renewing: false,
            listed_at: start,
            whole_at: start,
            fit_at: start,
            renew_at: start,
            is_complete: false,
            attempted: Vec::new(),
            said_at: start,
            is_lying_down: false,
            is_superseded: false,
        }
    }

    /// Does all that is due, and goes on for as long as that is cheaper than to come back.
    ///
    /// # Errors
    /// When it could not be found out what is active, or the lease could not be given back.
    /// Whoever follows goes on from there.
    pub(crate) async fn run(mut self) -> Result<Ending, Interrupted> {
        match self.look_after().await {
            Ok(Done::Superseded) => Ok(Ending::Superseded),
            Ok(Done::Over) => Ok(Ending::Over),
            Ok(Done::Asleep(delay)) => {
                let (seen, failures) = (self.seen(), self.lanes.failures());
                Ok(Ending::Sleep { lease: self.lease, delay, seen, failures })
            }
            Err(cause) => {
                let leases = [Some(&self.lease), self.attempted.last()].into_iter().flatten();
                let next = leases.map(|lease| successor(lease, self.seen(), self.lanes.failures()));
                Err(Interrupted { cause, next: next.collect() })
            }
        }
    }

    /// The same, until it may rest.
    async fn look_after(&mut self) -> Result<Done, TrackError> {
        self.list(true);
        loop {
            let at = self.clock.now();
            let may_begin = !self.is_superseded && at < self.until - LAST_LOOK;
            if may_begin && self.is_complete {
                self.begin(at);
            }
            self.read_on();
            if self.work.is_empty() || at >= self.until - LAST_WORD {
                if self.is_superseded {
                    return Ok(Done::Superseded);
                }
                if !may_begin {
                    return Ok(Done::Asleep(Duration::ZERO));
                }
                match self.rest(at) {
                    Rest::Awake => {}
                    Rest::Asleep(_) if self.has_to_say(false, at) => {
                        let lease = self.lease.renewed(false, at, self.lanes.pauses(), at);
                        self.lie_down(lease).await?;
                        continue;
                    }
                    Rest::Over if !self.is_lying_down => {
                        self.lie_down(self.lease.ended(self.lanes.pauses(), at)).await?;
                        continue;
                    }
                    // A job that came before that write has waked nobody.
                    Rest::Asleep(_) if self.listed_at < self.said_at => {
                        self.list(false);
                        continue;
                    }
                    Rest::Asleep(delay) => return Ok(Done::Asleep(delay)),
                    Rest::Over => return Ok(Done::Over),
                }
            }
            if may_begin {
                self.keep_lease(at);
            }
            if may_begin && self.is_complete {
                self.keep_up(at);
            }
            let wait = (self.next_at(at) - at).to_std().unwrap_or_default();
            let event = match self.work.is_empty() {
                true => {
                    tokio::time::sleep(wait).await;
                    None
                }
                false => tokio::time::timeout(wait, self.work.next()).await.ok().flatten(),
            };
            if let Some(event) = event {
                self.take(event)?;
            }
        }
    }

    /// Begins every look whose turn it is.
    fn begin(&mut self, at: DateTime<Utc>) {
        self.begun_at = at;
        for due in self.agenda.take_due(at) {
            self.lanes.queue(due, at);
        }
        while let Some(Turn { id, lane, asks }) = self.lanes.next(at) {
            self.is_lying_down = false;
            let job = self.agenda.take_job(&id);
            self.work.push(look(self.poller, id, lane, job, asks, self.now).boxed());
        }
    }

    /// Reads jobs that are not known yet.
    fn read_on(&mut self) {
        while self.reading < READS_AT_ONCE && !self.unread.is_empty() {
            let batch = self.unread.len().min(READ_BATCH);
            let ids: Vec<JobId> = self.unread.drain(..batch).collect();
            let (store, at) = (&self.poller.tracker.store, self.clock.now());
            self.reading += 1;
            self.work.push(
                async move { Event::Read { at, jobs: store.jobs_lately(&ids).await } }.boxed(),
            );
        }
    }

    /// Reads what is new, or the whole index.
    fn list(&mut self, whole: bool) {
        let at = self.clock.now();
        let from = (!whole).then(|| self.listed_at - OVERLAP);
        let (store, shard) = (&self.poller.tracker.store, self.lease.shard);
        self.listing = true;
        self.work.push(
            async move { Event::Listed { whole, at, ids: store.active(shard, from).await } }
                .boxed(),
        );
    }

    /// Sees to what has to be done while somebody is awake.
    fn keep_up(&mut self, at: DateTime<Utc>) {
        if !self.listing && self.unread.is_empty() && at >= self.listed_at + NEWS {
            self.list(at >= self.whole_at + self.whole_every());
        }
        if at >= self.fit_at + FITTING {
            self.fit(at);
        }
    }

    /// Renews the lease when it is time, and when it says something else than what is so.
    fn keep_lease(&mut self, at: DateTime<Utc>) {
        let stays = self.lease.is_awake(at) || at >= self.clock.start + AWAKE_AFTER;
        let stays = stays && !self.is_lying_down;
        let is_to_be_renewed = stays && self.lease.is_to_be_renewed(at);
        let has_to_say = !self.is_lying_down && self.has_to_say(stays, at);
        if (has_to_say || is_to_be_renewed) && !self.renewing && at >= self.renew_at {
            let lease = self.lease.renewed(stays, self.seen(), self.lanes.pauses(), at);
            let store = &self.poller.tracker.store;
            (self.renewing, self.renew_at, self.said_at) = (true, at + NEWS, at);
            self.attempted.push(lease.clone());
            self.work.push(
                async move {
                    let outcome = store.commit_lease(&lease).await;
                    Event::Renewed(lease, outcome)
                }
                .boxed(),
            );
        }
    }

    /// Up to when all looks were taken. Who still waits for a share of a budget was not looked
    /// at: a poll too many of others is cheaper than one too few.
    fn seen(&self) -> DateTime<Utc> {
        let backlog = self.lanes.backlog().filter_map(|id| self.agenda.was_due(id));
        let owed = backlog.map(|due| due - TimeDelta::milliseconds(1)).min();
        owed.map_or(self.begun_at, |owed| owed.min(self.begun_at))
    }

    /// Whether the lease says something else than what is so.
    fn has_to_say(&self, is_awake: bool, at: DateTime<Utc>) -> bool {
        !self.lease.is_held(at)
            || self.lease.is_awake(at) != is_awake
            || self.lease.pauses != self.lanes.pauses()
    }

    fn whole_every(&self) -> TimeDelta {
        let jobs = i32::try_from(self.agenda.len()).unwrap_or(i32::MAX);
        WHOLE.max(WHOLE_PER_JOB * jobs)
    }

    /// Fits polls into the providers' budgets.
    fn fit(&mut self, at: DateTime<Utc>) {
        self.fit_at = at;
        let agenda = &self.agenda;
        for (provider, slowdown) in self.lanes.fit(|name| agenda.wanted_rate(name, at), at) {
            warn!(
                provider.name = %provider, factor = slowdown.factor(),
                "polls of {provider} are thinned out to keep within its budget"
            );
            self.agenda.slow_down(&provider, slowdown);
        }
    }

    /// When something has to be done at the latest.
    fn next_at(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let last_word = self.until - LAST_WORD;
        let may_begin = at < self.until - LAST_LOOK;
        let news = self.listed_at + NEWS;
        let times = [
            self.agenda.next_at().filter(|_| may_begin && self.is_complete),
            self.lanes.next_at().filter(|_| may_begin && self.is_complete),
            Some(news).filter(|_| may_begin && self.is_complete && !self.listing),
            Some(self.until - LAST_LOOK).filter(|_| may_begin),
        ];
        let next = times.into_iter().flatten().filter(|then| *then > at).min();
        next.unwrap_or(last_word).min(last_word)
    }

    fn take(&mut self, event: Event) -> Result<(), TrackError> {
        let at = self.clock.now();
        match event {
            Event::Looked(id, lane, outcome) => self.take_look(&id, lane, outcome, at),
            Event::Listed { whole, at: listed_at, ids } => {
                self.listing = false;
                self.listed_at = listed_at;
                match ids {
                    Ok(ids) => self.take_list(ids, whole, listed_at),
                    Err(cause) if !self.is_complete => return Err(cause.into()),
                    Err(cause) => warn!(error = chain(&cause), "new jobs cannot be listed"),
                }
            }
            Event::Read { at: read_at, jobs } => {
                self.reading = self.reading.saturating_sub(1);
                match jobs {
                    Ok(jobs) => jobs.into_iter().for_each(|job| self.take_job(job, read_at)),
                    Err(cause) if !self.is_complete => return Err(cause.into()),
                    // They are unknown still, and so read with the next list.
                    Err(cause) => warn!(error = chain(&cause), "jobs cannot be read"),
                }
            }
            Event::Renewed(lease, outcome) => {
                self.renewing = false;
                match outcome {
                    Ok(outcome) => self.take_lease(lease, outcome),
                    Err(cause) => warn!(error = chain(&cause), "the lease is not renewed"),
                }
            }
        }
        if !self.is_complete && !self.listing && self.reading == 0 && self.unread.is_empty() {
            self.is_complete = true;
            self.fit(at);
        }
        Ok(())
    }

    fn take_look(
        &mut self,
        id: &JobId,
        lane: Option<usize>,
        outcome: Result<Looked, TrackError>,
        at: DateTime<Utc>,
    ) {
        match outcome {
            Ok(Looked { job, heard }) => {
                self.lanes.over(lane, heard, at);
                match job {
                    Some(job) => {
                        let law = self.law(&job);
                        self.agenda.learn(*job, law, at, at);
                    }
                    None => self.agenda.forget(id),
                }
            }
            Err(cause) => {
                error!(job.id = %id, error = chain(&cause), "looking at job {id} failed");
                self.lanes.over(lane, Heard::Nothing, at);
                self.agenda.postpone(id, at);
            }
        }
    }

    fn take_list(&mut self, ids: Vec<JobId>, whole: bool, at: DateTime<Utc>) {
        let room = MOST_KNOWN.saturating_sub(self.agenda.len());
        let unknown = ids.iter().filter(|id| !self.agenda.knows(id));
        let unknown: Vec<JobId> = unknown.take(room).cloned().collect();
        if whole && self.agenda.len() + unknown.len() >= MOST_KNOWN {
            let shard = self.lease.shard;
            warn!(shard, "shard {shard} has more jobs than can be looked after at once");
        }
        self.unread.extend(unknown);
        if whole {
            self.whole_at = at;
            self.agenda.forget_all_but(&ids.into_iter().collect::<HashSet<_>>(), at);
        }
        self.unread.extend(self.agenda.stale(at));
    }

    fn take_job(&mut self, job: Job, read_at: DateTime<Utc>) {
        let law = self.law(&job);
        if self.agenda.knows(&job.id) {
            return self.agenda.refresh(job, law, read_at);
        }
        self.expected = self.expected.filter(|since| job.created_at < *since);
        let looked = self.looked(&job).max(job.created_at);
        self.agenda.learn(job, law, looked, read_at);
    }

    /// When a job that was not known before was last looked at, or would have been.
    fn looked(&self, job: &Job) -> DateTime<Utc> {
        let is_new = self.owed.new_since.is_some_and(|since| job.created_at >= since);
        match self.paused.get(&job.request.provider) {
            _ if is_new || self.is_complete => job.created_at,
            Some(pause) => pause.since.min(self.owed.since),
            None => self.owed.since,
        }
    }

    fn law(&self, job: &Job) -> PollingLaw {
        let slowdown = self.lanes.slowdown(&job.request.provider);
        PollingLaw { slowdown, ..self.poller.tracker.law(job) }
    }

    /// What is cheaper, when nothing is under way.
    fn rest(&self, at: DateTime<Utc>) -> Rest {
        if self.expected.is_some_and(|since| at < since + EXPECTED) {
            return Rest::Awake;
        }
        if self.agenda.len() == 0 {
            return Rest::Over;
        }
        let next = [self.agenda.next_at(), self.lanes.next_at()].into_iter().flatten().min();
        let wait = next.map(|next| (next - at).to_std().unwrap_or_default());
        let wait = wait.unwrap_or(lease::LONGEST_SLEEP).min(lease::LONGEST_SLEEP);
        match self.lanes.backlog().next().is_some()
            || lease::is_worth_waiting(self.agenda.len(), wait)
        {
            true => Rest::Awake,
            false => Rest::Asleep(wait),
        }
    }

    /// Says in the lease that nobody is awake, or there, and looks once more for what came
    /// meanwhile: its wake-up call has gone back to sleep, because somebody was awake.
    async fn lie_down(&mut self, lease: Lease) -> Result<(), TrackError> {
        self.attempted.push(lease.clone());
        let outcome = self.poller.tracker.store.commit_lease(&lease).await?;
        self.is_lying_down = outcome == Committed::Stored;
        self.take_lease(lease, outcome);
        if self.is_lying_down {
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

enum Rest {
    Awake,
    Asleep(Duration),
    Over,
}

async fn look(
    poller: &Poller,
    id: JobId,
    lane: Option<usize>,
    job: Option<Box<Job>>,
    asks: Asks,
    now: fn() -> DateTime<Utc>,
) -> Event {
    let outcome = async {
        let job = match job {
            Some(job) => Some(*job),
            None => poller.tracker.store.job(&id).await?,
        };
        match job.filter(|job| job.settled_at.is_none()) {
            Some(job) => poller.visit(job, asks, now).await,
            None => Ok(Looked { job: None, heard: Heard::Nothing }),
        }
    };
    let outcome = outcome.await;
    Event::Looked(id, lane, outcome)
}
