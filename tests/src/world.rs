//! One test's corner of the stack.

mod account;
mod cost;
mod crowd;
mod dead_letters;
mod endpoint;
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

pub use self::crowd::{Outcome, Receiver};
use crate::bus::{BusEvent, Subscription};
use crate::http::{Answer, Http};
use crate::order::{Order, Provider};
use crate::patience::eventually;
use crate::relay::{DeliveryView, JobView};
use crate::simulator::{ApiCall, LedgerEntry, Render, Webhook};
use crate::stack::Stack;
use crate::table::{Item, Table, text};

/// Everything a test needs: a customer's backend, the providers and receivers around
/// it, a subscriber of the bus, and eyes on the table and on the ledger.
#[derive(Debug)]
pub struct World {
    stack: Stack,
    http: Http,
    table: Table,
    ssm: aws_sdk_ssm::Client,
    sqs: aws_sdk_sqs::Client,
    subscription: Subscription,
    webhook_secret: String,
    mark: String,
    orders: AtomicUsize,
}

impl World {
    /// A new corner. `story` is part of every name in it.
    ///
    /// # Errors
    /// When no stack is up.
    pub async fn open(story: &str) -> Result<Self> {
        let stack = Stack::running()?;
        let aws = aws(&stack);
        let http = Http::new();
        let mark = format!("{story}-{:x}", Utc::now().timestamp_micros());
        let ssm = aws_sdk_ssm::Client::new(&aws);
        let sqs = aws_sdk_sqs::Client::new(&aws);
        let events = aws_sdk_eventbridge::Client::new(&aws);
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        Ok(Self {
            subscription: Subscription::start(sqs.clone(), &events, &stack.bus_name, &mark).await?,
            webhook_secret: webhook_secret(&stack, &http, &ssm).await?,
            table: Table { client: dynamodb, name: stack.table_name.clone() },
            stack,
            http,
            ssm,
            sqs,
            mark,
            orders: AtomicUsize::new(0),
        })
    }

