//! The signature of the concatenated `parts`.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// The secret of callbacks: a text that is not empty.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SigningSecret(String);

impl SigningSecret {
    /// The signature of `parts`, one after the other.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> String {
        // HMAC accepts a key of any length, so this cannot fail. Every receiver would refuse an
        // empty signature.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else {
            return String::new();
        };
        for part in parts {
            mac.update(part);
        }
        hex::encode(mac.finalize().into_bytes())
    }
}

impl TryFrom<String> for SigningSecret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Err("a secret is not empty") } else { Ok(Self(text)) }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SigningSecret {
        SigningSecret::try_from("whsec_test".to_owned()).unwrap()
    }

    /// The expected values were computed outside this program.
    #[test]
    fn signatures_match_known_values() {
        let viralsync = r#"{"jobId":"job_a1b2c3d4e5f6","status":"done","progress":1.0,"outputUrl":"https://r2.viralsync.io/outputs/job_a1b2c3d4e5f6/output.mp4","timestamp":"2026-04-02T10:00:52.000Z"}"#;
        assert_eq!(
            secret().sign(&[viralsync.as_bytes()]),
            "0e7ec33015138be66da4ad635af0b3432e4caf43cd73148e343f88d62a56e8a5"
        );
        let renderio = r#"{"data":{"command_id":"a1b2c3d4-e5f6-7890-abcd-ef1234567890","status":"SUCCESS"},"timestamp":1700000000000}"#;
        assert_eq!(
            secret().sign(&[renderio.as_bytes()]),
            "5cd9589bd40eafb7dfd72a56e49a15b5a714a7d8074a7d949a2f5ba8291d1733"
        );
    }

    #[test]
    fn secret_is_neither_empty_nor_shown() {
        assert!(SigningSecret::try_from(String::new()).is_err());
        assert_eq!(format!("{:?}", secret()), "SigningSecret(redacted)");
    }
}
