//! The measured process: asks a provider how renders stand, and says what that cost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use domain::job::{Job, Report, Step};
use domain::provider::catalogue::Adjustments;
use domain::provider::{Catalogue, StatusAnswer};
use futures_util::future::try_join_all;
use http::header::HeaderName;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use poller::{Call, Poller};
use serde::{Deserialize, Serialize};
use shared::egress::provider::ProviderHttp;
use shared::fake::FakeAws;
use shared::laws::Laws;
use shared::providers::Providers;
use shared::queue::WakeUp;
use shared::secrets::Secrets;
use shared::setup::Setup;
use shared::telemetry;
use shared::tracker::Tracker;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::fleet::{Fleet, PROVIDER};
use super::provider::{COUNT, Listening};
use crate::child::{self, Role};
use crate::cost::{self, Cost, Stopwatch};
use crate::here::{self, AllHere};
use crate::tls::{self, Certificate, DOMAIN};

/// How many questions are under way at once when processor time is measured.
const AT_ONCE: usize = 10;

/// Questions of one turn.
const TURN: usize = 1_000;

/// Between two batches of the bare client's questions.
const BEAT: Duration = Duration::from_millis(10);

/// How long after its last look a poller goes on, and some more.
const HAND_OVER: TimeDelta = TimeDelta::seconds(27);

/// How often it is looked whether the first question was asked.
const LOOK: Duration = Duration::from_millis(50);

/// What to measure, and where the provider is.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    certificate: Certificate,
    #[command(flatten)]
    fleet: Fleet,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Each way in turn.
    Cpu {
        #[arg(long)]
        rounds: usize,
    },
    /// A bare client at a steady pace.
    Bare {
        #[arg(long)]
        per_second: u32,
        #[arg(long)]
        warm_up_s: u64,
        #[arg(long)]
        seconds: u64,
    },
    /// A shard's poller, at the pace that its jobs want.
    Shard {
        #[command(flatten)]
        owed: Owed,
        #[arg(long)]
        warm_up_s: u64,
        #[arg(long)]
        seconds: u64,
    },
    /// A shard's poller from its wake-up call to its first question.
    Start {
        #[command(flatten)]
        owed: Owed,
    },
}

/// What the wake-up call says.
#[derive(Clone, Copy, Args)]
pub(super) struct Owed {
    #[arg(long)]
    pub(super) epoch: u64,
    /// Up to when all looks were taken, in Unix milliseconds.
    #[arg(long)]
    pub(super) seen_ms: i64,
}

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(super) enum Way {
    /// hyper's client with its pool, the answer read and forgotten.
    Floor,
    /// What the poller does: ask by the provider's spec, judge the answer, apply it.
    Core,
}

impl Way {
    pub(super) const ALL: [Self; 2] = [Self::Floor, Self::Core];
}

/// What so many questions cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Turn {
    pub(super) way: Way,
    cost: Cost,
}

/// Starts a process that measures this.
pub(super) fn start(
    provider: &Listening,
    fleet: &Fleet,
    measure: &[String],
    environment: &[(&str, String)],
) -> Result<Role> {
    let mut arguments = vec![
        "--port".to_owned(),
        provider.port.to_string(),
        "--certificate".to_owned(),
        provider.certificate.to_string(),
    ];
    arguments.extend(fleet.arguments());
    arguments.extend_from_slice(measure);
    Role::start_in("asker", &arguments, environment)
}

impl Turn {
    /// Processor time per question, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / TURN as f64
    }
}

/// What asking for a while came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Span {
    /// Questions that the provider answered.
    pub(super) asked: u64,
    /// Questions that were due by the jobs' law.
    pub(super) due: u64,
    pub(super) cost: Cost,
    /// The most memory so far, in bytes.
    pub(super) peak: u64,
}

#[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
impl Span {
    pub(super) fn per_second(&self) -> f64 {
        self.asked as f64 / self.cost.wall.as_secs_f64()
    }

    pub(super) fn due_per_second(&self) -> f64 {
        self.due as f64 / self.cost.wall.as_secs_f64()
    }

    /// Processor time per question, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / self.asked as f64
    }

    /// The part of a core that was busy.
    pub(super) fn load(&self) -> f64 {
        self.cost.cpu.as_secs_f64() / self.cost.wall.as_secs_f64()
    }
}

