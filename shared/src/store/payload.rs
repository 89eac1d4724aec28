//! The submitted payload, compressed. It is written once and never changed, so that what a
//! video was made from can be looked up.

use std::io::{self, Read, Write};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use domain::id::JobId;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::job_item::pk;
use super::put::Put;
use super::{Inserted, Item, Store, StoreError, corrupt, key};

const SK: &str = "payload";

/// The largest compressed payload, in bytes. DynamoDB takes items of up to 400 KiB.
pub const MAX_STORED_PAYLOAD: usize = 380 * 1024;

/// A request body is too large, even compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is {size} bytes when compressed; at most {MAX_STORED_PAYLOAD} can be kept")]
pub struct PayloadTooLarge {
    /// The compressed size, in bytes.
    pub size: usize,
}

/// A compressed request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPayload {
    deflated: Vec<u8>,
    /// SHA-256 of the canonical request, as in the job.
    pub fingerprint: [u8; 32],
}

impl StoredPayload {
    /// Compresses a request body.
    ///
    /// # Errors
    /// When the compressed body does not fit into an item.
    pub fn compress(body: &[u8], fingerprint: [u8; 32]) -> Result<Self, PayloadTooLarge> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        // Writing to a Vec does not fail; an empty payload would be noticed on reading.
        let deflated = encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default();
        if deflated.len() > MAX_STORED_PAYLOAD {
            return Err(PayloadTooLarge { size: deflated.len() });
        }
        Ok(Self { deflated, fingerprint })
    }

    /// The request body as it was posted.
    ///
    /// # Errors
    /// When what is stored is not what [`StoredPayload::compress`] made.
    pub fn body(&self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        DeflateDecoder::new(self.deflated.as_slice()).read_to_end(&mut body)?;
        Ok(body)
    }
}

impl Store {
    /// Stores a new payload. An existing one is never replaced.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the payload may be stored all the same.
    pub async fn insert_payload(
        &self,
        id: &JobId,
        payload: &StoredPayload,
        now: DateTime<Utc>,
    ) -> Result<Inserted<StoredPayload>, StoreError> {
        let item = encode(id, payload, (now + self.retention).timestamp())?;
        match self.put(item, "attribute_not_exists(pk)", None, "store a payload").await? {
            Put::Stored => Ok(Inserted::New),
            Put::Refused(item) => decode(&item.unwrap_or_default()).map(Inserted::Exists),
        }
    }
}

fn encode(id: &JobId, payload: &StoredPayload, expires_at: i64) -> Result<Item, StoreError> {
    let mut item = key(&pk(id), SK);
    item.insert("deflated".into(), AttributeValue::B(Blob::new(payload.deflated.clone())));
    item.insert("fingerprint".into(), AttributeValue::B(Blob::new(payload.fingerprint)));
    item.insert("expires_at".into(), AttributeValue::N(expires_at.to_string()));
    Ok(item)
}

fn decode(item: &Item) -> Result<StoredPayload, StoreError> {
    let bytes = |name: &str| match item.get(name) {
        Some(AttributeValue::B(blob)) => Ok(blob.as_ref().to_vec()),
        _ => Err(corrupt("payload", format!("it has no {name}"))),
    };
    Ok(StoredPayload {
        deflated: bytes("deflated")?,
        fingerprint: bytes("fingerprint")?
            .try_into()
            .map_err(|_| corrupt("payload", "its fingerprint is not 32 bytes"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_round_trips() {
        let body = br#"{"payload":{"scenes":[1,1,1,1,1,1,1,1]}}"#.repeat(100);
        let stored = StoredPayload::compress(&body, [1; 32]).unwrap();
        let item = encode(&JobId::from_bytes([1; 16]), &stored, 5).unwrap();
        assert_eq!(decode(&item).unwrap(), stored);
        assert_eq!(stored.body().unwrap(), body);
        assert!(stored.deflated.len() < body.len() / 10);
    }

    #[test]
    fn oversized_payload_is_refused() {
        let mut noise = 1u64;
        let body: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()[0]
        })
        .take(600_000)
        .collect();
        let error = StoredPayload::compress(&body, [1; 32]).unwrap_err();
        assert!(error.size > MAX_STORED_PAYLOAD);
    }
}
