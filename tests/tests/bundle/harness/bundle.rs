//! The bundle: the functions and all that they talk to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use aws_in_memory::network::Network;
use aws_in_memory::quotas::Quotas;
use aws_in_memory::quotas::routes::RouteThrottles;
use aws_in_memory::{InMemoryAws, clock, random};
use aws_lambda_events::sqs::SqsEvent;
use chrono::{DateTime, TimeDelta, Utc};
use domain::credential::Scope;
use domain::endpoint::EndpointLimits;
use domain::event::EventName;
use domain::lease::AwakePolicy;
use domain::provider::catalogue::Adjustments;
use domain::retry::DeliverySchedule;
use domain::signature::{SignatureType, WebhookSecret};
use http::{Method, Uri};
use serde_json::Value;
use shared::store::WebhookConfig;
use tokio::runtime::LocalOptions;
use tokio::task::JoinHandle;

use crate::checks::invariant_checker::InvariantChecker;
use crate::faults::delivery_faults::DeliveryFaults;
use crate::faults::fault::PlannedFault;
use crate::faults::random_faults::RandomFaults;
use crate::harness::backend::AnsweredRequest;
use crate::harness::driver::Started;
use crate::harness::event_sources::Source;
use crate::harness::functions::{Function, PROVIDERS, PUBLIC_URL, StackParameters, adjustments};
use crate::harness::invocation::Invocation;
use crate::harness::operator::PromisedRedelivery;
use crate::harness::provider_hosts;
use crate::harness::receivers::CustomerReceivers;
use crate::harness::simulator::BundleEnvironment;
use crate::harness::template::{Parameters, Template};
use aws_in_memory::random::Random;

pub(crate) const API_KEY: &str = "rr_the-key-of-the-backend";

/// The secret of the providers' callbacks.
pub(crate) const PROVIDER_SECRET: &str = "a-secret-of-the-provider";

/// The lag of eventually consistent reads. It is mostly some milliseconds on AWS; endpoints are
/// cached for longer than this.
const READ_LAG: Duration = Duration::from_millis(500);

pub(crate) const BEGINNING: DateTime<Utc> = DateTime::from_timestamp(1_779_602_400, 0).unwrap();

/// The URL of a second stack.
const NEIGHBOUR_URL: &str = "http://neighbour.test";

/// A delivery is moved into the queue at most this long before it is due.
const DUE_SOON: TimeDelta = TimeDelta::minutes(40);

/// The settings of a run and its faults.
#[derive(Clone, Debug)]
pub(crate) struct RunSettings {
    pub(crate) seed: u64,
    pub(crate) parameters: StackParameters,
    /// The number of an invocation, and its fault.
    pub(crate) fault: Option<(usize, PlannedFault)>,
    /// Whether every message, callback, request and tick is sent twice.
    pub(crate) duplicates: bool,
    /// Whether random faults happen.
    pub(crate) has_random_faults: bool,
    /// Whether ticks without work are skipped, except for one an hour. A run over days has
    /// thousands of them.
    pub(crate) skips_idle_ticks: bool,
    /// The time within which every job must be settled.
    pub(crate) horizon: Duration,
    /// What the account may use.
    pub(crate) quotas: Quotas,
    /// Parameters of the stack other than their defaults.
    pub(crate) stack: Parameters,
    /// Whether the template lets any function call itself.
    pub(crate) forbids_recursion: bool,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            // Short waits, and one that is longer than a queue can hold a message.
            parameters: StackParameters {
                shards: 1,
                schedule: DeliverySchedule::parse("0,5,60,1200").unwrap(),
                adjustments: adjustments(),
                awake_policy: AwakePolicy::default(),
            },
            fault: None,
            duplicates: false,
            has_random_faults: false,
            skips_idle_ticks: false,
            horizon: Duration::from_secs(3 * 3600),
            quotas: Quotas::default(),
            stack: Parameters::new(),
            forbids_recursion: false,
        }
    }
}

/// Runs `work` on a runtime whose clock moves only when nothing else is left to do.
fn in_virtual_time<F: Future>(work: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true);
    runtime.build_local(LocalOptions::default()).unwrap().block_on(work)
}

