//! Request records: which job an idempotency key names, with the payload that was submitted.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use domain::id::{JobId, RequestId};
use domain::request::RequestRecord;
use domain::time;

use super::job_item::instant;
use super::put::{Put, WRITE_ID};
use super::{Inserted, Item, Store, StoreError, StoredPayload, corrupt, key, text};

const PK_PREFIX: &str = "request#";
const SK: &str = "payload";

/// A record as it was found in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundRecord {
    /// What it says.
    pub record: RequestRecord,
    /// The request.
    pub payload: StoredPayload,
    /// The id of the write that made it.
    written_by: AttributeValue,
}

impl Store {
    /// A record that is made at `now`, and kept for the retention time.
    #[must_use]
    pub fn new_record(
        &self,
        job: JobId,
        fingerprint: [u8; 32],
        now: DateTime<Utc>,
    ) -> RequestRecord {
        RequestRecord::new(job, fingerprint, self.retention, now)
    }

    /// Stores the record of a request whose key has none.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the record may be stored all the same.
    pub async fn insert_record(
        &self,
        id: &RequestId,
        record: &RequestRecord,
        payload: &StoredPayload,
    ) -> Result<Inserted<FoundRecord>, StoreError> {
        let item = encode(id, record, payload);
        match self.put(item, "attribute_not_exists(pk)", None, "store a request").await? {
            Put::Stored => Ok(Inserted::New),
            Put::Refused(item) => decode(&item.unwrap_or_default()).map(Inserted::Exists),
        }
    }

    /// Stores a record in place of one that was found. Returns whether that one was still there.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the record may be stored all the same.
    pub async fn replace_record(
        &self,
        id: &RequestId,
        found: &FoundRecord,
        record: &RequestRecord,
        payload: &StoredPayload,
    ) -> Result<bool, StoreError> {
        let item = encode(id, record, payload);
        let unchanged = (":w", found.written_by.clone());
        let doing = "store a request in place of an old one";
        Ok(match self.put_expecting(item, "w = :w", Some(unchanged), doing).await? {
            Put::Stored => true,
            Put::Refused(_) => false,
        })
    }
}

fn encode(id: &RequestId, record: &RequestRecord, payload: &StoredPayload) -> Item {
    let number = |number: i64| AttributeValue::N(number.to_string());
    let bytes = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
    // Rounded up, because DynamoDB reads seconds.
    let expires_at = (record.expires_at + TimeDelta::milliseconds(999)).timestamp();
    let mut item = key(&format!("{PK_PREFIX}{id}"), SK);
    item.insert("job".into(), text(record.job_id.as_str()));
    item.insert("fingerprint".into(), bytes(&record.fingerprint));
    item.insert("deflated".into(), bytes(&payload.deflated));
    item.insert("made_at".into(), number(time::millis(record.made_at)));
    item.insert("expires_at".into(), number(expires_at));
    item
}

fn decode(item: &Item) -> Result<FoundRecord, StoreError> {
    let missing = |name: &str| corrupt("request", format!("it has no {name}"));
    let bytes = |name: &str| match item.get(name) {
        Some(AttributeValue::B(blob)) => Ok(blob.as_ref().to_vec()),
        _ => Err(missing(name)),
    };
    let number = |name: &str| match item.get(name) {
        Some(AttributeValue::N(text)) => text.parse().map_err(|_| missing(name)),
        _ => Err(missing(name)),
    };
    let job = match item.get("job") {
        Some(AttributeValue::S(job)) => JobId::parse(job).map_err(|_| missing("job"))?,
        _ => return Err(missing("job")),
    };
    let fingerprint = bytes("fingerprint")?.try_into();
    let seconds: i64 = number("expires_at")?;
    Ok(FoundRecord {
        record: RequestRecord {
            job_id: job,
            fingerprint: fingerprint.map_err(|_| missing("fingerprint of 32 bytes"))?,
            made_at: instant(number("made_at")?)?,
            expires_at: DateTime::from_timestamp(seconds, 0).ok_or_else(|| missing("end"))?,
        },
        payload: StoredPayload { deflated: bytes("deflated")? },
        written_by: item.get(WRITE_ID).cloned().ok_or_else(|| missing(WRITE_ID))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_round_trips() {
        let made_at = time::from_millis(1_800_000_000_000).unwrap();
        let job = JobId::from_bytes([7; 16]);
        let record = RequestRecord::new(job.clone(), [1; 32], TimeDelta::days(90), made_at);
        let payload = StoredPayload::compress(b"{}").unwrap();
        let mut item = encode(&RequestId::of_job(&job), &record, &payload);
        let written_by = AttributeValue::B(Blob::new([5; 8]));
        item.insert(WRITE_ID.into(), written_by.clone());
        let found = FoundRecord { record, payload, written_by };
        assert_eq!(decode(&item).unwrap(), found);
        for name in ["job", "fingerprint", "deflated", "made_at", "expires_at", WRITE_ID] {
            let mut item = item.clone();
            item.remove(name);
            assert!(matches!(decode(&item), Err(StoreError::Corrupt { .. })), "{name}");
        }
    }
}
