//! The schedule's tick: it ensures that the shard is polled, and moves deliveries whose long wait
//! is nearly over into their queue. In a shard without active jobs a tick costs one read: of the
//! active jobs, or in every fifth minute of the waiting deliveries.

use std::sync::PoisonError;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::delivery::DeliveryState;
use domain::id::{EventId, JobId};
use futures_util::stream::{self, StreamExt};
use shared::queue::{MAX_DELAY, Ticket};
use shared::store::{Committed, Wait};
use shared::telemetry::chain;
use shared::tracker::TrackError;
use tracing::warn;

use crate::Poller;

/// How many minutes lie between two lists of the waiting deliveries. The queue carries the last
/// [`MAX_DELAY`] of a wait, so two rounds may fail before a delivery is late.
const DELIVERIES_EVERY: i64 = 5;

/// The most deliveries that are moved at the same time.
const MAX_CONCURRENT: usize = 16;

impl Poller {
    /// Handles the tick of a shard, and of the shards that it has inherited.
    ///
    /// # Errors
    /// When the table or the queue fails. The next tick tries again.
    pub(crate) async fn tick(
        &self,
        shard: u32,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), TrackError> {
        let minute = now().timestamp().div_euclid(60);
        if (minute + i64::from(shard)).rem_euclid(DELIVERIES_EVERY) != 0 {
            let is_quiet = self.ensure_polled(shard, now).await?;
            self.record_quiet(shard, is_quiet.then_some(minute));
            return Ok(());
        }
        // Deliveries go first, so that a failure with the jobs does not delay them.
        self.release_deliveries(shard, now()).await?;
        // The deliveries were this minute's one read of a shard that was quiet just before.
        if self.was_quiet(shard, minute - 1) {
            return self.ensure_inherited_polled(shard, now).await;
        }
        self.ensure_polled(shard, now).await?;
        self.ensure_inherited_polled(shard, now).await
    }

    async fn ensure_inherited_polled(
        &self,
        shard: u32,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), TrackError> {
        for inherited in self.inherited(shard).await? {
            self.release_deliveries(inherited, now()).await?;
            self.ensure_polled(inherited, now).await?;
        }
        Ok(())
    }

    fn record_quiet(&self, shard: u32, quiet_minute: Option<i64>) {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        match quiet_minute {
            Some(minute) => quiet.insert(shard, minute),
            None => quiet.remove(&shard),
        };
    }

    /// Whether this process found no active job of the shard in that minute.
    fn was_quiet(&self, shard: u32, minute: i64) -> bool {
        let quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        quiet.get(&shard) == Some(&minute)
    }

    /// The shards whose work belongs to this shard's tick: after the number of shards was
    /// lowered, they have no tick of their own.
    async fn inherited(&self, shard: u32) -> Result<impl Iterator<Item = u32>, TrackError> {
        let most = self.shards.most(&self.tracker.store).await?;
        let shards = self.shards.current();
        Ok((shards..most).filter(move |inherited| inherited % shards == shard))
    }

    async fn release_deliveries(&self, shard: u32, now: DateTime<Utc>) -> Result<(), TrackError> {
        let soon = now + TimeDelta::from_std(MAX_DELAY).unwrap_or_default();
        let deliveries = self.tracker.store.due_deliveries(shard, soon).await?;
        stream::iter(deliveries)
            .for_each_concurrent(MAX_CONCURRENT, |(job, event)| async move {
                if let Err(cause) = self.release(job.as_ref(), &event, now).await {
                    warn!(
                        job.id = job.as_ref().map(JobId::as_str),
                        event.id = event.as_str(),
                        error = chain(&cause),
                        "delivery release failed; will retry"
                    );
                }
            })
            .await;
        Ok(())
    }

    /// Moves a delivery from the `due` index into its queue. The ticket is sent first: a crash in
    /// between leads to a second ticket, which makes no second attempt.
    async fn release(
        &self,
        job: Option<&JobId>,
        event: &EventId,
        now: DateTime<Utc>,
    ) -> Result<(), TrackError> {
        let Some(mut delivery) = self.tracker.store.delivery(job, event).await? else {
            return Ok(());
        };
        if delivery.is_leased(now) {
            // Its attempt is in flight and has taken it out of the index.
            return Ok(());
        }
        let wait = match delivery.state {
            DeliveryState::Pending { next_at, .. } => {
                Some((next_at - now).to_std().unwrap_or(Duration::ZERO))
            }
            // It was dropped, and the event about that may not be published.
            DeliveryState::GivenUp(_) => Some(Duration::ZERO),
            DeliveryState::Delivered | DeliveryState::Exhausted(_) => None,
        };
        if let Some(wait) = wait {
            if wait > MAX_DELAY {
                return Ok(());
            }
            self.tracker.deliveries.send(&Ticket::next(&delivery), wait).await?;
        }
        delivery.version = delivery.version.saturating_add(1);
        match self.tracker.store.commit_delivery(&delivery, Wait::InQueue).await? {
            // The conflict is with the attempt, whose write took it out of the index too.
            Committed::Stored | Committed::Conflict(_) => Ok(()),
        }
    }
}
