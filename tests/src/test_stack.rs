//! One test's access to the running stack.

mod account;
mod cost;
mod dead_letters;
mod endpoint;
mod many_jobs;
mod owner;
mod repair;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::Method;
use anyhow::{Context, Result, bail, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use domain::credential::CallbackSecret;
use domain::id::JobId;
use domain::signature::{SigningSecrets, WebhookSecret};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::many_jobs::{SettledJob, SharedReceiver};
use crate::bus::{BusEvent, Subscription};
use crate::eventually::eventually;
use crate::http::{Http, HttpAnswer};
use crate::relay::{DeliveryView, JobView};
use crate::simulator::{ApiCall, LedgerEntry, ReceivedWebhook, SimulatedRender};
use crate::stack_description::StackDescription;
use crate::table::{Item, Table, text};
use crate::test_job::{Provider, TestJob};

/// The clients of one test: for our API, the simulator, the table, the queues and the bus.
/// All names that it creates contain the test's tag.
#[derive(Debug)]
pub struct TestStack {
    description: StackDescription,
    http: Http,
    table: Table,
    ssm: aws_sdk_ssm::Client,
    sqs: aws_sdk_sqs::Client,
    subscription: Subscription,
    webhook_secret: String,
    tag: String,
    test_jobs: AtomicUsize,
}

impl TestStack {
    /// Connects to the running stack and subscribes to the bus. `story` is the beginning of
    /// the test's tag.
    ///
    /// # Errors
    /// When no stack is running.
    pub async fn connect(story: &str) -> Result<Self> {
        let description = StackDescription::running()?;
        let aws = aws(&description);
        let http = Http::new();
        let tag = format!("{story}-{:x}", Utc::now().timestamp_micros());
        let ssm = aws_sdk_ssm::Client::new(&aws);
        let sqs = aws_sdk_sqs::Client::new(&aws);
        let events = aws_sdk_eventbridge::Client::new(&aws);
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        Ok(Self {
            subscription: Subscription::start(sqs.clone(), &events, &description.bus_name, &tag)
                .await?,
            webhook_secret: webhook_secret(&description, &http, &ssm).await?,
            table: Table { client: dynamodb, name: description.table_name.clone() },
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
    pub async fn new_job(&self, provider: Provider) -> Result<TestJob> {
        let tag = self.next_tag();
        let receiver = format!("{}/receiver/{tag}", self.description.simulator_url);
        let test_job = TestJob::new(provider, tag, &receiver)?;
        self.set_receiver_answers(&test_job, &json!([])).await?;
        Ok(test_job)
    }

    /// All tags have one width, so that no tag is the prefix of another.
    fn next_tag(&self) -> String {
        let number = self.test_jobs.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:04}", self.tag)
    }

    // ---------------------------------------------------------- the simulator

    /// Sets how the provider treats this job; the simulator documents the options. The
    /// provider waits long for the answer to a callback, so that a slow machine does not look
    /// like a lost answer.
    ///
    /// # Errors
    /// When an option does not exist.
    pub async fn set_scenario(&self, test_job: &TestJob, options: &Value) -> Result<()> {
        let defaults = json!({"callbackAnswerWithinMs": 120_000});
        let path = format!("/scenarios/{}/{}", test_job.provider.simulated_as(), test_job.tag);
        let options = merged(&defaults, options);
        self.http.put(&self.control(&path), &options).await?.expect(204).map(drop)
    }

    /// Lets the job's render run until [`TestStack::end_render`]; `options` add to this.
    ///
    /// # Errors
    /// When an option does not exist.
    pub async fn set_endless(&self, test_job: &TestJob, options: &Value) -> Result<()> {
        let start_endless = json!({"durationMs": 1, "queuedMs": 0, "freezeProgress": 0.4});
        self.set_scenario(test_job, &merged(&start_endless, options)).await
    }

    /// Ends the job's endless render, whose callbacks are then sent.
    ///
    /// # Errors
    /// When there is no such render, or it has ended.
    pub async fn end_render(&self, test_job: &TestJob) -> Result<()> {
        self.control_render(test_job, "end").await
    }

    /// Lets the job's provider send a progress callback.
    ///
    /// # Errors
    /// When the provider has no progress callbacks.
    pub async fn report_progress(&self, test_job: &TestJob) -> Result<()> {
        self.control_render(test_job, "progress").await
    }

    async fn control_render(&self, test_job: &TestJob, what: &str) -> Result<()> {
        let path = format!("/renders/{}/{}/{what}", test_job.provider.simulated_as(), test_job.tag);
        let url = self.control(&path);
        self.http.send(Method::POST, &url, &[], Bytes::new()).await?.expect(204).map(drop)
    }

    /// Sets the answers of the job's receiver, one for each webhook; later webhooks get 200.
    /// This releases the answers that the receiver still holds back.
    ///
    /// # Errors
    /// When an answer is malformed.
    pub async fn set_receiver_answers(&self, test_job: &TestJob, answers: &Value) -> Result<()> {
        let behaviour = json!({"secret": self.webhook_secret, "answers": answers});
        let url = self.control(&format!("/receivers/{}", test_job.tag));
        self.http.put(&url, &behaviour).await?.expect(204).map(drop)
    }

    /// The job's renders at its provider.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn renders(&self, test_job: &TestJob) -> Result<Vec<SimulatedRender>> {
        self.control_get(&format!("/renders?mark={}", test_job.tag)).await
    }

    /// The job's only render.
    ///
    /// # Errors
    /// When there is no render, or more than one.
    pub async fn render(&self, test_job: &TestJob) -> Result<SimulatedRender> {
        let mut renders = self.renders(test_job).await?;
        let count = renders.len();
        renders.pop().filter(|_| count == 1).with_context(|| format!("{count} renders, not one"))
    }

    /// Waits until so many callbacks about the job's only render were answered, which can be
    /// after the job has ended, and returns the render.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_called_back(
        &self,
        test_job: &TestJob,
        times: usize,
    ) -> Result<SimulatedRender> {
        eventually(&format!("{times} callbacks of {} answered", test_job.tag), async || {
            let render = self.render(test_job).await?;
            let statuses = render.callback_statuses();
            ensure!(statuses.len() >= times, "{statuses:?}");
            Ok(render)
        })
        .await
    }

    /// All calls to the job's provider about this job, except status calls for a render that
    /// does not exist: the provider cannot know their job.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn provider_calls(&self, test_job: &TestJob) -> Result<Vec<ApiCall>> {
        self.control_get(&format!("/requests?mark={}", test_job.tag)).await
    }

    /// The number of submits to the job's provider, accepted or not.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn submit_count(&self, test_job: &TestJob) -> Result<usize> {
        let calls = self.provider_calls(test_job).await?;
        Ok(calls.iter().filter(|call| call.method == "POST").count())
    }

    /// Waits until the job's render was polled so many times more.
    ///
    /// # Errors
    /// When it times out, or there is no render.
    pub async fn until_polled(&self, test_job: &TestJob, more: u32) -> Result<()> {
        let before = self.render(test_job).await?.polls;
        eventually(&format!("{} polled {more} times", test_job.tag), async || {
            let polls = self.render(test_job).await?.polls;
            ensure!(polls >= before + more, "{} times", polls - before);
            Ok(())
        })
        .await
    }

    /// All status calls for this render id, whether the render exists or not.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn status_calls(&self, render_id: &str) -> Result<Vec<ApiCall>> {
        let mut calls: Vec<ApiCall> = self.control_get("/requests").await?;
        calls.retain(|call| call.method == "GET" && call.path.contains(render_id));
        Ok(calls)
    }

    /// The webhooks that the job's receiver got, oldest first.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn webhooks(&self, test_job: &TestJob) -> Result<Vec<ReceivedWebhook>> {
        #[derive(Deserialize)]
        struct SharedReceiver {
            received: Vec<ReceivedWebhook>,
        }
        let receiver: SharedReceiver =
            self.control_get(&format!("/receivers/{}", test_job.tag)).await?;
        Ok(receiver.received)
    }

    /// The number of the newest request in the ledger.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn ledger_now(&self) -> Result<u64> {
        Ok(self.ledger_page(u64::MAX, "").await?.seq)
    }

    /// The functions' requests to AWS after number `since` with `contains` in their body.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn ledger(&self, since: u64, contains: &str) -> Result<Vec<LedgerEntry>> {
        Ok(self.ledger_page(since, contains).await?.requests)
    }

    async fn ledger_page(&self, since: u64, contains: &str) -> Result<LedgerPage> {
        let contains = utf8_percent_encode(contains, NON_ALPHANUMERIC);
        self.control_get(&format!("/aws?since={since}&contains={contains}")).await
    }

    async fn control_get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.http.get(&self.control(path)).await?.expect(200)?.json()
    }

    fn control(&self, path: &str) -> String {
        format!("{}/_control{path}", self.description.simulator_url)
    }

    // ---------------------------------------------------------------- our API

    /// Posts the job with its tag as the idempotency key.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn post(&self, test_job: &TestJob) -> Result<HttpAnswer> {
        let bearer = self.bearer();
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", &test_job.tag)];
        self.post_raw(&headers, test_job.body.to_string()).await
    }

    /// Posts any body to `/v1/jobs`, with these headers only.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn post_raw(
        &self,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<HttpAnswer> {
        let url = format!("{}/v1/jobs", self.description.api_url);
        self.http.send(Method::POST, &url, headers, body).await
    }

    /// The value of the `Authorization` header.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.description.api_key)
    }

    /// Posts the job and checks that it is accepted.
    ///
    /// # Errors
    /// When the answer is not 202.
    pub async fn submit(&self, test_job: &TestJob) -> Result<JobView> {
        let job: JobView = self.post(test_job).await?.expect(202)?.json()?;
        ensure!(job.job_id == test_job.job_id().as_str(), "the job is {}", job.job_id);
        Ok(job)
    }

    /// The job, as the API shows it.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub async fn job(&self, test_job: &TestJob) -> Result<JobView> {
        self.call(Method::GET, test_job, "").await?.expect(200)?.json()
    }

    /// The job's deliveries, as the API shows them.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub async fn deliveries(&self, test_job: &TestJob) -> Result<Vec<DeliveryView>> {
        #[derive(Deserialize)]
        struct Deliveries {
            deliveries: Vec<DeliveryView>,
        }
        let answer = self.call(Method::GET, test_job, "/deliveries").await?.expect(200)?;
        Ok(answer.json::<Deliveries>()?.deliveries)
    }

    /// Redelivers the job's last event.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn redeliver(&self, test_job: &TestJob) -> Result<HttpAnswer> {
        self.call(Method::POST, test_job, "/redeliver").await
    }

    /// Cancels the job.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn cancel(&self, test_job: &TestJob) -> Result<HttpAnswer> {
        self.call(Method::POST, test_job, "/cancel").await
    }

    async fn call(&self, method: Method, test_job: &TestJob, path: &str) -> Result<HttpAnswer> {
        let url = format!("{}/v1/jobs/{}{path}", self.description.api_url, test_job.job_id());
        let bearer = self.bearer();
        self.http.send(method, &url, &[("authorization", &bearer)], Bytes::new()).await
    }

    /// Posts to a callback URL, as a provider or an attacker does.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn call_back(&self, url: &str, body: impl Into<Bytes>) -> Result<HttpAnswer> {
        let json = [("content-type", "application/json")];
        self.http.send(Method::POST, url, &json, body).await
    }

    /// The callback URL with the right token for a job id, whether the job exists or not.
    ///
    /// # Errors
    /// When no submit has created the callback secret yet.
    pub async fn callback_url(&self, provider: Provider, job: &JobId) -> Result<String> {
        let name = format!("{}/callback-secret", self.description.parameter_prefix);
        let secret = parameter(&self.ssm, &name).await?.context("no callback secret yet")?;
        let secret = CallbackSecret::parse(&secret)?;
        let name = domain::id::ProviderName::parse(provider.name())?;
        let token = secret.token(&name, job);
        Ok(format!("{}/v1/webhooks/{name}/{job}/{token}", self.description.api_url))
    }

    // ------------------------------------------------- the table and the bus

    /// All items of the job.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn items(&self, test_job: &TestJob) -> Result<Vec<Item>> {
        self.table.items_of(test_job.job_id()).await
    }

    /// The job's own item.
    ///
    /// # Errors
    /// When there is none.
    pub async fn job_item(&self, test_job: &TestJob) -> Result<Item> {
        let items = self.items(test_job).await?;
        items.into_iter().find(|item| text(item, "sk") == "job").context("there is no job yet")
    }

    /// The number of jobs with this job's source record.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn jobs_of_source(&self, test_job: &TestJob) -> Result<usize> {
        self.table.jobs_of_source(&test_job.tag).await
    }

    /// The number of independent `PutEvents` calls for an event that occurred at this time.
    /// Retries of one call by the SDK count once. Calls more than 15 seconds after the event
    /// do not count, because the poller then repairs what it takes for a crash.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn publisher_count(&self, event_id: &str, occurred_at: &str) -> Result<usize> {
        let repair = DateTime::parse_from_rfc3339(occurred_at)? + TimeDelta::seconds(15);
        let requests = self.ledger(0, event_id).await?;
        let mut puts = requests.into_iter().filter(|it| it.operation == "PutEvents");
        let first = puts.next().context("the event was not published")?;
        let others = puts.filter(|it| it.at < repair.timestamp_millis());
        let calls: BTreeSet<_> = others.chain([first]).map(|it| it.invocation).collect();
        Ok(calls.len())
    }

    /// The events of the job that a subscriber of the bus got so far. An event that arrived
    /// twice counts once: a subscriber recognises it by its id.
    ///
    /// # Errors
    /// When the subscription does not answer.
    pub async fn events(&self, test_job: &TestJob) -> Result<Vec<BusEvent>> {
        let mut events: Vec<BusEvent> = Vec::new();
        for event in self.subscription.events_of("jobId", test_job.job_id().as_str()).await? {
            if !events.contains(&event) {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Waits until the job has entered a state, which it may have left since.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_state(&self, test_job: &TestJob, state: &str) -> Result<()> {
        eventually(&format!("job of {} {state}", test_job.tag), async || {
            let item = self.job_item(test_job).await?;
            let line = item.get("line").and_then(|line| line.as_l().ok());
            let seen = line.into_iter().flatten().filter_map(|entry| entry.as_l().ok()?.first());
            let seen: Vec<&String> = seen.filter_map(|name| name.as_s().ok()).collect();
            ensure!(seen.iter().any(|seen| *seen == state), "it went through {seen:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the job is settled and its deliveries were made or given up. Then all its
    /// events are on the bus, and every webhook has arrived.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_settled(&self, test_job: &TestJob) -> Result<()> {
        eventually(&format!("job of {} settled", test_job.tag), async || {
            let items = self.items(test_job).await?;
            let job = items.iter().find(|item| text(item, "sk") == "job");
            let job = job.context("there is no job yet")?;
            ensure!(!job.contains_key("shard"), "it is active, and {}", text(job, "state"));
            let mut deliveries =
                items.iter().filter(|item| text(item, "sk").starts_with("delivery#"));
            let over = |item: &Item| ["delivered", "exhausted"].contains(&text(item, "state"));
            ensure!(deliveries.clone().next().is_some(), "it has no delivery yet");
            ensure!(deliveries.all(over), "a delivery is still pending");
            Ok(())
        })
        .await
    }

    /// Waits like [`TestStack::until_settled`], and returns the job.
    ///
    /// # Errors
    /// When it times out.
    pub async fn settled(&self, test_job: &TestJob) -> Result<JobView> {
        self.until_settled(test_job).await?;
        self.job(test_job).await
    }
}

/// The members of `base`, replaced and extended by `options`.
fn merged(base: &Value, options: &Value) -> Value {
    let members = [base, options].into_iter().filter_map(Value::as_object).flatten();
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[derive(Deserialize)]
struct LedgerPage {
    seq: u64,
    requests: Vec<LedgerEntry>,
}

/// A shared secret that webhooks are signed with. The first test of a stack creates it. The
/// API shows a secret only once, so all tests read it from the parameter store.
async fn webhook_secret(
    description: &StackDescription,
    http: &Http,
    ssm: &aws_sdk_ssm::Client,
) -> Result<String> {
    let name = format!("{}/webhook-secrets", description.parameter_prefix);
    let receiver = json!({"url": format!("{}/receiver/default", description.simulator_url)});
    let url = format!("{}/v1/webhook-config", description.api_url);
    let bearer = format!("Bearer {}", description.api_key);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    // All tests do this at once, and all but one of them get 409 `change_in_progress`.
    eventually("a webhook secret", async || {
        if let Some(stored) = parameter(ssm, &name).await? {
            return shared_secret(&stored);
        }
        http.send(Method::PUT, &url, &headers, receiver.to_string()).await?.expect(200)?;
        bail!("PUT /v1/webhook-config created no secret")
    })
    .await
}

/// The newest shared secret in force.
fn shared_secret(stored: &str) -> Result<String> {
    let secrets = SigningSecrets::parse(stored)?;
    let shared = secrets.in_force(Utc::now()).find_map(|stored| match &stored.secret {
        WebhookSecret::Shared(secret) => Some(secret.reveal()),
        WebhookSecret::Pair(_) => None,
    });
    shared.context("no shared secret is in force")
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
