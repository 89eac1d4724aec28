mod awake;
mod aws_faults;
mod chain;
mod hints;
mod providers;
mod repairs;
mod sick_renders;
mod specs;
mod ticks;
mod world;

use aws_in_memory::InMemoryAws;

use super::*;

fn poller(aws: &InMemoryAws) -> Poller {
    Poller::new(aws.tracker().unwrap(), aws.wakes(), 1)
}

async fn handled(aws: &InMemoryAws, event: &str) -> Result<Value, Error> {
    let call: PollerInput = serde_json::from_str(event).unwrap();
    handle(&poller(aws), call, Utc::now() + chrono::TimeDelta::minutes(1), Utc::now).await
}

const WAKE_UPS: &str = include_str!("../../../events/poller-wake-one-malformed.json");
const TICK: &str = include_str!("../../../events/poller-tick.json");

#[tokio::test]
async fn malformed_wake_up_is_dropped() {
    let aws = InMemoryAws::new(&[]);
    let answer = handled(&aws, WAKE_UPS).await.unwrap();
    assert_eq!(answer, serde_json::json!({"batchItemFailures": []}));
    assert!(aws.calls().contains(&"Query".to_owned()), "the others were followed");
}

#[tokio::test]
async fn unreachable_table_requeues_wake_ups() {
    let aws = InMemoryAws::without_table(&[]);
    let answer = handled(&aws, WAKE_UPS).await.unwrap();
    assert_eq!(answer, serde_json::json!({"batchItemFailures": []}));
    assert_eq!(aws.wake_queue().len(), 2);
}

#[tokio::test]
async fn tick_fails_without_table() {
    assert!(handled(&InMemoryAws::without_table(&[]), TICK).await.is_err());
}

#[test]
fn inherited_shards_leave_the_budget_intact() {
    let aws = InMemoryAws::new(&[]);
    let poller = poller(&aws);
    let budget =
        |shard| poller.provider_facts(shard).values().filter_map(|facts| facts.budget).sum::<f64>();
    let inherited: f64 = (1..32).map(budget).sum();
    assert!(budget(0) > 0.0 && inherited <= budget(0), "{inherited} of {}", budget(0));
}

/// Lambda's Managed Instances run several invocations at once in one process.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Poller, PollerInput) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now(), Utc::now));
}
