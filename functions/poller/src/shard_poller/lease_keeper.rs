//! Writes of the shard's lease: renewals (the heartbeat), the announcement that the poller
//! sleeps, giving the lease back, and what conflicts mean.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::ProviderName;
use domain::lease::Lease;
use domain::polling::Pause;
use shared::store::{Committed, Store, StoreError};
use shared::telemetry::chain;
use tracing::warn;

/// After how long the lease calls its holder awake. Most invocations end sooner, and need no
/// write for it.
const AWAKE_AFTER: TimeDelta = TimeDelta::seconds(10);

/// The least time between two renewals, also after a failed one.
const RENEW_RETRY_AFTER: TimeDelta = TimeDelta::seconds(2);

/// The lease of the shard that is polled.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    /// As last stored, as far as is known.
    lease: Lease,
    /// Leases of the next epoch whose write has no known outcome: each may be stored.
    attempted: Vec<Lease>,
    started_at: DateTime<Utc>,
    written_at: DateTime<Utc>,
    /// No renewal begins before.
    renew_not_before: DateTime<Utc>,
    write_in_flight: bool,
    idle_announced: bool,
    is_superseded: bool,
}

/// A renewal that has completed.
#[derive(Debug)]
pub(crate) struct LeaseWrite {
    lease: Lease,
    outcome: Result<Committed<Lease>, StoreError>,
}

impl LeaseKeeper {
    pub(crate) fn new(lease: Lease, start: DateTime<Utc>) -> Self {
        Self {
            lease,
            attempted: Vec::new(),
            started_at: start,
            written_at: start,
            renew_not_before: start,
            write_in_flight: false,
            idle_announced: false,
            is_superseded: false,
        }
    }

    pub(crate) fn current(&self) -> &Lease {
        &self.lease
    }

    /// Another poller has the lease.
    pub(crate) fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    /// The stored lease says that its holder sleeps or has left, and no poll has begun since.
    pub(crate) fn idle_announced(&self) -> bool {
        self.idle_announced
    }

    /// A poll begins: the announcement no longer holds.
    pub(crate) fn withdraw_idle(&mut self) {
        self.idle_announced = false;
    }

    /// When the last renewal began; the writes of `go_idle` do not count.
    pub(crate) fn written_at(&self) -> DateTime<Utc> {
        self.written_at
    }

    /// The leases of which one is stored, unless another poller has written since.
    pub(crate) fn possibly_stored(&self) -> impl Iterator<Item = &Lease> {
        [Some(&self.lease), self.attempted.last()].into_iter().flatten()
    }

    /// Whether the stored lease differs from the facts.
    pub(crate) fn is_stale(
        &self,
        is_awake: bool,
        pauses: &BTreeMap<ProviderName, Pause>,
        at: DateTime<Utc>,
    ) -> bool {
        is_stale(&self.lease, is_awake, pauses, at)
    }

    /// Whether a renewal is to be written now. The answer says whether as awake.
    pub(crate) fn due_heartbeat(
        &self,
        pauses: &BTreeMap<ProviderName, Pause>,
        at: DateTime<Utc>,
    ) -> Option<bool> {
        if self.idle_announced || self.write_in_flight || at < self.renew_not_before {
            return None;
        }
        heartbeat(&self.lease, at >= self.started_at + AWAKE_AFTER, pauses, at)
    }

