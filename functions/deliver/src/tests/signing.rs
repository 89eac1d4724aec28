//! What receivers get: signatures of the secrets in force, our own headers, and their owner's.

use std::sync::atomic::{AtomicBool, Ordering};
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
use domain::event::{EventName, TestEvent};
use domain::headers::{CustomHeaders, ReceiverHeaders};
use domain::id::{EventId, JobId};
use domain::retry::DeliverySchedule;
use domain::signature::{GracePeriod, SignatureType, SigningSecrets, WebhookSecret};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use serde_json::json;
use shared::egress::{EgressLimits, Receivers};
use shared::endpoint_cache::EndpointCache;
use shared::store::{LockOutcome, Wait};
use shared::webhook_changes::WebhookChanges;
use tokio::time::advance;

use super::*;

const SHOP: &str = "http://shop.test/hooks";

/// Lets SSM throttle every call.
#[derive(Debug, Default)]
struct SsmSwitch(AtomicBool);

impl CallInterceptor for SsmSwitch {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let throttled = Injected::Refused(400, json!({"__type": "ThrottlingException"}));
        let injected = if self.0.load(Ordering::SeqCst) { throttled } else { Injected::Answered };
        std::future::ready(injected.into()).boxed()
    }
}

/// A warm function, and a receiver that keeps what it gets.
struct DeliverWorld {
    aws: InMemoryAws,
    ssm: Arc<SsmSwitch>,
    deliverer: Deliverer,
    received: Arc<Mutex<Vec<Request<Bytes>>>>,
    deliveries: u8,
}

impl DeliverWorld {
    fn new(secrets: &SigningSecrets) -> Self {
        let aws = InMemoryAws::new(&[("webhook-secrets", &secrets.reveal())]);
        let ssm = Arc::new(SsmSwitch::default());
        let process = aws.seen_by(ssm.clone());
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
        let deliverer = Deliverer {
            endpoints: EndpointCache::new(aws.store()),
            webhook_changes: WebhookChanges::new(aws.store()),
            store: aws.store(),
            secrets: process.secrets(),
            bus: aws.bus(),
            queue: aws.deliveries(),
            receivers: Receivers::through(network, policy.clone(), EgressLimits::default())
                .unwrap(),
            policy,
            schedule: DeliverySchedule::default(),
            entropy: aws.entropy(),
        };
        Self { aws, ssm, deliverer, received, deliveries: 0 }
    }

    /// What the receiver gets of a delivery to `url`.
    async fn delivered(&mut self, url: &str, subject: DeliverySubject) -> Request<Bytes> {
        self.tried(url, subject).await.expect("the ticket does not go back")
    }

    /// The same; none when the ticket goes back to the queue.
    async fn tried(&mut self, url: &str, subject: DeliverySubject) -> Option<Request<Bytes>> {
        self.deliveries += 1;
        let test = TestEvent::new([self.deliveries; 16], clock::now());
        let fresh = Delivery::of_test(&test, url, clock::now()).unwrap();
        let body = json!({"metadata": {"title": "Grüße, 世界 🎬"}}).to_string();
        let delivery = Delivery { subject, body, ..fresh };
        self.deliverer.store.insert_delivery(&delivery, Wait::InQueue).await.unwrap();
        let mut message = SqsMessage::default();
        message.message_id = Some("m-1".into());
        message.body = Some(serde_json::to_string(&Ticket::next(&delivery)).unwrap());
        let mut batch = SqsEvent::default();
        batch.records = vec![message];
        let answer = handle(&self.deliverer, batch, clock::now).await.unwrap();
        if !answer.batch_item_failures.is_empty() {
            assert!(self.received.lock().unwrap().is_empty());
            return None;
        }
        let (job, event) = (delivery.subject.job_id(), &delivery.event_id);
        let after = self.deliverer.store.delivery(job, event).await.unwrap().unwrap();
        assert_eq!(after.state, DeliveryState::Delivered);
        self.received.lock().unwrap().pop()
    }

    fn render(&self) -> DeliverySubject {
        let job_id = JobId::from_bytes([self.deliveries; 16]);
        DeliverySubject::Render { job_id, event: EventName::Completed }
    }

    async fn render_delivered(&mut self, url: &str) -> Request<Bytes> {
        self.delivered(url, self.render()).await
    }

    /// Stores a parameter as the API does, which announces it in the table.
    async fn store(&self, name: &str, text: &str) {
        let store = self.aws.store();
        let LockOutcome::Acquired(mut lock) =
            store.lock_webhook_config(clock::now()).await.unwrap()
        else {
            panic!("the lock is held")
        };
        lock.changes_secrets(clock::now());
        self.aws.set_parameter(name, text);
        store.unlock_webhook_config(&lock).await.unwrap();
    }

