//! The measured process: polls a provider and measures the cost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_in_memory::InMemoryAws;
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use domain::address::TargetPolicy;
use domain::job::{Job, Report, Transition};
use domain::provider::StatusAnswer;
use domain::provider::catalogue::Adjustments;
use futures_util::future::try_join_all;
use http::header::HeaderName;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use poller::{Poller, PollerInput};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::duration_models::DurationModels;
use shared::egress::provider::ProviderHttp;
use shared::provider_specs::ProviderSpecs;
use shared::providers::Providers;
use shared::queue::WakeUp;
use shared::secrets::Secrets;
use shared::setup::Setup;
use shared::store::Store;
use shared::telemetry;
use shared::tracker::Tracker;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::fleet::{Fleet, PROVIDER, base_url};
use super::provider::COUNT;
use crate::child::{self, RoleProcess};
use crate::cost::{self, Cost, Stopwatch};
use crate::loopback::{self, LoopbackResolver};
use crate::tls::{self, DOMAIN, TlsAddress};

/// The number of concurrent polls when processor time is measured.
const AT_ONCE: usize = 10;

/// The number of polls in a turn.
const TURN: usize = 1_000;

/// The interval between two batches of the bare client's polls.
const BATCH_INTERVAL: Duration = Duration::from_millis(10);

/// How long a poller continues after the measurement, with a margin.
const HAND_OVER: TimeDelta = TimeDelta::seconds(27);

/// The interval of looking for the first poll.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The measurement and the provider's address.
#[derive(Args)]
pub(crate) struct PollClientOptions {
    #[command(flatten)]
    provider: TlsAddress,
    #[command(flatten)]
    fleet: Fleet,
    #[command(subcommand)]
    measure: PollMeasurement,
}

#[derive(Subcommand)]
enum PollMeasurement {
    /// Measures each way in turn.
    Cpu {
        #[arg(long)]
        rounds: usize,
    },
    /// Measures a bare client at a steady rate.
    Bare {
        #[arg(long)]
        per_second: u32,
        #[arg(long)]
        warm_up_s: u64,
        #[arg(long)]
        seconds: u64,
    },
    /// Measures a shard's poller at the rate of its jobs.
    Shard {
        #[command(flatten)]
        wake_up: WakeUpContent,
        #[arg(long)]
        warm_up_s: u64,
        #[arg(long)]
        seconds: u64,
    },
    /// Measures a shard's poller from its wake-up call to its first poll.
    Start {
        #[command(flatten)]
        wake_up: WakeUpContent,
    },
}

/// The content of the wake-up call.
#[derive(Clone, Copy, Args)]
pub(super) struct WakeUpContent {
    #[arg(long)]
    pub(super) epoch: u64,
    /// The time up to which the shard was polled, in Unix milliseconds.
    #[arg(long)]
    pub(super) seen_ms: i64,
}

/// A way to poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(super) enum PollWay {
    /// hyper's client with its pool; the answer is read and dropped.
    Floor,
    /// The poller's code: a request by the provider's spec, and the answer applied to the job.
    Core,
}

impl PollWay {
    pub(super) const ALL: [Self; 2] = [Self::Floor, Self::Core];
}

/// The cost of one turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PollTurn {
    pub(super) way: PollWay,
    cost: Cost,
}

pub(super) fn start(
    provider: &TlsAddress,
    fleet: &Fleet,
    measure: &[String],
    environment: &[(&str, String)],
) -> Result<RoleProcess> {
    let mut arguments = provider.arguments();
    arguments.extend(fleet.arguments());
    arguments.extend_from_slice(measure);
    RoleProcess::start_in("poll-client", &arguments, environment)
}

impl PollTurn {
    /// Processor time per poll, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / TURN as f64
    }
}

/// The result of polling for a while.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PollSpan {
    /// The polls that the provider answered.
    pub(super) answered: u64,
    /// The polls that were due by the jobs' schedule.
    pub(super) due: u64,
    pub(super) cost: Cost,
    /// The peak of memory so far, in bytes.
    pub(super) peak: u64,
}

#[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
impl PollSpan {
    pub(super) fn per_second(&self) -> f64 {
        self.answered as f64 / self.cost.wall.as_secs_f64()
    }

    pub(super) fn due_per_second(&self) -> f64 {
        self.due as f64 / self.cost.wall.as_secs_f64()
    }

    /// Processor time per poll, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / self.answered as f64
    }

    /// The share of a core that was busy.
    pub(super) fn load(&self) -> f64 {
        self.cost.cpu.as_secs_f64() / self.cost.wall.as_secs_f64()
    }
}

