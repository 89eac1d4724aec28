//! `relay key`: API keys, through the API or in the table itself.
//!
//! Through the API, a key makes and revokes others. The first key, and the way back when none
//! with the scope `admin` is left, is the table: with AWS credentials, and without the API's
//! rules about who may grant what.
//!
//! A key alone goes to standard output, so that `KEY=$(relay key create …)` works. All else goes
//! to standard error.

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use domain::credential::{
    ApiKey, CreateRefusal, KeyCreator, KeyRecord, MAX_API_KEYS, Scope, ScopeSet,
};
use domain::id::{KeyId, KeyName, KeyOwner};
use serde_json::{Value, json};
use shared::entropy::Entropy;
use shared::store::{Inserted, Store, StoredKeys};
use shared::view;

use crate::api::Api;
use crate::show;

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an API key, and print it: it is not shown again.
    Create(Create),
    /// List the API keys: whose they are, what they may do, who made them.
    List(Place),
    /// Revoke one API key. What needs `admin` refuses it at once, and everything within a minute;
    /// no other key is touched.
    Revoke {
        /// The key's id or name.
        key: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
pub(crate) struct Create {
    /// What it is called; no other key of the stack has the name.
    #[arg(long, value_parser = KeyName::parse)]
    name: KeyName,
    /// Who answers for what is done with it, such as a team or an address.
    #[arg(long, value_parser = KeyOwner::parse)]
    owner: KeyOwner,
    /// What it may do: `submit`, `read`, `operate`, `admin`, several with commas between them.
    #[arg(long, value_delimiter = ',', value_parser = scope, default_value = "submit,read")]
    scope: Vec<Scope>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
pub(crate) struct Place {
    /// The stack's table (its output `TableName`), to do it with AWS credentials and not through
    /// the API. Region and credentials come from the environment, as
    /// `aws configure export-credentials --format env` writes them.
    #[arg(long)]
    table: Option<String>,
}

fn scope(name: &str) -> Result<Scope, String> {
    let known = || Scope::ALL.map(Scope::name).join(", ");
    Scope::parse(name).ok_or_else(|| format!("it is one of {}", known()))
}

/// Where output goes, line by line.
pub(crate) struct Output<'a> {
    /// What the command is for.
    pub(crate) result: &'a dyn Fn(String),
    /// What is said about it.
    pub(crate) note: &'a dyn Fn(String),
}

/// Runs the command. `api` makes the client of the API, if that is used.
pub(crate) fn run(
    command: &KeyCommand,
    api: impl Fn() -> Result<Api>,
    output: &Output<'_>,
) -> Result<()> {
    let place = match command {
        KeyCommand::Create(create) => &create.place,
        KeyCommand::List(place) | KeyCommand::Revoke { place, .. } => place,
    };
    match &place.table {
        Some(table) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("cannot start the runtime")?;
            runtime.block_on(in_table(command, &store(table)?, Utc::now(), output))
        }
        None => {
            let api =
                api().map_err(|why| anyhow!("{why}; or give --table, to use AWS credentials"))?;
            through_api(command, &api, output)
        }
    }
}

fn store(table: &str) -> Result<Store> {
    let config = shared::aws::config().context("cannot find AWS credentials and a region")?;
    let client = aws_sdk_dynamodb::Client::new(&config);
    // Keys do not expire, so that no retention matters.
    Ok(Store::new(client, table.to_owned(), TimeDelta::zero(), Entropy::os()))
}

fn through_api(command: &KeyCommand, api: &Api, output: &Output<'_>) -> Result<()> {
    match command {
        KeyCommand::Create(create) => {
            let scopes: ScopeSet = create.scope.iter().copied().collect();
            let body = json!({
                "name": create.name,
                "owner": create.owner,
                "scopes": scopes.scopes().map(Scope::name).collect::<Vec<_>>(),
            });
            let made = api.post_json(&["v1", "keys"], &body)?;
            let key = made.get("key").and_then(Value::as_str).context("the answer has no key")?;
            (output.note)(show::made_key(&made));
            (output.result)(key.to_owned());
        }
        KeyCommand::List(_) => {
            let page = api.get(&["v1", "keys"], &[])?;
            (output.result)(show::keys(show::list(&page, "keys")));
        }
        KeyCommand::Revoke { key, .. } => {
            let id = match KeyId::parse(key) {
                Ok(id) => id.to_string(),
                Err(_) => id_of(key, show::list(&api.get(&["v1", "keys"], &[])?, "keys"))?,
            };
            (output.note)(show::revoked_key(&api.delete(&["v1", "keys", &id])?));
        }
    }
    Ok(())
}

