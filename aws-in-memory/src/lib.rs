#![doc = include_str!("../README.md")]

pub mod builders;
pub mod bus;
pub mod clock;
pub mod interceptor;
pub mod network;
mod parameters;
pub mod queue;
pub mod quotas;
pub mod random;
pub mod trace;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_ssm::config::retry::RetryPartition;
use aws_sdk_ssm::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use chrono::TimeDelta;
use domain::address::TargetPolicy;
use domain::credential::{ApiKeyHash, KeyCreator, KeyRecord, Scope, ScopeSet};
use domain::id::{KeyId, KeyName, KeyOwner, ProviderName};
use domain::provider::catalogue::Adjustments;
use serde_json::{Value, json};

pub use dynamodb_in_memory as table;

use shared::aws;
use shared::bus::Bus;
use shared::duration_models::DurationModels;
use shared::egress::Dial;
use shared::egress::provider::ProviderHttp;
use shared::entropy::Entropy;
use shared::provider_specs::ProviderSpecs;
use shared::providers::{Providers, SetupError};
use shared::queue::{DeliveryQueue, WakeQueue};
use shared::secrets::Secrets;
use shared::store::{Committed, Inserted, LockOutcome, Store, Switched, WebhookConfig};
use shared::tracker::Tracker;

use self::bus::PublishedEvent;
use self::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use self::parameters::ParameterStore;
use self::queue::{InMemoryQueue, QueueSettings};
use self::quotas::executions::Executions;
use self::quotas::{Quotas, Throttle, Throttles};
use self::table::Table;
use self::table::bucket::TokenBucket;

const PREFIX: &str = "/render-relay/test";

/// How long settled jobs are kept.
const RETENTION: TimeDelta = TimeDelta::days(1);

/// The queues of `template.yaml`.
const DELIVERIES: QueueSettings = QueueSettings {
    visibility: Duration::from_secs(180),
    max_receives: 5,
    retention: Duration::from_secs(345_600),
};
const WAKES: QueueSettings = QueueSettings {
    visibility: Duration::from_secs(900),
    max_receives: 3,
    retention: Duration::from_secs(3600),
};

/// The dead-letter queue has none of its own.
const DEAD_DELIVERIES: QueueSettings = QueueSettings {
    visibility: Duration::from_secs(30),
    max_receives: u32::MAX,
    retention: Duration::from_secs(1_209_600),
};

/// AWS in memory. Clones are the same AWS.
#[derive(Clone, Debug)]
pub struct InMemoryAws {
    state: Arc<AwsState>,
    interceptor: Arc<dyn CallInterceptor>,
    retries: RetryConfig,
    /// How much the clients of one process may still repeat, by service. The SDK's own are
    /// shared by all clients there are, and so by tests that run side by side.
    budgets: [RetryPartition; 4],
}

fn budgets() -> [RetryPartition; 4] {
    std::array::from_fn(|_| RetryPartition::custom("process").build())
}

#[derive(Debug)]
struct AwsState {
    parameters: ParameterStore,
    table: Table,
    deliveries: InMemoryQueue,
    slow_deliveries: InMemoryQueue,
    dead_deliveries: InMemoryQueue,
    wakes: InMemoryQueue,
    bus: bus::InMemoryBus,
    has_table: bool,
    has_parameters: bool,
    calls: Mutex<Vec<String>>,
    loses_answer: AtomicBool,
    account: Mutex<Account>,
    throttles: Throttles,
}

/// The quotas of the account, and what is left of those that no service here keeps by itself.
#[derive(Debug)]
struct Account {
    quotas: Quotas,
    executions: Executions,
    parameter_reads: TokenBucket,
    parameter_writes: TokenBucket,
}

impl Account {
    fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            executions: Executions::new(quotas.executions),
            parameter_reads: quotas.parameter_reads.bucket(),
            parameter_writes: quotas.parameter_writes.bucket(),
        }
    }
}

impl InMemoryAws {
    /// With these parameters (`webhook-secrets` and its value, say), and an empty table.
    #[must_use]
    pub fn new(parameters: &[(&str, &str)]) -> Self {
        Self::build(parameters, true, true)
    }

