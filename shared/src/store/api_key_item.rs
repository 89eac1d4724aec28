//! The item of an API key. It has the key's hash and never the key.

use domain::credential::{ApiKeyHash, KeyCreator, KeyRecord, Scope};
use domain::id::{KeyId, KeyName, KeyOwner};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{Item, StoreError, corrupt};

pub(super) const PK: &str = "api-keys";

const KIND: &str = "API key";

#[derive(Serialize, Deserialize)]
struct ApiKeyItem {
    pk: String,
    /// The key's name.
    sk: KeyName,
    id: KeyId,
    owner: KeyOwner,
    scopes: Vec<String>,
    sha256: String,
    created_at: i64,
    created_by: String,
}

pub(super) fn encode(record: &KeyRecord) -> Result<Item, StoreError> {
    let item = ApiKeyItem {
        pk: PK.into(),
        sk: record.name.clone(),
        id: record.id.clone(),
        owner: record.owner.clone(),
        scopes: record.scopes.scopes().map(|scope| scope.name().to_owned()).collect(),
        sha256: record.hash.to_hex(),
        created_at: time::millis(record.created_at),
        created_by: record.created_by.as_str().to_owned(),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt(KIND, error))
}

pub(super) fn decode(item: Item) -> Result<KeyRecord, StoreError> {
    let item: ApiKeyItem = serde_dynamo::from_item(item).map_err(|error| corrupt(KIND, error))?;
    Ok(KeyRecord {
        id: item.id,
        name: item.sk,
        owner: item.owner,
        // A scope of a later release grants nothing here.
        scopes: item.scopes.iter().filter_map(|name| Scope::parse(name)).collect(),
        hash: ApiKeyHash::parse(&item.sha256).map_err(|error| corrupt(KIND, error))?,
        created_at: instant(item.created_at)?,
        created_by: KeyCreator::parse(&item.created_by).map_err(|error| corrupt(KIND, error))?,
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;
    use chrono::DateTime;

    use super::*;

    fn record(created_by: KeyCreator) -> KeyRecord {
        KeyRecord {
            id: KeyId::from_bytes([7; 16]),
            name: KeyName::parse("shop-backend").unwrap(),
            owner: KeyOwner::parse("shop@example.com").unwrap(),
            scopes: [Scope::Read, Scope::Submit].into_iter().collect(),
            hash: ApiKeyHash::of("rr_example"),
            created_at: DateTime::UNIX_EPOCH,
            created_by,
        }
    }

    #[test]
    fn api_key_round_trips() {
        for by in [KeyCreator::Operator, KeyCreator::Key(KeyId::from_bytes([8; 16]))] {
            let record = record(by);
            let item = encode(&record).unwrap();
            assert!(!format!("{item:?}").contains("rr_example"), "invariant 5");
            assert_eq!(decode(item).unwrap(), record);
        }
    }

    #[test]
    fn api_key_with_foreign_parts_grants_nothing_else() {
        let mut item = encode(&record(KeyCreator::Operator)).unwrap();
        let scopes = ["read", "launch"].map(|name| AttributeValue::S(name.into()));
        item.insert("scopes".into(), AttributeValue::L(scopes.into()));
        assert_eq!(decode(item.clone()).unwrap().scopes, [Scope::Read].into_iter().collect());
        for name in ["id", "sha256", "created_by", "created_at", "owner", "scopes"] {
            let mut item = item.clone();
            item.insert(name.into(), AttributeValue::S("?\n".into()));
            assert!(decode(item.clone()).is_err(), "{name} is wrong");
            item.remove(name);
            assert!(decode(item).is_err(), "{name} is missing");
        }
    }
}