    /// An order that nobody has placed yet, with a receiver of its own for the webhooks,
    /// which verifies them and answers 200.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn order(&self, provider: Provider) -> Result<Order> {
        let mark = self.next_mark();
        let receiver = format!("{}/receiver/{mark}", self.stack.simulator_url);
        let order = Order::new(provider, mark, &receiver)?;
        self.receiver_answers(&order, &json!([])).await?;
        Ok(order)
    }

    /// Of one width, so that no mark is the beginning of another.
    fn next_mark(&self) -> String {
        let number = self.orders.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:04}", self.mark)
    }

    // ---------------------------------------------------------- the simulator

    /// Says how the provider treats this order; see the simulator for the knobs. It waits
    /// long for the answer to a callback: no slow machine is to look like a lost one.
    ///
    /// # Errors
    /// When there is no such knob.
    pub async fn scenario(&self, order: &Order, knobs: &Value) -> Result<()> {
        let patient = json!({"callbackAnswerWithinMs": 120_000});
        let path = format!("/scenarios/{}/{}", order.provider.speaks(), order.mark);
        let knobs = with_all_of(&patient, knobs);
        self.http.put(&self.control(&path), &knobs).await?.expect(204).map(drop)
    }

    /// Has the order's render go on until [`World::end`], apart from what `knobs` say.
    ///
    /// # Errors
    /// When there is no such knob.
    pub async fn endless(&self, order: &Order, knobs: &Value) -> Result<()> {
        let endless = json!({"durationMs": 1, "queuedMs": 0, "freezeProgress": 0.4});
        self.scenario(order, &with_all_of(&endless, knobs)).await
    }

    /// Ends the order's endless render; its callbacks leave.
    ///
    /// # Errors
    /// When there is none, or it has ended.
    pub async fn end(&self, order: &Order) -> Result<()> {
        self.tell_render(order, "end").await
    }

    /// Has the order's provider tell how far the render is, or was before its end.
    ///
    /// # Errors
    /// When the provider does not tell of progress.
    pub async fn tell_progress(&self, order: &Order) -> Result<()> {
        self.tell_render(order, "progress").await
    }

    async fn tell_render(&self, order: &Order, what: &str) -> Result<()> {
        let path = format!("/renders/{}/{}/{what}", order.provider.speaks(), order.mark);
        let url = self.control(&path);
        self.http.send(Method::POST, &url, &[], Bytes::new()).await?.expect(204).map(drop)
    }

    /// Says what the order's receiver answers, webhook by webhook; afterwards 200. An
    /// answer that is held back until now is given.
    ///
    /// # Errors
    /// When an answer is none.
    pub async fn receiver_answers(&self, order: &Order, answers: &Value) -> Result<()> {
        let behaviour = json!({"secret": self.webhook_secret, "answers": answers});
        let url = self.control(&format!("/receivers/{}", order.mark));
        self.http.put(&url, &behaviour).await?.expect(204).map(drop)
    }

    /// The renders that the order made at its provider.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn renders(&self, order: &Order) -> Result<Vec<Render>> {
        self.look(&format!("/renders?tag={}", order.mark)).await
    }

    /// The one render of an order.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub async fn render(&self, order: &Order) -> Result<Render> {
        let mut renders = self.renders(order).await?;
        let count = renders.len();
        renders.pop().filter(|_| count == 1).with_context(|| format!("{count} renders, not one"))
    }

    /// The one render of an order, when that many callbacks about it were answered: a
    /// provider may still wait for that when its job is over.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn called_back(&self, order: &Order, times: usize) -> Result<Render> {
        eventually(&format!("{times} callbacks of {} answered", order.mark), async || {
            let render = self.render(order).await?;
            let statuses = render.callback_statuses();
            ensure!(statuses.len() >= times, "{statuses:?}");
            Ok(render)
        })
        .await
    }

    /// All calls to the order's provider that were about it, except status calls for a
    /// render that is not there: the provider cannot know whose they are.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn provider_calls(&self, order: &Order) -> Result<Vec<ApiCall>> {
        self.look(&format!("/requests?tag={}", order.mark)).await
    }

    /// How often the order's provider was asked to render it, whatever it answered.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn submits(&self, order: &Order) -> Result<usize> {
        let calls = self.provider_calls(order).await?;
        Ok(calls.iter().filter(|call| call.method == "POST").count())
    }

    /// Waits until the provider was asked about the order's render so many times more.
    ///
    /// # Errors
    /// When it is not in time, or there is no render.
    pub async fn until_asked(&self, order: &Order, more: u32) -> Result<()> {
        let before = self.render(order).await?.polls;
        eventually(&format!("{} asked about {more} times", order.mark), async || {
            let polls = self.render(order).await?.polls;
            ensure!(polls >= before + more, "{} times", polls - before);
            Ok(())
        })
        .await
    }

    /// All status calls for a render of this id, there or not.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn status_calls(&self, render_id: &str) -> Result<Vec<ApiCall>> {
        let mut calls: Vec<ApiCall> = self.look("/requests").await?;
        calls.retain(|call| call.method == "GET" && call.path.contains(render_id));
        Ok(calls)
    }

    /// What the order's receiver got, oldest first.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn webhooks(&self, order: &Order) -> Result<Vec<Webhook>> {
        #[derive(Deserialize)]
        struct Receiver {
            received: Vec<Webhook>,
        }
        let receiver: Receiver = self.look(&format!("/receivers/{}", order.mark)).await?;
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
        self.look(&format!("/aws?since={since}&contains={contains}")).await
    }

    async fn look<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.http.get(&self.control(path)).await?.expect(200)?.json()
    }

    fn control(&self, path: &str) -> String {
        format!("{}/_control{path}", self.stack.simulator_url)
    }

    // ---------------------------------------------------------------- our API

    /// Places the order, under its mark as the idempotency key.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn post(&self, order: &Order) -> Result<Answer> {
        let bearer = self.bearer();
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", &order.mark)];
        self.post_raw(&headers, order.body.to_string()).await
    }

    /// Posts to `/v1/jobs` with just these headers, and whatever body.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn post_raw(
        &self,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let url = format!("{}/v1/jobs", self.stack.api_url);
        self.http.send(Method::POST, &url, headers, body).await
    }

    /// What the `Authorization` header has to say.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.stack.api_key)
    }

    /// Places the order and sees it accepted.
    ///
    /// # Errors
    /// When it is not answered 202.
    pub async fn submit(&self, order: &Order) -> Result<JobView> {
        let job: JobView = self.post(order).await?.expect(202)?.json()?;
        ensure!(job.job_id == order.job_id().as_str(), "the job is {}", job.job_id);
        Ok(job)
    }

    /// The order's job, as the API shows it.
    ///
    /// # Errors
    /// When it is not answered 200.
    pub async fn job(&self, order: &Order) -> Result<JobView> {
        self.call(Method::GET, order, "").await?.expect(200)?.json()
    }

    /// The job's deliveries, as the API shows them.
    ///
    /// # Errors
    /// When it is not answered 200.
    pub async fn deliveries(&self, order: &Order) -> Result<Vec<DeliveryView>> {
        #[derive(Deserialize)]
        struct Deliveries {
            deliveries: Vec<DeliveryView>,
        }
        let answer = self.call(Method::GET, order, "/deliveries").await?.expect(200)?;
        Ok(answer.json::<Deliveries>()?.deliveries)
    }

    /// Has the job's last event sent again.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn redeliver(&self, order: &Order) -> Result<Answer> {
        self.call(Method::POST, order, "/redeliver").await
    }

    /// Has the job's render called off.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn cancel(&self, order: &Order) -> Result<Answer> {
        self.call(Method::POST, order, "/cancel").await
    }

    async fn call(&self, method: Method, order: &Order, path: &str) -> Result<Answer> {
        let url = format!("{}/v1/jobs/{}{path}", self.stack.api_url, order.job_id());
        let bearer = self.bearer();
        self.http.send(method, &url, &[("authorization", &bearer)], Bytes::new()).await
    }

    /// Posts to a callback URL, as a provider, or somebody who says to be one, does.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn call_back(&self, url: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let json = [("content-type", "application/json")];
        self.http.send(Method::POST, url, &json, body).await
    }

    /// The callback URL with the right token for any job, there or not.
    ///
    /// # Errors
    /// When no job has made the secret yet.
    pub async fn callback_url(&self, provider: Provider, job: &JobId) -> Result<String> {
        let name = format!("{}/callback-secret", self.stack.parameter_prefix);
        let secret = parameter(&self.ssm, &name).await?.context("no callback secret yet")?;
        let secret = CallbackSecret::parse(&secret)?;
        let name = domain::id::ProviderName::parse(provider.name())?;
        let token = secret.token(&name, job);
        Ok(format!("{}/v1/webhooks/{name}/{job}/{token}", self.stack.api_url))
    }

    // ------------------------------------------------- the table and the bus

    /// Everything that is stored of the order's job.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn items(&self, order: &Order) -> Result<Vec<Item>> {
        self.table.items_of(order.job_id()).await
    }

    /// The job's own item.
    ///
    /// # Errors
    /// When there is none.
    pub async fn job_item(&self, order: &Order) -> Result<Item> {
        let items = self.items(order).await?;
        items.into_iter().find(|item| text(item, "sk") == "job").context("there is no job yet")
    }

    /// How many jobs the table has of the order's source record.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn jobs_of_source(&self, order: &Order) -> Result<usize> {
        self.table.jobs_of_source(&order.mark).await
    }

    /// How often somebody put an event on the bus that occurred at this time: more than once
    /// when several tell of the same. A call whose answer was late, so that the client
    /// repeated it, is one; and so is one whose caller was so slow with all of it that the
    /// poller came to help.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn tellers(&self, event_id: &str, occurred_at: &str) -> Result<usize> {
        let help = DateTime::parse_from_rfc3339(occurred_at)? + TimeDelta::seconds(15);
        let requests = self.ledger(0, event_id).await?;
        let mut puts = requests.into_iter().filter(|it| it.operation == "PutEvents");
        let first = puts.next().context("nobody told")?;
        let others = puts.filter(|it| it.at < help.timestamp_millis());
        let calls: BTreeSet<_> = others.chain([first]).map(|it| it.invocation).collect();
        Ok(calls.len())
    }

    /// The events of the order's job that a subscriber of the bus got so far. One that came
    /// twice is one: a subscriber knows it by its id.
    ///
    /// # Errors
    /// When the subscription does not answer.
    pub async fn events(&self, order: &Order) -> Result<Vec<BusEvent>> {
        let mut events: Vec<BusEvent> = Vec::new();
        for event in self.subscription.events_of("jobId", order.job_id().as_str()).await? {
            if !events.contains(&event) {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Waits until the job has entered a state; it may have left it since.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_state(&self, order: &Order, state: &str) -> Result<()> {
        eventually(&format!("job of {} {state}", order.mark), async || {
            let item = self.job_item(order).await?;
            let line = item.get("line").and_then(|line| line.as_l().ok());
            let seen = line.into_iter().flatten().filter_map(|entry| entry.as_l().ok()?.first());
            let seen: Vec<&String> = seen.filter_map(|name| name.as_s().ok()).collect();
            ensure!(seen.iter().any(|seen| *seen == state), "it went through {seen:?}");
            Ok(())
        })
        .await
    }

    /// Waits until nothing is left to do for the job: it has ended and left the active
    /// ones, and its deliveries were made or given up. All events are on the bus then,
    /// and every webhook has arrived.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn until_settled(&self, order: &Order) -> Result<()> {
        eventually(&format!("job of {} settled", order.mark), async || {
            let items = self.items(order).await?;
            let job = items.iter().find(|item| text(item, "sk") == "job");
            let job = job.context("there is no job yet")?;
            ensure!(!job.contains_key("shard"), "it is active, and {}", text(job, "state"));
            let mut deliveries =
                items.iter().filter(|item| text(item, "sk").starts_with("delivery#"));
            let over = |item: &Item| ["delivered", "exhausted"].contains(&text(item, "state"));
            ensure!(deliveries.clone().next().is_some(), "it has no delivery yet");
            ensure!(deliveries.all(over), "a delivery is still under way");
            Ok(())
        })
        .await
    }

    /// The job when nothing is left to do for it.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn settled(&self, order: &Order) -> Result<JobView> {
        self.until_settled(order).await?;
        self.job(order).await
    }
}

