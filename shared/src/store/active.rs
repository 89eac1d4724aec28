//! The `active` index: jobs that are not settled, by shard.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use domain::id::JobId;
use domain::time;

use super::{Store, StoreError, job_item, number, unavailable};

impl Store {
    /// The ids of a shard's active jobs, oldest first: all, or those created since `from`. The
    /// index is eventually consistent.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn active(
        &self,
        shard: u32,
        from: Option<DateTime<Utc>>,
    ) -> Result<Vec<JobId>, StoreError> {
        let doing = "list active jobs";
        let query = self.query_active(shard);
        let query = match from {
            Some(from) => query
                .key_condition_expression("#shard = :shard AND since >= :from")
                .expression_attribute_values(
                    ":from",
                    AttributeValue::N(time::millis(from).to_string()),
                ),
            None => query,
        };
        let mut pages = query.into_paginator().send();
        let mut ids = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| unavailable(doing, error.into_service_error()))?;
            for item in page.items() {
                ids.push(job_item::id_of(item)?);
            }
        }
        Ok(ids)
    }

    /// Whether a shard has active jobs. This costs one read for any number of them.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn has_active(&self, shard: u32) -> Result<bool, StoreError> {
        let page = self.query_active(shard).limit(1).send().await;
        let page =
            page.map_err(|error| unavailable("look for active jobs", error.into_service_error()))?;
        Ok(!page.items().is_empty())
    }

    fn query_active(&self, shard: u32) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .index_name("active")
            .key_condition_expression("#shard = :shard")
            .expression_attribute_names("#shard", "shard")
            .expression_attribute_values(":shard", number(shard.into()))
    }
}