    async fn store_secrets(&self, secrets: &SigningSecrets) {
        self.store("webhook-secrets", &secrets.reveal()).await;
    }

    async fn store_headers(&self, url: &str, headers: serde_json::Value) {
        let headers = CustomHeaders::from_json(headers).unwrap();
        let headers = ReceiverHeaders::new(url, headers).unwrap();
        self.store("webhook-headers", &headers.reveal().unwrap()).await;
    }
}

fn secret(kind: SignatureType, seed: u8) -> WebhookSecret {
    WebhookSecret::from_random(kind, [seed; 32])
}

fn first(seed: u8) -> SigningSecrets {
    SigningSecrets::first(secret(SignatureType::V1, seed), clock::now())
}

fn seconds(seconds: u64) -> GracePeriod {
    GracePeriod::from_seconds(seconds).unwrap()
}

/// What the header must say, if these are the secrets in force.
fn expected(request: &Request<Bytes>, secrets: &SigningSecrets) -> String {
    let header = |name: &str| request.headers()[name].to_str().unwrap();
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    assert_eq!(timestamp, clock::now().timestamp(), "the attempt's, not the event's");
    EventId::parse(header("webhook-id")).unwrap();
    secrets.sign(header("webhook-id"), clock::now(), request.body())
}

fn signature(request: &Request<Bytes>) -> &str {
    request.headers()["webhook-signature"].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn attempt_is_signed_by_secrets_in_force() {
    let mut secrets = first(1);
    secrets = secrets.rotate(secret(SignatureType::V1a, 2), seconds(30), clock::now()).unwrap();
    secrets = secrets.rotate(secret(SignatureType::V1, 3), seconds(40), clock::now()).unwrap();
    let mut world = DeliverWorld::new(&secrets);
    let start = clock::now();
    for (at, entries) in [(0, 3), (29, 3), (30, 2), (39, 2), (40, 1), (59, 1)] {
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
async fn rotation_reaches_warm_function_within_a_minute() {
    let mut world = DeliverWorld::new(&first(1));
    let request = world.render_delivered(SHOP).await;
    assert_eq!(signature(&request), expected(&request, &first(1)));
    // Without grace.
    world.store_secrets(&first(2)).await;
    advance(Duration::from_secs(60)).await;
    let request = world.render_delivered(SHOP).await;
    assert_eq!(signature(&request), expected(&request, &first(2)));

    world.store_secrets(&first(3)).await;
    let request = world.delivered(SHOP, DeliverySubject::Test).await;
    assert_eq!(signature(&request), expected(&request, &first(3)));
}

#[tokio::test(start_paused = true)]
async fn ended_secret_signs_nothing_after_a_minute() {
    let mut world = DeliverWorld::new(&first(1));
    world.render_delivered(SHOP).await;
    // Without grace, and SSM shows no process the new secret.
    world.store_secrets(&first(2)).await;
    world.ssm.0.store(true, Ordering::SeqCst);
    let (start, mut old, mut held_back) = (clock::now(), 0, 0);
    for _ in 0..24 {
        let age = clock::now() - start;
        match world.tried(SHOP, world.render()).await {
            Some(request) => {
                assert_eq!(signature(&request), expected(&request, &first(1)));
                assert!(age < TimeDelta::seconds(60), "signed after {age}");
                old += 1;
            }
            None => held_back += 1,
        }
        advance(Duration::from_secs(5)).await;
    }
    assert!(old >= 11 && held_back >= 4, "{old} signed, {held_back} held back");
    world.ssm.0.store(false, Ordering::SeqCst);
    let request = world.render_delivered(SHOP).await;
    assert_eq!(signature(&request), expected(&request, &first(2)));
}

#[tokio::test(start_paused = true)]
async fn headers_reach_function_that_had_none() {
    let mut world = DeliverWorld::new(&first(1));
    world.render_delivered(SHOP).await;
    world.store_headers(SHOP, json!({"X-Shop": "berlin"})).await;
    advance(Duration::from_secs(60)).await;
    assert_eq!(world.render_delivered(SHOP).await.headers()["x-shop"], "berlin");
}

#[tokio::test(start_paused = true)]
async fn custom_headers_reach_only_their_receiver() {
    let mut world = DeliverWorld::new(&first(1));
    world.store_headers(SHOP, json!({"Authorization": "Bearer gateway", "X-Shop": "berlin"})).await;
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

    // Headers that belong to a receiver of before.
    world.store_headers("http://shop.test/before", json!({"X-Shop": "paris"})).await;
    let request = world.delivered(SHOP, DeliverySubject::Test).await;
    assert_eq!(theirs(request.headers()), [None, None]);
}
