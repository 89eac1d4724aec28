//! Events that were published while no receiver was configured: listing their jobs.
//!
//! Once a stack has had a receiver, an event without one is rare, and the write that empties the
//! job's outbox puts the job into the `undelivered` index. Before that it is the rule, and a stack
//! that only uses the bus never has a receiver: its jobs are not put there, which would cost
//! each of them a write. They are found by a scan, once, when there is a receiver at last.

use chrono::{DateTime, TimeDelta, Utc};
use domain::event::EventSet;
use domain::job::Job;
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::reading::ScanFilter;
use super::undelivered::{self, ListOrder, TimeSpan, partition_of_jobs};
use super::{
    Consistency, Item, Page, Store, StoreError, corrupt, job_item, number, page, text, unavailable,
};

const PK: &str = "config";
const SK: &str = "first-receiver";

/// The longest time from a job's creation to an event of it: the longest deadline of a spec, seven
/// days, and as long as the poller may take after it.
const LONGEST_LIFE: TimeDelta = TimeDelta::days(8);

/// How long after the first receiver's configuration began a job may be published as if there
/// never was one: until the request ended (29 s) and every process has read it, by clocks that
/// differ.
const UNSEEN: TimeDelta = TimeDelta::minutes(2);

/// The cursor at which the scan begins.
const SCAN: &str = "scan";

/// A job, and those of its events that had no receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct JobWithoutReceiver {
    pub job: Job,
    /// Since then they may have got a delivery.
    pub events: EventSet,
}

#[derive(Serialize, Deserialize)]
struct FirstReceiverItem {
    pk: String,
    sk: String,
    at: i64,
}

impl Store {
    /// Stores when the first receiver was configured, before it is.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn put_first_receiver(&self, at: DateTime<Utc>) -> Result<(), StoreError> {
        let item = FirstReceiverItem { pk: PK.into(), sk: SK.into(), at: time::millis(at) };
        let item: Item =
            serde_dynamo::to_item(item).map_err(|error| corrupt("first receiver", error))?;
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        put.send().await.map_err(|error| {
            unavailable("store when there was a receiver first", error.into_service_error())
        })?;
        Ok(())
    }

    /// Until when events without a receiver were not marked in their jobs; none if none ever is.
    async fn unmarked_until(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let item = self.get(PK, SK, "read when there was a receiver first").await?;
        let Some(item) = item else { return Ok(None) };
        let item: FirstReceiverItem =
            serde_dynamo::from_item(item).map_err(|error| corrupt("first receiver", error))?;
        Ok(Some(instant(item.at)? + UNSEEN))
    }

    /// Jobs with events that were made in a span of time and had no receiver then, of all shards.
    /// A page may have fewer jobs than `limit`, or none, and still have a next page; a job may be
    /// on several.
    ///
    /// # Errors
    /// When the table cannot be read, or `start` is not the `next` of a page.
    pub async fn jobs_without_receiver(
        &self,
        shards: u32,
        span: TimeSpan,
        start: Option<&str>,
        limit: u8,
    ) -> Result<Page<JobWithoutReceiver>, StoreError> {
        let unmarked_until = self.unmarked_until().await?;
        let unmarked = TimeSpan {
            since: earliest(span.since),
            until: unmarked_until.map_or(span.until, |until| until.min(span.until)),
        };
        if let Some(cursor) = start
            && let Some(cursor) = scan_cursor(cursor)?
        {
            return self.unmarked_jobs(unmarked, cursor.as_deref(), limit).await;
        }
        let partitions = partition_of_jobs(0)..partition_of_jobs(shards);
        let made = TimeSpan { since: earliest(span.since), until: span.until };
        let doing = "list jobs without a receiver";
        let (keys, next) = self
            .keys_of_undelivered(partitions, made, ListOrder::OldestFirst, start, limit, doing)
            .await?;
        let mut jobs = self.readable_jobs(keys, Consistency::Strong).await?;
        jobs.sort_by_key(|job| job.created_at);
        let items =
            jobs.into_iter().map(|job| JobWithoutReceiver { events: job.without_receiver, job });
        let is_scanned = unmarked_until.is_none_or(|until| span.since <= until);
        let next = next.or_else(|| is_scanned.then(|| Item::from([(SCAN.to_owned(), number(0))])));
        let next = next.map(|key| page::encode_cursor(&key)).transpose()?;
        Ok(Page { items: items.collect(), next })
    }

    /// The jobs without a receiver of their own that were made in a span, with their events up to
    /// its end.
    async fn unmarked_jobs(
        &self,
        span: TimeSpan,
        start: Option<&str>,
        limit: u8,
    ) -> Result<Page<JobWithoutReceiver>, StoreError> {
        let filter = ScanFilter {
            expression: "sk = :job AND attribute_not_exists(callback_url) AND created_at BETWEEN :a AND :b",
            names: &[],
            values: vec![
                (":job", text(job_item::SK)),
                (":a", undelivered::instant(span.since)),
                (":b", undelivered::instant(span.until)),
            ],
        };
        let page = self.scan(filter, start, limit, "list jobs without a receiver").await?;
        // A scan is eventually consistent, and the outbox matters.
        let keys = page.items.iter().map(page::key_of).collect();
        let mut jobs = self.readable_jobs(keys, Consistency::Strong).await?;
        jobs.sort_by_key(|job| job.created_at);
        let items = jobs.into_iter().map(|job| {
            let changes = job.changes().into_iter().filter(|change| {
                change.at <= span.until
                    && job.request.subscribed_events.contains(change.event)
                    && !job.is_to_queue(change.event)
            });
            JobWithoutReceiver { events: changes.map(|change| change.event).collect(), job }
        });
        Ok(Page { items: items.collect(), next: page.next })
    }
}

/// When the oldest job was made that can have an event of this time.
fn earliest(event: DateTime<Utc>) -> DateTime<Utc> {
    event.checked_sub_signed(LONGEST_LIFE).unwrap_or(DateTime::UNIX_EPOCH)
}

/// If a page is one of the scan: where that goes on, none for its first page.
fn scan_cursor(cursor: &str) -> Result<Option<Option<String>>, StoreError> {
    let key = page::decode_cursor(cursor)?;
    if key.contains_key(SCAN) {
        return Ok(Some(None));
    }
    let is_of_index = key.contains_key(undelivered::UNDELIVERED);
    Ok((!is_of_index).then(|| Some(cursor.to_owned())))
}
