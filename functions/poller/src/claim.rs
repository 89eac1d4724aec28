//! Whose turn it is to look after a shard: wake-up calls and ticks, and the lease between
//! them. See [`domain::lease`] for the rules.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::ProviderName;
use domain::lease::{Claim, LONGEST_SLEEP, Lease, Verdict};
use shared::queue::WakeUp;
use shared::store::Committed;
use shared::tracker::TrackError;
use tracing::info;

use crate::Poller;
use crate::plan::{Plan, Task};
use crate::shard_poller::{CatchUp, Exit, ShardPoller};

/// A holder that is taken over from while it sleeps may just have made the polls that were due
/// in the last moments, or not. A poll too many is cheaper than one too few.
const TAKEOVER_OVERLAP: TimeDelta = TimeDelta::seconds(2);

/// More jobs than these are not read to find out whether any is due.
const MAX_READ_TO_CLAIM: usize = 1_000;

/// A claim to look after a shard that holds, as far as its lease says.
pub(crate) struct ShardClaim {
    shard: u32,
    lease: Option<Lease>,
    /// Of the lease's own wake-up call: up to when all looks were taken, and who has failed.
    continued: Option<(DateTime<Utc>, BTreeMap<ProviderName, u32>)>,
    /// Since when new jobs were made.
    new_since: Option<DateTime<Utc>>,
}

/// Why looking after a shard has ended before its time, and who goes on.
#[derive(Debug)]
pub(crate) struct Interrupted {
    pub(crate) cause: TrackError,
    /// Wake-up calls of leases that were written, as far as is known: the claim that they were
    /// taken by is worth nothing any more.
    pub(crate) next: Vec<WakeUp>,
}

impl Poller {
    /// Reads what a shard's wake-up calls are worth; none when all of them go back to sleep.
    ///
    /// # Errors
    /// When the table does not answer. The calls may come again.
    pub(crate) async fn resolve_claims(
        &self,
        shard: u32,
        calls: &[WakeUp],
        now: fn() -> DateTime<Utc>,
    ) -> Result<Option<ShardClaim>, TrackError> {
        let lease = self.tracker.store.lease(shard).await?;
        let at = now();
        let mut new_since = None;
        let mut continued = None;
        for call in calls {
            match call {
                WakeUp::NewJob { created_at, .. } => {
                    new_since = Some(
                        new_since.map_or(*created_at, |it: DateTime<Utc>| it.min(*created_at)),
                    );
                }
                WakeUp::Successor { epoch, seen, failures, .. } => {
                    match Lease::judge(lease.as_ref(), Claim::Successor(*epoch), at) {
                        Verdict::GoOn => continued = Some((*seen, failures.clone())),
                        Verdict::TakeOver | Verdict::Leave => {}
                    }
                }
            }
        }
        let takes_over = new_since.is_some_and(|made_at| {
            Lease::judge(lease.as_ref(), Claim::NewJob(made_at), at) == Verdict::TakeOver
        });
        let holds = continued.is_some() || takes_over;
        Ok(holds.then_some(ShardClaim { shard, lease, continued, new_since }))
    }

