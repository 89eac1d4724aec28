//! What receivers get: signatures of the secrets in force, our own headers, and their owner's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use aws_in_memory::network::{Network, host};
use aws_in_memory::{InMemoryAws, clock};
use aws_lambda_events::sqs::SqsMessage;
use bytes::Bytes;
use chrono::TimeDelta;
use domain::address::TargetPolicy;
use domain::delivery::{Delivery, DeliveryState, DeliverySubject};
use domain::endpoint::{EndpointLimits, HoldReason};
use domain::event::{EventName, TestEvent};
use domain::headers::{CustomHeaders, HeadersId, ReceiverHeaders};
use domain::id::{EventId, JobId};
use domain::retry::DeliverySchedule;
use domain::signature::{GracePeriod, LEAD, SignatureType, SigningSecrets, WebhookSecret};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use serde_json::json;
use shared::egress::{EgressLimits, Receivers};
use shared::endpoint_cache::EndpointCache;
use shared::secrets::{SecretChange, SecretName};
use shared::store::{Consistency, Wait};
use tokio::time::advance;

use super::*;

pub(super) const SHOP: &str = "http://shop.test/hooks";

/// What a process cannot read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Trouble {
    #[default]
    None,
    /// SSM throttles every call.
    Ssm,
    /// SSM shows the secrets as they were.
    Late(String),
    /// The item of changes cannot be read.
    Changes,
}

#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<Trouble>);

impl Troubles {
    pub(super) fn set(&self, trouble: Trouble) {
        *self.0.lock().unwrap() = trouble;
    }
}

impl CallInterceptor for Troubles {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let busy = Injected::Refused(400, json!({"__type": "ThrottlingException"}));
        let injected = match self.0.lock().unwrap().clone() {
            Trouble::Ssm if call.to == "ssm" => busy,
            Trouble::Changes if call.body["Key"]["sk"]["S"] == "changes" => busy,
            Trouble::Late(value) if call.what == "GetParameters" => {
                let name = call.body["Names"][0].as_str().unwrap_or_default();
                let parameter = json!({"Name": name, "Value": value, "Version": 1});
                Injected::Refused(200, json!({"Parameters": [parameter]}))
            }
            Trouble::None | Trouble::Ssm | Trouble::Changes | Trouble::Late(_) => {
                Injected::Answered
            }
        };
        std::future::ready(injected.into()).boxed()
    }
}

/// Warm functions, and a receiver that keeps what it gets.
pub(super) struct DeliverWorld {
    pub(super) aws: InMemoryAws,
    pub(super) troubles: Arc<Troubles>,
    processes: Vec<Deliverer>,
    received: Arc<Mutex<Vec<Request<Bytes>>>>,
    deliveries: u64,
}

impl DeliverWorld {
    fn new(secrets: &SigningSecrets) -> Self {
        Self::of(secrets, 1)
    }

    /// With so many processes.
    pub(super) fn of(secrets: &SigningSecrets, processes: usize) -> Self {
        let aws = InMemoryAws::new(&[("webhook-secrets", &secrets.reveal())]);
        let troubles = Arc::new(Troubles::default());
        let received = Arc::new(Mutex::new(Vec::new()));
        let network = Network::default();
        let log = Arc::clone(&received);
        let keep = move |request: Request<Bytes>| {
            log.lock().unwrap().push(request);
            Response::new(Bytes::new())
        };
        network.add("shop.test", host(keep.clone()));
        network.add("other.test", host(keep));
        let policy = TargetPolicy::local_use();
        let network = network.seen_by(Arc::new(NoFaults));
        let start = |_| {
            let process = aws.seen_by(troubles.clone());
            Deliverer {
                endpoints: EndpointCache::new(process.store()),
                store: process.store(),
                secrets: process.secrets(),
                bus: process.bus(),
                queue: process.deliveries(),
                receivers: Receivers::through(
                    network.clone(),
                    policy.clone(),
                    EgressLimits::default(),
                )
                .unwrap(),
                policy: policy.clone(),
                schedule: DeliverySchedule::default(),
                entropy: process.entropy(),
            }
        };
        let processes = (0..processes).map(start).collect();
        Self { processes, aws, troubles, received, deliveries: 0 }
    }

    /// What the receiver gets of a delivery to `url`.
    async fn delivered(&mut self, url: &str, subject: DeliverySubject) -> Request<Bytes> {
        self.tried(url, subject).await.expect("the ticket does not go back")
    }

    /// The same; none when the attempt is put off.
    async fn tried(&mut self, url: &str, subject: DeliverySubject) -> Option<Request<Bytes>> {
        self.tried_by(0, url, subject).await
    }

