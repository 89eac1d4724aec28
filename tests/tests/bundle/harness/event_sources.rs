//! The event sources of the template: the schedule and Lambda's pollers of the queues.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::queue::InMemoryQueue;
use aws_lambda_events::sqs::SqsEvent;

use crate::harness::bundle::Bundle;
use crate::harness::functions::{Function, FunctionAnswer, FunctionEvent};
use crate::harness::invocation::InvocationEnd;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Deliveries,
    SlowDeliveries,
    Wakes,
}

impl Source {
    fn function(self) -> Function {
        match self {
            Self::Deliveries | Self::SlowDeliveries => Function::Deliver,
            Self::Wakes => Function::Poller,
        }
    }

    pub(crate) fn queue(self, bundle: &Bundle) -> &InMemoryQueue {
        match self {
            Self::Deliveries => bundle.aws.delivery_queue(),
            Self::SlowDeliveries => bundle.aws.slow_delivery_queue(),
            Self::Wakes => bundle.aws.wake_queue(),
        }
    }
}

impl Bundle {
    /// Calls every shard once a minute, beginning within the first minute.
    pub(crate) async fn schedule(self: Arc<Self>, first: Duration) {
        tokio::time::sleep(first).await;
        loop {
            let shards = if self.is_idle_tick() { 0 } else { self.parameters.shards };
            for shard in 0..shards {
                // A failed tick is not repeated.
                drop(self.invoke(Function::Poller, FunctionEvent::Tick(shard)));
                if self.duplicates_everything() {
                    drop(self.invoke(Function::Poller, FunctionEvent::Tick(shard)));
                }
            }
            tokio::time::sleep(MINUTE).await;
        }
    }

    /// Moves dead letters back into their queues once an hour.
    pub(crate) async fn redrive(self: Arc<Self>) {
        loop {
            tokio::time::sleep(MINUTE * 60).await;
            for source in [Source::Deliveries, Source::SlowDeliveries] {
                source.queue(&self).redrive();
            }
        }
    }

    /// Calls the function of a queue with its messages.
    pub(crate) async fn source(self: Arc<Self>, source: Source) {
        let queue = source.queue(&self);
        loop {
            queue.ready().await;
            while let Some(batch) = queue.take(|left| self.pick(left)) {
                self.duplicate_messages(source, &batch);
                let me = Arc::clone(&self);
                let late = me.delivery_faults.late();
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    me.work(source, batch).await;
                });
            }
        }
    }

    async fn work(self: Arc<Self>, source: Source, batch: SqsEvent) {
        let ids: Vec<String> =
            batch.records.iter().filter_map(|record| record.message_id.clone()).collect();
        let ended = self.invoke(source.function(), FunctionEvent::Messages(batch)).await;
        // A message that is not deleted returns when its visibility timeout ends.
        if let Ok(InvocationEnd::Answered(FunctionAnswer::Messages(back))) = ended {
            for id in ids.iter().filter(|id| !back.contains(id)) {
                source.queue(&self).delete(id);
            }
        }
    }
}