/// Measures what it is told to, and tells the parent.
pub(crate) async fn run(options: &Options) -> Result<()> {
    child::leave_with_parent();
    // Writing its log is part of what a function costs.
    telemetry::init();
    let bare = Bare::new(options)?;
    match options.measure {
        Measure::Cpu { rounds } => {
            let jobs = options.fleet.all().take(TURN).collect::<Result<Vec<_>>>()?;
            let core = Core::new(options)?;
            // Connections, caches and branch predictors warm up first.
            for way in Way::ALL {
                turn(way, &bare, &core, &jobs).await?;
            }
            for round in 0..rounds {
                for place in 0..Way::ALL.len() {
                    // Another one first in each round.
                    let Some(&way) = Way::ALL.get((round + place) % Way::ALL.len()) else {
                        continue;
                    };
                    child::tell(&turn(way, &bare, &core, &jobs).await?)?;
                }
            }
            Ok(())
        }
        Measure::Bare { per_second, warm_up_s, seconds } => {
            let jobs = options.fleet.all().collect::<Result<Vec<_>>>()?;
            let paced = bare.at_a_pace(&jobs, per_second);
            let due = |_, _| Ok(u64::from(per_second) * seconds);
            tokio::select! {
                ended = paced => ended,
                span = span(&bare, warm_up_s, seconds, due) => child::tell(&span?),
            }
        }
        Measure::Shard { owed, warm_up_s, seconds } => {
            let poller = poller(options).await?;
            let law = |job: &Job| poller.tracker.law(job);
            let due = |from: DateTime<Utc>, to: DateTime<Utc>| {
                options.fleet.all().try_fold(0, |sum, job| {
                    let job = job?;
                    let until = |at: DateTime<Utc>| {
                        let age = (at - job.created_at).to_std().unwrap_or_default();
                        law(&job).count_until(job.request.tracking, age, job.id.spread())
                    };
                    Ok(sum + u64::from(until(to) - until(from)))
                })
            };
            let length = TimeDelta::seconds(i64::try_from(warm_up_s + seconds)?) + HAND_OVER;
            tokio::select! {
                ended = invoke(&poller, owed, length) => ended.and_then(|()| bail!("it ended early")),
                span = span(&bare, warm_up_s, seconds, due) => child::tell(&span?),
            }
        }
        Measure::Start { owed } => {
            let poller = poller(options).await?;
            let watch = Stopwatch::start()?;
            let length = TimeDelta::minutes(14);
            tokio::select! {
                ended = invoke(&poller, owed, length) => ended.and_then(|()| bail!("it ended early")),
                asked = bare.first() => {
                    let (asked, cost) = (asked?, watch.stop()?);
                    child::tell(&Span { asked, due: 0, cost, peak: cost::peak_memory()? })
                }
            }
        }
    }
}

async fn turn(way: Way, bare: &Bare, core: &Core, jobs: &[Job]) -> Result<Turn> {
    let watch = Stopwatch::start()?;
    for batch in jobs.chunks(AT_ONCE) {
        match way {
            Way::Floor => drop(try_join_all(batch.iter().map(|job| bare.ask(job))).await?),
            Way::Core => drop(try_join_all(batch.iter().map(|job| core.ask(job))).await?),
        }
    }
    Ok(Turn { way, cost: watch.stop()? })
}

/// What goes on while this waits, from the end of the warm-up for so many seconds.
async fn span(
    bare: &Bare,
    warm_up_s: u64,
    seconds: u64,
    due: impl Fn(DateTime<Utc>, DateTime<Utc>) -> Result<u64>,
) -> Result<Span> {
    sleep(Duration::from_secs(warm_up_s)).await;
    let (before, from, watch) = (bare.count().await?, Utc::now(), Stopwatch::start()?);
    sleep(Duration::from_secs(seconds)).await;
    let (cost, peak) = (watch.stop()?, cost::peak_memory()?);
    let (after, to) = (bare.count().await?, Utc::now());
    Ok(Span { asked: after - before, due: due(from, to)?, cost, peak })
}

/// hyper's client with its pool.
struct Bare {
    client: Client<HttpsConnector<HttpConnector<AllHere>>, Full<Bytes>>,
    port: u16,
}

