//! The conditional put by which all items but the webhook configuration and the number of
//! shards are stored: optimistic concurrency by a version number,
//! and a write id that makes a repeat of a put idempotent.

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::{Committed, Item, Store, StoreError, number, unavailable};

/// The attribute that identifies the call that wrote an item.
pub(super) const WRITE_ID: &str = "w";

pub(super) enum Put {
    Stored,
    Refused(Option<Item>),
}

pub(super) fn committed<T>(
    put: Put,
    decode: impl FnOnce(Item) -> Result<T, StoreError>,
) -> Result<Committed<T>, StoreError> {
    match put {
        Put::Stored => Ok(Committed::Stored),
        Put::Refused(item) => item.map(decode).transpose().map(Committed::Conflict),
    }
}

impl Store {
    /// Puts an item over its previous version. Version 1 has none.
    pub(super) async fn put_version(
        &self,
        item: Item,
        version: u64,
        doing: &'static str,
    ) -> Result<Put, StoreError> {
        match version {
            0 | 1 => self.put(item, "attribute_not_exists(pk)", None, doing).await,
            _ => self.put(item, "v = :v", Some(version), doing).await,
        }
    }

    /// Puts an item if `condition` holds; `:v` in it is the version before `version`.
    ///
    /// The item carries an id of this call. When the response to a successful write is lost, the
    /// client repeats the request, and the repeat conflicts with the item of the first one. The
    /// id distinguishes that from a conflict with another writer.
    pub(super) async fn put(
        &self,
        mut item: Item,
        condition: &str,
        version: Option<u64>,
        doing: &'static str,
    ) -> Result<Put, StoreError> {
        let write_id: [u8; 8] = self.entropy.bytes().map_err(|error| unavailable(doing, error))?;
        let write_id = AttributeValue::B(Blob::new(write_id));
        item.insert(WRITE_ID.into(), write_id.clone());
        let is_key = |name: &str| matches!(name, "pk" | "sk");
        let place = item.clone().into_iter().filter(|(name, _)| is_key(name)).collect();
        let mut put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(condition)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(version) = version {
            put = put.expression_attribute_values(":v", number(version.saturating_sub(1)));
        }
        match put.send().await.map_err(aws_sdk_dynamodb::error::SdkError::into_service_error) {
            Ok(_) => Ok(Put::Stored),
            Err(PutItemError::ConditionalCheckFailedException(failed)) => {
                let ours =
                    failed.item.as_ref().is_some_and(|item| item.get(WRITE_ID) == Some(&write_id));
                Ok(if ours { Put::Stored } else { Put::Refused(failed.item) })
            }
            Err(error) => match self.holds(&place, &write_id).await {
                true => Ok(Put::Stored),
                false => Err(unavailable(doing, error)),
            },
        }
    }

    /// Whether a write is in the table although all of its responses were lost.
    async fn holds(&self, place: &Item, write_id: &AttributeValue) -> bool {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(place.clone()));
        let found = get.consistent_read(true).send().await.ok().and_then(|output| output.item);
        found.is_some_and(|item| item.get(WRITE_ID) == Some(write_id))
    }
}