fn id_of(name: &str, keys: &[Value]) -> Result<String> {
    let member = |key: &Value, member: &str| key.get(member)?.as_str().map(str::to_owned);
    let found = keys.iter().find(|key| member(key, "name").as_deref() == Some(name));
    found.and_then(|key| member(key, "keyId")).with_context(|| format!("there is no key `{name}`"))
}

async fn in_table(
    command: &KeyCommand,
    store: &Store,
    now: DateTime<Utc>,
    output: &Output<'_>,
) -> Result<()> {
    let stored = store.api_keys().await.context("is it the stack's table, in this region?")?;
    match command {
        KeyCommand::Create(create) => {
            let (key, record) = create_in_table(create, store, &stored, now).await?;
            (output.note)(show::made_key(&view::api_key(&record)));
            (output.result)(key.reveal().to_owned());
        }
        KeyCommand::List(_) => {
            let mut records: Vec<&KeyRecord> = stored.keys.iter().collect();
            records.sort_by_key(|record| record.created_at);
            let shown: Vec<Value> = records.into_iter().map(view::api_key).collect();
            (output.result)(show::keys(&shown));
            for unreadable in &stored.unreadable {
                let (name, problem) = (&unreadable.name, &unreadable.problem);
                (output.note)(format!("{name:?} is not in force: {problem}"));
            }
        }
        KeyCommand::Revoke { key, .. } => {
            let is_meant =
                |record: &&KeyRecord| record.id.as_str() == key || record.name.as_str() == key;
            if let Some(record) = stored.keys.iter().find(is_meant) {
                store.delete_api_key(record).await?;
                (output.note)(show::revoked_key(&view::api_key(record)));
            } else if let Some(broken) = stored.unreadable.iter().find(|it| it.name == *key) {
                store.delete_unreadable_key(broken).await?;
                (output.note)(format!("{key} is removed; it could not be read"));
            } else {
                bail!("there is no key `{key}`");
            }
        }
    }
    Ok(())
}

async fn create_in_table(
    create: &Create,
    store: &Store,
    stored: &StoredKeys,
    now: DateTime<Utc>,
) -> Result<(ApiKey, KeyRecord)> {
    let name = &create.name;
    let taken = || {
        format!(
            "there is a key `{name}` already. If what showed it is lost, `relay key revoke {name}` \
             and make it again; or choose another name"
        )
    };
    match stored.keys.check_name(name) {
        Ok(()) => {}
        Err(CreateRefusal::NameTaken(_)) => bail!(taken()),
        Err(CreateRefusal::TooMany | CreateRefusal::ScopeNotGranted(_)) => {
            bail!("a stack has at most {MAX_API_KEYS} keys; revoke one that is not used any more")
        }
    }
    let random = "this system has no random numbers";
    let key = ApiKey::from_random(Entropy::os().bytes().context(random)?);
    let record = KeyRecord {
        id: KeyId::from_bytes(Entropy::os().bytes().context(random)?),
        name: name.clone(),
        owner: create.owner.clone(),
        scopes: create.scope.iter().copied().collect(),
        hash: key.hash(),
        created_at: now,
        created_by: KeyCreator::Operator,
    };
    let inserted = store.insert_api_key(&record).await;
    match inserted.with_context(|| format!("if `relay key list` shows `{name}` now, revoke it"))? {
        Inserted::New => Ok((key, record)),
        Inserted::Exists(()) => bail!(taken()),
    }
}

#[cfg(test)]
mod tests;
