//! The provider specs of a stack.
//!
//! Each spec is a document, an item that is written once, under an id of its own. The index is
//! one item that names the document of every spec. A change writes the document first and the
//! index afterwards, so one conditional write puts it in force, and a reader of the index finds
//! every document that it names. A document that is replaced expires after a day: no
//! process works with an index of that age.
//!
//! An entry of the index that a later release wrote is kept as it is by a change of another.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use domain::id::ProviderName;
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{
    Committed, Consistency, Item, Put, Store, StoreError, committed, corrupt, key, number, text,
    unavailable,
};

const PK: &str = "provider-specs";
const INDEX_SK: &str = "index";

/// The largest spec, in bytes. The shipped ones have up to 3 KB.
pub const MAX_SPEC_BYTES: usize = 16 * 1024;

/// How long a document is kept after it was replaced.
const REPLACED_FOR: TimeDelta = TimeDelta::days(1);

/// Which specs there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecIndex {
    /// Counts changes; zero before the first.
    pub revision: u64,
    specs: BTreeMap<String, AttributeValue>,
    /// When pauses of providers were ended by hand, in Unix milliseconds. It is here because every
    /// process reads the index anyway.
    resumed: BTreeMap<String, i64>,
}

/// What the index says of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecEntry {
    pub document: DocumentId,
    /// The size of the document.
    pub bytes: usize,
    /// The revision of the index that brought it. No two specs have the same.
    pub version: u64,
    /// Who put it.
    pub put_by: String,
    /// When.
    pub put_at: DateTime<Utc>,
}

/// The id of a document, which is never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentId(String);

impl SpecIndex {
    /// The names in the index, and what it says of each. None of an entry that this release
    /// cannot read.
    pub fn specs(&self) -> impl Iterator<Item = (&str, Option<SpecEntry>)> {
        self.specs.iter().map(|(name, entry)| (name.as_str(), decode_entry(entry)))
    }

    /// Whether the index has this name.
    #[must_use]
    pub fn contains(&self, name: &ProviderName) -> bool {
        self.specs.contains_key(name.as_str())
    }

    /// What the index says of one spec, if this release can read it.
    #[must_use]
    pub fn get(&self, name: &ProviderName) -> Option<SpecEntry> {
        self.specs.get(name.as_str()).and_then(decode_entry)
    }

    /// Whether an entry has this document, also one that this release cannot read otherwise.
    fn names(&self, document: &DocumentId) -> bool {
        let id = text(&document.0);
        self.specs.values().any(|entry| match entry {
            AttributeValue::M(members) => members.get("document") == Some(&id),
            _ => false,
        })
    }

    /// The size of all documents together. One whose size is not known counts as the largest.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sizes = self.specs().map(|(_, entry)| entry.map_or(MAX_SPEC_BYTES, |it| it.bytes));
        sizes.fold(0, usize::saturating_add)
    }

    /// The next index, in which this document of so many bytes is the spec of `name`.
    #[must_use]
    pub fn with(
        &self,
        name: &ProviderName,
        document: DocumentId,
        bytes: usize,
        put_by: &str,
        put_at: DateTime<Utc>,
    ) -> (Self, SpecEntry) {
        let version = self.revision.saturating_add(1);
        let entry = SpecEntry { document, bytes, version, put_by: put_by.to_owned(), put_at };
        let mut specs = self.specs.clone();
        specs.insert(name.to_string(), encode_entry(&entry));
        (Self { revision: version, specs, resumed: self.resumed.clone() }, entry)
    }

    /// The next index, without `name`.
    #[must_use]
    pub fn without(&self, name: &ProviderName) -> Self {
        let mut specs = self.specs.clone();
        specs.remove(name.as_str());
        let revision = self.revision.saturating_add(1);
        Self { revision, specs, resumed: self.resumed.clone() }
    }

    /// The next index, by which the provider's pauses end that began up to `at`.
    #[must_use]
    pub fn resumed(&self, name: &ProviderName, at: DateTime<Utc>) -> Self {
        let mut resumed = self.resumed.clone();
        resumed.insert(name.to_string(), time::millis(at));
        Self { revision: self.revision.saturating_add(1), specs: self.specs.clone(), resumed }
    }

    /// Up to when each provider's pauses are ended by hand.
    #[must_use]
    pub fn resumes(&self) -> BTreeMap<String, DateTime<Utc>> {
        let times = self.resumed.iter();
        times.filter_map(|(name, at)| Some((name.clone(), instant(*at).ok()?))).collect()
    }
}

