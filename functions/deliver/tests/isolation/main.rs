//! How much one sick receiver delays the deliveries to the healthy ones.
//!
//! The whole way from the queue to the receiver, in virtual time: the delivery queues and
//! their event source mappings, which run as many invocations as Lambda would, the function,
//! and receivers behind connections that hang, drip, flood and break. Nothing but waiting
//! takes time, so what one receiver does to another is all that is measured.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod mapping;
mod receivers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::{InMemoryAws, builders, clock};
use deliver::Deliverer;
use domain::address::TargetPolicy;
use domain::delivery::Delivery;
use domain::id::{EventId, JobId};
use domain::retry::DeliverySchedule;
use domain::signature::{SignatureType, WebhookSecret};
use shared::egress::{EgressLimits, Receivers};
use shared::endpoint_cache::EndpointCache;
use shared::queue::Ticket;
use shared::store::Wait;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use mapping::Mapping;
use receivers::{ReceiverNetwork, Sickness};

/// The number of receivers, of which one may be sick.
const RECEIVERS: u64 = 10;
/// The interval between two deliveries, which go to the receivers in turn.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long deliveries are made.
const DURATION: Duration = Duration::from_secs(20);
/// As many concurrent invocations as a new account may have. With more of them, one receiver
/// takes longer to delay all others.
const MAX_INVOCATIONS: usize = 10;
/// The largest allowed ratio of the 99th percentile to the one without a sick receiver.
const MAX_RATIO: f64 = 1.5;

/// Delivers to all receivers for a while. Returns how long each delivery to a healthy receiver
/// took, from when it was queued to when it was answered, shortest first.
async fn took(sickness: Option<Sickness>) -> Vec<Duration> {
    let secret = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
    let aws = InMemoryAws::new(&[("webhook-secrets", &secret)]);
    let network = Arc::new(ReceiverNetwork::new(sickness));
    let policy = TargetPolicy::local_use();
    let receivers =
        Receivers::through(Arc::clone(&network) as _, policy.clone(), EgressLimits::default())
            .unwrap();
    let deliverer = || Deliverer {
        endpoints: EndpointCache::new(aws.store()),
        store: aws.store(),
        secrets: aws.secrets(),
        bus: aws.bus(),
        queue: aws.deliveries(),
        receivers: receivers.clone(),
        policy: policy.clone(),
        schedule: DeliverySchedule::default(),
        entropy: aws.entropy(),
    };
    let quick = Mapping::new(deliverer(), aws.clone(), InMemoryAws::delivery_queue)
        .at_most(MAX_INVOCATIONS);
    let slow = Mapping::new(deliverer(), aws.clone(), InMemoryAws::slow_delivery_queue).at_most(20);
    let mut running = JoinSet::new();
    running.spawn(quick.run());
    running.spawn(slow.run());

    let (store, queue) = (aws.store(), aws.deliveries());
    let began = Instant::now();
    let mut queued = BTreeMap::new();
    for number in 0.. {
        let at = began + INTERVAL * u32::try_from(number).unwrap();
        if at > began + DURATION {
            break;
        }
        sleep_until(at).await;
        let delivery = delivery(number);
        store.insert_delivery(&delivery, Wait::InQueue).await.unwrap();
        queue.send(&Ticket::next(&delivery), Duration::ZERO).await.unwrap();
        queued.insert(delivery.event_id.as_str().to_owned(), at);
    }
    // Long enough that no attempt is in flight any more.
    sleep_until(began + DURATION + Duration::from_secs(60)).await;
    let answered = network.answered();
    let healthy = queued.iter().filter(|(id, _)| sickness.is_none() || !is_for_the_sick(id));
    let mut took: Vec<Duration> = healthy
        .map(|(id, at)| {
            let answered = answered.get(id);
            assert!(answered.is_some(), "{id} is lost");
            answered.unwrap().saturating_duration_since(*at)
        })
        .collect();
    took.sort();
    took
}

/// The number is in the id, so that the receiver is too.
fn is_for_the_sick(event_id: &str) -> bool {
    u64::from_str_radix(event_id.trim_start_matches("evt_"), 16).unwrap().is_multiple_of(RECEIVERS)
}

fn delivery(number: u64) -> Delivery {
    let url = format!("http://{}/hooks", receivers::name(number % RECEIVERS));
    builders::delivery()
        .job_id(JobId::from_bytes(u128::from(number).to_be_bytes()))
        .event_id(EventId::parse(&format!("evt_{number:032x}")).unwrap())
        .url(&url)
        .created_at(clock::now())
        .build()
}

/// The smallest that 99 of 100 do not exceed.
fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}

#[tokio::test(start_paused = true)]
async fn sick_receiver_slows_no_other() {
    let without = p99(&took(None).await);
    println!("{:<12} {:>8} {:>8} {:>8}", "the sick one", "p99 ms", "max ms", "ratio");
    println!("{:<12} {:>8}", "is well", without.as_millis());
    let mut slowed = Vec::new();
    for sickness in Sickness::ALL {
        let took = took(Some(sickness)).await;
        let (with, longest) = (p99(&took), took[took.len() - 1]);
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        println!(
            "{:<12} {:>8} {:>8} {ratio:>8.2}",
            sickness.name(),
            with.as_millis(),
            longest.as_millis()
        );
        if ratio > MAX_RATIO {
            slowed.push(sickness.name());
        }
    }
    assert!(
        slowed.is_empty(),
        "deliveries to others take over {MAX_RATIO} times as long while one {slowed:?}"
    );
}
