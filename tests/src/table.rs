//! Direct reads of the table, without our API.

use std::collections::HashMap;

use anyhow::Result;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use domain::id::JobId;

/// An item with all its attributes.
pub type TableItem = HashMap<String, AttributeValue>;

#[derive(Clone, Debug)]
pub(crate) struct TableClient {
    pub(crate) client: Client,
    pub(crate) name: String,
}

impl TableClient {
    /// All items of a job: the job, its payload, its deliveries.
    pub(crate) async fn items_of(&self, job: &JobId) -> Result<Vec<TableItem>> {
        let query = self.client.query().table_name(&self.name).consistent_read(true);
        let output = query
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(format!("job#{job}")))
            .send()
            .await?;
        Ok(output.items.unwrap_or_default())
    }

    /// The ids of the active jobs of all shards.
    pub(crate) async fn active(&self) -> Result<Vec<String>> {
        let scan = self.client.scan().table_name(&self.name).index_name("active");
        let mut items = scan.into_paginator().items().send();
        let mut ids = Vec::new();
        while let Some(item) = items.next().await {
            ids.push(text(&item?, "pk").trim_start_matches("job#").to_owned());
        }
        Ok(ids)
    }

    /// The number of jobs of a source record.
    pub(crate) async fn jobs_of_source(&self, source: &str) -> Result<usize> {
        let query = self.client.query().table_name(&self.name).index_name("by_source");
        let output = query
            .key_condition_expression("#source = :source")
            .expression_attribute_names("#source", "source")
            .expression_attribute_values(":source", AttributeValue::S(source.to_owned()))
            .send()
            .await?;
        Ok(output.items().len())
    }
}

/// A text attribute; empty when it is missing or has another type.
pub(crate) fn text<'a>(item: &'a TableItem, attribute: &str) -> &'a str {
    item.get(attribute).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}
