//! AWS without AWS, for the tests of the functions: the real clients, whose requests never
//! leave the process. It knows the parameters it was given and the items that were put into
//! its table; everything else is empty.

mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_ssm::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use chrono::TimeDelta;
use domain::provider::catalogue::OwnSpec;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::providers::{Providers, SetupError};
use crate::queue::{DeliveryQueue, WakeQueue};
use crate::secrets::Secrets;
use crate::store::Store;
use crate::tracker::Tracker;
use crate::user_specs::{self, UserSpecsError};

use self::table::Table;

const PREFIX: &str = "/render-relay/test";

/// AWS as a test sets it up. Clones are the same AWS.
#[derive(Clone, Debug)]
pub struct FakeAws(Arc<State>);

#[derive(Debug)]
struct State {
    parameters: BTreeMap<String, String>,
    /// None when it cannot be reached.
    table: Option<Table>,
    has_parameters: bool,
    asked: Mutex<Vec<String>>,
    loses_answer: AtomicBool,
}

impl FakeAws {
    /// With these parameters (`api-key-hashes` and its value, say), and an empty table.
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
        let asked = Mutex::default();
        let parameters = parameters.collect();
        let table = has_table.then(Table::default);
        let loses_answer = AtomicBool::new(false);
        Self(Arc::new(State { parameters, table, has_parameters, asked, loses_answer }))
    }

    /// Loses the next answer of the table: what was asked is done, and nobody hears of it.
    pub fn lose_next_answer(&self) {
        self.0.loses_answer.store(true, Ordering::SeqCst);
    }

    /// What was asked so far, oldest first: `GetParameter`, `PutItem` and so on.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The parameters.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets::new(aws_sdk_ssm::Client::new(&self.config()), PREFIX)
    }

    /// The provider specs among the parameters.
    ///
    /// # Errors
    /// When the parameters cannot be reached.
    pub async fn user_specs(&self) -> Result<Vec<OwnSpec>, UserSpecsError> {
        user_specs::load(&aws_sdk_ssm::Client::new(&self.config()), PREFIX).await
    }

    /// The wake queue.
    #[must_use]
    pub fn wakes(&self) -> WakeQueue {
        WakeQueue::new(aws_sdk_sqs::Client::new(&self.config()), "https://sqs/wakes".into())
    }

    /// Table, bus and delivery queue, and the shipped providers, which are the real ones: a
    /// test must not get as far as asking one.
    ///
    /// # Errors
    /// When the environment of the test adjusts the providers, and wrongly.
    pub fn tracker(&self) -> Result<Tracker, SetupError> {
        self.tracker_with(&[])
    }

    /// The same, with providers of one's own.
    ///
    /// # Errors
    /// When the environment of the test adjusts the providers, and wrongly.
    pub fn tracker_with(&self, own: &[OwnSpec]) -> Result<Tracker, SetupError> {
        let aws = self.config();
        let queue = "https://sqs/deliveries".into();
        Ok(Tracker {
            store: Store::new(
                aws_sdk_dynamodb::Client::new(&aws),
                "table".into(),
                TimeDelta::days(1),
            ),
            providers: Providers::from_env(Arc::new(self.secrets()), own)?,
            bus: Bus::new(aws_sdk_eventbridge::Client::new(&aws), "bus".into()),
            deliveries: DeliveryQueue::new(aws_sdk_sqs::Client::new(&aws), queue),
        })
    }

    fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        let credentials = Credentials::new("test", "test", None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build()
    }

    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, ConnectorError> {
        // `AmazonSSM.GetParameter`, `DynamoDB_20120810.PutItem`, …
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let (service, operation) = target.split_once('.').unwrap_or_default();
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).push(operation.to_owned());
        let is_table = service.starts_with("DynamoDB");
        if is_table && self.0.table.is_none() {
            return Err(ConnectorError::io("the table cannot be reached".into()));
        }
        if service.starts_with("AmazonSSM") && !self.0.has_parameters {
            return Err(ConnectorError::io("the parameters cannot be reached".into()));
        }
        let asked = request.body().bytes().unwrap_or_default();
        let asked: Value = serde_json::from_slice(asked).unwrap_or_default();
        let (status, body) = match (&self.0.table, operation) {
            (Some(table), _) if is_table => table.answer(operation, &asked),
            (_, "GetParameter") => self.parameter(&asked),
            (_, "GetParametersByPath") => (200, self.parameters_by_path(&asked)),
            _ => (200, json!({})),
        };
        if is_table && self.0.loses_answer.swap(false, Ordering::SeqCst) {
            return Err(ConnectorError::io("the answer was lost".into()));
        }
        let status = status.try_into();
        let status = status.map_err(|error| ConnectorError::other(Box::new(error), None))?;
        Ok(HttpResponse::new(status, body.to_string().into()))
    }

    fn parameter(&self, request: &Value) -> (u16, Value) {
        let name = request.get("Name").and_then(Value::as_str).unwrap_or_default();
        match self.0.parameters.get(name) {
            Some(value) => (200, json!({"Parameter": {"Name": name, "Value": value}})),
            None => (400, json!({"__type": "ParameterNotFound"})),
        }
    }

    /// Two a page; the token of the next page is how many came before it.
    fn parameters_by_path(&self, request: &Value) -> Value {
        let word = |name: &str| request.get(name).and_then(Value::as_str);
        let path = format!("{}/", word("Path").unwrap_or_default());
        let below =
            self.0.parameters.iter().filter(|(name, _)| {
                name.strip_prefix(&path).is_some_and(|rest| !rest.contains('/'))
            });
        let before: usize = word("NextToken").and_then(|token| token.parse().ok()).unwrap_or(0);
        let mut left =
            below.skip(before).map(|(name, value)| json!({"Name": name, "Value": value}));
        let page: Vec<Value> = left.by_ref().take(2).collect();
        match left.next() {
            Some(_) => json!({"Parameters": page, "NextToken": (before + 2).to_string()}),
            None => json!({"Parameters": page}),
        }
    }
}

impl HttpConnector for FakeAws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(self.answer(&request))
    }
}
