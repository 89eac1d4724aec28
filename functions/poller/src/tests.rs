use shared::fake::FakeAws;

use super::*;

fn poller(aws: &FakeAws) -> Poller {
    Poller { tracker: aws.tracker().unwrap(), wakes: aws.wakes() }
}

fn call(event: &str) -> Call {
    serde_json::from_str(event).unwrap()
}

fn wake_ups() -> Call {
    call(include_str!("../../../events/poller-wake-one-malformed.json"))
}

fn tick() -> Call {
    call(include_str!("../../../events/poller-tick.json"))
}

#[tokio::test]
async fn a_malformed_wake_up_is_dropped() {
    let aws = FakeAws::new(&[]);
    let answer = handle(&poller(&aws), wake_ups(), Utc::now).await.unwrap();
    assert_eq!(answer, serde_json::json!({"batchItemFailures": []}));
    assert_eq!(aws.asked(), ["GetItem", "GetItem"], "the others were looked at");
}

#[tokio::test]
async fn wake_ups_come_back_while_the_table_cannot_be_reached() {
    let answer = handle(&poller(&FakeAws::without_table(&[])), wake_ups(), Utc::now).await.unwrap();
    let back = serde_json::json!([{"itemIdentifier": "m-1"}, {"itemIdentifier": "m-3"}]);
    assert_eq!(answer, serde_json::json!({"batchItemFailures": back}));
}

#[tokio::test]
async fn a_tick_looks_for_jobs_and_for_deliveries() {
    let aws = FakeAws::new(&[]);
    assert_eq!(handle(&poller(&aws), tick(), Utc::now).await.unwrap(), Value::Null);
    assert_eq!(aws.asked(), ["Query", "Query"]);
    assert!(handle(&poller(&FakeAws::without_table(&[])), tick(), Utc::now).await.is_err());
}
