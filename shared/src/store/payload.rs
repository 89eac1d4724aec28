//! The submitted payload, compressed, so that what a video was made from can be looked up.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

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
    pub(super) deflated: Vec<u8>,
}

impl StoredPayload {
    /// Compresses a request body.
    ///
    /// # Errors
    /// When the compressed body does not fit into an item.
    pub fn compress(body: &[u8]) -> Result<Self, PayloadTooLarge> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        // Writing to a Vec does not fail; an empty payload would be noticed on reading.
        let deflated = encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default();
        if deflated.len() > MAX_STORED_PAYLOAD {
            return Err(PayloadTooLarge { size: deflated.len() });
        }
        Ok(Self { deflated })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_round_trips() {
        let body = br#"{"payload":{"scenes":[1,1,1,1,1,1,1,1]}}"#.repeat(100);
        let stored = StoredPayload::compress(&body).unwrap();
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
        let error = StoredPayload::compress(&body).unwrap_err();
        assert!(error.size > MAX_STORED_PAYLOAD);
    }
}