    /// The same, by one of the processes.
    pub(super) async fn tried_by(
        &mut self,
        process: usize,
        url: &str,
        subject: DeliverySubject,
    ) -> Option<Request<Bytes>> {
        self.deliveries += 1;
        let deliverer = &self.processes[process];
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.deliveries.to_be_bytes());
        let test = TestEvent::new(id, clock::now());
        let fresh = Delivery::of_test(&test, url, clock::now()).unwrap();
        let body = json!({"metadata": {"title": "Grüße, 世界 🎬"}}).to_string();
        let delivery = Delivery { subject, body, ..fresh };
        self.aws.store().insert_delivery(&delivery, Wait::InQueue).await.unwrap();
        let mut message = SqsMessage::default();
        message.message_id = Some("m-1".into());
        message.body = Some(serde_json::to_string(&Ticket::next(&delivery)).unwrap());
        let mut batch = SqsEvent::default();
        batch.records = vec![message];
        let answer = handle(deliverer, batch, clock::now).await.unwrap();
        assert!(answer.batch_item_failures.is_empty(), "the ticket does not go back");
        let (job, event) = (delivery.subject.job_id(), &delivery.event_id);
        let after = self.aws.store().delivery(job, event).await.unwrap().unwrap();
        let received = self.received.lock().unwrap().pop();
        let held = match after.state {
            DeliveryState::Pending { held, next_at } => {
                let wait = next_at - clock::now();
                assert!(wait > TimeDelta::zero() && wait <= TimeDelta::seconds(10), "{wait}");
                assert!(after.attempts.is_empty(), "it counts for nothing");
                held
            }
            DeliveryState::Delivered => None,
            DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => panic!("{after:?}"),
        };
        assert_eq!(received.is_none(), held == Some(HoldReason::Secrets), "{:?}", after.state);
        received
    }

    pub(super) fn render(&self) -> DeliverySubject {
        let job_id = JobId::from_bytes([self.deliveries.to_be_bytes()[7]; 16]);
        DeliverySubject::Render { job_id, event: EventName::Completed }
    }

    async fn render_delivered(&mut self, url: &str) -> Request<Bytes> {
        self.delivered(url, self.render()).await
    }

    /// Stores the secrets as the API does, which announces it in the table.
    pub(super) async fn store_secrets(&self, secrets: &SigningSecrets) {
        let (store, now) = (self.aws.store(), clock::now());
        let version = self.aws.set_parameter("webhook-secrets", &secrets.reveal());
        let id = self.aws.entropy().bytes().map(u64::from_be_bytes).unwrap();
        let version = i64::try_from(version).unwrap();
        let change = SecretChange::finished(id, now + LEAD, Some(version), now);
        store.announce_secret_change(&SecretName::WebhookSecrets, &change).await.unwrap();
    }

    /// Announces a rotation, as the API does before it makes one.
    pub(super) async fn begin_rotation(&self, from: DateTime<Utc>) {
        let (store, change) = (self.aws.store(), SecretChange::begun(9, from, clock::now()));
        store.announce_secret_change(&SecretName::WebhookSecrets, &change).await.unwrap();
    }

    /// Configures the receiver at `url` with headers, which SSM has or does not show yet.
    async fn configure(&self, url: &str, id: u8, headers: Option<serde_json::Value>) {
        let id = HeadersId::from_random([id; 8]);
        if let Some(headers) = headers {
            let headers = CustomHeaders::from_json(headers).unwrap();
            let headers = ReceiverHeaders::new(url, headers).unwrap();
            let name = SecretName::WebhookHeaders(id).path();
            self.aws.set_parameter(&name, &headers.reveal().unwrap());
        }
        let store = self.aws.store();
        let before = store.endpoint(url, Consistency::Strong).await.unwrap();
        let limits = EndpointLimits::default();
        let after = before.configured(limits, Some(id), clock::now()).unwrap();
        store.commit_endpoint(&before, &after).await.unwrap();
    }
}

pub(super) fn secret(kind: SignatureType, seed: u8) -> WebhookSecret {
    WebhookSecret::from_random(kind, [seed; 32])
}

pub(super) fn first(seed: u8) -> SigningSecrets {
    SigningSecrets::first(secret(SignatureType::V1, seed), clock::now())
}

pub(super) fn seconds(seconds: u64) -> GracePeriod {
    GracePeriod::from_seconds(seconds).unwrap()
}

