//! The poller's environment in virtual time: AWS, two providers, and how Lambda handles the
//! schedule and the wake queue.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::clock::{self, now};
use aws_in_memory::interceptor::{CallInterceptor, NoFaults};
use aws_in_memory::network::{Host, Network};
use aws_in_memory::{InMemoryAws, builders};
use aws_lambda_events::sqs::SqsEvent;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::endpoint::EndpointLimits;
use domain::event::EventSet;
use domain::id::{JobId, ProviderName, RenderJobId};
use domain::job::{Job, Report, Transition};
use domain::polling::{LognormalModel, Pause, Tracking};
use domain::provider::catalogue::Adjustments;
use futures_util::FutureExt;
use http::{Request, Response, Uri};
use serde_json::{Value, json};
use shared::queue::WakeUp;
use shared::store::WebhookConfig;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::{Poller, PollerInput, Tick, handle};

/// The function's timeout in the template.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// How many batches of messages Lambda handles at the same time.
const BATCHES_AT_ONCE: usize = 5;

/// The providers that answer.
const HOSTS: [&str; 4] = ["zvid", "shotstack", "acme", "json2video"];

/// How long a provider takes to answer.
const LATENCY: Duration = Duration::from_millis(100);

/// How a provider answers status calls.
#[derive(Clone, Debug)]
pub(crate) enum ProviderMode {
    Healthy,
    /// Answers each call with this status code.
    Fails(u16),
    /// Answers each call with this status code and a `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Never answers.
    Hangs,
    /// Answers 200 with a body that is no JSON.
    Unreadable,
    /// Answers 200 with a body that is too large to be read.
    TooLarge,
}

#[derive(Debug, Default)]
struct FakeProviders {
    ends: BTreeMap<String, DateTime<Utc>>,
    modes: BTreeMap<String, ProviderMode>,
    /// How the provider answers about single renders, or, under the empty name, for its list.
    sick: BTreeMap<String, ProviderMode>,
    polls: Vec<Poll>,
}

/// A status call that a provider received; a list call names no render.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub(crate) at: DateTime<Utc>,
    pub(crate) host: String,
    pub(crate) render: String,
}

pub(crate) struct PollerWorld {
    pub(crate) aws: InMemoryAws,
    pub(crate) poller: Arc<Poller>,
    network: Network,
    providers: Arc<Mutex<FakeProviders>>,
    jobs: RefCell<Vec<Job>>,
    invocations: RefCell<usize>,
    lambda: LocalSet,
    /// The batches and ticks in flight.
    batches: RefCell<JoinSet<()>>,
    ticks: RefCell<JoinSet<()>>,
    /// Notified when a batch is handled.
    batch_done: Arc<Notify>,
    time_limit: Duration,
    shards: u32,
}

impl PollerWorld {
    pub(crate) fn new() -> Self {
        Self::with_shards(1)
    }