impl Bare {
    fn new(options: &Options) -> Result<Self> {
        let tls = tls::client(&options.certificate)?;
        let connector = HttpsConnector::from((here::connector(), tls));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, port: options.port })
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

    async fn ask(&self, job: &Job) -> Result<Bytes> {
        self.get(&format!("/{PROVIDER}/api/jobs/{}", job.id.as_uuid())).await
    }

    /// Asks about one job after the other, for ever.
    async fn at_a_pace(&self, jobs: &[Job], per_second: u32) -> Result<()> {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut jobs = jobs.iter().cycle();
        let mut asked = JoinSet::new();
        let mut owed = 0.0;
        loop {
            beats.tick().await;
            owed += f64::from(per_second) * BEAT.as_secs_f64();
            while owed >= 1.0 {
                owed -= 1.0;
                let path = jobs.next().context("no jobs")?.id.as_uuid();
                let bare = Self { client: self.client.clone(), port: self.port };
                asked.spawn(async move {
                    bare.get(&format!("/{PROVIDER}/api/jobs/{path}")).await.map(drop)
                });
            }
            while let Some(done) = asked.try_join_next() {
                done??;
            }
        }
    }

    /// How many questions the provider has answered.
    async fn count(&self) -> Result<u64> {
        Ok(std::str::from_utf8(&self.get(COUNT).await?)?.parse()?)
    }

    /// Waits until there was one.
    async fn first(&self) -> Result<u64> {
        let before = self.count().await?;
        loop {
            sleep(LOOK).await;
            let asked = self.count().await? - before;
            if asked > 0 {
                return Ok(asked);
            }
        }
    }
}

/// What the poller does between knowing a job and knowing that nothing has changed.
struct Core(Tracker);

impl Core {
    fn new(options: &Options) -> Result<Self> {
        let key = format!("providers/{PROVIDER}/api-key");
        let aws = FakeAws::new(&[(key.as_str(), simulator::API_KEY)]);
        Ok(Self(Tracker {
            store: aws.store(),
            providers: providers(options, aws.secrets())?,
            bus: aws.bus(),
            deliveries: aws.deliveries(),
            laws: Laws::new(aws.store()),
        }))
    }

    async fn ask(&self, job: &Job) -> Result<()> {
        match self.0.ask(job, None, Utc::now()).await? {
            Some(StatusAnswer::Observed(observation)) => {
                let step = job.apply(&Report::Observed(observation), 0, Utc::now());
                ensure!(step == Step::Unchanged, "a job has changed: {step:?}");
                Ok(())
            }
            other => bail!("the provider does not tell: {other:?}"),
        }
    }
}

/// The shipped providers, with the one of this run.
fn providers(options: &Options, secrets: Secrets) -> Result<Providers> {
    let base_url = format!("https://{DOMAIN}:{}/{PROVIDER}", options.port).parse()?;
    let base_urls = [(PROVIDER.to_owned(), base_url)].into();
    let catalogue = Catalogue::load(&Adjustments { base_urls, ..Adjustments::default() })?;
    let tls = tls::client(&options.certificate)?;
    let http = ProviderHttp::with_parts(Arc::new(here::connector()), tls);
    Ok(Providers::new(catalogue, http, Arc::new(secrets)))
}

/// The poller as it is deployed, but for whom it trusts.
async fn poller(options: &Options) -> Result<Poller> {
    let setup = Setup::from_env()?;
    let tracker =
        setup.tracker(Arc::new(setup.secrets())).await.map_err(anyhow::Error::from_boxed)?;
    let tracker = Tracker { providers: providers(options, setup.secrets())?, ..tracker };
    Ok(Poller::new(tracker, setup.wakes()?, 1))
}

async fn invoke(poller: &Poller, owed: Owed, length: TimeDelta) -> Result<()> {
    let seen = DateTime::from_timestamp_millis(owed.seen_ms).context("no such time")?;
    let call =
        WakeUp::Successor { shard: 0, epoch: owed.epoch, seen, failures: Default::default() };
    let mut message = SqsMessage::default();
    message.message_id = Some("wake".to_owned());
    message.body = Some(serde_json::to_string(&call)?);
    let mut event = SqsEvent::default();
    event.records.push(message);
    let answer = poller::handle(poller, Call::WakeUps(event), Utc::now() + length, Utc::now).await;
    answer.map(drop).map_err(anyhow::Error::from_boxed)
}
