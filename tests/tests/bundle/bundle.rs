//! The whole bundle, and the time that passes for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_in_memory::network::Network;
use aws_in_memory::random::Random;
use aws_in_memory::{InMemoryAws, clock, random};
use aws_lambda_events::sqs::SqsEvent;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use domain::endpoint::Limits;
use domain::event::EventName;
use domain::retry::DeliverySchedule;
use domain::signature::{SignatureType, WebhookSecret};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::store::WebhookConfig;
use simulator::{Posting, Surroundings};
use tests::Provider;
use tokio::runtime::LocalOptions;
use tokio::task::JoinHandle;
use tower_service::Service;
use tracing::warn;

use crate::backend::Placed;
use crate::functions::{Event, Function, Instance, PROVIDERS, Parameters, catalogue};
use crate::hosts;
use crate::invocation::{Ended, Harm, Invocation, Planned, Process};
use crate::lambda::Source;
use crate::operator::Promise;
use crate::receivers::Receivers;
use crate::storm::Storm;
use crate::watch::Watch;
use crate::weather::Weather;

/// The key of the customer's backend.
pub(crate) const API_KEY: &str = "rr_the-key-of-the-backend";

/// What the providers sign their callbacks with.
pub(crate) const PROVIDER_SECRET: &str = "a-secret-of-the-provider";

/// How far behind writes a read is that need not be consistent. Some milliseconds, mostly, on
/// AWS; endpoints are remembered for longer than this.
const READ_LAG: Duration = Duration::from_millis(500);

/// When every run begins.
pub(crate) const BEGINNING: DateTime<Utc> = DateTime::from_timestamp(1_779_602_400, 0).unwrap();

/// How often it is looked whether everything is quiet: out of step with the schedule, which
/// calls a function once a minute.
const LOOK: Duration = Duration::from_secs(7);
/// How long it has to stay quiet: the schedule has called meanwhile.
const QUIET: Duration = Duration::from_secs(70);
/// How much earlier than it is due a delivery may be moved into the queue, and some more.
const SOON: TimeDelta = TimeDelta::minutes(40);

/// How a run is set up, and what goes wrong in it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) parameters: Parameters,
    /// The fault, and the number of the invocation that it befalls.
    pub(crate) fault: Option<(usize, Planned)>,
    /// Whether every message, callback, request and tick comes twice.
    pub(crate) twice: bool,
    /// Whether things go wrong by chance.
    pub(crate) is_stormy: bool,
    /// Whether the schedule leaves out ticks that have nothing to find, but for one an hour:
    /// a run of days has thousands of them.
    pub(crate) skips_idle_ticks: bool,
    /// How long it may take until everything is settled.
    pub(crate) horizon: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            // Short, and with a wait that is longer than a queue can carry.
            parameters: Parameters {
                shards: 1,
                schedule: DeliverySchedule::parse("0,5,60,1200").unwrap(),
                catalogue: catalogue(),
            },
            fault: None,
            twice: false,
            is_stormy: false,
            skips_idle_ticks: false,
            horizon: Duration::from_secs(3 * 3600),
        }
    }
}

/// A function that was started, in its process.
type Started = (Arc<Process>, Instance);

