//! A receiver that is gone, and a table that takes its time.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use aws_in_memory::network::{Network, host};
use aws_in_memory::{InMemoryAws, clock};
use aws_lambda_events::sqs::SqsMessage;
use bytes::Bytes;
use domain::address::TargetPolicy;
use domain::delivery::Delivery;
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
use shared::webhook_changes::WebhookChanges;
use tokio::time::sleep;

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

#[tokio::test(start_paused = true)]
async fn gone_receiver_is_published_despite_slow_table() {
    let secret = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
    let aws = InMemoryAws::new(&[("webhook-secrets", &secret)]);
    aws.table().lag_reads(Duration::from_millis(500));
    let network = Network::default();
    let gone = |_| Response::builder().status(410).body(Bytes::new()).unwrap();
    network.add("shop.test", host(gone));
    let seen = aws.seen_by(Arc::new(SlowEndpoints));
    let policy = TargetPolicy::local_use();
    let network = network.seen_by(Arc::new(NoFaults));
    let deliverer = Deliverer {
        endpoints: EndpointCache::new(seen.store()),
        webhook_changes: WebhookChanges::new(seen.store()),
        store: seen.store(),
        secrets: seen.secrets(),
        bus: seen.bus(),
        queue: seen.deliveries(),
        receivers: Receivers::through(network, policy.clone(), EgressLimits::default()).unwrap(),
        policy,
        schedule: DeliverySchedule::default(),
        entropy: aws.entropy(),
    };
    let test = TestEvent::new([7; 16], clock::now());
    let delivery = Delivery::of_test(&test, "http://shop.test/hooks", clock::now()).unwrap();
    aws.store().insert_delivery(&delivery, Wait::InQueue).await.unwrap();
    let mut message = SqsMessage::default();
    message.message_id = Some("m-1".into());
    message.body = Some(serde_json::to_string(&Ticket::next(&delivery)).unwrap());
    let mut batch = SqsEvent::default();
    batch.records = vec![message];

    handle(&deliverer, batch, clock::now).await.unwrap();

    let published: Vec<String> = aws.events().into_iter().map(|event| event.detail_type).collect();
    assert!(published.contains(&EndpointDisabled::NAME.to_owned()), "{published:?}");
}
