//! The event sources of the template: the schedule and Lambda's pollers of the queues.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::queue::InMemoryQueue;
use aws_in_memory::quotas::Throttle;
use aws_in_memory::quotas::scaling::BatchScaling;
use aws_in_memory::trace::Trace;
use aws_lambda_events::sqs::SqsEvent;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::harness::bundle::Bundle;
use crate::harness::functions::{Function, FunctionAnswer, FunctionEvent};
use crate::harness::invocation::InvocationEnd;

const MINUTE: Duration = Duration::from_secs(60);

/// The first and the longest wait of an asynchronous invocation that Lambda throttles.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Deliveries,
    SlowDeliveries,
    Wakes,
}

impl Source {
    pub(crate) const ALL: [Self; 3] = [Self::Deliveries, Self::SlowDeliveries, Self::Wakes];

    pub(crate) fn function(self) -> Function {
        match self {
            Self::Deliveries | Self::SlowDeliveries => Function::Deliver,
            Self::Wakes => Function::Poller,
        }
    }

    /// The queue's name in the template.
    pub(crate) fn logical_id(self) -> &'static str {
        match self {
            Self::Deliveries => "DeliveryQueue",
            Self::SlowDeliveries => "SlowDeliveryQueue",
            Self::Wakes => "WakeQueue",
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

/// The batches of a source that are in work.
struct Batches {
    scaling: Mutex<BatchScaling>,
    ended: Notify,
}

impl Batches {
    /// Waits until one more may begin, and begins it.
    async fn begin(&self) {
        loop {
            let ended = self.ended.notified();
            let grows_at = {
                let mut scaling = self.scaling.lock().unwrap();
                if scaling.begin() {
                    return;
                }
                scaling.grows_at()
            };
            match grows_at {
                Some(at) => drop(tokio::time::timeout_at(at, ended).await),
                None => ended.await,
            }
        }
    }

    fn end(&self) {
        self.scaling.lock().unwrap().end();
        self.ended.notify_waiters();
    }
}

impl Bundle {
    /// Calls every shard once a minute, beginning within the first minute.
    pub(crate) async fn schedule(self: Arc<Self>, first: Duration) {
        tokio::time::sleep(first).await;
        loop {
            let shards = if self.is_idle_tick() { 0 } else { self.parameters().shards };
            for shard in 0..shards {
                self.tick(shard);
                if self.duplicates_everything() {
                    self.tick(shard);
                }
            }
            tokio::time::sleep(MINUTE).await;
        }
    }

    /// Invokes the poller asynchronously. A tick that Lambda throttles is tried again until it is
    /// too old, and one that failed is not.
    fn tick(self: &Arc<Self>, shard: u32) {
        let begun = Instant::now();
        let max_age = self.template.max_event_age(Function::Poller);
        let mut invoked = self.invoke(Function::Poller, FunctionEvent::Tick(shard));
        let me = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let mut wait = FIRST_BACKOFF;
            while let Ok(InvocationEnd::Throttled) = invoked.await {
                if begun.elapsed() + wait > max_age {
                    return;
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_BACKOFF);
                invoked = me.invoke(Function::Poller, FunctionEvent::Tick(shard));
            }
        });
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
        let maximum = self.template.maximum_concurrency(source);
        let scaling = Mutex::new(BatchScaling::new(&self.aws.quotas(), maximum));
        let batches = Arc::new(Batches { scaling, ended: Notify::new() });
        loop {
            if queue.next_at().is_none_or(|at| at > Instant::now()) {
                batches.scaling.lock().unwrap().rest();
                queue.ready().await;
            }
            batches.begin().await;
            let Some(batch) = queue.take(|left| self.pick(left)) else {
                batches.end();
                continue;
            };
            self.duplicate_messages(source, &batch);
            let (me, batches) = (Arc::clone(&self), Arc::clone(&batches));
            let late = me.delivery_faults.late();
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                me.work(source, batch).await;
                batches.end();
            });
        }
    }

    /// A message that is not deleted returns when its visibility timeout ends.
    async fn work(self: Arc<Self>, source: Source, batch: SqsEvent) {
        if self.is_endless(source.function(), &batch) {
            self.aws.count_throttle(Throttle::Recursion);
            return;
        }
        let ids: Vec<String> =
            batch.records.iter().filter_map(|record| record.message_id.clone()).collect();
        let ended = self.invoke(source.function(), FunctionEvent::Messages(batch)).await;
        if let Ok(InvocationEnd::Answered(FunctionAnswer::Messages(back))) = ended {
            for id in ids.iter().filter(|id| !back.contains(id)) {
                source.queue(&self).delete(id);
            }
        }
    }

    /// Whether Lambda takes these messages for a loop that has no end.
    fn is_endless(&self, function: Function, batch: &SqsEvent) -> bool {
        let trace = Trace::continued(function.name(), 0, batch);
        self.aws.quotas().is_endless(function.name(), &trace)
            && (self.settings.forbids_recursion || !self.template.allows_recursion(function))
    }
}
