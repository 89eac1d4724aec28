//! Claims to poll a shard, and the lease that decides between them.
//!
//! Wake-up calls of both kinds and the tick claim a shard; [`domain::lease`] has the rules by
//! which a claim holds. A claim that holds is turned into a written lease here, before the
//! shard poller begins. When the poller stops, the continuation call carries on from there.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::JobId;
use domain::lease::{Claim, ClaimDecision, Lease, MAX_SLEEP};
use domain::polling::Suspicion;
use shared::queue::WakeUp;
use shared::store::Committed;
use shared::tracker::TrackError;

use crate::Poller;
use crate::plan::{Plan, Task};

/// How far back polls are repeated after a takeover from an idle holder, which may or may not
/// have made the polls of the last moments. A repeated poll is cheaper than a missed one.
const TAKEOVER_OVERLAP: TimeDelta = TimeDelta::seconds(2);

/// A tick reads at most this many jobs to find out whether one is due. In a larger shard one
/// always is.
const MAX_READ_BY_TICK: usize = 1_000;

/// A claim that holds by the lease as it was read.
pub(crate) struct ShardClaim {
    shard: u32,
    lease: Option<Lease>,
    /// Present if the lease's own continuation call is among the calls.
    continued: Option<Continued>,
    /// When the oldest of the new jobs was created.
    new_since: Option<DateTime<Utc>>,
    /// The calls that hold: all others are spent.
    pub(crate) calls: Vec<WakeUp>,
}

/// What a continuation call carries.
struct Continued {
    /// All polls that were due up to then were made.
    seen: DateTime<Utc>,
    suspects: BTreeMap<JobId, Suspicion>,
}

/// The polls that a new holder of the lease still has to make.
#[derive(Clone, Debug)]
pub(crate) struct CatchUp {
    /// Polls that were due since then were not made.
    pub(crate) since: DateTime<Utc>,
    /// Jobs created since then were never polled.
    pub(crate) new_since: Option<DateTime<Utc>>,
    /// The renders that their providers could not tell of.
    pub(crate) suspects: BTreeMap<JobId, Suspicion>,
}

/// An error that stopped the polling of a shard, and the calls that carry on after it.
#[derive(Debug)]
pub(crate) struct Interrupted {
    pub(crate) cause: TrackError,
    /// The continuation calls of all leases that may be stored: the calls that the claim came
    /// from belong to an older epoch and are declined from now on.
    pub(crate) continuations: Vec<WakeUp>,
}

impl Poller {
    /// Decides about a shard's wake-up calls. The answer is none when all of them are declined.
    ///
    /// # Errors
    /// When the lease cannot be read. The calls may be sent again.
    pub(crate) async fn resolve_claims(
        &self,
        shard: u32,
        calls: &[WakeUp],
        now: fn() -> DateTime<Utc>,
    ) -> Result<Option<ShardClaim>, TrackError> {
        let lease = self.tracker.store.lease(shard).await?;
        let at = now();
        let mut new_since: Option<DateTime<Utc>> = None;
        let mut continued = None;
        let mut holding = Vec::new();
        for call in calls {
            let claim = match call {
                WakeUp::NewJob { created_at, .. } => {
                    new_since = Some(new_since.map_or(*created_at, |it| it.min(*created_at)));
                    Claim::NewJob(*created_at)
                }
                WakeUp::Continuation { epoch, .. } => Claim::Continuation(*epoch),
            };
            match (Lease::resolve_claim(lease.as_ref(), claim, at), call) {
                (ClaimDecision::Decline, _) => continue,
                (ClaimDecision::Continue, WakeUp::Continuation { seen, suspects, .. }) => {
                    continued = Some(Continued { seen: *seen, suspects: suspects.clone() });
                }
                (ClaimDecision::TakeOver, _) | (ClaimDecision::Continue, WakeUp::NewJob { .. }) => {
                }
            }
            holding.push(call.clone());
        }
        let holds = !holding.is_empty();
        Ok(holds.then_some(ShardClaim { shard, lease, continued, new_since, calls: holding }))
    }