    /// With these parameters, and a table that cannot be reached.
    #[must_use]
    pub fn without_table(parameters: &[(&str, &str)]) -> Self {
        Self::build(parameters, false, true)
    }

    /// With an empty table, and a parameter store that cannot be reached.
    #[must_use]
    pub fn without_parameters() -> Self {
        Self::build(&[], true, false)
    }

    fn build(parameters: &[(&str, &str)], has_table: bool, has_parameters: bool) -> Self {
        let parameters = parameters.iter();
        let parameters =
            parameters.map(|(name, value)| (format!("{PREFIX}/{name}"), (*value).to_owned()));
        let state = AwsState {
            parameters: ParameterStore::new(parameters.collect()),
            table: Table::default(),
            deliveries: InMemoryQueue::new(DELIVERIES),
            slow_deliveries: InMemoryQueue::new(DELIVERIES),
            dead_deliveries: InMemoryQueue::new(DEAD_DELIVERIES),
            wakes: InMemoryQueue::new(WAKES),
            bus: bus::InMemoryBus::new(Quotas::unlimited().bus_entries),
            has_table,
            has_parameters,
            calls: Mutex::default(),
            loses_answer: AtomicBool::new(false),
            account: Mutex::new(Account::new(Quotas::unlimited())),
            throttles: Throttles::default(),
        };
        let (interceptor, retries) = (Arc::new(NoFaults), RetryConfig::disabled());
        Self { state: Arc::new(state), interceptor, retries, budgets: budgets() }
    }

    /// The same AWS as one process sees it. Its calls pass `interceptor`, and its clients repeat
    /// calls as those of a deployed function do.
    #[must_use]
    pub fn seen_by(&self, interceptor: Arc<dyn CallInterceptor>) -> Self {
        let (state, retries) = (Arc::clone(&self.state), RetryConfig::standard());
        Self { state, interceptor, retries, budgets: budgets() }
    }

