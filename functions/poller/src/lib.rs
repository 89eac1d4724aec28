//! `poller`: asks providers about active jobs and repairs what a crash left unfinished.
//!
//! It is called in two ways. Wake-up calls from the `wake` queue start or continue the polling
//! of a shard: `claim` decides whether a call holds, `shard_poller` runs the event loop,
//! `poll_job` polls one job. Others ask for a look at a job whose callback is not confirmed
//! (`hint`). The schedule's tick, once a minute and shard, ensures that a shard
//! with active jobs has a poller, and moves deliveries whose long wait is nearly over into their
//! queue (`tick`).

mod claim;
pub mod config;
mod hint;
mod plan;
mod poll_job;
mod poll_queue;
mod provider_queues;
mod shard_poller;
mod tick;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{DateTime, Utc};
use domain::id::{JobId, ProviderName};
use domain::lease::{AwakePolicy, Lease};
use domain::polling::Suspicion;
use futures_util::future::join_all;
use lambda_runtime::Error;
use serde::Deserialize;
use serde_json::Value;
use shared::batch::{self, Handled};
use shared::queue::{WakeQueue, WakeUp};
use shared::shards::Shards;
use shared::telemetry::chain;
use shared::tracker::Tracker;
use tracing::warn;

use crate::claim::{Interrupted, ShardClaim};
use crate::provider_queues::ProviderFacts;
use crate::shard_poller::ShardPoller;

/// The delay of a wake-up call that is sent again after a failure.
const REQUEUE_DELAY: Duration = Duration::from_secs(10);

/// Polls active jobs.
pub struct Poller {
    /// Stores, polls and publishes jobs.
    pub tracker: Tracker,
    /// The queue of wake-up calls.
    pub wakes: WakeQueue,
    /// The shards that the active jobs are spread over.
    pub shards: Shards,
    /// For which waits a poller keeps its concurrent execution.
    pub awake_policy: AwakePolicy,
    /// The last minute in which a tick found no active job, by shard.
    quiet: Mutex<BTreeMap<u32, i64>>,
    /// The suspects that this process left with the last lease of a shard that it wrote.
    left_suspects: Mutex<BTreeMap<u32, LeftSuspects>>,
}

/// Suspects, and the epoch of the lease under which they were left.
#[derive(Debug)]
struct LeftSuspects {
    epoch: u64,
    suspects: BTreeMap<JobId, Suspicion>,
}

/// The two kinds of invocations.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum PollerInput {
    /// A batch from the `wake` queue.
    WakeUps(SqsEvent),
    /// The schedule's tick.
    Tick(Tick),
}

/// The schedule's constant input.
#[derive(Deserialize)]
pub struct Tick {
    /// The shard that the tick is for.
    pub shard: u32,
}

impl Poller {
    /// A poller for a stack with so many shards.
    #[must_use]
    pub fn new(tracker: Tracker, wakes: WakeQueue, shards: u32) -> Self {
        Self {
            tracker,
            wakes,
            shards: Shards::new(shards),
            awake_policy: AwakePolicy::default(),
            quiet: Mutex::default(),
            left_suspects: Mutex::default(),
        }
    }

    /// The same, with another policy.
    #[must_use]
    pub fn with_awake_policy(self, awake_policy: AwakePolicy) -> Self {
        Self { awake_policy, ..self }
    }

    /// Takes the lease that a claim asks for, and polls the shard under it until `until` at the
    /// latest.
    ///
    /// # Errors
    /// When the table or the queue fails. The error carries the calls that carry on.
    async fn run(
        &self,
        claim: ShardClaim,
        until: DateTime<Utc>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), Interrupted> {
        // No lease is taken yet, so the calls themselves are sent again.
        let refreshed = self.tracker.providers.specs().refresh().await;
        refreshed
            .map_err(|cause| Interrupted { cause: cause.into(), continuations: Vec::new() })?;
        match self.take_lease(claim, now).await? {
            Some((lease, catch_up)) => {
                ShardPoller::new(self, lease, catch_up, until, now).run().await
            }
            None => Ok(()),
        }
    }

    /// Keeps the suspects of a shard for a takeover by this process. The continuation call, which
    /// has them too, is declined then.
    fn leave_suspects(&self, lease: &Lease, suspects: &BTreeMap<JobId, Suspicion>) {
        let left = LeftSuspects { epoch: lease.epoch, suspects: suspects.clone() };
        let mut all = self.left_suspects.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(lease.shard, left);
    }

    /// The suspects of a shard, if this process was the last that held the lease.
    fn recall_suspects(&self, shard: u32, lease: Option<&Lease>) -> BTreeMap<JobId, Suspicion> {
        let mut all = self.left_suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let left = all.remove(&shard).filter(|left| lease.is_some_and(|it| it.epoch == left.epoch));
        left.map(|left| left.suspects).unwrap_or_default()
    }