/// The whole bundle.
pub(crate) struct Bundle {
    pub(crate) aws: InMemoryAws,
    pub(crate) network: Network,
    pub(crate) parameters: Parameters,
    pub(crate) receivers: Arc<Receivers>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) storm: Arc<Storm>,
    pub(crate) placed: Mutex<Vec<Placed>>,
    pub(crate) promises: Mutex<Vec<Promise>>,
    pub(crate) weather: Arc<Weather>,
    settings: Settings,
    simulator: Mutex<axum::Router>,
    /// The body of every submit that reached a provider.
    pub(crate) submitted: Mutex<Vec<String>>,
    /// The providers and marks whose treatment is known.
    scenarios: Mutex<BTreeSet<(&'static str, String)>>,
    /// Started functions that wait for their next event.
    warm: Mutex<BTreeMap<Function, Vec<Started>>>,
    invocations: Mutex<Vec<Arc<Invocation>>>,
    running: Mutex<usize>,
    random: Mutex<Random>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Bundle {
    /// Runs `story` on a bundle of its own, in virtual time, until everything is quiet; then
    /// everything is judged. Answers the bundle, for whoever wants to look at more.
    pub(crate) fn run<S>(settings: Settings, story: S) -> Arc<Self>
    where
        S: AsyncFnOnce(&Arc<Self>),
    {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true);
        let runtime = runtime.build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async move {
            let bundle = Self::open(settings).await;
            let log = tracing_subscriber::fmt().json().with_writer(bundle.watch.log()).finish();
            let _logging = tracing::subscriber::set_default(log);
            let first = Duration::from_millis(bundle.random.lock().unwrap().next() % 60_000);
            let drivers = [
                tokio::spawn(Arc::clone(&bundle).schedule(first)),
                tokio::spawn(Arc::clone(&bundle).source(Source::Deliveries)),
                tokio::spawn(Arc::clone(&bundle).source(Source::SlowDeliveries)),
                tokio::spawn(Arc::clone(&bundle).source(Source::Wakes)),
                tokio::spawn(Arc::clone(&bundle).redrive()),
            ];
            story(&bundle).await;
            bundle.until_quiet().await;
            for driver in drivers {
                driver.abort();
            }
            bundle.judge().await;
            bundle
        })
    }

    async fn open(settings: Settings) -> Arc<Self> {
        random::seed(settings.seed);
        fastrand::seed(settings.seed);
        let mut chance = Random::new(settings.seed);
        clock::set(BEGINNING);
        let webhook_secret = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
        let hashes = hex::encode(Sha256::digest(API_KEY));
        let aws =
            InMemoryAws::new(&[("api-key-hashes", &hashes), ("webhook-secrets", &webhook_secret)]);
        aws.table().lag_reads(READ_LAG);
        aws.table().split_batches();
        let watch = Watch::new(&aws);
        for secret in [API_KEY, PROVIDER_SECRET, &webhook_secret] {
            watch.keep_secret(secret);
        }
        for provider in PROVIDERS {
            let (name, key) = (provider.name(), hosts::key_of(provider));
            aws.set_parameter(&format!("providers/{name}/api-key"), &key);
            watch.keep_secret(&key);
        }
        for signing in ["viralsync", "renderio"] {
            aws.set_parameter(&format!("providers/{signing}/webhook-secrets"), PROVIDER_SECRET);
        }
        let network = Network::default();
        let receivers = Receivers::open(&network, &webhook_secret, &watch);
        let random = Mutex::new(Random::new(chance.next()));
        let of_weather = Random::new(chance.next());
        let weather = Arc::new(match settings.is_stormy {
            true => Weather::storm(of_weather),
            false => Weather::calm(of_weather),
        });
        let bundle = Arc::new_cyclic(|me: &Weak<Self>| {
            let around = Arc::new(Around { bundle: me.clone(), random: Mutex::new(chance) });
            Self {
                aws,
                network,
                parameters: settings.parameters.clone(),
                receivers,
                watch,
                storm: Arc::default(),
                placed: Mutex::default(),
                promises: Mutex::default(),
                weather,
                submitted: Mutex::default(),
                scenarios: Mutex::default(),
                simulator: Mutex::new(simulator::without_sockets(around)),
                settings,
                warm: Mutex::default(),
                invocations: Mutex::default(),
                running: Mutex::default(),
                random,
            }
        });
        bundle.open_providers();
        for signing in ["viralsync", "renderio"] {
            let secret = serde_json::json!({"secret": PROVIDER_SECRET});
            bundle.control(Method::PUT, &format!("/secrets/{signing}"), &secret).await;
        }
        let config = WebhookConfig {
            url: None,
            events: EventName::ALL.into_iter().collect(),
            limits: Limits::default(),
            updated_at: clock::true_now(),
        };
        bundle.aws.store().put_webhook_config(&config).await.unwrap();
        bundle
    }

    /// Asks something of the simulator's control API.
    pub(crate) async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("/_control{path}"))
            .header("content-type", "application/json")
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let response = self.ask_simulator(request).await;
        assert!(response.status().is_success(), "{path}: {:?}", response.body());
        serde_json::from_slice(response.body()).unwrap_or_default()
    }

    /// Says how a provider treats the orders of a mark; see the simulator for the knobs. Its
    /// video is [`hosts::video_url`]'s.
    pub(crate) async fn scenario(&self, provider: Provider, mark: &str, knobs: &Value) {
        let mut knobs = knobs.clone();
        knobs["resultUrl"] = Value::from(hosts::video_url(mark));
        let path = format!("/scenarios/{}/{mark}", provider.name());
        self.control(Method::PUT, &path, &knobs).await;
        self.scenarios.lock().unwrap().insert((provider.name(), mark.to_owned()));
    }

    /// Has a provider treat the orders of a mark as any others, if nobody said how.
    pub(crate) async fn film(&self, provider: Provider, mark: &str) {
        let scenario = (provider.name(), mark.to_owned());
        if !self.scenarios.lock().unwrap().contains(&scenario) {
            self.scenario(provider, mark, &serde_json::json!({})).await;
        }
    }

    /// Has a provider's account call back about every render with that mark.
    pub(crate) async fn register(&self, provider: Provider, mark: &str, url: &str) {
        let webhook = serde_json::json!({"url": url, "secret": PROVIDER_SECRET, "mark": mark});
        let path = format!("/account-webhooks/{}", provider.name());
        self.control(Method::PUT, &path, &webhook).await;
    }

    /// Asks the simulator, as a provider or as what controls it.
    pub(crate) async fn ask_simulator(&self, request: Request<Bytes>) -> Response<Bytes> {
        let answer = self.simulator.lock().unwrap().call(request.map(Full::new));
        let Ok(answer) = answer.await;
        let (head, body) = answer.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    /// Calls a function with an event, in a process of its own. It goes on when nobody waits
    /// for it.
    pub(crate) fn invoke(self: &Arc<Self>, function: Function, event: Event) -> JoinHandle<Ended> {
        let invocation = self.begin(function, &event);
        let copy =
            invocation.is_overtaken().then(|| self.copy(&invocation, function, event.clone()));
        *self.running.lock().unwrap() += 1;
        let me = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let ended = me.run_to_its_end(&invocation, event).await;
            if let Ended::Died = ended {
                invocation.suffers("", Harm::Died);
            }
            *me.running.lock().unwrap() -= 1;
            if let Some(copy) = copy {
                copy.abort();
            }
            ended
        })
    }

    async fn run_to_its_end(&self, invocation: &Arc<Invocation>, event: Event) -> Ended {
        let function = invocation.function;
        let warm = self.warm.lock().unwrap().get_mut(&function).and_then(Vec::pop);
        let work = async {
            let (process, instance) = match warm {
                Some((process, instance)) => {
                    process.begin(invocation);
                    (process, instance)
                }
                None => self.start(function, invocation).await?,
            };
            let answer = clock::skewed(process.skew, instance.handle(event)).await;
            self.warm.lock().unwrap().entry(function).or_default().push((process, instance));
            answer
        };
        let work = invocation.at_its_pace(Caught(Box::pin(work)));
        let work = tokio::time::timeout(function.time_limit(), work);
        tokio::select! {
            biased;
            () = invocation.death() => Ended::Died,
            ended = work => match ended {
                Ok(Ok(Ok(answer))) => Ended::Answered(answer),
                Ok(Ok(Err(problem))) => {
                    warn!("{function:?} failed: {problem}");
                    Ended::Failed
                }
                Ok(Err(Panicked)) => {
                    self.watch.violation(format!("invariant 6: {function:?} panics"));
                    Ended::Died
                }
                Err(_) => Ended::Died,
            },
        }
    }

    /// A cold start.
    async fn start(
        &self,
        function: Function,
        invocation: &Arc<Invocation>,
    ) -> Result<Started, String> {
        let process = Arc::new(Process::new(self));
        process.begin(invocation);
        let aws = self.aws.seen_by(Arc::clone(&process) as _);
        let network = self.network.seen_by(Arc::clone(&process) as _);
        let instance = Instance::start(function, &aws, network, &self.parameters).await?;
        Ok((process, instance))
    }

    fn begin(&self, function: Function, event: &Event) -> Arc<Invocation> {
        let mut invocations = self.invocations.lock().unwrap();
        let number = invocations.len();
        let planned = self.settings.fault.filter(|(befallen, _)| *befallen == number);
        let planned = planned.map(|(_, planned)| planned).or_else(|| self.storm.befalls(function));
        let invocation =
            Arc::new(Invocation::new(number, function, event, planned, Arc::clone(&self.weather)));
        invocations.push(Arc::clone(&invocation));
        invocation
    }

    /// A copy of an invocation, which runs when that reaches its call, and to its end.
    fn copy(
        self: &Arc<Self>,
        invocation: &Arc<Invocation>,
        function: Function,
        event: Event,
    ) -> JoinHandle<()> {
        let (me, invocation) = (Arc::clone(self), Arc::clone(invocation));
        tokio::spawn(async move {
            invocation.reached.notified().await;
            drop(me.invoke(function, event).await);
            invocation.released.notify_one();
        })
    }

    /// Ends every process that waits for its next event: what it knew is forgotten.
    pub(crate) fn cool_down(&self) {
        self.warm.lock().unwrap().clear();
    }

    /// Every invocation so far, in the order in which they began.
    pub(crate) fn invocations(&self) -> Vec<Arc<Invocation>> {
        self.invocations.lock().unwrap().clone()
    }

    /// How many webhooks a receiver got.
    pub(crate) fn received(&self, receiver: &str) -> usize {
        let received = self.receivers.received();
        received.iter().filter(|webhook| webhook.receiver == receiver).count()
    }

    /// Whether something is to go wrong.
    pub(crate) fn has_fault(&self) -> bool {
        self.settings.fault.is_some()
    }

    /// Whether things go wrong by chance.
    pub(crate) fn is_stormy(&self) -> bool {
        self.settings.is_stormy
    }

    /// Whether every message, callback, request and tick comes twice.
    pub(crate) fn everything_comes_twice(&self) -> bool {
        self.settings.twice
    }

    /// Whether a tick has nothing to find: no job is active, and no delivery due so soon that
    /// one of the next few ticks could not move it into the queue in time.
    pub(crate) fn is_idle_tick(&self) -> bool {
        let now = clock::true_now();
        let soon = (now + SOON).timestamp_millis();
        let table = self.aws.table();
        let due_at = |item: &Value| item.pointer("/due_at/N")?.as_str()?.parse::<i64>().ok();
        let due = table.indexed("due").iter().any(|item| due_at(item).is_none_or(|at| at < soon));
        let is_hour = now.timestamp() % 3600 < 60;
        self.settings.skips_idle_ticks && !is_hour && !due && table.indexed("active").is_empty()
    }

    /// Which of so many messages comes next.
    pub(crate) fn pick(&self, left: usize) -> usize {
        self.storm.pick(left).unwrap_or_else(|| self.weather.pick(left))
    }

    /// A duration up to this one.
    pub(crate) fn chance(&self, most: Duration) -> Duration {
        self.weather.up_to(most)
    }

    /// What a queue does that it may do: it delivers twice.
    pub(crate) fn disturb(&self, source: Source, batch: &SqsEvent) {
        for id in batch.records.iter().filter_map(|record| record.message_id.as_deref()) {
            if self.everything_comes_twice() {
                source.queue(self).deliver_again(id, Duration::from_millis(20));
            }
            if let Some(again) = self.storm.copies_after() {
                source.queue(self).deliver_again(id, again);
            }
            if self.weather.strikes("message comes twice", 20) {
                let later = self.chance(Duration::from_secs(300));
                source.queue(self).deliver_again(id, later);
            }
        }
    }

    /// Lets time pass until `what` is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = tokio::time::Instant::now();
        while !is_so(self) {
            if begun.elapsed() > self.settings.horizon {
                self.watch.violation(format!("invariant 2: it never comes about that {what}"));
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether nothing is under way any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way().is_empty()
    }

    /// What is still to be done.
    fn under_way(&self) -> Vec<String> {
        let table = self.aws.table();
        let counts = [
            ("functions", *self.running.lock().unwrap()),
            ("active jobs", table.indexed("active").len()),
            ("due deliveries", table.indexed("due").len()),
            ("tickets", self.aws.delivery_queue().len()),
            ("slow tickets", self.aws.slow_delivery_queue().len()),
            ("dead tickets", self.aws.delivery_queue().dead_letters().len()),
            ("dead slow tickets", self.aws.slow_delivery_queue().dead_letters().len()),
        ];
        let some = counts.into_iter().filter(|(_, count)| *count > 0);
        some.map(|(what, count)| format!("{count} {what}")).collect()
    }

    /// Lets time pass until nothing has been under way for a while, or for too long.
    async fn until_quiet(&self) {
        let begun = tokio::time::Instant::now();
        let mut quiet = Duration::ZERO;
        while quiet < QUIET {
            if begun.elapsed() > self.settings.horizon {
                let under_way = self.under_way().join(", ");
                self.watch.violation(format!("invariant 2: it never gets quiet: {under_way}"));
                return;
            }
            tokio::time::sleep(LOOK).await;
            quiet = if self.is_quiet() { quiet + LOOK } else { Duration::ZERO };
        }
    }
}

