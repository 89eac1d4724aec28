//! A ticket whose endpoint is changed by others all the time.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use aws_in_memory::{InMemoryAws, builders, clock};
use domain::delivery::{DeliveryState, GiveUpReason};
use domain::endpoint::EndpointLimits;
use domain::id::EventId;
use domain::retry::DeliverySchedule;
use domain::signature::{SignatureType, WebhookSecret};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::{Value, json};
use shared::endpoint_cache::EndpointCache;
use shared::store::{Consistency, Store, Wait};
use tokio::time::{Instant, sleep_until};

use super::*;

const URL: &str = "https://shop.example/hooks";

/// Another process always writes the endpoint first.
#[derive(Debug)]
struct Crowded(InMemoryAws);

impl CallInterceptor for Crowded {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let item = call.body.pointer("/Item/pk/S").and_then(Value::as_str).unwrap_or_default();
        let injected = match item.starts_with("endpoint#") {
            true => {
                let kind = "ConditionalCheckFailedException";
                let item = self.0.table().item(item, "endpoint");
                Injected::Refused(400, json!({"__type": kind, "Item": item}))
            }
            false => Injected::Answered,
        };
        ready(injected.into()).boxed()
    }
}

/// A deliverer in the crowd, and the queue with the ticket of a delivery to a limited receiver.
async fn crowded(schedule: &str) -> (InMemoryAws, Deliverer, EventId) {
    let secret = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
    let aws = InMemoryAws::new(&[("webhook-secrets", &secret)]);
    let limits = EndpointLimits::new(Some(1), None).unwrap();
    let endpoints = EndpointCache::new(aws.store());
    let configured =
        |endpoint: &domain::endpoint::Endpoint| endpoint.configured(limits, None, clock::now());
    endpoints.update(URL, Consistency::Strong, clock::now(), configured).await.unwrap();
    let delivery = builders::delivery().url(URL).created_at(clock::now()).build();
    aws.store().insert_delivery(&delivery, Wait::InQueue).await.unwrap();
    aws.deliveries().send(&Ticket::next(&delivery), Duration::ZERO).await.unwrap();
    let seen = aws.seen_by(Arc::new(Crowded(aws.clone())));
    let deliverer = Deliverer {
        endpoints: EndpointCache::new(seen.store()),
        store: seen.store(),
        schedule: DeliverySchedule::parse(schedule).unwrap(),
        ..deliverer(&aws)
    };
    (aws, deliverer, delivery.event_id)
}

/// Handles the tickets of the queue until then, and returns how many there were.
async fn handle_until(aws: &InMemoryAws, deliverer: &Deliverer, end: Instant) -> usize {
    let mut tickets = 0;
    while let Some(at) = aws.delivery_queue().next_at().filter(|at| *at < end) {
        sleep_until(at).await;
        let batch = aws.delivery_queue().take_in_order().unwrap();
        for message in &batch.records {
            aws.delivery_queue().delete(message.message_id.as_deref().unwrap());
        }
        tickets += batch.records.len();
        let answer = handle(deliverer, batch, clock::now).await.unwrap();
        assert_eq!(back(answer), [""; 0]);
    }
    tickets
}

async fn state(store: &Store, event: &EventId) -> DeliveryState {
    let job = builders::job().build().id;
    store.delivery(Some(&job), event).await.unwrap().unwrap().state
}

#[tokio::test(start_paused = true)]
async fn contended_ticket_comes_ever_more_rarely() {
    let (aws, deliverer, event) = crowded("0,5").await;
    let hour = Instant::now() + Duration::from_secs(3600);
    let tickets = handle_until(&aws, &deliverer, hour).await;
    assert!((30..130).contains(&tickets), "{tickets} tickets in an hour");
    assert!(matches!(state(&aws.store(), &event).await, DeliveryState::Pending { .. }));
}

#[tokio::test(start_paused = true)]
async fn contention_is_given_up_at_last() {
    let (aws, deliverer, event) = crowded("0").await;
    let days = Instant::now() + Duration::from_secs(3 * 24 * 3600);
    handle_until(&aws, &deliverer, days).await;
    assert!(aws.delivery_queue().is_empty(), "nothing is sent round for ever");
    let DeliveryState::Exhausted(given_up) = state(&aws.store(), &event).await else {
        panic!("it is not given up");
    };
    assert_eq!(given_up.reason, GiveUpReason::HeldTooLong);
    let events: Vec<String> = aws.events().into_iter().map(|event| event.detail_type).collect();
    assert_eq!(events, ["webhook.delivery.exhausted"]);
}
