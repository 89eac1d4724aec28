//! Reading many items: by their keys, or by a scan with a filter.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use super::{Consistency, Item, Page, Store, StoreError, page, unavailable};

/// How long to wait before the unprocessed keys of a batch are read again, the first time. Each
/// further wait is twice as long.
const UNPROCESSED_BACKOFF: Duration = Duration::from_millis(50);

/// How often they are read again: for six seconds, so that a cold start ends in its ten.
const MAX_UNPROCESSED_READS: u32 = 7;

/// How many pages of the table one listing scans before it returns what it has found.
const MAX_SCAN_PAGES: usize = 50;

/// Keys of a batch stay unread.
#[derive(Debug, thiserror::Error)]
#[error("DynamoDB throttles and leaves keys unprocessed")]
struct Unprocessed;

/// The filter of a scan.
pub(super) struct ScanFilter<'a> {
    pub(super) expression: &'a str,
    pub(super) names: &'a [(&'a str, &'a str)],
    pub(super) values: Vec<(&'a str, AttributeValue)>,
}

impl Store {
    /// The items of these keys that exist, in no order.
    pub(super) async fn batch(
        &self,
        keys: Vec<Item>,
        consistency: Consistency,
        doing: &'static str,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        // 100 is the most that BatchGetItem takes.
        for keys in keys.chunks(100) {
            let batch = KeysAndAttributes::builder().set_keys(Some(keys.to_vec()));
            let batch = batch.consistent_read(consistency == Consistency::Strong).build();
            let batch = batch.map_err(|error| unavailable(doing, error))?;
            let mut request = HashMap::from([(self.table.clone(), batch)]);
            let mut waits = (0..MAX_UNPROCESSED_READS).map(|n| UNPROCESSED_BACKOFF * 2_u32.pow(n));
            while !request.is_empty() {
                let output = self
                    .client
                    .batch_get_item()
                    .set_request_items(Some(request))
                    .send()
                    .await
                    .map_err(|error| unavailable(doing, error.into_service_error()))?;
                items.extend(output.responses.unwrap_or_default().into_values().flatten());
                request = output.unprocessed_keys.unwrap_or_default();
                if !request.is_empty() {
                    let wait = waits.next().ok_or_else(|| unavailable(doing, Unprocessed))?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Ok(items)
    }

    /// A page of the items in the whole table that match a filter. It may have fewer items than
    /// `limit`, or none, and still have a next page.
    pub(super) async fn scan(
        &self,
        filter: ScanFilter<'_>,
        start: Option<&str>,
        limit: u8,
        doing: &'static str,
    ) -> Result<Page<Item>, StoreError> {
        let names = filter.names.iter().map(|(name, of)| ((*name).to_owned(), (*of).to_owned()));
        let names: HashMap<_, _> = names.collect();
        let values = filter.values.into_iter().map(|(name, value)| (name.to_owned(), value));
        let values: HashMap<_, _> = values.collect();
        let mut items = Vec::new();
        let mut cursor = start.map(page::decode_cursor).transpose()?;
        for _ in 0..MAX_SCAN_PAGES {
            let output = self
                .client
                .scan()
                .table_name(&self.table)
                .filter_expression(filter.expression)
                // DynamoDB refuses an empty list of names.
                .set_expression_attribute_names(Some(names.clone()).filter(|it| !it.is_empty()))
                .set_expression_attribute_values(Some(values.clone()))
                .limit(1000)
                .set_exclusive_start_key(cursor.take())
                .send()
                .await
                .map_err(|error| page::unreadable(doing, start, error.into_service_error()))?;
            let mut found = output.items.unwrap_or_default();
            let room = usize::from(limit).saturating_sub(items.len());
            cursor = page::cut(&mut found, room).or(output.last_evaluated_key);
            items.extend(found);
            if cursor.is_none() || items.len() >= limit.into() {
                break;
            }
        }
        let next = cursor.map(|key| page::encode_cursor(&key)).transpose()?;
        Ok(Page { items, next })
    }
}