/// What the header must say, if these are the secrets in force.
pub(super) fn expected(request: &Request<Bytes>, secrets: &SigningSecrets) -> String {
    let header = |name: &str| request.headers()[name].to_str().unwrap();
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    assert_eq!(timestamp, clock::now().timestamp(), "the attempt's, not the event's");
    EventId::parse(header("webhook-id")).unwrap();
    secrets.sign(header("webhook-id"), clock::now(), request.body())
}

pub(super) fn signature(request: &Request<Bytes>) -> &str {
    request.headers()["webhook-signature"].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn attempt_is_signed_by_secrets_in_force() {
    let mut secrets = first(1);
    secrets = secrets.rotate(secret(SignatureType::V1a, 2), seconds(30), clock::now()).unwrap();
    secrets = secrets.rotate(secret(SignatureType::V1, 3), seconds(40), clock::now()).unwrap();
    let mut world = DeliverWorld::new(&secrets);
    let start = clock::now();
    for (at, entries) in [(0, 1), (59, 1), (60, 3), (89, 3), (90, 2), (99, 2), (100, 1)] {
        let now = start + TimeDelta::seconds(at);
        advance((now - clock::now()).to_std().unwrap()).await;
        let request = world.render_delivered(SHOP).await;
        assert_eq!(signature(&request), expected(&request, &secrets));
        assert_eq!(signature(&request).split(' ').count(), entries, "after {at} s");
    }
    let reads = world.aws.calls().into_iter().filter(|call| call == "GetParameters").count();
    assert_eq!(reads, 1, "what is kept tells the ends by itself");
}

#[tokio::test(start_paused = true)]
async fn test_uses_first_secret_at_once() {
    let mut world = DeliverWorld::new(&first(1));
    world.render_delivered(SHOP).await;
    // It was deleted by hand, and the next PUT makes the first one again.
    let made = first(2);
    let version = world.aws.set_parameter("webhook-secrets", &made.reveal());
    let change = SecretChange::finished(7, clock::now(), i64::try_from(version).ok(), clock::now());
    let store = world.aws.store();
    store.announce_secret_change(&SecretName::WebhookSecrets, &change).await.unwrap();
    let request = world.delivered(SHOP, DeliverySubject::Test).await;
    assert_eq!(signature(&request), expected(&request, &made));
}

#[tokio::test(start_paused = true)]
async fn headers_reach_function_that_had_none() {
    let mut world = DeliverWorld::new(&first(1));
    world.render_delivered(SHOP).await;
    world.configure(SHOP, 1, Some(json!({"X-Shop": "berlin"}))).await;
    advance(Duration::from_secs(1)).await;
    assert_eq!(world.render_delivered(SHOP).await.headers()["x-shop"], "berlin");
    world.configure(SHOP, 2, Some(json!({"X-Shop": "paris"}))).await;
    advance(Duration::from_secs(1)).await;
    assert_eq!(world.render_delivered(SHOP).await.headers()["x-shop"], "paris");
}

#[tokio::test(start_paused = true)]
async fn attempt_waits_for_unread_headers() {
    let mut world = DeliverWorld::new(&first(1));
    world.render_delivered(SHOP).await;
    world.configure(SHOP, 1, None).await;
    advance(Duration::from_secs(1)).await;
    assert!(world.tried(SHOP, world.render()).await.is_none(), "not without them");
    world.configure(SHOP, 2, Some(json!({"X-Shop": "berlin"}))).await;
    advance(Duration::from_secs(10)).await;
    assert_eq!(world.render_delivered(SHOP).await.headers()["x-shop"], "berlin");
}

#[tokio::test(start_paused = true)]
async fn custom_headers_reach_only_their_receiver() {
    let mut world = DeliverWorld::new(&first(1));
    let headers = json!({"Authorization": "Bearer gateway", "X-Shop": "berlin"});
    world.configure(SHOP, 1, Some(headers)).await;
    let request = world.render_delivered(SHOP).await;
    assert_eq!(request.headers()["authorization"], "Bearer gateway");
    let ours = ["content-type", "user-agent", "webhook-id", "webhook-timestamp"];
    let with_them: Vec<_> = ours.iter().map(|name| &request.headers()[*name]).collect();
    assert_eq!(with_them[0], "application/json");
    assert_eq!(with_them[1], concat!("render-relay/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.headers()["x-shop"], "berlin");

    let request = world.render_delivered("http://other.test/hooks").await;
    let theirs =
        |headers: &HeaderMap| ["authorization", "x-shop"].map(|name| headers.get(name).cloned());
    assert_eq!(theirs(request.headers()), [None, None], "invariant 5: headers are bound");
}