pub(crate) struct Bundle {
    pub(crate) aws: InMemoryAws,
    pub(crate) network: Network,
    parameters: Mutex<StackParameters>,
    /// How often the stack was deployed anew.
    pub(crate) deployments: AtomicUsize,
    pub(crate) template: Template,
    /// The throttles of the API.
    pub(crate) routes: Mutex<RouteThrottles>,
    pub(crate) receivers: Arc<CustomerReceivers>,
    pub(crate) checker: Arc<InvariantChecker>,
    pub(crate) delivery_faults: Arc<DeliveryFaults>,
    pub(crate) answered_requests: Mutex<Vec<AnsweredRequest>>,
    pub(crate) promised_redeliveries: Mutex<Vec<PromisedRedelivery>>,
    pub(crate) random_faults: Arc<RandomFaults>,
    pub(crate) settings: RunSettings,
    /// The base URL of the API.
    pub(crate) url: String,
    pub(crate) simulator: Mutex<axum::Router>,
    /// Other stacks that providers call back.
    neighbours: Mutex<Vec<Weak<Self>>>,
    /// The body of every submit that reached a provider.
    pub(crate) submitted: Mutex<Vec<String>>,
    /// The providers and tags whose options were set.
    pub(crate) configured_tags: Mutex<BTreeSet<(&'static str, String)>>,
    /// Idle processes, by function.
    pub(crate) warm: Mutex<BTreeMap<Function, Vec<Started>>>,
    pub(crate) invocations: Mutex<Vec<Arc<Invocation>>>,
    pub(crate) running: Mutex<usize>,
    random: Mutex<Random>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Bundle {
    /// Runs `scenario` on a new bundle in virtual time until no work is left, then runs all
    /// checks.
    pub(crate) fn run<S>(settings: RunSettings, scenario: S) -> Arc<Self>
    where
        S: AsyncFnOnce(&Arc<Self>),
    {
        in_virtual_time(async move {
            let bundle = Self::open_first(settings).await;
            let log = tracing_subscriber::fmt().json().with_writer(bundle.checker.log()).finish();
            let _logging = tracing::subscriber::set_default(log);
            let drivers = bundle.drive();
            scenario(&bundle).await;
            bundle.until_quiet().await;
            bundle.finish(drivers).await;
            bundle
        })
    }

    /// The same with two stacks that share the providers' accounts, and nothing else.
    pub(crate) fn run_beside<S>(settings: RunSettings, scenario: S) -> [Arc<Self>; 2]
    where
        S: AsyncFnOnce(&Arc<Self>, &Arc<Self>),
    {
        in_virtual_time(async move {
            let first = Self::open_first(settings.clone()).await;
            let log = tracing_subscriber::fmt().json().with_writer(first.checker.log()).finish();
            let _logging = tracing::subscriber::set_default(log);
            let second = Self::open(settings, NEIGHBOUR_URL, Some(&first)).await;
            let drivers = [first.drive(), second.drive()];
            scenario(&first, &second).await;
            first.until_quiet().await;
            second.until_quiet().await;
            let stacks = [first, second];
            for (stack, drivers) in stacks.iter().zip(drivers) {
                stack.finish(drivers).await;
            }
            stacks
        })
    }

    fn drive(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let first = Duration::from_millis(self.random.lock().unwrap().next() % 60_000);
        vec![
            tokio::spawn(Arc::clone(self).schedule(first)),
            tokio::spawn(Arc::clone(self).source(Source::Deliveries)),
            tokio::spawn(Arc::clone(self).source(Source::SlowDeliveries)),
            tokio::spawn(Arc::clone(self).source(Source::Wakes)),
            tokio::spawn(Arc::clone(self).redrive()),
        ]
    }

    async fn finish(self: &Arc<Self>, drivers: Vec<JoinHandle<()>>) {
        for driver in drivers {
            driver.abort();
        }
        // The checks are no part of the run.
        self.aws.set_quotas(Quotas::unlimited());
        self.check_all().await;
    }

    async fn open_first(settings: RunSettings) -> Arc<Self> {
        random::seed(settings.seed);
        fastrand::seed(settings.seed);
        clock::set(BEGINNING);
        Self::open(settings, PUBLIC_URL, None).await
    }

    /// A stack at this URL, with the providers' accounts of another.
    async fn open(settings: RunSettings, url: &str, beside: Option<&Arc<Self>>) -> Arc<Self> {
        let mut chance = Random::new(settings.seed);
        let webhook_secret = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
        let aws = InMemoryAws::new(&[("webhook-secrets", &webhook_secret)]);
        aws.add_api_key(API_KEY, Scope::ALL.into_iter().collect()).await.unwrap();
        aws.table().lag_reads(READ_LAG);
        aws.table().split_batches();
        let checker = InvariantChecker::new(&aws);
        for secret in [API_KEY, PROVIDER_SECRET, &webhook_secret] {
            checker.keep_secret(secret);
        }
        for provider in PROVIDERS {
            let (name, key) = (provider.name(), provider_hosts::key_of(provider));
            let stored = serde_json::json!({"key": key, "hosts": [format!("{name}.test:80")]});
            aws.set_parameter(&format!("providers/{name}/api-key"), &stored.to_string());
            checker.keep_secret(&key);
        }
        for signing in ["viralsync", "renderio"] {
            aws.set_parameter(&format!("providers/{signing}/webhook-secrets"), PROVIDER_SECRET);
        }
        let template = Template::with(settings.stack.clone());
        let network = Network::default();
        let receivers = CustomerReceivers::open(&network, &webhook_secret, &checker);
        let random = Mutex::new(Random::new(chance.next()));
        let fault_random = Random::new(chance.next());
        let random_faults = Arc::new(match settings.has_random_faults {
            true => RandomFaults::enabled(fault_random),
            false => RandomFaults::disabled(fault_random),
        });
        let bundle = Arc::new_cyclic(|me: &Weak<Self>| {
            let environment =
                Arc::new(BundleEnvironment { bundle: me.clone(), random: Mutex::new(chance) });
            Self {
                aws,
                network,
                parameters: Mutex::new(settings.parameters.clone()),
                deployments: AtomicUsize::new(0),
                routes: Mutex::new(template.route_throttles()),
                template,
                receivers,
                checker,
                delivery_faults: Arc::default(),
                answered_requests: Mutex::default(),
                promised_redeliveries: Mutex::default(),
                random_faults,
                submitted: Mutex::default(),
                configured_tags: Mutex::default(),
                url: url.to_owned(),
                simulator: Mutex::new(match beside {
                    Some(beside) => beside.simulator.lock().unwrap().clone(),
                    None => simulator::router_in(environment),
                }),
                neighbours: Mutex::default(),
                settings,
                warm: Mutex::default(),
                invocations: Mutex::default(),
                running: Mutex::default(),
                random,
            }
        });
        if let Some(beside) = beside {
            beside.neighbours.lock().unwrap().push(Arc::downgrade(&bundle));
        }
        bundle.open_providers();
        for signing in ["viralsync", "renderio"] {
            let secret = serde_json::json!({"secret": PROVIDER_SECRET});
            bundle.control(Method::PUT, &format!("/secrets/{signing}"), &secret).await;
        }
        let config = WebhookConfig {
            url: None,
            events: EventName::ALL.into_iter().collect(),
            limits: EndpointLimits::default(),
            updated_at: clock::true_now(),
        };
        bundle.aws.put_webhook_config(&config).await.unwrap();
        bundle.aws.set_quotas(bundle.settings.quotas);
        bundle
    }

    /// The parameters of the stack now.
    pub(crate) fn parameters(&self) -> StackParameters {
        self.parameters.lock().unwrap().clone()
    }

    /// Deploys the stack with other settings of its providers. A process that is at work then
    /// ends with its invocation.
    pub(crate) fn deploy(&self, adjustments: Adjustments) {
        self.parameters.lock().unwrap().adjustments = adjustments;
        self.deployments.fetch_add(1, Ordering::SeqCst);
        self.end_warm_processes();
    }

    /// The stack that a callback URL is of.
    pub(crate) fn stack_at(self: &Arc<Self>, url: &Uri) -> Arc<Self> {
        let url = url.to_string();
        let neighbours = self.neighbours.lock().unwrap();
        let found = neighbours.iter().filter_map(Weak::upgrade).find(|it| url.starts_with(&it.url));
        found.unwrap_or_else(|| Arc::clone(self))
    }

    /// All invocations so far, in the order of their begin.
    pub(crate) fn invocations(&self) -> Vec<Arc<Invocation>> {
        self.invocations.lock().unwrap().clone()
    }

    /// The number of webhooks that a receiver got.
    pub(crate) fn received(&self, receiver: &str) -> usize {
        let received = self.receivers.received();
        received.iter().filter(|webhook| webhook.receiver == receiver).count()
    }

    /// Whether a fault is planned.
    pub(crate) fn has_fault(&self) -> bool {
        self.settings.fault.is_some()
    }

    /// Whether things go wrong by chance.
    pub(crate) fn has_random_faults(&self) -> bool {
        self.settings.has_random_faults
    }

    /// Whether every message, callback, request and tick comes twice.
    pub(crate) fn duplicates_everything(&self) -> bool {
        self.settings.duplicates
    }

    /// Whether a tick has no work: no job is active, and no delivery is due so soon that a later
    /// tick could not queue it in time.
    pub(crate) fn is_idle_tick(&self) -> bool {
        let now = clock::true_now();
        let soon = (now + DUE_SOON).timestamp_millis();
        let table = self.aws.table();
        let due_at = |item: &Value| item.pointer("/due_at/N")?.as_str()?.parse::<i64>().ok();
        let due = table.indexed("due").iter().any(|item| due_at(item).is_none_or(|at| at < soon));
        let is_hour = now.timestamp() % 3600 < 60;
        self.settings.skips_idle_ticks && !is_hour && !due && table.indexed("active").is_empty()
    }

    /// The index of the next message among those left.
    pub(crate) fn pick(&self, left: usize) -> usize {
        self.delivery_faults.pick(left).unwrap_or_else(|| self.random_faults.pick(left))
    }

    /// A duration up to this one.
    pub(crate) fn random_duration(&self, most: Duration) -> Duration {
        self.random_faults.duration_up_to(most)
    }

    /// Delivers messages twice, as a queue may do.
    pub(crate) fn duplicate_messages(&self, source: Source, batch: &SqsEvent) {
        for id in batch.records.iter().filter_map(|record| record.message_id.as_deref()) {
            if self.duplicates_everything() {
                source.queue(self).deliver_again(id, Duration::from_millis(20));
            }
            if let Some(again) = self.delivery_faults.copies_after() {
                source.queue(self).deliver_again(id, again);
            }
            if self.random_faults.roll("message comes twice", 20) {
                let later = self.random_duration(Duration::from_secs(300));
                source.queue(self).deliver_again(id, later);
            }
        }
    }
}
