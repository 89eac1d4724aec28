//! Deliveries: written one at a time, read by event, by job, or when their long wait is over.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use domain::delivery::Delivery;
use domain::id::{EventId, JobId};
use domain::time;

use super::put::{Put, committed};
use super::{
    Committed, Inserted, Item, Store, StoreError, delivery_item, job_item, number, unavailable,
};

/// Where a delivery waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// In the queue, or it does not wait.
    InQueue,
    /// In the `due` index, which the poller drains.
    InIndex {
        /// When it leaves the index for the queue.
        until: DateTime<Utc>,
    },
}

impl Store {
    /// Stores a new delivery.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the delivery may be stored all the same.
    pub async fn insert_delivery(
        &self,
        delivery: &Delivery,
        wait: Wait,
    ) -> Result<Inserted<Delivery>, StoreError> {
        let item = self.waiting(delivery, wait)?;
        match self.put(item, "attribute_not_exists(pk)", None, "store a delivery").await? {
            Put::Stored => Ok(Inserted::New),
            Put::Refused(item) => {
                delivery_item::decode(item.unwrap_or_default()).map(Inserted::Exists)
            }
        }
    }

    /// Stores a changed delivery over its previous version. A delivery whose next attempt is
    /// later than SQS can delay a message enters the `due` index by the same write.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the change may be stored all the same.
    pub async fn commit_delivery(
        &self,
        delivery: &Delivery,
        wait: Wait,
    ) -> Result<Committed<Delivery>, StoreError> {
        let item = self.waiting(delivery, wait)?;
        let doing = "store a delivery's change";
        let put = self.put(item, "v = :v", Some(delivery.version), doing).await?;
        committed(put, delivery_item::decode)
    }

    fn waiting(&self, delivery: &Delivery, wait: Wait) -> Result<Item, StoreError> {
        let mut item = delivery_item::encode(delivery, self.retention)?;
        if let Wait::InIndex { until } = wait {
            item.insert("due_shard".into(), number(delivery.shard.into()));
            item.insert("due_at".into(), AttributeValue::N(time::millis(until).to_string()));
        }
        Ok(item)
    }

    /// The delivery of one event of a job, or of a test, by a consistent read.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn delivery(
        &self,
        job: Option<&JobId>,
        event: &EventId,
    ) -> Result<Option<Delivery>, StoreError> {
        let sk = delivery_item::sk(event);
        let item = self.get(&delivery_item::pk(job), &sk, "read a delivery").await?;
        item.map(delivery_item::decode).transpose()
    }

    /// All deliveries of a job, oldest first.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn deliveries(&self, job: &JobId) -> Result<Vec<Delivery>, StoreError> {
        let doing = "list the deliveries of a job";
        let mut pages = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk AND begins_with(sk, :sk)")
            .expression_attribute_values(":pk", AttributeValue::S(job_item::pk(job)))
            .expression_attribute_values(":sk", AttributeValue::S(delivery_item::SK_PREFIX.into()))
            .consistent_read(true)
            .into_paginator()
            .send();
        let mut deliveries = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| unavailable(doing, error.into_service_error()))?;
            for item in page.items.unwrap_or_default() {
                deliveries.push(delivery_item::decode(item)?);
            }
        }
        deliveries.sort_by_key(|delivery| delivery.created_at);
        Ok(deliveries)
    }

    /// The deliveries of a shard that are due by `until`, earliest first: the job (none for a
    /// test) and the event.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn due_deliveries(
        &self,
        shard: u32,
        until: DateTime<Utc>,
    ) -> Result<Vec<(Option<JobId>, EventId)>, StoreError> {
        let doing = "list due deliveries";
        let mut pages = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("due")
            .key_condition_expression("due_shard = :shard AND due_at <= :until")
            .expression_attribute_values(":shard", number(shard.into()))
            .expression_attribute_values(
                ":until",
                AttributeValue::N(time::millis(until).to_string()),
            )
            .into_paginator()
            .send();
        let mut due = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| unavailable(doing, error.into_service_error()))?;
            for item in page.items() {
                due.push((delivery_item::job_of(item)?, delivery_item::event_of(item)?));
            }
        }
        Ok(due)
    }
}
