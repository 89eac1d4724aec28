//! Deliveries of events that had no receiver when they were published.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::delivery::Delivery;
use domain::event::{Event, EventSet};
use domain::job::{Job, OutboxEntry};

use crate::queue::Ticket;
use crate::store::{Committed, Inserted, Wait};
use crate::tracker::{MAX_CONFLICT_RETRIES, TrackError, Tracker};

/// What became of a late delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum LateDelivery {
    /// It is made, and its ticket sent.
    Made(Delivery),
    /// The event has this one.
    Exists(Delivery),
}

impl Tracker {
    /// Makes the delivery of a change's event to `url`, with the id and bytes that the event always
    /// has. Its first attempt is manual if `manual` is.
    ///
    /// # Errors
    /// When it is not confirmed that it is stored and its ticket sent. If it is stored, the poller
    /// sends the ticket.
    pub async fn deliver_late(
        &self,
        job: &Job,
        change: &OutboxEntry,
        url: &str,
        manual: bool,
        now: DateTime<Utc>,
    ) -> Result<LateDelivery, TrackError> {
        let delivery = Delivery::of(job, &Event::of(job, change), url, now)?;
        let delivery = Delivery { manual, ..delivery };
        // It enters the `due` index, as a delivery does that is sent again.
        match self.store.insert_delivery(&delivery, Wait::InIndex { until: now }).await? {
            Inserted::Exists(other) => Ok(LateDelivery::Exists(other)),
            Inserted::New => {
                self.deliveries.send(&Ticket::next(&delivery), Duration::ZERO).await?;
                Ok(LateDelivery::Made(delivery))
            }
        }
    }

    /// Stores that these events have a delivery, if the job says that they have none. Without that
    /// they are looked at again, and found to have one.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it.
    pub async fn mark_delivered_late(
        &self,
        mut job: Job,
        events: EventSet,
    ) -> Result<(), TrackError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let Some(after) = job.mark_delivered_late(events) else { return Ok(()) };
            match self.store.commit_job(&after).await? {
                Committed::Stored | Committed::Conflict(None) => return Ok(()),
                Committed::Conflict(Some(current)) => job = current,
            }
        }
        Err(TrackError::TooManyConflicts)
    }
}
