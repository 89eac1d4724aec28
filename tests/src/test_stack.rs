//! One test's access to the running stack.

mod account;
mod api;
mod dead_letters;
mod endpoint;
mod job_state;
mod ledger;
mod many_jobs;
mod owner;
mod repair;
mod simulated;
mod stack_parameters;
mod webhook_secret;

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use chrono::Utc;
use serde::de::DeserializeOwned;
use serde_json::json;

pub use self::many_jobs::{SettledJob, SharedReceiver};
use self::webhook_secret::webhook_secret;
use crate::bus::Subscription;
use crate::http::Http;
use crate::stack_description::StackDescription;
use crate::table::TableClient;
use crate::test_job::{SimulatedProvider, TestJob};

/// The clients of one test: for our API, the simulator, the table, the queues and the bus.
/// All names that it creates contain the test's tag.
#[derive(Debug)]
pub struct TestStack {
    description: StackDescription,
    http: Http,
    table: TableClient,
    ssm: aws_sdk_ssm::Client,
    sqs: aws_sdk_sqs::Client,
    subscription: Subscription,
    webhook_secret: String,
    tag: String,
    test_jobs: AtomicUsize,
}

impl TestStack {
    /// Connects to the running stack and subscribes to the bus. `name` is the beginning of
    /// the test's tag.
    ///
    /// # Errors
    /// When no stack is running.
    pub async fn connect(name: &str) -> Result<Self> {
        let description = StackDescription::running()?;
        let aws = aws(&description);
        let http = Http::new();
        let tag = format!("{name}-{:x}", Utc::now().timestamp_micros());
        let ssm = aws_sdk_ssm::Client::new(&aws);
        let sqs = aws_sdk_sqs::Client::new(&aws);
        let events = aws_sdk_eventbridge::Client::new(&aws);
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        Ok(Self {
            subscription: Subscription::start(sqs.clone(), &events, &description.bus_name, &tag)
                .await?,
            webhook_secret: webhook_secret(&description, &http, &ssm).await?,
            table: TableClient { client: dynamodb, name: description.table_name.clone() },
            description,
            http,
            ssm,
            sqs,
            tag,
            test_jobs: AtomicUsize::new(0),
        })
    }

    /// A job that is not submitted yet. It has a receiver of its own, which verifies its
    /// webhooks and answers 200.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn new_job(&self, provider: SimulatedProvider) -> Result<TestJob> {
        let tag = self.next_tag();
        let receiver = format!("{}/receiver/{tag}", self.description.simulator_url);
        let test_job = TestJob::new(provider, tag, &receiver);
        self.set_receiver_answers(&test_job, &json!([])).await?;
        Ok(test_job)
    }

    /// All tags have one width, so that no tag is the prefix of another.
    fn next_tag(&self) -> String {
        let number = self.test_jobs.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:04}", self.tag)
    }

    async fn control_get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.http.get(&self.control(path)).await?.expect(200)?.json()
    }

    fn control(&self, path: &str) -> String {
        format!("{}/_control{path}", self.description.simulator_url)
    }
}

async fn parameter(ssm: &aws_sdk_ssm::Client, name: &str) -> Result<Option<String>> {
    let get = ssm.get_parameter().name(name).with_decryption(true);
    match get.send().await {
        Ok(output) => Ok(output.parameter.and_then(|parameter| parameter.value)),
        Err(error) => {
            let error = error.into_service_error();
            if error.is_parameter_not_found() { Ok(None) } else { Err(error.into()) }
        }
    }
}

fn aws(description: &StackDescription) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(description.region.clone()))
        .endpoint_url(&description.aws_endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}
