//! A receiver that is gone, with a table that takes its time or a bus that is missing.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use aws_in_memory::network::{Network, host};
use aws_in_memory::{InMemoryAws, builders, clock};
use aws_lambda_events::sqs::SqsMessage;
use bytes::Bytes;
use domain::address::TargetPolicy;
use domain::delivery::{Delivery, DeliveryState};
use domain::event::{EndpointDisabled, TestEvent};
use domain::retry::DeliverySchedule;
use domain::signature::{SignatureType, WebhookSecret};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Response;
use serde_json::Value;
use shared::egress::{EgressLimits, Receivers};
use shared::endpoint_cache::EndpointCache;
use shared::store::Wait;
use tokio::time::{Instant, sleep};

use super::*;

/// What is written of an endpoint arrives when this has passed: longer than it is remembered.
const SLOW: Duration = Duration::from_millis(1_500);

#[derive(Debug)]
struct SlowEndpoints;

impl CallInterceptor for SlowEndpoints {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let written = call.body.pointer("/Item/pk/S").and_then(Value::as_str).unwrap_or_default();
        let takes = if written.starts_with("endpoint#") { SLOW } else { Duration::ZERO };
        sleep(takes).map(|()| Injected::Answered.into()).boxed()
    }
}

pub(super) const RECEIVER: &str = "http://shop.test/hooks";

/// A receiver that answers 410, and a deliverer whose calls to AWS pass this interceptor.
pub(super) fn gone_receiver(interceptor: Arc<dyn CallInterceptor>) -> (InMemoryAws, Deliverer) {
    let secret = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
    let aws = InMemoryAws::new(&[("webhook-secrets", &secret)]);
    let network = Network::default();
    let gone = |_| Response::builder().status(410).body(Bytes::new()).unwrap();
    network.add("shop.test", host(gone));
    let seen = aws.seen_by(interceptor);
    let policy = TargetPolicy::local_use();
    let network = network.seen_by(Arc::new(NoFaults));
    let deliverer = Deliverer {
        endpoints: EndpointCache::new(seen.store()),
        store: seen.store(),
        secrets: seen.secrets(),
        bus: seen.bus(),
        queue: seen.deliveries(),
        receivers: Receivers::through(network, policy.clone(), EgressLimits::default()).unwrap(),
        policy,
        schedule: DeliverySchedule::default(),
        entropy: aws.entropy(),
    };
    (aws, deliverer)
}

pub(super) fn batch_of(ticket: &Ticket) -> SqsEvent {
    let mut message = SqsMessage::default();
    message.message_id = Some("m-1".into());
    message.body = Some(serde_json::to_string(ticket).unwrap());
    let mut batch = SqsEvent::default();
    batch.records = vec![message];
    batch
}

#[tokio::test(start_paused = true)]
async fn gone_receiver_is_published_despite_slow_table() {
    let (aws, deliverer) = gone_receiver(Arc::new(SlowEndpoints));
    aws.table().lag_reads(Duration::from_millis(500));
    let test = TestEvent::new([7; 16], clock::now());
    let delivery = Delivery::of_test(&test, RECEIVER, clock::now()).unwrap();
    aws.store().insert_delivery(&delivery, Wait::InQueue).await.unwrap();

    handle(&deliverer, batch_of(&Ticket::next(&delivery)), clock::now).await.unwrap();

    let published: Vec<String> = aws.events().into_iter().map(|event| event.detail_type).collect();
    assert!(published.contains(&EndpointDisabled::NAME.to_owned()), "{published:?}");
}

/// A bus that is missing for a day.
#[derive(Debug)]
struct MissingBus {
    until: Instant,
}

const DAY: Duration = Duration::from_secs(86_400);

impl CallInterceptor for MissingBus {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let is_missing = call.to == "events" && Instant::now() < self.until;
        let injected = if is_missing { Injected::Lost } else { Injected::Answered };
        std::future::ready(injected.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn missing_bus_makes_no_dead_letter() {
    let bus = Arc::new(MissingBus { until: Instant::now() + DAY });
    let (aws, deliverer) = gone_receiver(bus);
    let delivery = builders::delivery().url(RECEIVER).created_at(clock::now()).build();
    aws.store().insert_delivery(&delivery, Wait::InQueue).await.unwrap();
    aws.deliveries().send(&Ticket::next(&delivery), Duration::ZERO).await.unwrap();

    let queue = aws.delivery_queue();
    while let Some(at) = queue.next_at() {
        tokio::time::sleep_until(at).await;
        let Some(event) = queue.take_in_order() else { continue };
        let ids: Vec<String> =
            event.records.iter().filter_map(|record| record.message_id.clone()).collect();
        assert_eq!(back(handle(&deliverer, event, clock::now).await.unwrap()), [""; 0]);
        for id in ids {
            queue.delete(&id);
        }
    }

    assert_eq!(queue.dead_letter_total(), 0);
    let names: Vec<String> = aws.events().into_iter().map(|event| event.detail_type).collect();
    assert_eq!(names, ["webhook.delivery.exhausted", "webhook.endpoint.disabled"]);
    let tickets = queue.sent().len();
    assert!(tickets < 110, "{tickets} tickets: four an hour");
    let stored = aws.store().delivery(delivery.subject.job_id(), &delivery.event_id).await;
    let stored = stored.unwrap().unwrap();
    assert_eq!(stored.attempts.len(), 1);
    assert!(matches!(stored.state, DeliveryState::Exhausted(_)), "{:?}", stored.state);
}
