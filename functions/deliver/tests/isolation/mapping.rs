//! An event source mapping: what Lambda does between a queue and a function.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::queue::InMemoryQueue;
use aws_in_memory::{InMemoryAws, clock};
use aws_lambda_events::sqs::SqsEvent;
use deliver::Deliverer;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// The concurrent invocations at the beginning, and how many more each second while messages wait:
/// Lambda adds 300 a minute (developer guide, "scaling behavior for SQS").
const AT_FIRST: usize = 5;
const MORE_A_SECOND: usize = 5;

/// Invokes `deliver` with what is in a queue.
pub(crate) struct Mapping {
    deliverer: Arc<Deliverer>,
    aws: InMemoryAws,
    queue: fn(&InMemoryAws) -> &InMemoryQueue,
    most: usize,
}

impl Mapping {
    pub(crate) fn new(
        deliverer: Deliverer,
        aws: InMemoryAws,
        queue: fn(&InMemoryAws) -> &InMemoryQueue,
    ) -> Self {
        Self { deliverer: Arc::new(deliverer), aws, queue, most: usize::MAX }
    }

    /// The mapping's `MaximumConcurrency`.
    pub(crate) fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Invokes for ever.
    pub(crate) async fn run(self) {
        let mut limit = AT_FIRST;
        let mut grown = Instant::now();
        let mut invocations = JoinSet::new();
        loop {
            (self.queue)(&self.aws).ready().await;
            if invocations.len() < limit {
                if let Some(batch) = (self.queue)(&self.aws).take_in_order() {
                    let (deliverer, aws) = (Arc::clone(&self.deliverer), self.aws.clone());
                    invocations.spawn(invoke(deliverer, aws, self.queue, batch));
                }
                while invocations.try_join_next().is_some() {}
                continue;
            }
            // All invocations are busy while a message waits.
            let until_growth =
                (grown + Duration::from_secs(1)).saturating_duration_since(Instant::now());
            if timeout(until_growth, invocations.join_next()).await.is_err() {
                limit = (limit + MORE_A_SECOND).min(self.most);
                grown = Instant::now();
            }
        }
    }
}

async fn invoke(
    deliverer: Arc<Deliverer>,
    aws: InMemoryAws,
    queue: fn(&InMemoryAws) -> &InMemoryQueue,
    batch: SqsEvent,
) {
    let ids: Vec<String> = batch.records.iter().filter_map(|it| it.message_id.clone()).collect();
    let answer = deliver::handle(&deliverer, batch, clock::now).await.unwrap();
    let failed: Vec<&str> =
        answer.batch_item_failures.iter().map(|it| it.item_identifier.as_str()).collect();
    for id in ids.iter().filter(|id| !failed.contains(&id.as_str())) {
        queue(&aws).delete(id);
    }
}