/// Runs the measurement, and sends the result to the parent.
pub(crate) async fn run(options: &PollClientOptions) -> Result<()> {
    child::exit_with_parent();
    // The log is part of a function's cost.
    telemetry::init();
    let bare = Bare::new(options)?;
    match options.measure {
        PollMeasurement::Cpu { rounds } => {
            let jobs =
                options.fleet.all(options.provider.port).take(TURN).collect::<Result<Vec<_>>>()?;
            let core = PollCore::new(options)?;
            // The first turns warm up connections, caches and branch predictors.
            for way in PollWay::ALL {
                turn(way, &bare, &core, &jobs).await?;
            }
            for round in 0..rounds {
                for place in 0..PollWay::ALL.len() {
                    // Each round begins with another way.
                    let Some(&way) = PollWay::ALL.get((round + place) % PollWay::ALL.len()) else {
                        continue;
                    };
                    child::send(&turn(way, &bare, &core, &jobs).await?)?;
                }
            }
            Ok(())
        }
        PollMeasurement::Bare { per_second, warm_up_s, seconds } => {
            let jobs = options.fleet.all(options.provider.port).collect::<Result<Vec<_>>>()?;
            let polling = bare.poll_steadily(&jobs, per_second);
            let due = |_, _| Ok(u64::from(per_second) * seconds);
            tokio::select! {
                ended = polling => ended,
                span = span(&bare, warm_up_s, seconds, due) => child::send(&span?),
            }
        }
        PollMeasurement::Shard { wake_up, warm_up_s, seconds } => {
            let poller = poller(options).await?;
            let schedule = |job: &Job| poller.tracker.poll_schedule(job);
            let due = |from: DateTime<Utc>, to: DateTime<Utc>| {
                options.fleet.all(options.provider.port).try_fold(0, |sum, job| {
                    let job = job?;
                    let until = |at: DateTime<Utc>| {
                        let age = (at - job.created_at).to_std().unwrap_or_default();
                        schedule(&job).count_until(job.request.tracking, age, job.id.spread())
                    };
                    Ok(sum + u64::from(until(to) - until(from)))
                })
            };
            let length = TimeDelta::seconds(i64::try_from(warm_up_s + seconds)?) + HAND_OVER;
            tokio::select! {
                ended = invoke(&poller, wake_up, length) => ended.and_then(|()| bail!("it ended early")),
                span = span(&bare, warm_up_s, seconds, due) => child::send(&span?),
            }
        }
        PollMeasurement::Start { wake_up } => {
            let poller = poller(options).await?;
            let watch = Stopwatch::start()?;
            let length = TimeDelta::minutes(14);
            tokio::select! {
                ended = invoke(&poller, wake_up, length) => ended.and_then(|()| bail!("it ended early")),
                answered = bare.first() => {
                    let (answered, cost) = (answered?, watch.stop()?);
                    child::send(&PollSpan { answered, due: 0, cost, peak: cost::peak_memory()? })
                }
            }
        }
    }
}

async fn turn(way: PollWay, bare: &Bare, core: &PollCore, jobs: &[Job]) -> Result<PollTurn> {
    let watch = Stopwatch::start()?;
    for batch in jobs.chunks(AT_ONCE) {
        match way {
            PollWay::Floor => drop(try_join_all(batch.iter().map(|job| bare.poll(job))).await?),
            PollWay::Core => drop(try_join_all(batch.iter().map(|job| core.poll(job))).await?),
        }
    }
    Ok(PollTurn { way, cost: watch.stop()? })
}

/// Measures for some seconds after the warm-up.
async fn span(
    bare: &Bare,
    warm_up_s: u64,
    seconds: u64,
    due: impl Fn(DateTime<Utc>, DateTime<Utc>) -> Result<u64>,
) -> Result<PollSpan> {
    sleep(Duration::from_secs(warm_up_s)).await;
    let (before, from, watch) = (bare.count().await?, Utc::now(), Stopwatch::start()?);
    sleep(Duration::from_secs(seconds)).await;
    let (cost, peak) = (watch.stop()?, cost::peak_memory()?);
    let (after, to) = (bare.count().await?, Utc::now());
    Ok(PollSpan { answered: after - before, due: due(from, to)?, cost, peak })
}

/// The bare client: hyper's client with its pool.
struct Bare {
    client: Client<HttpsConnector<HttpConnector<LoopbackResolver>>, Full<Bytes>>,
    port: u16,
}

