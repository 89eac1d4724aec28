//! Listing deliveries: those that were given up, from their index, and those in another
//! state, from the whole table.

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
const UNDELIVERED: &str = "undelivered";

/// When deliveries were created, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
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
        let (mut shard, mut key) = start.map(place).transpose()?.unwrap_or((0, None));
        let mut keys: Vec<Item> = Vec::new();
        let next = loop {
            if shard >= shards {
                break None;
            }
            let room = usize::from(limit).saturating_sub(keys.len());
            if room == 0 {
                break Some(Item::from([(UNDELIVERED.to_owned(), number(shard.into()))]));
            }
            let output = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(UNDELIVERED)
                .key_condition_expression("undelivered = :shard AND created_at BETWEEN :a AND :b")
                .expression_attribute_values(":shard", number(shard.into()))
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
                None => shard += 1,
            }
        };
        let next = next.map(|key| page::encode_cursor(&key)).transpose()?;
        let mut items = readable(self.batch(keys, Consistency::Strong, "read deliveries").await?);
        match order {
            ListOrder::OldestFirst => items.sort_by_key(|delivery| delivery.created_at),
            ListOrder::NewestFirst => items.sort_by_key(|it| std::cmp::Reverse(it.created_at)),
        }
        Ok(Page { items, next })
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

/// Where a page starts: the shard, and the item of it to start after.
fn place(cursor: &str) -> Result<(u32, Option<Item>), StoreError> {
    let key = page::decode_cursor(cursor)?;
    let shard = match key.get(UNDELIVERED) {
        Some(AttributeValue::N(shard)) => shard.parse().ok(),
        Some(_) | None => None,
    };
    let shard = shard.ok_or_else(|| corrupt("page", "it is of another listing"))?;
    Ok((shard, Some(key).filter(|key| key.len() > 1)))
}

fn instant(at: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(time::millis(at).to_string())
}
