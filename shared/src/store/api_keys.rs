//! API keys: one item for each, all below one key, so that one query reads them. An item's sort
//! key is the name, so that no name is given twice.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Delete, Put as PutAction, TransactWriteItem,
};
use domain::credential::{ApiKeys, KeyRecord, Revocation};
use domain::id::KeyId;

use super::put::Put;
use super::{Inserted, Store, StoreError, api_key_item, key, text, unavailable};

/// An item that is still the key that was read, and not another one of its name.
const IS_THIS_KEY: &str = "id = :id";

/// What is stored of the API keys.
#[derive(Debug)]
pub struct StoredKeys {
    /// The keys that can be read.
    pub keys: ApiKeys,
    /// The others. One that cannot be read must not lock out the holders of the rest.
    pub unreadable: Vec<UnreadableKey>,
}

/// What became of a change of the keys by the holder of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// It is made.
    Made,
    /// Nothing was changed: the key that it rests on is not in force any more, or another change
    /// of the same keys is under way.
    Outdated,
    /// Nothing was changed: the new key's name is taken, or the key to revoke is gone.
    Refused,
}

/// An API key whose item cannot be read. It is not in force.
#[derive(Debug)]
pub struct UnreadableKey {
    /// The item's sort key: the key's name, if it is one.
    pub name: String,
    pub problem: StoreError,
}

impl Store {
    /// All API keys, by a consistent read: what was made or revoked before is seen.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn api_keys(&self) -> Result<StoredKeys, StoreError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(api_key_item::PK))
            .consistent_read(true);
        let mut pages = query.into_paginator().send();
        let (mut keys, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| unavailable("read the API keys", error.into_service_error()))?;
            for item in page.items.unwrap_or_default() {
                let name = item.get("sk").and_then(|sk| sk.as_s().ok()).cloned();
                match api_key_item::decode(item) {
                    Ok(record) => keys.push(record),
                    Err(problem) => {
                        unreadable.push(UnreadableKey { name: name.unwrap_or_default(), problem });
                    }
                }
            }
        }
        Ok(StoredKeys { keys: keys.into_iter().collect(), unreadable })
    }

    /// Stores a new API key. An item of its name is never replaced.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the key may be stored all the same.
    pub async fn insert_api_key(&self, record: &KeyRecord) -> Result<Inserted<()>, StoreError> {
        let item = api_key_item::encode(record)?;
        match self.put(item, "attribute_not_exists(pk)", None, "store an API key").await? {
            Put::Stored => Ok(Inserted::New),
            Put::Refused(_) => Ok(Inserted::Exists(())),
        }
    }

    /// Stores a new API key, if its maker's own key is still in force at that moment and the name
    /// is free.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the key may be stored all the same.
    pub async fn insert_api_key_by(
        &self,
        maker: &KeyRecord,
        record: &KeyRecord,
    ) -> Result<KeyChange, StoreError> {
        let doing = "store an API key";
        let put = PutAction::builder()
            .table_name(&self.table)
            .set_item(Some(api_key_item::encode(record)?))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .map_err(|error| unavailable(doing, error))?;
        let put = TransactWriteItem::builder().put(put).build();
        match self.change_keys(put, maker, doing).await {
            // It is in the table although all answers were lost.
            Err(_) if self.has_key(record).await => Ok(KeyChange::Made),
            change => change,
        }
    }

    /// Deletes an API key, if the key that remains is still in force at that moment.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it; the key may be deleted all the same.
    pub async fn revoke_api_key(
        &self,
        revocation: Revocation<'_>,
    ) -> Result<KeyChange, StoreError> {
        let doing = "delete an API key";
        let Revocation { record, remaining } = revocation;
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(key(api_key_item::PK, record.name.as_str())))
            .condition_expression(IS_THIS_KEY)
            .expression_attribute_values(":id", text(record.id.as_str()))
            .build()
            .map_err(|error| unavailable(doing, error))?;
        let delete = TransactWriteItem::builder().delete(delete).build();
        self.change_keys(delete, remaining, doing).await
    }

    /// Makes a change if the key `standing` is in force. Without that condition a key that is
    /// revoked at the same moment could still make another one, or revoke its revoker's.
    async fn change_keys(
        &self,
        change: TransactWriteItem,
        standing: &KeyRecord,
        doing: &'static str,
    ) -> Result<KeyChange, StoreError> {
        let stands = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(key(api_key_item::PK, standing.name.as_str())))
            .condition_expression(IS_THIS_KEY)
            .expression_attribute_values(":id", text(standing.id.as_str()))
            .build()
            .map_err(|error| unavailable(doing, error))?;
        // Makes the client's repeats of the request harmless.
        let token: [u8; 16] = self.entropy.bytes().map_err(|error| unavailable(doing, error))?;
        let transaction = self
            .client
            .transact_write_items()
            .transact_items(change)
            .transact_items(TransactWriteItem::builder().condition_check(stands).build())
            .client_request_token(hex::encode(token));
        let error = match transaction.send().await.map_err(SdkError::into_service_error) {
            Ok(_) => return Ok(KeyChange::Made),
            Err(error) => error,
        };
        let reasons = match &error {
            TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                cancelled.cancellation_reasons()
            }
            _ => &[],
        };
        let codes: Vec<&str> = reasons.iter().filter_map(CancellationReason::code).collect();
        match codes[..] {
            [_, "ConditionalCheckFailed"] => Ok(KeyChange::Outdated),
            ["ConditionalCheckFailed", _] => Ok(KeyChange::Refused),
            ["TransactionConflict", _] | [_, "TransactionConflict"] => Ok(KeyChange::Outdated),
            _ => Err(unavailable(doing, error)),
        }
    }

    /// Whether this very key is stored.
    async fn has_key(&self, record: &KeyRecord) -> bool {
        let found = self.get(api_key_item::PK, record.name.as_str(), "read an API key").await;
        let id = text(record.id.as_str());
        found.is_ok_and(|item| item.is_some_and(|item| item.get("id") == Some(&id)))
    }

    /// Deletes an API key, unless another one has its name by now.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it; the key may be deleted all the same.
    pub async fn delete_api_key(&self, record: &KeyRecord) -> Result<(), StoreError> {
        self.delete_key_item(record.name.as_str(), Some(&record.id)).await
    }

    /// Deletes an API key that cannot be read.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it; the key may be deleted all the same.
    pub async fn delete_unreadable_key(
        &self,
        unreadable: &UnreadableKey,
    ) -> Result<(), StoreError> {
        self.delete_key_item(&unreadable.name, None).await
    }

    async fn delete_key_item(&self, name: &str, id: Option<&KeyId>) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.table);
        let mut delete = delete.set_key(Some(key(api_key_item::PK, name)));
        if let Some(id) = id {
            delete = delete
                .condition_expression("attribute_not_exists(pk) OR id = :id")
                .expression_attribute_values(":id", text(id.as_str()));
        }
        match delete.send().await.map_err(SdkError::into_service_error) {
            // A conflict: that key is gone, and its name was given to another.
            Ok(_) | Err(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(()),
            Err(error) => Err(unavailable("delete an API key", error)),
        }
    }
}