    /// Looks after a shard.
    ///
    /// # Errors
    /// When the table or the queue does not answer. Whoever is named goes on.
    pub(crate) async fn run(
        &self,
        claimed: ShardClaim,
        until: DateTime<Utc>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), Interrupted> {
        let ShardClaim { shard, lease, continued, new_since } = claimed;
        let at = now();
        let (lease, is_new, catch_up) = match (lease, continued) {
            (Some(lease), Some((since, failures))) => {
                let catch_up = CatchUp { since, new_since, failures };
                match lease.is_to_be_renewed(at) {
                    true => {
                        let pauses = lease.pauses.clone();
                        (lease.renewed(lease.is_awake(at), since, pauses, at), true, catch_up)
                    }
                    false => (lease, false, catch_up),
                }
            }
            (before, _) => {
                let taken = Lease::taken_over(before.as_ref(), shard, at);
                let is_held = before.is_some_and(|before| before.is_held(at));
                let since = if is_held { at - TAKEOVER_OVERLAP } else { taken.seen };
                (taken, true, CatchUp { since, new_since, failures: BTreeMap::new() })
            }
        };
        if is_new {
            match self.tracker.store.commit_lease(&lease).await {
                Ok(Committed::Stored) => {}
                // Somebody else was faster.
                Ok(Committed::Overtaken(_)) => return Ok(()),
                // It may be stored all the same, and then nobody takes it for a while.
                Err(cause) => {
                    let next = vec![continuation(&lease, catch_up.since, catch_up.failures)];
                    return Err(Interrupted { cause: cause.into(), next });
                }
            }
        }
        match ShardPoller::new(self, lease, catch_up, until, now).run().await? {
            Exit::Idle { lease, delay, seen, failures } => {
                let call = continuation(&lease, seen, failures);
                let sent = self.wakes.send(&call, delay).await;
                sent.map_err(|cause| Interrupted { cause: cause.into(), next: vec![call] })
            }
            Exit::Over => Ok(()),
            Exit::Superseded => {
                info!(shard, "somebody else looks after shard {shard}");
                Ok(())
            }
        }
    }

    /// Sees to it that somebody looks after a shard: when nobody does and something is due
    /// before the next tick, a chain of wake-up calls begins. Answers whether nothing is
    /// active.
    ///
    /// # Errors
    /// When the table or the queue does not answer. The next tick tries again.
    pub(crate) async fn ensure_polled(
        &self,
        shard: u32,
        now: fn() -> DateTime<Utc>,
    ) -> Result<bool, TrackError> {
        if !self.tracker.store.has_active(shard).await? {
            return Ok(true);
        }
        let lease = self.tracker.store.lease(shard).await?;
        let at = now();
        match Lease::judge(lease.as_ref(), Claim::Tick, at) {
            Verdict::Leave | Verdict::GoOn => return Ok(false),
            Verdict::TakeOver => {}
        }
        let seen = lease.as_ref().map_or(DateTime::UNIX_EPOCH, |lease| lease.seen);
        let Some(due) = self.next_due(shard, seen, at).await? else { return Ok(false) };
        let lease = Lease::taken_over(lease.as_ref(), shard, at);
        let taken = self.tracker.store.commit_lease(&lease).await;
        if matches!(taken, Ok(Committed::Overtaken(_))) {
            return Ok(false);
        }
        // A lease whose write was not answered may be stored, and then nobody takes it for a
        // while. If it is not, the call is worth nothing.
        let delay = (due - at).to_std().unwrap_or_default();
        self.wakes.send(&continuation(&lease, lease.seen, BTreeMap::new()), delay).await?;
        taken?;
        Ok(false)
    }

    /// When something is due in a shard of which nobody knows, if that is before the next
    /// tick. What somebody has merely begun is left to him until he must have crashed.
    async fn next_due(
        &self,
        shard: u32,
        seen: DateTime<Utc>,
        at: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, TrackError> {
        let ids = self.tracker.store.active(shard, None).await?;
        if ids.len() > MAX_READ_TO_CLAIM {
            return Ok(Some(at));
        }
        let jobs = self.tracker.store.jobs_lately(&ids).await?;
        let due = jobs.iter().filter(|job| job.settled_at.is_none()).filter_map(|job| {
            let plan = Plan::of(job, self.tracker.law(job));
            let next = plan.next(job.created_at, job.id.spread(), seen.max(job.created_at));
            let soon = match next.task {
                Task::Poll | Task::GiveUp => at + LONGEST_SLEEP,
                Task::Repair => at,
            };
            (next.at <= soon).then_some(next.at)
        });
        Ok(due.min())
    }
}

/// The wake-up call of whoever holds a lease.
pub(crate) fn continuation(
    lease: &Lease,
    seen: DateTime<Utc>,
    failures: BTreeMap<ProviderName, u32>,
) -> WakeUp {
    WakeUp::Successor { shard: lease.shard, epoch: lease.epoch, seen, failures }
}
