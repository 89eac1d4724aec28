//! The schedule's tick: looks after whatever nobody else does.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::delivery::DeliveryState;
use domain::id::{EventId, JobId};
use futures_util::stream::{self, StreamExt};
use shared::queue::{LONGEST_DELAY, Ticket};
use shared::store::{Committed, Wait};
use shared::telemetry::chain;
use shared::tracker::TrackError;
use tracing::error;

use crate::visit::{Poller, needs_tick};

/// Jobs looked at at once: enough to hide the providers' latency, few enough for one small
/// function's sockets.
const AT_ONCE: usize = 16;

/// When the last visit of a tick may begin: it may take a status call and more, and the
/// function has a minute. The next tick goes on.
const LAST_VISIT: TimeDelta = TimeDelta::seconds(40);

impl Poller {
    /// Looks at the shard's active jobs that need it, and moves deliveries whose long wait is
    /// over into the queue. Returns at once when there is nothing; one job's trouble is
    /// logged and keeps nobody else waiting.
    ///
    /// # Errors
    /// When the table cannot be listed. The next tick tries again.
    pub(crate) async fn sweep(
        &self,
        shard: u32,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), TrackError> {
        // Deliveries first: a provider that hangs must not keep receivers waiting.
        let soon = now() + TimeDelta::seconds(60);
        let deliveries = self.tracker.store.due_deliveries(shard, soon).await?;
        stream::iter(deliveries)
            .for_each_concurrent(AT_ONCE, |(job, event)| async move {
                if let Err(cause) = self.release(job.as_ref(), &event, now()).await {
                    error!(
                        job.id = job.as_ref().map(JobId::as_str),
                        event.id = event.as_str(),
                        error = chain(&cause),
                        "the delivery of event {event} stays in its wait"
                    );
                }
            })
            .await;

        let ids = self.tracker.store.active(shard).await?;
        let jobs = self.tracker.store.jobs(&ids).await?;
        let due = jobs.into_iter().filter(|job| needs_tick(job, &self.tracker.law(job), now()));
        let mut due: Vec<_> = due.collect();
        // What only has to be told needs no provider, and so comes before what does.
        due.sort_by_key(|job| job.outbox.is_empty());
        let until = now() + LAST_VISIT;
        stream::iter(due)
            .take_while(|_| std::future::ready(now() < until))
            .for_each_concurrent(AT_ONCE, |job| async move {
                let id = job.id.clone();
                if let Err(cause) = self.visit(job, now).await {
                    error!(job.id = %id, error = chain(&cause), "looking at job {id} failed");
                }
            })
            .await;
        Ok(())
    }

    /// Moves a delivery from the `due` index into the queue. The ticket goes first: a crash
    /// in between makes a second one, which makes no second attempt.
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
            // Its attempt is being made, and whoever makes it has taken it out of the index.
            return Ok(());
        }
        if let DeliveryState::Pending { next_at, .. } = delivery.state {
            let wait = (next_at - now).to_std().unwrap_or(Duration::ZERO);
            if wait > LONGEST_DELAY {
                return Ok(());
            }
            self.tracker.deliveries.send(&Ticket::next(&delivery), wait).await?;
        }
        delivery.version = delivery.version.saturating_add(1);
        match self.tracker.store.commit_delivery(&delivery, Wait::InQueue).await? {
            // Overtaken by the attempt itself, whose write took it out of the index too.
            Committed::Stored | Committed::Overtaken(_) => Ok(()),
        }
    }
}