    /// Writes the lease that a claim asks for: a takeover, or a renewal when one is due. The
    /// answer is none after a conflict: another poller has the lease.
    ///
    /// # Errors
    /// When the write fails. The lease may be stored all the same and would then keep every
    /// other poller away, so its continuation call is part of the error.
    pub(crate) async fn take_lease(
        &self,
        claim: ShardClaim,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Option<(Lease, CatchUp)>, Interrupted> {
        let ShardClaim { shard, lease, continued, new_since, calls: _ } = claim;
        let at = now();
        let (lease, is_new, catch_up) = match (lease, continued) {
            (Some(lease), Some(Continued { seen, suspects })) => {
                let catch_up = CatchUp { since: seen, new_since, suspects };
                match lease.is_to_be_renewed(at) {
                    true => {
                        let pauses = lease.pauses.clone();
                        (lease.renewed(lease.is_awake(at), seen, pauses, at), true, catch_up)
                    }
                    false => (lease, false, catch_up),
                }
            }
            (before, _) => {
                let taken = Lease::taken_over(before.as_ref(), shard, at);
                let is_held = before.as_ref().is_some_and(|before| before.is_held(at));
                let since = if is_held { at - TAKEOVER_OVERLAP } else { taken.seen };
                let suspects = self.recall_suspects(shard, before.as_ref());
                (taken, true, CatchUp { since, new_since, suspects })
            }
        };
        if is_new {
            match self.tracker.store.commit_lease(&lease).await {
                Ok(Committed::Stored) => {}
                Ok(Committed::Conflict(_)) => return Ok(None),
                Err(cause) => {
                    let call = continuation(&lease, catch_up.since, catch_up.suspects);
                    return Err(Interrupted { cause: cause.into(), continuations: vec![call] });
                }
            }
        }
        Ok(Some((lease, catch_up)))
    }

    /// Starts a chain of wake-up calls for a shard that has active jobs and no holder, if a job
    /// is due before the next tick. Answers whether the shard has no active job.
    ///
    /// # Errors
    /// When the table or the queue fails. The next tick tries again.
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
        match Lease::resolve_claim(lease.as_ref(), Claim::Tick, at) {
            ClaimDecision::Decline | ClaimDecision::Continue => return Ok(false),
            ClaimDecision::TakeOver => {}
        }
        let seen = lease.as_ref().map_or(DateTime::UNIX_EPOCH, |lease| lease.seen);
        let Some(due) = self.next_due(shard, seen, at).await? else { return Ok(false) };
        let lease = Lease::taken_over(lease.as_ref(), shard, at);
        let taken = self.tracker.store.commit_lease(&lease).await;
        if matches!(taken, Ok(Committed::Conflict(_))) {
            return Ok(false);
        }
        // A lease whose write failed may be stored all the same and would then keep every other
        // poller away. If it is not stored, the call is declined.
        let delay = (due - at).to_std().unwrap_or_default();
        self.wakes.send(&continuation(&lease, lease.seen, BTreeMap::new()), delay).await?;
        taken?;
        Ok(false)
    }

    /// When the first job of a shard without a holder is due, if that is before the next tick.
    /// A repair only counts once it is due: until then the function that began the work may
    /// still finish it.
    async fn next_due(
        &self,
        shard: u32,
        seen: DateTime<Utc>,
        at: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, TrackError> {
        let ids = self.tracker.store.active(shard, None).await?;
        if ids.len() > MAX_READ_BY_TICK {
            return Ok(Some(at));
        }
        let jobs = self.tracker.store.jobs_eventual(&ids).await?;
        let due = jobs.iter().filter(|job| job.settled_at.is_none()).filter_map(|job| {
            let plan = Plan::of(job, self.tracker.poll_schedule(job));
            let last_polled = seen.max(job.created_at);
            let next = plan.next(job.created_at, job.id.spread(), last_polled, None);
            let soon = match next.task {
                Task::Poll | Task::Deadline => at + MAX_SLEEP,
                Task::Repair => at,
            };
            (next.at <= soon).then_some(next.at)
        });
        Ok(due.min())
    }
}

/// The wake-up call that carries on under this lease, and is declined under any other.
pub(crate) fn continuation(
    lease: &Lease,
    seen: DateTime<Utc>,
    suspects: BTreeMap<JobId, Suspicion>,
) -> WakeUp {
    WakeUp::Continuation { shard: lease.shard, epoch: lease.epoch, seen, suspects }
}