    /// Gives the account these quotas, from now on and with nothing used up. At first it has none,
    /// because most tests are about something else and let no time pass.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.state.table.limit(quotas.table);
        self.state.bus.limit(quotas.bus_entries);
        *self.state.account() = Account::new(quotas);
    }

    /// The account's quotas.
    #[must_use]
    pub fn quotas(&self) -> Quotas {
        self.state.account().quotas
    }

    /// Lambda's concurrent executions. No function runs here by itself: who runs one begins an
    /// execution first.
    #[must_use]
    pub fn executions(&self) -> Executions {
        self.state.account().executions.clone()
    }

    /// Counts what a caller throttled that runs a part of AWS.
    pub fn count_throttle(&self, what: Throttle) {
        self.state.throttles.count(what);
    }

    /// How often the account's quotas throttled what, so far.
    #[must_use]
    pub fn throttles(&self) -> BTreeMap<Throttle, usize> {
        let of_table = self.state.table.throttled().into_iter();
        let of_table = of_table.map(|(met, times)| (Throttle::Table(met), times));
        self.state.throttles.all().into_iter().chain(of_table).collect()
    }

    /// Loses the next answer of the table: the call takes effect and its caller sees a broken
    /// connection.
    pub fn lose_next_answer(&self) {
        self.state.loses_answer.store(true, Ordering::SeqCst);
    }

    /// The operations that were called so far, oldest first: `GetParameter`, `PutItem` and so
    /// on.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is in the table.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.state.table
    }

    /// What is in the delivery queue.
    #[must_use]
    pub fn delivery_queue(&self) -> &InMemoryQueue {
        &self.state.deliveries
    }

    /// A queue that is received from by callers, not by an event source: what `relay dlq`
    /// looks into.
    #[must_use]
    pub fn dead_letter_queue(&self) -> &InMemoryQueue {
        &self.state.dead_deliveries
    }

    /// What is in the slow lane's delivery queue.
    #[must_use]
    pub fn slow_delivery_queue(&self) -> &InMemoryQueue {
        &self.state.slow_deliveries
    }

    /// What is in the wake queue.
    #[must_use]
    pub fn wake_queue(&self) -> &InMemoryQueue {
        &self.state.wakes
    }

    /// Every event that was put on the bus, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<PublishedEvent> {
        self.state.bus.events()
    }

    /// The value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.state.parameters.all().remove(&format!("{PREFIX}/{name}"))
    }

    /// All parameters, by their full names.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        self.state.parameters.all()
    }

    /// Stores a parameter, as an operator does, and returns its version.
    pub fn set_parameter(&self, name: &str, value: &str) -> u64 {
        self.state.parameters.set(&format!("{PREFIX}/{name}"), value)
    }

    /// The parameters.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets::new(&self.ssm(), PREFIX, self.entropy(), self.store(), clock::now)
    }

    /// Stores an API key with these scopes, as an operator does. Its name ends in theirs.
    ///
    /// # Errors
    /// When the table cannot be reached, or there is such a key already.
    pub async fn add_api_key(&self, key: &str, scopes: ScopeSet) -> Result<KeyRecord, String> {
        let names: Vec<&str> = scopes.scopes().map(Scope::name).collect();
        let name = format!("may-{}", names.join("-"));
        let id = self.entropy().bytes().map_err(|error| error.to_string())?;
        let record = KeyRecord {
            id: KeyId::from_bytes(id),
            name: KeyName::parse(&name).map_err(|error| error.to_string())?,
            owner: KeyOwner::parse("tests").map_err(|error| error.to_string())?,
            scopes,
            hash: ApiKeyHash::of(key),
            created_at: clock::now(),
            created_by: KeyCreator::Operator,
        };
        match self.store().insert_api_key(&record).await {
            Ok(Inserted::New) => Ok(record),
            Ok(Inserted::Exists(())) => Err(format!("there is a key {name}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The table as the functions see it.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::new(self.dynamodb(), "table".into(), RETENTION, self.entropy())
    }

    /// Stores a webhook configuration, and changes no endpoint.
    ///
    /// # Errors
    /// When the table cannot be reached, or another change is under way.
    pub async fn put_webhook_config(&self, config: &WebhookConfig) -> Result<(), Box<dyn Error>> {
        Self::switch(&self.store(), config).await
    }

    /// The same, by a process with this store.
    ///
    /// # Errors
    /// As [`InMemoryAws::put_webhook_config`].
    pub async fn switch(store: &Store, config: &WebhookConfig) -> Result<(), Box<dyn Error>> {
        let LockOutcome::Acquired(lock) = store.lock_webhook_config(None, clock::now()).await?
        else {
            return Err("another change is under way".into());
        };
        let switched = store.switch_webhook_config(config, &[], &lock).await?;
        store.unlock_webhook_config(&lock).await?;
        if switched == Switched::Made { Ok(()) } else { Err("it was not made".into()) }
    }

    /// Puts a provider spec into the table, even one that no function would take.
    ///
    /// # Errors
    /// When the table cannot be reached.
    pub async fn put_spec(&self, name: &str, json: &str) -> Result<(), Box<dyn Error>> {
        let (name, store) = (ProviderName::parse(name)?, self.store());
        let document = store.insert_spec_document(json).await?;
        let index = store.spec_index().await?;
        let (index, _) = index.with(&name, document, json.len(), "a test", clock::now());
        match store.commit_spec_index(&index).await? {
            Committed::Stored => Ok(()),
            Committed::Conflict(_) => Err("the index was changed meanwhile".into()),
        }
    }

    /// Where random bytes come from: see [`random`].
    #[must_use]
    pub fn entropy(&self) -> Entropy {
        Entropy::from_fn(random::fill)
    }

    /// The bus as the functions see it.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::new(self.eventbridge(), "bus".into(), self.entropy())
    }

    /// The delivery queues as `deliver` sees them.
    #[must_use]
    pub fn deliveries(&self) -> DeliveryQueue {
        let queue = "https://sqs/deliveries".into();
        DeliveryQueue::new(self.sqs(), queue).with_slow_lane("https://sqs/slow-deliveries".into())
    }

    /// The wake queue as the functions see it.
    #[must_use]
    pub fn wakes(&self) -> WakeQueue {
        WakeQueue::new(self.sqs(), "https://sqs/wakes".into())
    }

    /// Table, bus and delivery queue, and the shipped providers, which are the real ones: a
    /// test must not get as far as asking one. Specs in the table come into force 20 s later.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn tracker(&self) -> Result<Tracker, SetupError> {
        let specs = ProviderSpecs::shipped(self.store(), Adjustments::default())?;
        let http = ProviderHttp::new(TargetPolicy::public())?;
        Ok(self.tracker_of(specs, http))
    }

    /// The same as a function starts with it: specs in the table are in force.
    ///
    /// # Errors
    /// When the table cannot be reached, or a spec does not fit the adjustments.
    pub async fn started_tracker(
        &self,
        network: Arc<dyn Dial>,
        adjustments: Adjustments,
    ) -> Result<Tracker, SetupError> {
        let http = ProviderHttp::through(network, adjustments.policy.clone())?;
        Ok(self.tracker_of(ProviderSpecs::load(self.store(), adjustments).await?, http))
    }

    /// The shipped providers, on a network of the test's.
    ///
    /// # Errors
    /// When a spec does not fit the adjustments, or TLS cannot be set up.
    pub fn tracker_on(
        &self,
        network: Arc<dyn Dial>,
        adjustments: Adjustments,
    ) -> Result<Tracker, SetupError> {
        let http = ProviderHttp::through(network, adjustments.policy.clone())?;
        Ok(self.tracker_of(ProviderSpecs::shipped(self.store(), adjustments)?, http))
    }

    fn tracker_of(&self, specs: ProviderSpecs, http: ProviderHttp) -> Tracker {
        let providers = Providers::new(specs, http, Arc::new(self.secrets()));
        let (store, bus, deliveries) = (self.store(), self.bus(), self.deliveries());
        let duration_models = DurationModels::new(self.store());
        Tracker { store, providers, bus, deliveries, duration_models }
    }

    // Requests are not signed: no signature is checked here, and signing takes a fifth of a
    // test's time.
    fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.unsigned());
        let [budget, _, _, _] = self.budgets.clone();
        let config = config.allow_no_auth().retry_partition(budget);
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::config::Builder::from(&self.unsigned());
        let [_, budget, _, _] = self.budgets.clone();
        let config = config.allow_no_auth().retry_partition(budget);
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    fn eventbridge(&self) -> aws_sdk_eventbridge::Client {
        let config = aws_sdk_eventbridge::config::Builder::from(&self.unsigned());
        let [_, _, budget, _] = self.budgets.clone();
        let config = config.allow_no_auth().retry_partition(budget);
        aws_sdk_eventbridge::Client::from_conf(config.build())
    }

    fn ssm(&self) -> aws_sdk_ssm::Client {
        let config = aws_sdk_ssm::config::Builder::from(&self.unsigned());
        let [_, _, _, budget] = self.budgets.clone();
        let config = config.allow_no_auth().retry_partition(budget);
        aws_sdk_ssm::Client::from_conf(config.build())
    }

    fn unsigned(&self) -> SdkConfig {
        let mut config = self.config().into_builder();
        config.set_credentials_provider(None);
        config.build()
    }

    /// The configuration of any other client, which signs its calls.
    #[must_use]
    pub fn config(&self) -> SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "test");
        let connector = SharedHttpConnector::new(self.clone());
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(self.retries.clone())
            .timeout_config(aws::timeouts(aws::ATTEMPT_TIMEOUT))
            .sleep_impl(TokioSleep::new())
            .time_source(clock::Clock)
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build()
    }

    async fn call(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        // `AmazonSSM.GetParameter`, `DynamoDB_20120810.PutItem`, …
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let (service, operation) = target.split_once('.').unwrap_or_default();
        let to = match service {
            "DynamoDB_20120810" => "dynamodb",
            "AmazonSQS" => "sqs",
            "AWSEvents" => "events",
            "AmazonSSM" => "ssm",
            other => other,
        };
        let body = request.body().bytes().unwrap_or_default();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let call = Call { to, what: operation, body: &body };
        let trace = self.interceptor.trace().map(|trace| trace.to_string());
        let trace = trace.as_deref();
        let broken = || Err(ConnectorError::io("the connection broke".into()));
        let Interception { injected, then } = self.interceptor.intercept(&call).await;
        let made = || {
            let answer = self.state.answer(&call, trace)?;
            self.interceptor.answered(&call, answer.0, &answer.1);
            Ok::<_, ConnectorError>(answer)
        };
        let (status, answer) = match injected {
            Injected::Answered => made()?,
            Injected::Twice => {
                made()?;
                made()?
            }
            Injected::Unanswered => {
                made()?;
                return broken();
            }
            Injected::Lost => return broken(),
            Injected::Refused(status, answer) => (status, answer),
        };
        then.await;
        let status = status.try_into();
        let status = status.map_err(|error| ConnectorError::other(Box::new(error), None))?;
        Ok(HttpResponse::new(status, answer.to_string().into()))
    }
}

