//! The changes of secrets, which processes follow, and whose turn it is to read one.
//!
//! A secret is a parameter of SSM, which takes few reads a second. The table tells when there
//! is something new to read: an item has the last change of each secret. It is read every few
//! seconds by each process that is in use, and stays below 4 KiB.
//!
//! A thousand processes hear of a change at about the same time. A second item gives each of
//! them the next free instant, [`TURN`] after that of the one before, by an addition that
//! needs no knowledge of what is there. So no two of them conflict, whatever their number is.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use chrono::{DateTime, TimeDelta, Utc};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{Consistency, Item, Store, StoreError, corrupt, key, number, unavailable};
use crate::secrets::{SecretChange, SecretName};

/// Not the webhook configuration's: all functions may write here.
const PK: &str = "secrets";
const CHANGES_SK: &str = "changes";
const TURNS_SK: &str = "turns";

/// The time between two reads: twenty a second, half of what SSM takes.
const TURN: TimeDelta = TimeDelta::milliseconds(50);

/// How often the whole stack looks for changes made by hand.
const LOOK_EVERY: TimeDelta = TimeDelta::seconds(10);

const DOING: &str = "read the changes of secrets";

/// The last change of every secret, as the table has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretChanges {
    /// Grows with each change, so that an older answer is recognized.
    pub revision: u64,
    pub changes: HashMap<SecretName, SecretChange>,
    /// When SSM was last looked at for changes made by hand.
    pub looked_at: Option<DateTime<Utc>>,
}

impl Store {
    /// The changes of secrets.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn secret_changes(
        &self,
        consistency: Consistency,
    ) -> Result<SecretChanges, StoreError> {
        let get = self.client.get_item().table_name(&self.table);
        let get = get.set_key(Some(key(PK, CHANGES_SK)));
        let output = get.consistent_read(consistency == Consistency::Strong).send().await;
        let item = output.map_err(|error| unavailable(DOING, error.into_service_error()))?.item;
        item.map_or_else(|| Ok(SecretChanges::default()), |item| decode(&item))
    }

    /// Announces a change of a secret to all processes.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it; it may be announced all the same.
    pub async fn announce_secret_change(
        &self,
        name: &SecretName,
        change: &SecretChange,
    ) -> Result<(), StoreError> {
        let doing = "announce the change of a secret";
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(PK, CHANGES_SK)))
            .update_expression("SET #name = :change ADD v :one")
            .expression_attribute_names("#name", name.path())
            .expression_attribute_values(":change", encode(change)?)
            .expression_attribute_values(":one", number(1));
        update.send().await.map_err(|error| unavailable(doing, error.into_service_error()))?;
        Ok(())
    }

    /// When the caller may read a secret of SSM that has changed. It has this instant to itself.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it.
    pub async fn take_secret_turn(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, StoreError> {
        let doing = "take a turn to read a secret";
        loop {
            // After those who wait; or as the first, where none does.
            for (condition, expression, value) in [
                ("free_at >= :now", "ADD free_at :value", millis_of(TURN)),
                (NONE_WAITS, "SET free_at = :value", millis(now + TURN)),
            ] {
                let update = self
                    .client
                    .update_item()
                    .table_name(&self.table)
                    .set_key(Some(key(PK, TURNS_SK)))
                    .update_expression(expression)
                    .condition_expression(condition)
                    .expression_attribute_values(":now", millis(now))
                    .expression_attribute_values(":value", value)
                    .return_values(ReturnValue::AllNew);
                match update.send().await.map_err(SdkError::into_service_error) {
                    Ok(output) => {
                        let item = output.attributes.unwrap_or_default();
                        let free_at = time_of(item.get("free_at"));
                        let free_at = free_at.ok_or_else(|| corrupt("turn", "it has no time"))?;
                        return Ok(free_at - TURN);
                    }
                    Err(UpdateItemError::ConditionalCheckFailedException(_)) => {}
                    Err(error) => return Err(unavailable(doing, error)),
                }
            }
        }
    }

    /// Whether the caller is the one that looks for changes made by hand: one of all processes
    /// in ten seconds.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it.
    pub async fn claim_secret_look(&self, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(PK, CHANGES_SK)))
            .update_expression("SET looked = :now")
            .condition_expression("attribute_not_exists(looked) OR looked <= :before")
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":before", millis(now - LOOK_EVERY));
        match update.send().await.map_err(SdkError::into_service_error) {
            Ok(_) => Ok(true),
            Err(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
            Err(error) => Err(unavailable("claim a look at secrets", error)),
        }
    }
}