/// What the simulator has around it: this bundle.
struct Around {
    bundle: Weak<Bundle>,
    random: Mutex<Random>,
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Around")
    }
}

impl Surroundings for Around {
    fn now(&self) -> DateTime<Utc> {
        clock::true_now()
    }

    fn random(&self) -> Option<[u8; 16]> {
        Some(self.random.lock().unwrap().bytes())
    }

    fn post(&self, request: Request<Bytes>) -> Posting {
        let bundle = self.bundle.upgrade();
        Box::pin(async move {
            let bundle = bundle.ok_or_else(|| "it is over".to_owned())?;
            if bundle.everything_comes_twice() {
                let (bundle, request) = (Arc::clone(&bundle), request.clone());
                tokio::spawn(async move { bundle.called_back(request).await });
            }
            if bundle.weather.strikes("callback is lost", 15) {
                return Err("lost".to_owned());
            }
            if bundle.weather.strikes("callback is late", 15) {
                tokio::time::sleep(bundle.chance(Duration::from_secs(240))).await;
            }
            if bundle.weather.strikes("callback comes twice", 15) {
                let (bundle, request) = (Arc::clone(&bundle), request.clone());
                tokio::spawn(async move { bundle.called_back(request).await });
            }
            let seen = bundle.called_back(request).await;
            StatusCode::from_u16(seen).map_err(|error| error.to_string())
        })
    }
}

/// A future whose panics are its caller's to see.
struct Caught<F>(Pin<Box<F>>);

struct Panicked;

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}