    pub(crate) fn with_shards(shards: u32) -> Self {
        clock::set(DateTime::from_timestamp(1_779_602_430, 0).unwrap());
        let aws = InMemoryAws::new(&[
            ("providers/zvid/api-key", r#"{"key": "zvid_key", "hosts": ["zvid.test:80"]}"#),
            (
                "providers/shotstack/api-key",
                r#"{"key": "shotstack_key", "hosts": ["shotstack.test:80"]}"#,
            ),
            ("providers/acme/api-key", r#"{"key": "acme_key", "hosts": ["acme.test:80"]}"#),
            (
                "providers/json2video/api-key",
                r#"{"key": "json2video_key", "hosts": ["json2video.test:80"]}"#,
            ),
        ]);
        let network = Network::default();
        let providers = Arc::new(Mutex::new(FakeProviders::default()));
        for name in HOSTS {
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
            batch_done: Arc::default(),
            time_limit: TIME_LIMIT,
            shards,
        }
    }

    /// The same world, in which the poller's calls to AWS pass this interceptor.
    pub(crate) fn with_faults(self, interceptor: Arc<dyn CallInterceptor>) -> Self {
        let poller = Arc::new(poller(&self.aws.seen_by(interceptor), &self.network, self.shards));
        Self { poller, ..self }
    }

    /// The same world, with a default receiver.
    pub(crate) async fn with_receiver(self) -> Self {
        let config = WebhookConfig {
            url: Some("https://shop.example/hooks".to_owned()),
            events: EventSet::terminal(),
            limits: EndpointLimits::default(),
            updated_at: now(),
        };
        self.aws.put_webhook_config(&config).await.unwrap();
        self
    }

    pub(crate) fn with_time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// The same world after a deployment with another number of shards.
    pub(crate) fn redeployed(self, shards: u32) -> Self {
        let poller = Arc::new(poller(&self.aws, &self.network, shards));
        Self { poller, shards, ..self }
    }

    /// Stores a job whose render ends after `ends_s` seconds and sends its wake-up call, as the
    /// submit function does.
    pub(crate) async fn submit(&self, provider: &str, tracking: Tracking, ends_s: f64) -> JobId {
        self.submit_with_model(provider, tracking, ends_s, None).await
    }

    pub(crate) async fn submit_with_model(
        &self,
        provider: &str,
        tracking: Tracking,
        ends_s: f64,
        duration_model: Option<LognormalModel>,
    ) -> JobId {
        let job = self.insert_job(provider, tracking, ends_s, duration_model, now()).await;
        if tracking == Tracking::PollOnly {
            self.wake(&job).await;
        }
        job.id
    }

    async fn wake(&self, job: &Job) {
        let schedule = self.poller.tracker.poll_schedule(job);
        let due = schedule.next_after(job.request.tracking, Duration::ZERO, job.id.spread());
        let call = WakeUp::NewJob { shard: job.request.shard, created_at: job.created_at };
        self.aws.wakes().send(&call, due).await.unwrap();
    }

    /// Stores a job as a submit function does that crashes before it sends the wake-up call.
    pub(crate) async fn insert_job(
        &self,
        provider: &str,
        tracking: Tracking,
        ends_s: f64,
        duration_model: Option<LognormalModel>,
        created_at: DateTime<Utc>,
    ) -> Job {
        let number = u8::try_from(self.jobs.borrow().len() % 251).unwrap();
        let more = u8::try_from(self.jobs.borrow().len() / 251).unwrap();
        let id = JobId::from_bytes([number, more, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        let accepted = Report::Accepted(RenderJobId::parse(&id.as_uuid()).unwrap());
        let reported = (id, accepted);
        self.insert_reported(reported, provider, tracking, ends_s, duration_model, created_at).await
    }

    /// Submits a poll-only job of this id, whose submit had this outcome.
    pub(crate) async fn submit_reported(
        &self,
        reported: (JobId, Report),
        provider: &str,
        ends_s: f64,
    ) -> JobId {
        let tracking = Tracking::PollOnly;
        let job = self.insert_reported(reported, provider, tracking, ends_s, None, now()).await;
        self.wake(&job).await;
        job.id
    }

    async fn insert_reported(
        &self,
        (id, report): (JobId, Report),
        provider: &str,
        tracking: Tracking,
        ends_s: f64,
        duration_model: Option<LognormalModel>,
        created_at: DateTime<Utc>,
    ) -> Job {
        let render = id.as_uuid();
        let job = builders::job()
            .shard(id.shard(self.shards))
            .id(id)
            .provider(provider)
            .tracking(tracking)
            .duration_model(duration_model)
            .created_at(created_at)
            .build();
        let Transition::Changed(job) = job.apply(&report, 0, created_at) else { panic!("no news") };
        let ends_at = created_at + Duration::from_secs_f64(ends_s);
        self.providers.lock().unwrap().ends.insert(render, ends_at);
        self.aws.store().insert_job(&job).await.unwrap();
        self.jobs.borrow_mut().push((*job).clone());
        *job
    }

    pub(crate) fn set_mode(&self, provider: &str, mode: ProviderMode) {
        self.providers.lock().unwrap().modes.insert(format!("{provider}.test"), mode);
    }

    /// Makes the provider answer so about one render.
    pub(crate) fn set_sick(&self, id: &JobId, mode: ProviderMode) {
        self.providers.lock().unwrap().sick.insert(id.as_uuid(), mode);
    }

    /// Makes all lists be answered so.
    pub(crate) fn set_lists(&self, mode: ProviderMode) {
        self.providers.lock().unwrap().sick.insert(String::new(), mode);
    }

    /// Runs the schedule and the queue for so long. What is in flight at the end is paused until
    /// the next run.
    pub(crate) async fn run(&self, seconds: f64) {
        let live = async {
            tokio::join!(self.schedule(), self.event_source());
        };
        let live = timeout(Duration::from_secs_f64(seconds), live);
        let _ = self.lambda.run_until(live).await;
    }

    /// Runs the queue alone, without the schedule.
    pub(crate) async fn run_unticked(&self, seconds: f64) {
        let live = timeout(Duration::from_secs_f64(seconds), self.event_source());
        let _ = self.lambda.run_until(live).await;
    }

    /// Aborts all invocations in flight. Their messages come back after the visibility timeout.
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
                    handle(&poller, PollerInput::Tick(Tick { shard }), until, now).await.unwrap();
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
                while let Some(result) = batches.try_join_next() {
                    result.unwrap();
                }
                batches.len() < BATCHES_AT_ONCE
            };
            if has_room && let Some(event) = queue.take_in_order() {
                *self.invocations.borrow_mut() += 1;
                self.batches.borrow_mut().spawn_local_on(self.invocation(event), &self.lambda);
                continue;
            }
            tokio::select! {
                () = self.batch_done.notified() => {}
                () = queue.ready(), if has_room => {
                    // SQS and Lambda take this long until a message arrives.
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Handles a batch and deletes the messages that succeed.
    pub(crate) fn invocation(&self, event: SqsEvent) -> impl Future<Output = ()> + use<> {
        let (aws, poller) = (self.aws.clone(), Arc::clone(&self.poller));
        let (batch_done, until) = (Arc::clone(&self.batch_done), now() + self.time_limit);
        async move {
            let ids: Vec<String> =
                event.records.iter().filter_map(|record| record.message_id.clone()).collect();
            let answer = handle(&poller, PollerInput::WakeUps(event), until, now).await.unwrap();
            let back: Vec<Value> =
                answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
            for id in ids {
                if !back.contains(&json!({"itemIdentifier": id})) {
                    aws.wake_queue().delete(&id);
                }
            }
            batch_done.notify_one();
        }
    }

    /// Waits for the next batch of messages, while invocations in flight run on.
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

    /// How many batches Lambda has begun.
    pub(crate) fn invocations(&self) -> usize {
        *self.invocations.borrow()
    }

    /// All polls so far, oldest first.
    pub(crate) fn polls(&self) -> Vec<Poll> {
        self.providers.lock().unwrap().polls.clone()
    }

    /// The ages, in seconds, at which a job was polled.
    pub(crate) fn polled_at(&self, id: &JobId) -> Vec<f64> {
        let created_at = self.created_at(id);
        let uuid = id.as_uuid();
        let polls = self.polls();
        let polls = polls.iter().filter(|poll| poll.render == uuid);
        polls.map(|poll| (poll.at - created_at).as_seconds_f64()).collect()
    }

    pub(crate) async fn all_jobs(&self) -> Vec<Job> {
        let ids: Vec<JobId> = self.jobs.borrow().iter().map(|job| job.id.clone()).collect();
        let mut jobs = Vec::new();
        for id in &ids {
            jobs.push(self.job(id).await);
        }
        jobs
    }

    pub(crate) async fn job(&self, id: &JobId) -> Job {
        self.poller.tracker.store.job(id).await.unwrap().unwrap()
    }

    /// The job's age, in seconds, when it settled; none while it is active.
    pub(crate) async fn settled_at(&self, id: &JobId) -> Option<f64> {
        let settled = self.job(id).await.settled_at?;
        Some((settled - self.created_at(id)).as_seconds_f64())
    }

    /// The ages up to `until_s` at which the schedule has the job polled.
    pub(crate) fn due(&self, id: &JobId, until_s: f64) -> Vec<f64> {
        let jobs = self.jobs.borrow();
        let job = jobs.iter().find(|job| job.id == *id).unwrap();
        let schedule = self.poller.tracker.poll_schedule(job);
        let next =
            |age: &Duration| Some(schedule.next_after(job.request.tracking, *age, id.spread()));
        let ages = std::iter::successors(next(&Duration::ZERO), next);
        ages.map(|age| age.as_secs_f64()).take_while(|age| *age <= until_s).collect()
    }

    /// The pauses in the lease of a shard.
    pub(crate) async fn pauses(&self, shard: u32) -> BTreeMap<ProviderName, Pause> {
        let lease = self.poller.tracker.store.lease(shard).await.unwrap();
        lease.map(|lease| lease.pauses).unwrap_or_default()
    }

    /// Ends a provider's pauses, as the API does.
    pub(crate) async fn resume(&self, provider: &str) {
        let (name, store) = (ProviderName::parse(provider).unwrap(), self.aws.store());
        let index = store.spec_index().await.unwrap();
        store.commit_spec_index(&index.resumed(&name, now())).await.unwrap();
    }

    /// How many times the lease of a shard was written.
    pub(crate) async fn epoch(&self, shard: u32) -> u64 {
        let lease = self.poller.tracker.store.lease(shard).await.unwrap();
        lease.map_or(0, |lease| lease.epoch)
    }

    fn created_at(&self, id: &JobId) -> DateTime<Utc> {
        let jobs = self.jobs.borrow();
        jobs.iter().find(|job| job.id == *id).unwrap().created_at
    }
}

fn poller(aws: &InMemoryAws, network: &Network, shards: u32) -> Poller {
    let url = |name: &str| (name.to_owned(), format!("http://{name}.test").parse().unwrap());
    let base_urls = BTreeMap::from(HOSTS.map(url));
    let policy = TargetPolicy::local_use();
    let adjustments = Adjustments { base_urls, policy, ..Adjustments::default() };
    let tracker = aws.tracker_on(network.seen_by(Arc::new(NoFaults)), adjustments).unwrap();
    Poller::new(tracker, aws.wakes(), shards)
}

fn answering(host: String, providers: Arc<Mutex<FakeProviders>>) -> Host {
    Arc::new(move |request: Request<Bytes>| {
        let (host, providers) = (host.clone(), Arc::clone(&providers));
        async move {
            let render = render_of(&host, request.uri());
            let mode = {
                let mut providers = providers.lock().unwrap();
                let poll = Poll { at: now(), host: host.clone(), render: render.clone() };
                providers.polls.push(poll);
                let whole = providers.modes.get(&host);
                let mode = whole.or_else(|| providers.sick.get(&render)).cloned();
                mode.unwrap_or(ProviderMode::Healthy)
            };
            sleep(LATENCY).await;
            let ends_at = providers.lock().unwrap().ends.get(&render).copied();
            let (status, retry_after) = match mode {
                ProviderMode::Healthy => (200, None),
                ProviderMode::Fails(status) => (status, None),
                ProviderMode::RetryAfter(status, seconds) => (status, Some(seconds)),
                ProviderMode::Hangs => std::future::pending().await,
                ProviderMode::Unreadable => return Response::new("<html>".into()),
                ProviderMode::TooLarge => return Response::new(vec![b' '; 3 << 20].into()),
            };
            let is_done = ends_at.is_some_and(|ends_at| ends_at <= now());
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            response.body(Bytes::from(status_body(&host, &render, is_done).to_string())).unwrap()
        }
        .boxed()
    })
}

/// The render that a call asks about; empty for a list.
fn render_of(host: &str, uri: &Uri) -> String {
    match host {
        "json2video.test" => {
            let query = uri.query().unwrap_or_default();
            let id = query.split('&').find_map(|member| member.strip_prefix("project="));
            id.unwrap_or_default().to_owned()
        }
        _ => uri.path().rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

fn status_body(host: &str, render: &str, is_done: bool) -> Value {
    let url = format!("https://cdn.example/{render}.mp4");
    match (host, is_done) {
        ("zvid.test", true) => json!({"id": render, "state": "completed", "result": {"url": url}}),
        ("zvid.test", false) => json!({"id": render, "state": "active"}),
        ("json2video.test", true) => {
            json!({"movie": {"project": render, "status": "done", "url": url}})
        }
        ("json2video.test", false) => json!({"movie": {"project": render, "status": "running"}}),
        (_, true) => json!({"response": {"id": render, "status": "done", "url": url}}),
        (_, false) => json!({"response": {"id": render, "status": "rendering"}}),
    }
}

/// How many seconds after its due time each poll came. It panics when a poll is missing or one
/// too many.
pub(crate) fn lateness(polled: &[f64], due: &[f64]) -> Vec<f64> {
    assert_eq!(polled.len(), due.len(), "polled {polled:.2?}, due {due:.2?}");
    let late: Vec<f64> = polled.iter().zip(due).map(|(polled, due)| polled - due).collect();
    assert!(late.iter().all(|late| *late >= -0.001), "early: {polled:.2?}, due {due:.2?}");
    late
}
