use aws_in_memory::InMemoryAws;
mod contention;
mod gone;
mod rotation;
mod signing;
mod stalled;

use domain::address::TargetPolicy;
use domain::retry::DeliverySchedule;
use shared::egress::Receivers;
use shared::endpoint_cache::EndpointCache;

use super::*;

fn deliverer(aws: &InMemoryAws) -> Deliverer {
    let tracker = aws.tracker().unwrap();
    Deliverer {
        endpoints: EndpointCache::new(tracker.store.clone()),
        store: tracker.store,
        secrets: aws.secrets(),
        bus: tracker.bus,
        queue: tracker.deliveries,
        receivers: Receivers::new(TargetPolicy::public()).unwrap(),
        policy: TargetPolicy::public(),
        schedule: DeliverySchedule::default(),
        entropy: aws.entropy(),
    }
}

fn batch() -> SqsEvent {
    serde_json::from_str(include_str!("../../../events/deliver-one-malformed.json")).unwrap()
}

fn back(response: SqsBatchResponse) -> Vec<String> {
    response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
}

#[tokio::test]
async fn malformed_ticket_returns_alone() {
    let aws = InMemoryAws::new(&[]);
    // The others are about deliveries that were deleted long ago: nothing is left to do.
    let response = handle(&deliverer(&aws), batch(), Utc::now).await.unwrap();
    assert_eq!(back(response), ["m-2"]);
    assert_eq!(aws.calls(), ["GetItem", "GetItem"], "the others were looked at");
}

#[tokio::test]
async fn tickets_return_without_the_table() {
    let response =
        handle(&deliverer(&InMemoryAws::without_table(&[])), batch(), Utc::now).await.unwrap();
    assert_eq!(back(response), ["m-1", "m-2", "m-3"]);
}

#[tokio::test]
async fn message_without_id_fails_the_batch() {
    let mut batch = batch();
    batch.records[1].message_id = None;
    assert!(handle(&deliverer(&InMemoryAws::new(&[])), batch, Utc::now).await.is_err());
}

/// Lambda can then run several at once in one process, as its Managed Instances do.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Deliverer, SqsEvent) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now));
}
