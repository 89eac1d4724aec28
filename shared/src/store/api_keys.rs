//! API keys: one item for each, all below one key, so that one query reads them. An item's sort
//! key is the name, so that no name is given twice.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use domain::credential::{ApiKeys, KeyRecord};
use domain::id::KeyId;

use super::put::Put;
use super::{Inserted, Store, StoreError, api_key_item, key, text, unavailable};

/// What is stored of the API keys.
#[derive(Debug)]
pub struct StoredKeys {
    /// The keys that can be read.
    pub keys: ApiKeys,
    /// The others. One that cannot be read must not lock out the holders of the rest.
    pub unreadable: Vec<UnreadableKey>,
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
