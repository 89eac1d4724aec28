//! `poller`: asks providers about active jobs and repairs what a crash left unfinished.
//!
//! It is called in two ways. A wake-up call from the `wake` queue is where looking after a
//! shard goes on ([`claim`] decides whether, [`shard_poller`] does it, [`poll_job`] looks at one job).
//! The schedule's tick, once a minute and shard, only sees to it that somebody does, and that
//! deliveries whose long wait is over go on ([`tick`]).

mod claim;
pub mod config;
mod plan;
mod poll_job;
mod poll_queue;
mod provider_queues;
mod shard_poller;
mod tick;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Mutex;
use std::time::Duration;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{DateTime, Utc};
use domain::id::ProviderName;
use futures_util::future::join_all;
use lambda_runtime::Error;
use serde::Deserialize;
use serde_json::Value;
use shared::batch::{self, Handled};
use shared::queue::{WakeQueue, WakeUp};
use shared::telemetry::chain;
use shared::tracker::Tracker;
use tokio::sync::OnceCell;
use tracing::{error, warn};

use crate::claim::{Interrupted, ShardClaim};
use crate::shard_poller::ShardPoller;

/// How long a wake-up call waits that could not be followed.
const REQUEUE_DELAY: Duration = Duration::from_secs(10);

/// Looks after active jobs.
pub struct Poller {
    /// Jobs, providers, and what changes jobs.
    pub tracker: Tracker,
    /// Where the next wake-up calls go.
    pub wakes: WakeQueue,
    /// How many shares the active jobs are in.
    pub shards: u32,
    /// How many there ever were, once that is known.
    most_shards: OnceCell<u32>,
    /// The last minute in which a tick found no active job, by shard.
    quiet: Mutex<BTreeMap<u32, i64>>,
}

/// Why the poller was called.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Call {
    /// From the `wake` queue.
    WakeUps(SqsEvent),
    /// From the schedule.
    Tick(Tick),
}

/// The schedule's constant input.
#[derive(Deserialize)]
pub struct Tick {
    /// Which share of the active jobs it is for.
    pub shard: u32,
}

impl Poller {
    /// A poller of a stack with so many shards.
    #[must_use]
    pub fn new(tracker: Tracker, wakes: WakeQueue, shards: u32) -> Self {
        Self {
            tracker,
            wakes,
            shards: shards.max(1),
            most_shards: OnceCell::new(),
            quiet: Mutex::default(),
        }
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
        match self.take_lease(claim, now).await? {
            Some((lease, catch_up)) => {
                ShardPoller::new(self, lease, catch_up, until, now).run().await
            }
            None => Ok(()),
        }
    }

    /// Each provider's budget of status calls a second, as far as it is this shard's. A shard
    /// from the time when there were more has half of what it had then, until its jobs are
    /// over: the others have theirs already.
    fn budgets(&self, shard: u32) -> BTreeMap<ProviderName, f64> {
        let shares = match shard < self.shards {
            true => self.shards,
            false => shard.saturating_add(1).next_power_of_two().saturating_mul(2),
        };
        let catalogue = self.tracker.providers.catalogue();
        let budgets = catalogue.names().filter_map(|name| {
            let budget = catalogue.get(name)?.spec.polling_budget()?;
            Some((name.clone(), budget / f64::from(shares)))
        });
        budgets.collect()
    }
}

/// Does what it was called for, and answers which wake-up calls have to come back. `until` is
/// when the time is up that Lambda gives, and `now` the clock.
///
/// # Errors
/// When a shard cannot be looked for, or the queue sent a message without an id.
pub async fn handle(
    poller: &Poller,
    call: Call,
    until: DateTime<Utc>,
    now: fn() -> DateTime<Utc>,
) -> Result<Value, Error> {
    let answer = match call {
        Call::WakeUps(batch) => {
            let handled = wake_up(poller, &batch, until, now).await;
            let answer = batch::answer(&batch, |message| {
                let shard = read(message).map(|call| call.shard());
                // What cannot be read would never be read: it is dropped.
                let handled = shard.and_then(|shard| handled.get(&shard).copied());
                ready(handled.unwrap_or(Handled::Done))
            });
            serde_json::to_value(answer.await?)?
        }
        Call::Tick(Tick { shard }) => {
            poller.tick(shard, now).await?;
            Value::Null
        }
    };
    poller.tracker.laws.write_down().await;
    Ok(answer)
}

/// Follows the calls of one shard, all together. To look after a shard may take all the time,
/// memory and sockets that a function has, so those of other shards are sent on at once, to
/// somebody else. Calls that could not be followed are sent again, to come back sooner than
/// the queue would bring them.
async fn wake_up(
    poller: &Poller,
    batch: &SqsEvent,
    until: DateTime<Utc>,
    now: fn() -> DateTime<Utc>,
) -> BTreeMap<u32, Handled> {
    let mut shards: BTreeMap<u32, Vec<WakeUp>> = BTreeMap::new();
    for message in &batch.records {
        match read(message) {
            Some(call) => shards.entry(call.shard()).or_default().push(call),
            None => warn!("a wake-up call is malformed and was dropped"),
        }
    }
    let claims = shards.iter().map(|(shard, calls)| poller.resolve_claims(*shard, calls, now));
    let claims = join_all(claims).await;
    let mut handled = BTreeMap::new();
    let mut mine = None;
    for ((shard, calls), claims) in shards.into_iter().zip(claims) {
        let outcome = match claims {
            Ok(None) => Handled::Done,
            Ok(Some(claimed)) if mine.is_none() => {
                mine = Some((shard, calls, claimed));
                Handled::Done
            }
            Ok(Some(_)) => send(poller, &calls, Duration::ZERO).await,
            Err(cause) => {
                error!(shard, error = chain(&cause), "shard {shard} cannot be looked for");
                send(poller, &calls, REQUEUE_DELAY).await
            }
        };
        handled.insert(shard, outcome);
    }
    if let Some((shard, calls, claimed)) = mine
        && let Err(Interrupted { cause, continuations }) = poller.run(claimed, until, now).await
    {
        error!(shard, error = chain(&cause), "looking after shard {shard} failed");
        let next: Vec<WakeUp> = continuations.into_iter().chain(calls).collect();
        handled.insert(shard, send(poller, &next, REQUEUE_DELAY).await);
    }
    handled
}

async fn send(poller: &Poller, calls: &[WakeUp], delay: Duration) -> Handled {
    for call in calls {
        if let Err(cause) = poller.wakes.send(call, delay).await {
            let shard = call.shard();
            error!(shard, error = chain(&cause), "a wake-up call of shard {shard} is not sent on");
            return Handled::ComesBack;
        }
    }
    Handled::Done
}

fn read(message: &SqsMessage) -> Option<WakeUp> {
    serde_json::from_str(message.body.as_deref()?).ok()
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
