//! A shard's surroundings in virtual time: AWS, two providers, and what Lambda does with the
//! schedule and the wake queue.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lambda_events::sqs::SqsEvent;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::event::EventSet;
use domain::id::{JobId, ProviderName, RenderJobId, SourceRecordId};
use domain::job::{Job, Report, Step, StoredRequest};
use domain::polling::{Durations, Tracking};
use domain::provider::Catalogue;
use domain::provider::catalogue::Adjustments;
use futures_util::FutureExt;
use http::{Request, Response};
use serde_json::{Value, json};
use shared::fake::FakeAws;
use shared::fake::clock::{self, now};
use shared::fake::fate::{Calm, Fate};
use shared::fake::network::{Host, Network};
use shared::queue::WakeUp;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::{Call, Poller, Tick, handle};

/// What the template says.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// How many batches of messages Lambda handles at once.
const BATCHES_AT_ONCE: usize = 5;

/// How long a provider takes to answer.
const LATENCY: Duration = Duration::from_millis(100);

/// What a provider does instead of telling.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    Well,
    /// Answers every question with this status.
    Refuses(u16),
    /// The same, and asks to be left alone for so many seconds.
    WantsRest(u16, u64),
    /// Says nothing.
    Hangs,
}

#[derive(Debug, Default)]
struct Providers {
    ends: BTreeMap<String, DateTime<Utc>>,
    moods: BTreeMap<String, Mood>,
    polls: Vec<Poll>,
}

/// A question that a provider was asked.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub(crate) at: DateTime<Utc>,
    pub(crate) host: String,
    pub(crate) render: String,
}