impl Store {
    /// The index of the provider specs.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn spec_index(&self) -> Result<SpecIndex, StoreError> {
        let item = self.get(PK, INDEX_SK, "read the index of provider specs").await?;
        item.map_or(Ok(SpecIndex::default()), decode_index)
    }

    /// Stores the next index over the one that it was made from.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the change may be stored all the same.
    pub async fn commit_spec_index(
        &self,
        index: &SpecIndex,
    ) -> Result<Committed<SpecIndex>, StoreError> {
        let mut item = key(PK, INDEX_SK);
        item.insert("v".into(), number(index.revision));
        let specs: HashMap<_, _> = index.specs.clone().into_iter().collect();
        item.insert("specs".into(), AttributeValue::M(specs));
        if !index.resumed.is_empty() {
            let resumed = index.resumed.iter();
            let resumed =
                resumed.map(|(name, at)| (name.clone(), AttributeValue::N(at.to_string())));
            item.insert("resumed".into(), AttributeValue::M(resumed.collect()));
        }
        let doing = "store the index of provider specs";
        committed(self.put_version(item, index.revision, doing).await?, decode_index)
    }

    /// Stores a document, of which no index knows yet.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn insert_spec_document(&self, json: &str) -> Result<DocumentId, StoreError> {
        let doing = "store a provider spec";
        let id: [u8; 12] = self.entropy.bytes().map_err(|error| unavailable(doing, error))?;
        let id = DocumentId(hex::encode(id));
        let item = encode_document(&id, json, None);
        match self.put(item, "attribute_not_exists(pk)", None, doing).await? {
            Put::Stored => Ok(id),
            Put::Refused(_) => Err(corrupt("new provider spec", "its id is taken")),
        }
    }

    /// Lets a document expire, unless the index names it.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn retire_spec_document(
        &self,
        id: &DocumentId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if self.spec_index().await?.names(id) {
            return Ok(());
        }
        let documents = self.spec_documents(std::slice::from_ref(id)).await?;
        let Some(json) = documents.get(id) else { return Ok(()) };
        let item = encode_document(id, json, Some(now + REPLACED_FOR));
        let doing = "let a provider spec expire";
        self.put(item, "attribute_exists(pk)", None, doing).await.map(drop)
    }

    /// The documents of these ids that exist and can be read.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn spec_documents(
        &self,
        ids: &[DocumentId],
    ) -> Result<BTreeMap<DocumentId, String>, StoreError> {
        let keys = ids.iter().map(|id| key(PK, &document_sk(id))).collect();
        let items = self.batch(keys, Consistency::Strong, "read provider specs").await?;
        Ok(items.into_iter().filter_map(decode_document).collect())
    }
}

#[derive(Serialize, Deserialize)]
struct EntryItem {
    document: String,
    #[serde(default = "largest")]
    bytes: usize,
    v: u64,
    by: String,
    at: i64,
}

fn largest() -> usize {
    MAX_SPEC_BYTES
}

fn encode_entry(entry: &SpecEntry) -> AttributeValue {
    AttributeValue::M(HashMap::from([
        ("document".to_owned(), text(&entry.document.0)),
        ("bytes".to_owned(), AttributeValue::N(entry.bytes.to_string())),
        ("v".to_owned(), number(entry.version)),
        ("by".to_owned(), text(&entry.put_by)),
        ("at".to_owned(), AttributeValue::N(time::millis(entry.put_at).to_string())),
    ]))
}