impl AwsState {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parameters(&self, operation: &str, request: &Value) -> (u16, Value) {
        let mut account = self.account();
        let met = match operation.starts_with("Get") {
            true => (!account.parameter_reads.take(1.0)).then_some(Throttle::ParameterRead),
            false => (!account.parameter_writes.take(1.0)).then_some(Throttle::ParameterWrite),
        };
        drop(account);
        match met {
            Some(throttle) => {
                self.throttles.count(throttle);
                (400, json!({"__type": "ThrottlingException", "message": "Rate exceeded"}))
            }
            None => self.parameters.answer(operation, request),
        }
    }

    fn answer(&self, call: &Call<'_>, trace: Option<&str>) -> Result<(u16, Value), ConnectorError> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call.what.to_owned());
        drop(calls);
        let answer = match call.to {
            "dynamodb" if self.has_table => self.table.answer(call.what, call.body),
            "dynamodb" => return Err(ConnectorError::io("the table cannot be reached".into())),
            "ssm" if self.has_parameters => self.parameters(call.what, call.body),
            "ssm" => return Err(ConnectorError::io("the parameters cannot be reached".into())),
            "events" => self.bus.answer(call.what, call.body, &self.throttles),
            "sqs" => match call.body.get("QueueUrl").and_then(Value::as_str) {
                Some("https://sqs/deliveries") => {
                    self.deliveries.answer(call.what, call.body, trace)
                }
                Some("https://sqs/slow-deliveries") => {
                    self.slow_deliveries.answer(call.what, call.body, trace)
                }
                Some("https://sqs/dead-deliveries") => {
                    self.dead_deliveries.answer(call.what, call.body, trace)
                }
                Some("https://sqs/wakes") => self.wakes.answer(call.what, call.body, trace),
                Some(_) | None => (400, json!({"__type": "com.amazonaws.sqs#QueueDoesNotExist"})),
            },
            other => (400, json!({"__type": "UnknownService", "message": other})),
        };
        if call.to == "dynamodb" && self.loses_answer.swap(false, Ordering::SeqCst) {
            return Err(ConnectorError::io("the answer was lost".into()));
        }
        Ok(answer)
    }
}

impl HttpConnector for InMemoryAws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(aws: &InMemoryAws, operation: &str, many: usize) -> usize {
        let body =
            json!({"Name": "/a", "Value": "1", "Path": "/", "Names": ["/a"], "Overwrite": true});
        let call = Call { to: "ssm", what: operation, body: &body };
        let answers = (0..many).map(|_| aws.state.answer(&call, None));
        answers.filter(|answer| matches!(answer, Ok((200, _)))).count()
    }

    #[tokio::test(start_paused = true)]
    async fn parameter_reads_share_one_quota() {
        let aws = InMemoryAws::new(&[]);
        aws.set_quotas(Quotas::default());
        assert_eq!(answers(&aws, "PutParameter", 4), 3);
        let kinds = ["GetParameter", "GetParameters", "GetParameter"];
        assert_eq!(kinds.map(|kind| answers(&aws, kind, 15)), [15, 15, 10]);
        let throttles = [(Throttle::ParameterRead, 5), (Throttle::ParameterWrite, 1)];
        assert_eq!(aws.throttles(), throttles.into());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(answers(&aws, "GetParameters", 50), 40);
        aws.set_quotas(Quotas::unlimited());
        assert_eq!(answers(&aws, "GetParameters", 50), 50);
    }
}
