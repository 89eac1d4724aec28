//! Storing a secret of a stack, and telling its functions of it, so that they read it within
//! seconds. Both use the operator's credentials, past the stack's API.

use anyhow::{Context, Result, bail};
use aws_sdk_dynamodb::Client;
use aws_sdk_ssm::types::ParameterType;
use chrono::{DateTime, TimeDelta, Utc};
use shared::entropy::Entropy;
use shared::secrets::{SecretChange, SecretName};
use shared::store::Store;

/// The full name of a secret's parameter.
pub(crate) fn parameter(stack: &str, name: &SecretName) -> String {
    format!("/render-relay/{stack}/{}", name.path())
}

/// Stores a secret, and returns the version of its parameter.
pub(crate) async fn put(
    client: &aws_sdk_ssm::Client,
    stack: &str,
    name: &SecretName,
    value: &str,
) -> Result<i64> {
    let parameter = parameter(stack, name);
    let put = client.put_parameter().name(&parameter).value(value).overwrite(true);
    let stored = put
        .r#type(ParameterType::SecureString)
        .send()
        .await
        .map_err(aws_sdk_ssm::error::SdkError::into_service_error)
        .with_context(|| format!("cannot store {parameter}"))?;
    Ok(stored.version)
}

/// Tells the functions that this version of a secret was stored. Returns what to tell the
/// operator: the secret is stored, and a failure only delays its use.
pub(crate) async fn tell(
    config: &aws_config::SdkConfig,
    (stack, table): (&str, Option<&str>),
    name: &SecretName,
    version: i64,
) -> String {
    let told = async {
        let store = store(config, stack, table).await?;
        announce(&store, name, version, Utc::now()).await
    };
    match told.await {
        Ok(()) => "stored; functions use it within a minute".into(),
        Err(why) => format!(
            "stored; functions use it within ten minutes, because they could not be told: {why:#}"
        ),
    }
}

/// The table of a stack: the given one, or that which CloudFormation has named after the stack.
async fn store(config: &aws_config::SdkConfig, stack: &str, table: Option<&str>) -> Result<Store> {
    let client = Client::new(config);
    let table = match table {
        Some(table) => table.to_owned(),
        None => table_of(&client, stack).await?,
    };
    // A change does not expire, so that no retention matters.
    Ok(Store::new(client, table, TimeDelta::zero(), Entropy::os()))
}

async fn announce(
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

#[cfg(test)]
mod tests {
    use aws_in_memory::{InMemoryAws, clock};
    use domain::id::ProviderName;
    use domain::time;
    use shared::store::Consistency;

    use super::*;

    #[tokio::test]
    async fn stored_secret_is_announced() {
        let aws = InMemoryAws::new(&[]);
        let client = aws_sdk_ssm::Client::new(&aws.config());
        let name = SecretName::ProviderKey(ProviderName::parse("acme").unwrap());
        let version = put(&client, "test", &name, "k-4242").await.unwrap();
        assert_eq!(aws.parameter("providers/acme/api-key").as_deref(), Some("k-4242"));
        let now = time::from_millis(time::millis(clock::now())).unwrap();
        announce(&aws.store(), &name, version, now).await.unwrap();
        let changes = aws.store().secret_changes(Consistency::Strong).await.unwrap().changes;
        let change = changes[&name];
        assert_eq!((change.version, change.at, change.unfinished_until), (Some(1), now, None));
    }
}
