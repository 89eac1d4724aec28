//! The leases of shards, and the highest number of shards so far.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use domain::id::ProviderName;
use domain::lease::Lease;
use domain::polling::Pause;
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{Committed, Item, Store, StoreError, committed, corrupt, number, unavailable};

const SK: &str = "lease";
const SHARDS_PK: &str = "shards";
const SHARDS_SK: &str = "shards";

#[derive(Serialize, Deserialize)]
struct LeaseItem {
    pk: String,
    sk: String,
    /// The epoch: the version of every other item.
    v: u64,
    /// Not `shard`, which is a key of the `active` index.
    shard_no: u32,
    until: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    awake_until: Option<i64>,
    seen: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pauses: BTreeMap<ProviderName, Pause>,
}

#[derive(Serialize, Deserialize)]
struct ShardsItem {
    pk: String,
    sk: String,
    max_shards: u32,
}

impl Store {
    /// A shard's lease, by a consistent read.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn lease(&self, shard: u32) -> Result<Option<Lease>, StoreError> {
        let item = self.get(&pk(shard), SK, "read a lease").await?;
        item.map(decode).transpose()
    }

    /// Stores a lease over its previous epoch.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the lease may be stored all the same.
    pub async fn commit_lease(&self, lease: &Lease) -> Result<Committed<Lease>, StoreError> {
        let item = encode(lease)?;
        let put = self.put_version(item, lease.epoch, "store a lease").await?;
        committed(put, decode)
    }

    /// The highest number that [`Store::put_max_shards`] stored.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn max_shards(&self) -> Result<u32, StoreError> {
        let doing = "read the number of shards";
        let item = self.get(SHARDS_PK, SHARDS_SK, doing).await?;
        item.map_or(Ok(0), decode_shards)
    }

    /// Stores the number of shards, unless a higher one is stored.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn put_max_shards(&self, max_shards: u32) -> Result<(), StoreError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(encode_shards(max_shards)?))
            .condition_expression("attribute_not_exists(pk) OR max_shards < :max_shards")
            .expression_attribute_values(":max_shards", number(max_shards.into()))
            .send();
        match put.await.map_err(aws_sdk_dynamodb::error::SdkError::into_service_error) {
            Ok(_) | Err(PutItemError::ConditionalCheckFailedException(_)) => Ok(()),
            Err(error) => Err(unavailable("store the number of shards", error)),
        }
    }
}

fn pk(shard: u32) -> String {
    format!("lease#{shard}")
}

fn encode(lease: &Lease) -> Result<Item, StoreError> {
    let item = LeaseItem {
        pk: pk(lease.shard),
        sk: SK.into(),
        v: lease.epoch,
        shard_no: lease.shard,
        until: time::millis(lease.until),
        awake_until: lease.awake_until.map(time::millis),
        seen: time::millis(lease.seen),
        pauses: lease.pauses.clone(),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("lease", error))
}

fn decode(item: Item) -> Result<Lease, StoreError> {
    let item: LeaseItem = serde_dynamo::from_item(item).map_err(|error| corrupt("lease", error))?;
    let optional = |millis: Option<i64>| millis.map(instant).transpose();
    Ok(Lease {
        shard: item.shard_no,
        epoch: item.v,
        until: instant(item.until)?,
        awake_until: optional(item.awake_until)?,
        seen: instant(item.seen)?,
        pauses: item.pauses,
    })
}

fn encode_shards(max_shards: u32) -> Result<Item, StoreError> {
    let item = ShardsItem { pk: SHARDS_PK.into(), sk: SHARDS_SK.into(), max_shards };
    serde_dynamo::to_item(item).map_err(|error| corrupt("number of shards", error))
}

fn decode_shards(item: Item) -> Result<u32, StoreError> {
    let item: ShardsItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("number of shards", error))?;
    Ok(item.max_shards)
}

#[cfg(test)]
mod tests {
    use domain::polling::PauseReason;

    use super::*;

    #[test]
    fn lease_round_trips() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let asleep = Lease::taken_over(None, 7, now);
        let pause = Pause {
            since: now,
            until: now,
            failures: 3,
            reason: PauseReason::ServerError,
            status: Some(503),
            renders: 4,
            spec: 17,
        };
        let pauses = BTreeMap::from([(ProviderName::parse("zvid").unwrap(), pause)]);
        let awake = asleep.renewed(true, now, pauses, now);
        for lease in [asleep, awake] {
            let item = encode(&lease).unwrap();
            assert!(!item.contains_key("shard"), "it would be among the active jobs");
            assert_eq!(decode(item).unwrap(), lease);
        }
        assert_eq!(decode_shards(encode_shards(4).unwrap()).unwrap(), 4);
        assert!(decode(Item::new()).is_err());
    }
}
