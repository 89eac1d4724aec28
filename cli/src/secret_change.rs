//! Telling a stack's functions that a secret was stored, so that they read it within seconds.
//!
//! A secret is stored with the operator's credentials, past the stack's API, and so is this.

use anyhow::{Context, Result, bail};
use aws_sdk_dynamodb::Client;
use chrono::{DateTime, TimeDelta, Utc};
use shared::entropy::Entropy;
use shared::secrets::{SecretChange, SecretName};
use shared::store::Store;

/// The table of a stack: the given one, or that which CloudFormation has named after the stack.
pub(crate) async fn store(
    config: &aws_config::SdkConfig,
    stack: &str,
    table: Option<&str>,
) -> Result<Store> {
    let client = Client::new(config);
    let table = match table {
        Some(table) => table.to_owned(),
        None => table_of(&client, stack).await?,
    };
    // A change does not expire, so that no retention matters.
    Ok(Store::new(client, table, TimeDelta::zero(), Entropy::os()))
}

/// Announces that this version of a secret was stored.
pub(crate) async fn announce(
    store: &Store,
    name: &SecretName,
    version: i64,
    now: DateTime<Utc>,
) -> Result<()> {
    let id = Entropy::os().bytes().context("there is no randomness")?;
    let change = SecretChange::made(u64::from_be_bytes(id), now).with_version(version);
    Ok(store.announce_secret_change(name, &change).await?)
}

async fn table_of(client: &Client, stack: &str) -> Result<String> {
    let prefix = format!("{stack}-Table-");
    let listed = client.list_tables().exclusive_start_table_name(&prefix).limit(2).send().await;
    let listed = listed.map_err(aws_sdk_dynamodb::error::SdkError::into_service_error);
    let names = listed.context("cannot list tables")?.table_names.unwrap_or_default();
    let mut of_stack = names.into_iter().filter(|name| name.starts_with(&prefix));
    match (of_stack.next(), of_stack.next()) {
        (Some(table), None) => Ok(table),
        _ => bail!("no table is named {prefix}…; give it with --table"),
    }
}