    /// Begins to write a renewal.
    pub(crate) fn renew<'a>(
        &mut self,
        store: &'a Store,
        awake: bool,
        seen: DateTime<Utc>,
        pauses: BTreeMap<ProviderName, Pause>,
        at: DateTime<Utc>,
    ) -> impl Future<Output = LeaseWrite> + use<'a> {
        let lease = self.lease.renewed(awake, seen, pauses, at);
        self.write_in_flight = true;
        self.renew_not_before = at + RENEW_RETRY_AFTER;
        self.written_at = at;
        self.attempted.push(lease.clone());
        async move {
            let outcome = store.commit_lease(&lease).await;
            LeaseWrite { lease, outcome }
        }
    }

    pub(crate) fn take_write(&mut self, LeaseWrite { lease, outcome }: LeaseWrite) {
        self.write_in_flight = false;
        match outcome {
            Ok(outcome) => self.take_outcome(lease, outcome),
            Err(cause) => {
                let shard = self.lease.shard;
                warn!(shard, error = chain(&cause), "lease renewal failed; will retry");
            }
        }
    }

    /// The lease of a holder that sleeps and has made all polls.
    pub(crate) fn asleep(&self, pauses: BTreeMap<ProviderName, Pause>, at: DateTime<Utc>) -> Lease {
        self.lease.renewed(false, at, pauses, at)
    }

    /// The lease given back.
    pub(crate) fn given_back(
        &self,
        pauses: BTreeMap<ProviderName, Pause>,
        at: DateTime<Utc>,
    ) -> Lease {
        self.lease.ended(pauses, at)
    }

    /// Writes a lease that announces that its holder sleeps or leaves.
    ///
    /// # Errors
    /// When the write fails. The lease may be stored all the same.
    pub(crate) async fn go_idle(&mut self, store: &Store, lease: Lease) -> Result<(), StoreError> {
        self.attempted.push(lease.clone());
        let outcome = store.commit_lease(&lease).await?;
        self.idle_announced = outcome == Committed::Stored;
        self.take_outcome(lease, outcome);
        Ok(())
    }

    /// A conflict with a lease that this poller has written itself, in a write that failed as
    /// far as was known, supersedes nothing.
    fn take_outcome(&mut self, lease: Lease, outcome: Committed<Lease>) {
        let attempted = std::mem::take(&mut self.attempted);
        match outcome {
            Committed::Stored => self.lease = lease,
            Committed::Conflict(Some(current))
                if attempted.iter().any(|ours| ours.is_written_as(&current)) =>
            {
                self.lease = current;
            }
            Committed::Conflict(_) => self.is_superseded = true,
        }
    }
}

/// Whether a lease differs from the facts: its term is over, or awake or the pauses are wrong.
fn is_stale(
    lease: &Lease,
    is_awake: bool,
    pauses: &BTreeMap<ProviderName, Pause>,
    at: DateTime<Utc>,
) -> bool {
    !lease.is_held(at) || lease.is_awake(at) != is_awake || lease.pauses != *pauses
}

/// Whether a lease is to be renewed, and whether as awake. A holder stays awake once it was, or
/// once it has run for [`AWAKE_AFTER`].
fn heartbeat(
    lease: &Lease,
    has_run_long: bool,
    pauses: &BTreeMap<ProviderName, Pause>,
    at: DateTime<Utc>,
) -> Option<bool> {
    let awake = lease.is_awake(at) || has_run_long;
    let is_due = is_stale(lease, awake, pauses, at) || awake && lease.is_to_be_renewed(at);
    is_due.then_some(awake)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fixtures::{pause, start};

    fn after(seconds: u64) -> DateTime<Utc> {
        start() + Duration::from_secs(seconds)
    }

    fn taken() -> Lease {
        Lease::taken_over(None, 0, start())
    }

    #[test]
    fn heartbeat_starts_after_ten_seconds() {
        let keeper = LeaseKeeper::new(taken(), start());
        let due = |seconds| keeper.due_heartbeat(&BTreeMap::new(), after(seconds));
        assert_eq!([due(0), due(9), due(10)], [None, None, Some(true)]);
    }

    #[test]
    fn heartbeat_repeats_once_a_minute() {
        let awake = taken().renewed(true, start(), BTreeMap::new(), start());
        let due = |seconds| heartbeat(&awake, true, &BTreeMap::new(), after(seconds));
        assert_eq!([due(1), due(60), due(61)], [None, None, Some(true)]);
    }

    #[test]
    fn new_pause_makes_lease_stale() {
        let pause = pause(start(), after(40));
        let pauses = BTreeMap::from([(ProviderName::parse("zvid").unwrap(), pause)]);
        assert_eq!(heartbeat(&taken(), false, &pauses, after(1)), Some(false));
        assert_eq!(heartbeat(&taken(), false, &BTreeMap::new(), after(1)), None);
    }

    #[test]
    fn announced_idle_stops_heartbeats() {
        let keeper = LeaseKeeper { idle_announced: true, ..LeaseKeeper::new(taken(), start()) };
        assert_eq!(keeper.due_heartbeat(&BTreeMap::new(), after(70)), None);
    }

    #[test]
    fn own_lost_write_supersedes_nothing() {
        let lost = taken().renewed(true, start(), BTreeMap::new(), after(10));
        let next = taken().renewed(true, start(), BTreeMap::new(), after(12));
        let mut keeper =
            LeaseKeeper { attempted: vec![lost.clone()], ..LeaseKeeper::new(taken(), start()) };
        keeper.take_outcome(next.clone(), Committed::Conflict(Some(lost.clone())));
        assert!(!keeper.is_superseded());
        assert_eq!(keeper.current(), &lost);

        keeper.take_outcome(next.clone(), Committed::Conflict(Some(next)));
        assert!(keeper.is_superseded(), "another poller has written it");
    }
}