/// `knobs` over those of `base`.
fn with_all_of(base: &Value, knobs: &Value) -> Value {
    let members = [base, knobs].into_iter().filter_map(Value::as_object).flatten();
    members.map(|(knob, value)| (knob.clone(), value.clone())).collect()
}

#[derive(Deserialize)]
struct LedgerPage {
    seq: u64,
    requests: Vec<LedgerEntry>,
}

/// A shared secret that webhooks are signed with. The first test of a stack has it made; the
/// API shows it that once, so all read it where it is kept.
async fn webhook_secret(stack: &Stack, http: &Http, ssm: &aws_sdk_ssm::Client) -> Result<String> {
    let name = format!("{}/webhook-secrets", stack.parameter_prefix);
    let receiver = json!({"url": format!("{}/receiver/default", stack.simulator_url)});
    let url = format!("{}/v1/webhook-config", stack.api_url);
    let bearer = format!("Bearer {}", stack.api_key);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    // All tests come here at once, and all but one are told that somebody else is at it.
    eventually("a webhook secret", async || {
        if let Some(stored) = parameter(ssm, &name).await? {
            return shared_secret(&stored);
        }
        http.send(Method::PUT, &url, &headers, receiver.to_string()).await?.expect(200)?;
        bail!("PUT /v1/webhook-config made no secret")
    })
    .await
}

/// The newest of those in force that a receiver can know.
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

fn aws(stack: &Stack) -> SdkConfig {
    let anybody = Credentials::new("test", "test", None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(stack.region.clone()))
        .endpoint_url(&stack.aws_endpoint)
        .credentials_provider(SharedCredentialsProvider::new(anybody))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}
