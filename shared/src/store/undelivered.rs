//! The index of what was not delivered, and listing deliveries: those that were given up, from
//! that index, and those in another state, from the whole table.
//!
//! The index has deliveries that were given up and, in partitions of their own, jobs with events
//! that had no receiver.

use std::ops::Range;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use domain::delivery::Delivery;
use domain::time;
use tracing::error;

use super::reading::ScanFilter;
use super::{
    Consistency, Item, Page, Store, StoreError, corrupt, delivery_item, number, page, text,
};
use crate::telemetry::chain;

/// The index's name, and its hash key.
pub(super) const UNDELIVERED: &str = "undelivered";

/// The first partition of jobs. Those of deliveries are the numbers of the shards.
const FIRST_OF_JOBS: u64 = 1 << 32;

/// When deliveries were created, or events made, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

impl TimeSpan {
    /// Whether a time is in it.
    #[must_use]
    pub fn contains(&self, at: DateTime<Utc>) -> bool {
        (self.since..=self.until).contains(&at)
    }
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOrder {
    OldestFirst,
    NewestFirst,
}

impl Store {
    /// The deliveries of all shards that were given up, at most `limit` on a page. The index is
    /// eventually consistent: a delivery that was given up a moment ago may be missing, and one
    /// that was just sent again may still be listed.
    ///
    /// # Errors
    /// When the table cannot be read, or `start` is not the `next` of a page.
    pub async fn undelivered(
        &self,
        shards: u32,
        span: TimeSpan,
        order: ListOrder,
        start: Option<&str>,
        limit: u8,
    ) -> Result<Page<Delivery>, StoreError> {
        let doing = "list undelivered webhooks";
        let (keys, next) =
            self.keys_of_undelivered(0..shards.into(), span, order, start, limit, doing).await?;
        let next = next.map(|key| page::encode_cursor(&key)).transpose()?;
        let mut items = readable(self.batch(keys, Consistency::Strong, "read deliveries").await?);
        match order {
            ListOrder::OldestFirst => items.sort_by_key(|delivery| delivery.created_at),
            ListOrder::NewestFirst => items.sort_by_key(|it| std::cmp::Reverse(it.created_at)),
        }
        Ok(Page { items, next })
    }

    /// The keys of the items in these partitions of the index, and where to go on.
    pub(super) async fn keys_of_undelivered(
        &self,
        partitions: Range<u64>,
        span: TimeSpan,
        order: ListOrder,
        start: Option<&str>,
        limit: u8,
        doing: &'static str,
    ) -> Result<(Vec<Item>, Option<Item>), StoreError> {
        let (mut partition, mut key) = match start {
            Some(cursor) => place(cursor, &partitions)?,
            None => (partitions.start, None),
        };
        let mut keys: Vec<Item> = Vec::new();
        let next = loop {
            if partition >= partitions.end {
                break None;
            }
            let room = usize::from(limit).saturating_sub(keys.len());
            if room == 0 {
                break Some(Item::from([(UNDELIVERED.to_owned(), number(partition))]));
            }
            let output = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(UNDELIVERED)
                .key_condition_expression("undelivered = :shard AND created_at BETWEEN :a AND :b")
                .expression_attribute_values(":shard", number(partition))
                .expression_attribute_values(":a", instant(span.since))
                .expression_attribute_values(":b", instant(span.until))
                .scan_index_forward(order == ListOrder::OldestFirst)
                .limit(i32::try_from(room).unwrap_or(i32::MAX))
                .set_exclusive_start_key(key.take())
                .send()
                .await
                .map_err(|error| page::unreadable(doing, start, error.into_service_error()))?;
            keys.extend(output.items.unwrap_or_default().iter().map(page::key_of));
            match output.last_evaluated_key {
                Some(last) => break Some(last),
                None => partition += 1,
            }
        };
        Ok((keys, next))
    }

    /// The deliveries that are pending, or were delivered. Reads the whole table a page at a
    /// time, as [`Store::jobs_in_state`] does: an index of those under way would cost every
    /// delivery two writes.
    ///
    /// # Errors
    /// When the table cannot be read, or `start` is not the `next` of a page.
    pub async fn deliveries_in_state(
        &self,
        state: &str,
        span: TimeSpan,
        start: Option<&str>,
        limit: u8,
    ) -> Result<Page<Delivery>, StoreError> {
        let filter = ScanFilter {
            expression: "begins_with(sk, :kind) AND #state = :state AND created_at BETWEEN :a AND :b",
            names: &[("#state", "state")],
            values: vec![
                (":kind", text(delivery_item::SK_PREFIX)),
                (":state", text(state)),
                (":a", instant(span.since)),
                (":b", instant(span.until)),
            ],
        };
        let page = self.scan(filter, start, limit, "list deliveries in a state").await?;
        let mut items = readable(page.items);
        items.sort_by_key(|delivery| std::cmp::Reverse(delivery.created_at));
        Ok(Page { items, next: page.next })
    }
}

/// The partition for the jobs of a shard that have events without a receiver.
pub(super) fn partition_of_jobs(shard: u32) -> u64 {
    FIRST_OF_JOBS + u64::from(shard)
}

/// Skips items that cannot be decoded: one that another release wrote must not hide the others.
fn readable(items: impl IntoIterator<Item = Item>) -> Vec<Delivery> {
    let decoded = items.into_iter().map(delivery_item::decode);
    let readable = decoded.filter_map(|delivery| {
        let log =
            |cause: &StoreError| error!(error = chain(cause), "unreadable delivery item skipped");
        delivery.inspect_err(log).ok()
    });
    readable.collect()
}

/// Where a page starts: the partition, and the item of it to start after.
fn place(cursor: &str, partitions: &Range<u64>) -> Result<(u64, Option<Item>), StoreError> {
    let key = page::decode_cursor(cursor)?;
    let partition: Option<u64> = match key.get(UNDELIVERED) {
        Some(AttributeValue::N(partition)) => partition.parse().ok(),
        Some(_) | None => None,
    };
    let partition = partition
        .filter(|partition| partitions.contains(partition))
        .ok_or_else(|| corrupt("page", "it is of another listing"))?;
    Ok((partition, Some(key).filter(|key| key.len() > 1)))
}

pub(super) fn instant(at: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(time::millis(at).to_string())
}