pub(crate) struct World {
    pub(crate) aws: FakeAws,
    pub(crate) poller: Arc<Poller>,
    network: Network,
    providers: Arc<Mutex<Providers>>,
    jobs: RefCell<Vec<Job>>,
    invocations: RefCell<usize>,
    lambda: LocalSet,
    /// What Lambda runs just now: batches of messages, and ticks.
    batches: RefCell<JoinSet<()>>,
    ticks: RefCell<JoinSet<()>>,
    /// Told when a batch is over.
    over: Arc<Notify>,
    time_limit: Duration,
    shards: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_shards(1)
    }

    pub(crate) fn with_shards(shards: u32) -> Self {
        clock::set(DateTime::from_timestamp(1_779_602_430, 0).unwrap());
        let aws = FakeAws::new(&[
            ("providers/zvid/api-key", "zvid_key"),
            ("providers/shotstack/api-key", "shotstack_key"),
        ]);
        let network = Network::default();
        let providers = Arc::new(Mutex::new(Providers::default()));
        for name in ["zvid", "shotstack"] {
            let host = format!("{name}.test");
            network.add(&host, answering(host.clone(), Arc::clone(&providers)));
        }
        let poller = Arc::new(poller(&aws, &network, shards));
        Self {
            aws,
            poller,
            network,
            providers,
            jobs: RefCell::default(),
            invocations: RefCell::default(),
            lambda: LocalSet::new(),
            batches: RefCell::default(),
            ticks: RefCell::default(),
            over: Arc::default(),
            time_limit: TIME_LIMIT,
            shards,
        }
    }

    /// The same world, in which the poller's calls to AWS meet this fate.
    pub(crate) fn fated(self, fate: Arc<dyn Fate>) -> Self {
        let poller = Arc::new(poller(&self.aws.seen_by(fate), &self.network, self.shards));
        Self { poller, ..self }
    }

    pub(crate) fn with_time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// The same world after a deployment with another number of shards.
    pub(crate) fn redeployed(self, shards: u32) -> Self {
        let poller = Arc::new(poller(&self.aws, &self.network, shards));
        Self { poller, shards, ..self }
    }

    /// Has a job submitted whose render ends after so many seconds, and does with it what the
    /// submit function does.
    pub(crate) async fn submit(&self, provider: &str, tracking: Tracking, ends_s: f64) -> JobId {
        self.submit_learnt(provider, tracking, ends_s, None).await
    }

    pub(crate) async fn submit_learnt(
        &self,
        provider: &str,
        tracking: Tracking,
        ends_s: f64,
        durations: Option<Durations>,
    ) -> JobId {
        let job = self.leave(provider, tracking, ends_s, durations, now()).await;
        if tracking == Tracking::PollOnly {
            let law = self.poller.tracker.law(&job);
            let due = law.next_after(tracking, Duration::ZERO, job.id.spread());
            let call = WakeUp::NewJob { shard: job.request.shard, created_at: job.created_at };
            self.aws.wakes().send(&call, due).await.unwrap();
        }
        job.id
    }

    /// A job as its submit function leaves it that dies before it wakes anybody.
    pub(crate) async fn leave(
        &self,
        provider: &str,
        tracking: Tracking,
        ends_s: f64,
        durations: Option<Durations>,
        created_at: DateTime<Utc>,
    ) -> Job {
        let number = u8::try_from(self.jobs.borrow().len() % 251).unwrap();
        let more = u8::try_from(self.jobs.borrow().len() / 251).unwrap();
        let id = JobId::from_bytes([number, more, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        let render = id.as_uuid();
        let request = StoredRequest {
            shard: id.shard(self.shards),
            provider: ProviderName::parse(provider).unwrap(),
            source_record_id: SourceRecordId::parse("product-123").unwrap(),
            payload_version: None,
            metadata: serde_json::Map::new(),
            callback_url: None,
            wanted: EventSet::ends(),
            fingerprint: [0; 32],
            tracking,
            durations,
        };
        let job = Job::new(id, request, created_at);
        let accepted = Report::Accepted(RenderJobId::parse(&render).unwrap());
        let Step::Changed(job) = job.apply(&accepted, 0, created_at) else { panic!("no news") };
        let ends_at = created_at + Duration::from_secs_f64(ends_s);
        self.providers.lock().unwrap().ends.insert(render, ends_at);
        self.aws.store().insert_job(&job).await.unwrap();
        self.jobs.borrow_mut().push((*job).clone());
        *job
    }

    pub(crate) fn mood(&self, provider: &str, mood: Mood) {
        self.providers.lock().unwrap().moods.insert(format!("{provider}.test"), mood);
    }

    /// Lets everything run for so long, as Lambda does. What is under way then goes on when it
    /// runs again.
    pub(crate) async fn run(&self, seconds: f64) {
        let live = async {
            tokio::join!(self.schedule(), self.event_source());
        };
        let live = timeout(Duration::from_secs_f64(seconds), live);
        let _ = self.lambda.run_until(live).await;
    }

    /// The same, without the schedule.
    pub(crate) async fn run_unticked(&self, seconds: f64) {
        let live = timeout(Duration::from_secs_f64(seconds), self.event_source());
        let _ = self.lambda.run_until(live).await;
    }

    /// Kills whatever is under way, where it stands. What was taken from the queue comes back
    /// after its visibility timeout.
    pub(crate) async fn crash(&self) {
        let (mut batches, mut ticks) = (self.batches.take(), self.ticks.take());
        let end = async { tokio::join!(batches.shutdown(), ticks.shutdown()) };
        self.lambda.run_until(end).await;
    }

    /// Ticks at every full minute.
    async fn schedule(&self) {
        loop {
            let past = now().timestamp_millis().rem_euclid(60_000).unsigned_abs();
            sleep(Duration::from_millis(60_000 - past)).await;
            for shard in 0..self.shards {
                let (poller, until) = (Arc::clone(&self.poller), now() + self.time_limit);
                let tick = async move {
                    handle(&poller, Call::Tick(Tick { shard }), until, now).await.unwrap();
                };
                self.ticks.borrow_mut().spawn_local_on(tick, &self.lambda);
            }
        }
    }

    async fn event_source(&self) {
        let queue = self.aws.wake_queue();
        loop {
            let has_room = {
                let mut batches = self.batches.borrow_mut();
                while let Some(over) = batches.try_join_next() {
                    over.unwrap();
                }
                batches.len() < BATCHES_AT_ONCE
            };
            if has_room && let Some(event) = queue.take_in_order() {
                *self.invocations.borrow_mut() += 1;
                self.batches.borrow_mut().spawn_local_on(self.invocation(event), &self.lambda);
                continue;
            }
            tokio::select! {
                () = self.over.notified() => {}
                () = queue.ready(), if has_room => {
                    // What SQS and Lambda take until a message arrives.
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Handles a batch, and deletes what is handled.
    pub(crate) fn invocation(&self, event: SqsEvent) -> impl Future<Output = ()> + use<> {
        let (aws, poller) = (self.aws.clone(), Arc::clone(&self.poller));
        let (over, until) = (Arc::clone(&self.over), now() + self.time_limit);
        async move {
            let ids: Vec<String> =
                event.records.iter().filter_map(|record| record.message_id.clone()).collect();
            let answer = handle(&poller, Call::WakeUps(event), until, now).await.unwrap();
            let back: Vec<Value> =
                answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
            for id in ids {
                if !back.contains(&json!({"itemIdentifier": id})) {
                    aws.wake_queue().delete(&id);
                }
            }
            over.notify_one();
        }
    }

    /// The next batch of messages, as soon as there is one. What is under way goes on.
    pub(crate) async fn next_batch(&self) -> SqsEvent {
        let queue = self.aws.wake_queue();
        let next = async {
            loop {
                match queue.take_in_order() {
                    Some(event) => return event,
                    None => queue.ready().await,
                }
            }
        };
        self.lambda.run_until(next).await
    }

    /// How often Lambda began a batch so far.
    pub(crate) fn invocations(&self) -> usize {
        *self.invocations.borrow()
    }

    /// All questions so far, oldest first.
    pub(crate) fn polls(&self) -> Vec<Poll> {
        self.providers.lock().unwrap().polls.clone()
    }

    /// The ages, in seconds, at which a job was asked about.
    pub(crate) fn polled_at(&self, id: &JobId) -> Vec<f64> {
        let created_at = self.created_at(id);
        let uuid = id.as_uuid();
        let polls = self.polls();
        let polls = polls.iter().filter(|poll| poll.render == uuid);
        polls.map(|poll| (poll.at - created_at).as_seconds_f64()).collect()
    }

    pub(crate) async fn job(&self, id: &JobId) -> Job {
        self.poller.tracker.store.job(id).await.unwrap().unwrap()
    }

    /// How old the job was when it left the active ones; none while it is there.
    pub(crate) async fn settled_at(&self, id: &JobId) -> Option<f64> {
        let settled = self.job(id).await.settled_at?;
        Some((settled - self.created_at(id)).as_seconds_f64())
    }

    /// The ages at which the law has it asked about, up to `until`.
    pub(crate) fn due(&self, id: &JobId, until_s: f64) -> Vec<f64> {
        let jobs = self.jobs.borrow();
        let job = jobs.iter().find(|job| job.id == *id).unwrap();
        let law = self.poller.tracker.law(job);
        let next = |age: &Duration| Some(law.next_after(job.request.tracking, *age, id.spread()));
        let ages = std::iter::successors(next(&Duration::ZERO), next);
        ages.map(|age| age.as_secs_f64()).take_while(|age| *age <= until_s).collect()
    }

    /// How often the lease of a shard was written.
    pub(crate) async fn epoch(&self, shard: u32) -> u64 {
        let lease = self.poller.tracker.store.lease(shard).await.unwrap();
        lease.map_or(0, |lease| lease.epoch)
    }

    fn created_at(&self, id: &JobId) -> DateTime<Utc> {
        let jobs = self.jobs.borrow();
        jobs.iter().find(|job| job.id == *id).unwrap().created_at
    }
}

fn poller(aws: &FakeAws, network: &Network, shards: u32) -> Poller {
    let url = |name: &str| (name.to_owned(), format!("http://{name}.test").parse().unwrap());
    let base_urls = BTreeMap::from([url("zvid"), url("shotstack")]);
    let adjustments = Adjustments { base_urls, ..Adjustments::default() };
    let catalogue = Catalogue::load(&adjustments).unwrap();
    let tracker = aws.tracker_on(network.seen_by(Arc::new(Calm)), catalogue).unwrap();
    Poller::new(tracker, aws.wakes(), shards)
}

fn answering(host: String, providers: Arc<Mutex<Providers>>) -> Host {
    Arc::new(move |request: Request<Bytes>| {
        let (host, providers) = (host.clone(), Arc::clone(&providers));
        async move {
            let path = request.uri().path().to_owned();
            let render = path.rsplit('/').next().unwrap_or_default().to_owned();
            let mood = {
                let mut providers = providers.lock().unwrap();
                let poll = Poll { at: now(), host: host.clone(), render: render.clone() };
                providers.polls.push(poll);
                providers.moods.get(&host).cloned().unwrap_or(Mood::Well)
            };
            sleep(LATENCY).await;
            let ends_at = providers.lock().unwrap().ends.get(&render).copied();
            let (status, retry_after) = match mood {
                Mood::Well => (200, None),
                Mood::Refuses(status) => (status, None),
                Mood::WantsRest(status, seconds) => (status, Some(seconds)),
                Mood::Hangs => std::future::pending().await,
            };
            let is_done = ends_at.is_some_and(|ends_at| ends_at <= now());
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            response.body(Bytes::from(said(&host, &render, is_done).to_string())).unwrap()
        }
        .boxed()
    })
}

fn said(host: &str, render: &str, is_done: bool) -> Value {
    let url = format!("https://cdn.example/{render}.mp4");
    match (host, is_done) {
        ("zvid.test", true) => json!({"id": render, "state": "completed", "result": {"url": url}}),
        ("zvid.test", false) => json!({"id": render, "state": "active"}),
        (_, true) => json!({"response": {"id": render, "status": "done", "url": url}}),
        (_, false) => json!({"response": {"id": render, "status": "rendering"}}),
    }
}

/// How much later than the law each poll came, in seconds; fails when one is missing, or one
/// is too many.
pub(crate) fn lateness(polled: &[f64], due: &[f64]) -> Vec<f64> {
    assert_eq!(polled.len(), due.len(), "polled {polled:.2?}, due {due:.2?}");
    let late: Vec<f64> = polled.iter().zip(due).map(|(polled, due)| polled - due).collect();
    assert!(late.iter().all(|late| *late >= -0.001), "early: {polled:.2?}, due {due:.2?}");
    late
}