impl Bare {
    fn new(options: &PollClientOptions) -> Result<Self> {
        let tls = tls::client(&options.provider.certificate)?;
        let connector = HttpsConnector::from((loopback::connector(), tls));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, port: options.provider.port })
    }

    async fn get(&self, path: &str) -> Result<Bytes> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = Uri::try_from(format!("https://{DOMAIN}:{}{path}", self.port))?;
        request.headers_mut().insert(
            HeaderName::from_static("x-api-key"),
            HeaderValue::from_static(simulator::API_KEY),
        );
        let response = self.client.request(request).await?;
        ensure!(response.status().is_success(), "the provider answered {}", response.status());
        Ok(response.into_body().collect().await?.to_bytes())
    }

    async fn poll(&self, job: &Job) -> Result<Bytes> {
        self.get(&format!("/{PROVIDER}/api/jobs/{}", job.id.as_uuid())).await
    }

    /// Polls one job after another without an end.
    async fn poll_steadily(&self, jobs: &[Job], per_second: u32) -> Result<()> {
        let mut ticks = interval(BATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut jobs = jobs.iter().cycle();
        let mut polls = JoinSet::new();
        let mut due = 0.0;
        loop {
            ticks.tick().await;
            due += f64::from(per_second) * BATCH_INTERVAL.as_secs_f64();
            while due >= 1.0 {
                due -= 1.0;
                let path = jobs.next().context("no jobs")?.id.as_uuid();
                let bare = Self { client: self.client.clone(), port: self.port };
                polls.spawn(async move {
                    bare.get(&format!("/{PROVIDER}/api/jobs/{path}")).await.map(drop)
                });
            }
            while let Some(done) = polls.try_join_next() {
                done??;
            }
        }
    }

    /// The number of polls that the provider has answered.
    async fn count(&self) -> Result<u64> {
        Ok(std::str::from_utf8(&self.get(COUNT).await?)?.parse()?)
    }

    /// Waits for the first answered poll.
    async fn first(&self) -> Result<u64> {
        let before = self.count().await?;
        loop {
            sleep(POLL_INTERVAL).await;
            let answered = self.count().await? - before;
            if answered > 0 {
                return Ok(answered);
            }
        }
    }
}

/// The poller's code from a known job to the result that nothing has changed.
struct PollCore(Tracker);

impl PollCore {
    fn new(options: &PollClientOptions) -> Result<Self> {
        let key = format!("providers/{PROVIDER}/api-key");
        let stored = stored_key(options.provider.port);
        let aws = InMemoryAws::new(&[(key.as_str(), stored.as_str())]);
        Ok(Self(Tracker {
            store: aws.store(),
            providers: providers(options, aws.store(), aws.secrets())?,
            bus: aws.bus(),
            deliveries: aws.deliveries(),
            duration_models: DurationModels::new(aws.store()),
        }))
    }

    async fn poll(&self, job: &Job) -> Result<()> {
        match self.0.fetch_status(job, None, Utc::now()).await? {
            Some(StatusAnswer::Observed(observation)) => {
                let step = job.apply(&Report::Observed(observation), 0, Utc::now());
                ensure!(step == Transition::Unchanged, "a job has changed: {step:?}");
                Ok(())
            }
            other => bail!("the provider gave no status: {other:?}"),
        }
    }
}

/// The simulator's key, for the host of the provider at this port.
pub(super) fn stored_key(port: u16) -> String {
    json!({"key": simulator::API_KEY, "hosts": [format!("{DOMAIN}:{port}")]}).to_string()
}

/// The shipped providers, with the base URL of this run.
fn providers(options: &PollClientOptions, store: Store, secrets: Secrets) -> Result<Providers> {
    let base_url = base_url(options.provider.port).parse()?;
    let base_urls = [(PROVIDER.to_owned(), base_url)].into();
    let policy = TargetPolicy::local_use();
    let adjustments = Adjustments { base_urls, policy: policy.clone(), ..Adjustments::default() };
    let specs = ProviderSpecs::shipped(store, adjustments)?;
    let tls = tls::client(&options.provider.certificate)?;
    let http = ProviderHttp::with_parts(Arc::new(loopback::connector()), tls, policy);
    Ok(Providers::new(specs, http, Arc::new(secrets)))
}

/// The deployed poller, except for the certificates that it trusts.
async fn poller(options: &PollClientOptions) -> Result<Poller> {
    let setup = Setup::from_env()?;
    let tracker =
        setup.tracker(Arc::new(setup.secrets()?)).await.map_err(anyhow::Error::from_boxed)?;
    let providers = providers(options, setup.store()?, setup.secrets()?)?;
    let tracker = Tracker { providers, ..tracker };
    Ok(Poller::new(tracker, setup.wakes()?, 1))
}

async fn invoke(poller: &Poller, wake_up: WakeUpContent, length: TimeDelta) -> Result<()> {
    let seen = DateTime::from_timestamp_millis(wake_up.seen_ms).context("no such time")?;
    let call =
        WakeUp::Continuation { shard: 0, epoch: wake_up.epoch, seen, suspects: Default::default() };
    let mut message = SqsMessage::default();
    message.message_id = Some("wake".to_owned());
    message.body = Some(serde_json::to_string(&call)?);
    let mut event = SqsEvent::default();
    event.records.push(message);
    let answer =
        poller::handle(poller, PollerInput::WakeUps(event), Utc::now() + length, Utc::now).await;
    answer.map(drop).map_err(anyhow::Error::from_boxed)
}
