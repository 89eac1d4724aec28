//! Whose turn it is to look after a shard: wake-up calls and ticks, and the lease between
//! them. See [`domain::lease`] for the rules.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::ProviderName;
use domain::lease::{Claim, LONGEST_SLEEP, Lease, Verdict};
use shared::queue::WakeUp;
use shared::store::Committed;
use shared::tracker::TrackError;
use tracing::info;

use crate::Poller;
use crate::plan::{Plan, Task};
use crate::watch::{Ending, Owed, Watch};

/// A holder that is taken over from while it sleeps may just have made the polls that were due
/// in the last moments, or not. A poll too many is cheaper than one too few.
const LAST_MOMENTS: TimeDelta = TimeDelta::seconds(2);

/// More jobs than these are not read to find out whether any is due.
const WORTH_READING: usize = 1_000;

impl Poller {
    /// Follows the wake-up calls of one shard. Whoever may look after it does; all others go
    /// back to sleep.
    ///
    /// # Errors
    /// When the table or the queue does not answer. The calls may come again.
    pub(crate) async fn wake_up(
        &self,
        shard: u32,
        calls: &[WakeUp],
        until: DateTime<Utc>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), TrackError> {
        let lease = self.tracker.store.lease(shard).await?;
        let at = now();
        let mut new_since = None;
        let mut successor = None;
        for call in calls {
            match call {
                WakeUp::NewJob { created_at, .. } => {
                    new_since = Some(
                        new_since.map_or(*created_at, |it: DateTime<Utc>| it.min(*created_at)),
                    );
                }
                WakeUp::Successor { epoch, seen, failures, .. } => {
                    match Lease::judge(lease.as_ref(), Claim::Successor(*epoch), at) {
                        Verdict::GoOn => successor = Some((*seen, failures.clone())),
                        Verdict::TakeOver | Verdict::Leave => {}
                    }
                }
            }
        }
        let (lease, owed) = match (lease, successor) {
            (Some(lease), Some((since, failures))) => {
                let Some(lease) = self.renewed(lease, since, at).await? else { return Ok(()) };
                (lease, Owed { since, new_since, failures })
            }
            (lease, _) => {
                let Some(made_at) = new_since else { return Ok(()) };
                match Lease::judge(lease.as_ref(), Claim::NewJob(made_at), at) {
                    Verdict::TakeOver => {}
                    Verdict::Leave | Verdict::GoOn => return Ok(()),
                }
                let is_held = lease.as_ref().is_some_and(|lease| lease.is_held(at));
                let Some(taken) = self.take_over(lease.as_ref(), shard, at).await? else {
                    return Ok(());
                };
                let since = if is_held { at - LAST_MOMENTS } else { taken.seen };
                (taken, Owed { since, new_since, failures: BTreeMap::new() })
            }
        };
        match Watch::new(self, lease, owed, until, now).run().await? {
            Ending::Sleep { lease, delay, seen, failures } => {
                self.leave_call(&lease, seen, failures, delay).await
            }
            Ending::Over => Ok(()),
            Ending::Superseded => {
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
    pub(crate) async fn guard(
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
        if let Some(lease) = self.take_over(lease.as_ref(), shard, at).await? {
            let delay = (due - at).to_std().unwrap_or_default();
            self.leave_call(&lease, lease.seen, BTreeMap::new(), delay).await?;
        }
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
        if ids.len() > WORTH_READING {
            return Ok(Some(at));
        }
        let jobs = self.tracker.store.jobs_lately(&ids).await?;
        let due = jobs.iter().filter(|job| job.settled_at.is_none()).filter_map(|job| {
            let plan = Plan::of(job, self.tracker.law(job));
            let next = plan.next(job.created_at, job.id.spread(), seen.max(job.created_at));
            let soon = match next.task {
                Task::Ask => at + LONGEST_SLEEP,
                Task::Mend => at,
            };
            (next.at <= soon).then_some(next.at)
        });
        Ok(due.min())
    }

    /// Takes the lease over; none when somebody else was faster.
    async fn take_over(
        &self,
        before: Option<&Lease>,
        shard: u32,
        now: DateTime<Utc>,
    ) -> Result<Option<Lease>, TrackError> {
        let lease = Lease::taken_over(before, shard, now);
        match self.tracker.store.commit_lease(&lease).await? {
            Committed::Stored => Ok(Some(lease)),
            Committed::Overtaken(_) => Ok(None),
        }
    }

    /// The lease for another term, when it is time; none when somebody else has it.
    async fn renewed(
        &self,
        lease: Lease,
        seen: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<Lease>, TrackError> {
        if !lease.is_to_be_renewed(now) {
            return Ok(Some(lease));
        }
        let renewed = lease.renewed(lease.is_awake(now), seen, lease.pauses.clone(), now);
        match self.tracker.store.commit_lease(&renewed).await? {
            Committed::Stored => Ok(Some(renewed)),
            Committed::Overtaken(_) => Ok(None),
        }
    }

    async fn leave_call(
        &self,
        lease: &Lease,
        seen: DateTime<Utc>,
        failures: BTreeMap<ProviderName, u32>,
        delay: Duration,
    ) -> Result<(), TrackError> {
        let call = WakeUp::Successor { shard: lease.shard, epoch: lease.epoch, seen, failures };
        Ok(self.wakes.send(&call, delay).await?)
    }
}