    /// What the polls of a shard need to know of each provider. The budget is this shard's share,
    /// in status calls a second. A shard beyond the current number, which was lowered, has a third
    /// of the share that it had, because the current shards already divide the whole budget.
    fn provider_facts(&self, shard: u32) -> BTreeMap<ProviderName, ProviderFacts> {
        let shares = match shard < self.shards.current() {
            true => self.shards.current(),
            false => shard.saturating_add(1).next_power_of_two().saturating_mul(3),
        };
        let specs = self.tracker.providers.in_force();
        let catalogue = &specs.catalogue;
        let facts = catalogue.names().filter_map(|name| {
            let budget = catalogue.get(name)?.spec.polling_budget();
            let facts = ProviderFacts {
                budget: budget.map(|budget| budget / f64::from(shares)),
                spec: specs.version(name),
            };
            Some((name.clone(), facts))
        });
        facts.collect()
    }
}

/// Handles one invocation. The answer to a batch names the wake-up calls that the queue has to
/// deliver again. `until` is when Lambda ends the invocation, and `now` the clock.
///
/// # Errors
/// When a tick fails, or a message of the batch has no id.
pub async fn handle(
    poller: &Poller,
    call: PollerInput,
    until: DateTime<Utc>,
    now: fn() -> DateTime<Utc>,
) -> Result<Value, Error> {
    let answer = match call {
        PollerInput::WakeUps(batch) => {
            let (handled, looks) = tokio::join!(
                handle_wake_ups(poller, &batch, until, now),
                poller.take_looks(&batch, now)
            );
            let answer = batch::answer(&batch, |message| {
                if let Some(look) = looks.get(message.message_id.as_deref().unwrap_or_default()) {
                    return ready(*look);
                }
                let shard = parse(message).map(|call| call.shard());
                // A malformed call would be malformed again, so it counts as done.
                let handled = shard.and_then(|shard| handled.get(&shard).copied());
                ready(handled.unwrap_or(Handled::Done))
            });
            serde_json::to_value(answer.await?)?
        }
        PollerInput::Tick(Tick { shard }) => {
            poller.tick(shard, now).await?;
            Value::Null
        }
    };
    poller.tracker.duration_models.flush().await;
    Ok(answer)
}

/// Polls the first shard whose claim holds, with all of its calls together. Polling one shard may
/// take all the time, memory and sockets of an invocation, so the calls of other shards are sent
/// on at once, to another invocation. After a failure the calls are sent again, because the queue
/// would deliver them only after its visibility timeout.
async fn handle_wake_ups(
    poller: &Poller,
    batch: &SqsEvent,
    until: DateTime<Utc>,
    now: fn() -> DateTime<Utc>,
) -> BTreeMap<u32, Handled> {
    let mut shards: BTreeMap<u32, Vec<WakeUp>> = BTreeMap::new();
    for message in &batch.records {
        match parse(message) {
            Some(call) => shards.entry(call.shard()).or_default().push(call),
            None if hint::parse(message).is_some() => {}
            None => warn!("malformed wake-up call dropped"),
        }
    }
    let claims = shards.iter().map(|(shard, calls)| poller.resolve_claims(*shard, calls, now));
    let claims = join_all(claims).await;
    let mut handled = BTreeMap::new();
    let mut accepted = None;
    for ((shard, calls), claim) in shards.into_iter().zip(claims) {
        let outcome = match claim {
            Ok(None) => Handled::Done,
            Ok(Some(claim)) if accepted.is_none() => {
                accepted = Some((shard, claim.calls.clone(), claim));
                Handled::Done
            }
            Ok(Some(claim)) => requeue(poller, claim.calls, Duration::ZERO).await,
            Err(cause) => {
                warn!(shard, error = chain(&cause), "shard claim failed; requeueing wake-up calls");
                requeue(poller, calls, REQUEUE_DELAY).await
            }
        };
        handled.insert(shard, outcome);
    }
    if let Some((shard, calls, claim)) = accepted
        && let Err(Interrupted { cause, continuations }) = poller.run(claim, until, now).await
    {
        warn!(shard, error = chain(&cause), "shard polling interrupted; requeueing wake-up calls");
        let calls: Vec<WakeUp> = continuations.into_iter().chain(calls).collect();
        handled.insert(shard, requeue(poller, calls, REQUEUE_DELAY).await);
    }
    handled
}

async fn requeue(poller: &Poller, calls: Vec<WakeUp>, delay: Duration) -> Handled {
    for call in WakeUp::merged(calls) {
        if let Err(cause) = poller.wakes.send(&call, delay).await {
            warn!(
                shard = call.shard(),
                error = chain(&cause),
                "wake-up call requeue failed; queue will redeliver it"
            );
            return Handled::Retry;
        }
    }
    Handled::Done
}

fn parse(message: &SqsMessage) -> Option<WakeUp> {
    serde_json::from_str(message.body.as_deref()?).ok()
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