fn decode_entry(entry: &AttributeValue) -> Option<SpecEntry> {
    let AttributeValue::M(members) = entry else { return None };
    let item: EntryItem = serde_dynamo::from_item(members.clone()).ok()?;
    Some(SpecEntry {
        document: DocumentId(item.document),
        bytes: item.bytes,
        version: item.v,
        put_by: item.by,
        put_at: instant(item.at).ok()?,
    })
}

fn decode_index(mut item: Item) -> Result<SpecIndex, StoreError> {
    let broken = |problem: &dyn fmt::Display| corrupt("index of provider specs", problem);
    let Some(AttributeValue::N(revision)) = item.remove("v") else {
        return Err(broken(&"it has no revision"));
    };
    let revision = revision.parse().map_err(|error: std::num::ParseIntError| broken(&error))?;
    let resumed = match item.remove("resumed") {
        Some(AttributeValue::M(resumed)) => resumed,
        Some(_) | None => HashMap::new(),
    };
    let resumed = resumed.into_iter().filter_map(|(name, at)| match at {
        AttributeValue::N(at) => Some((name, at.parse().ok()?)),
        _ => None,
    });
    let resumed = resumed.collect();
    match item.remove("specs") {
        Some(AttributeValue::M(specs)) => {
            Ok(SpecIndex { revision, specs: specs.into_iter().collect(), resumed })
        }
        Some(_) | None => Err(broken(&"it has no specs")),
    }
}

fn document_sk(id: &DocumentId) -> String {
    format!("document#{}", id.0)
}

fn encode_document(id: &DocumentId, json: &str, expires_at: Option<DateTime<Utc>>) -> Item {
    let mut item = key(PK, &document_sk(id));
    item.insert("json".into(), text(json));
    if let Some(expires_at) = expires_at {
        let seconds = expires_at.timestamp().to_string();
        item.insert("expires_at".into(), AttributeValue::N(seconds));
    }
    item
}

fn decode_document(mut item: Item) -> Option<(DocumentId, String)> {
    let (Some(AttributeValue::S(sk)), Some(AttributeValue::S(json))) =
        (item.remove("sk"), item.remove("json"))
    else {
        return None;
    };
    Some((DocumentId(sk.strip_prefix("document#")?.to_owned()), json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ProviderName {
        ProviderName::parse(name).unwrap()
    }

    #[test]
    fn spec_entry_round_trips() {
        let at = time::from_millis(1_800_000_000_123).unwrap();
        let document = DocumentId("0a".into());
        let (index, entry) = SpecIndex::default().with(&name("acme"), document, 7, "key 3944", at);
        assert_eq!((index.revision, entry.version, index.bytes()), (1, 1, 7));
        assert_eq!(index.get(&name("acme")), Some(entry));
        assert_eq!(index.get(&name("zvid")), None);
        assert!(!index.without(&name("acme")).contains(&name("acme")));
        let resumed = index.resumed(&name("zvid"), at).without(&name("acme"));
        assert_eq!(resumed.revision, 3);
        assert_eq!(resumed.resumes(), [("zvid".to_owned(), at)].into());
    }

    #[test]
    fn foreign_spec_entry_survives_a_change() {
        let strange = AttributeValue::M(HashMap::from([("x".to_owned(), text("y"))]));
        let specs = BTreeMap::from([("later".to_owned(), strange.clone())]);
        let index = SpecIndex { revision: 3, specs, ..SpecIndex::default() };
        assert_eq!(index.specs().collect::<Vec<_>>(), [("later", None)]);
        let document = DocumentId("0a".into());
        let (next, _) = index.with(&name("acme"), document, 7, "key", DateTime::UNIX_EPOCH);
        assert_eq!(next.specs.get("later"), Some(&strange));
        assert_eq!(next.bytes(), MAX_SPEC_BYTES + 7, "its size is not known");
    }
}