const NONE_WAITS: &str = "attribute_not_exists(free_at) OR free_at < :now";

/// One change, in a map.
#[derive(Serialize, Deserialize)]
struct ChangeItem {
    id: u64,
    at: i64,
    from: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
}

fn encode(change: &SecretChange) -> Result<AttributeValue, StoreError> {
    let item = ChangeItem {
        id: change.id,
        at: time::millis(change.at),
        from: time::millis(change.from),
        until: change.unfinished_until.map(time::millis),
        version: change.version,
    };
    serde_dynamo::to_attribute_value(item).map_err(|error| corrupt("change of a secret", error))
}

/// A name or a change that this release does not know is another release's.
fn decode(item: &Item) -> Result<SecretChanges, StoreError> {
    let mut all = SecretChanges::default();
    for (attribute, value) in item {
        match attribute.as_str() {
            "v" => {
                all.revision = serde_dynamo::from_attribute_value(value.clone())
                    .map_err(|error| corrupt("change of a secret", error))?;
            }
            "looked" => all.looked_at = time_of(Some(value)),
            path => {
                let change = serde_dynamo::from_attribute_value(value.clone()).ok();
                if let (Some(name), Some(change)) = (SecretName::of_path(path), change) {
                    all.changes.insert(name, decode_change(&change)?);
                }
            }
        }
    }
    Ok(all)
}

fn decode_change(item: &ChangeItem) -> Result<SecretChange, StoreError> {
    Ok(SecretChange {
        id: item.id,
        at: instant(item.at)?,
        from: instant(item.from)?,
        unfinished_until: item.until.map(instant).transpose()?,
        version: item.version,
    })
}

fn time_of(value: Option<&AttributeValue>) -> Option<DateTime<Utc>> {
    let Some(AttributeValue::N(text)) = value else { return None };
    text.parse().ok().and_then(time::from_millis)
}

fn millis(at: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(time::millis(at).to_string())
}

fn millis_of(length: TimeDelta) -> AttributeValue {
    AttributeValue::N(length.num_milliseconds().to_string())
}

#[cfg(test)]
mod tests {
    use domain::id::ProviderName;

    use super::*;

    #[test]
    fn secret_changes_round_trip() {
        let at = time::from_millis(1_800_000_000_123).unwrap();
        let zvid = ProviderName::parse("zvid").unwrap();
        let finished = SecretChange {
            id: u64::MAX,
            at,
            from: at + TimeDelta::seconds(60),
            unfinished_until: None,
            version: Some(7),
        };
        let begun = SecretChange { unfinished_until: Some(at), version: None, ..finished };
        let changes = HashMap::from([
            (SecretName::WebhookSecrets, begun),
            (SecretName::ProviderKey(zvid.clone()), finished),
            (SecretName::ProviderWebhookSecrets(zvid), finished),
        ]);
        let mut item = key(PK, CHANGES_SK);
        for (name, change) in &changes {
            item.insert(name.path(), encode(change).unwrap());
        }
        item.insert("v".into(), number(3));
        item.insert("looked".into(), millis(at));
        item.insert("providers/zvid/later".into(), encode(&finished).unwrap());
        let expected = SecretChanges { revision: 3, changes, looked_at: Some(at) };
        assert_eq!(decode(&item).unwrap(), expected);
    }
}
