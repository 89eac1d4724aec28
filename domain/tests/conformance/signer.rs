//! A provider that signs, made from the facts and not from the spec: HMAC from its
//! definition in RFC 2104, so that nothing is shared with the verifier.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use domain::verifier::{Incoming, SignatureScheme, Verification, VerifierSecrets};
use sha2::{Digest, Sha256};

use crate::facts::Signature;

/// A signed callback, before it is sent.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What the provider chooses for one callback.
#[derive(Clone, Copy)]
pub(crate) struct SignerInput<'a> {
    pub(crate) secret: &'a str,
    pub(crate) id: &'a str,
    pub(crate) at: DateTime<Utc>,
}

impl Signature {
    /// The callback as the provider sends it.
    pub(crate) fn sign(&self, call: SignerInput<'_>) -> Signed {
        let signature = self.signature(call);
        self.sealed(call, &signature)
    }

    /// The callback with that signature.
    pub(crate) fn sealed(&self, call: SignerInput<'_>, signature: &[u8]) -> Signed {
        let timestamp = call.at.timestamp().to_string();
        let fill = |text: &String| {
            text.replace("{timestamp}", &timestamp)
                .replace("{id}", call.id)
                .replace("{hex}", &hex::encode(signature))
                .replace("{base64}", &STANDARD.encode(signature))
        };
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), fill(value)));
        Signed { headers: headers.collect(), body: self.body.to_string().into_bytes() }
    }

    pub(crate) fn signature(&self, call: SignerInput<'_>) -> Vec<u8> {
        let key = match &self.base64_after {
            Some(prefix) => STANDARD.decode(call.secret.strip_prefix(prefix).unwrap()).unwrap(),
            None => call.secret.as_bytes().to_vec(),
        };
        let content = self
            .content
            .replace("{timestamp}", &call.at.timestamp().to_string())
            .replace("{id}", call.id)
            .replace("{body}", &self.body.to_string());
        hmac_sha256(&key, content.as_bytes())
    }
}

impl Signed {
    pub(crate) fn verify(
        &self,
        scheme: &SignatureScheme,
        secrets: &VerifierSecrets,
        now: DateTime<Utc>,
    ) -> Verification {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        scheme.verify(&Incoming { headers: &headers, body: &self.body }, secrets, now)
    }
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    let key = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block[..key.len()].copy_from_slice(&key);
    let keyed = |pad: u8, text: &[u8]| {
        let padded = block.iter().map(|byte| byte ^ pad);
        Sha256::digest(padded.chain(text.iter().copied()).collect::<Vec<u8>>()).to_vec()
    };
    keyed(0x5c, &keyed(0x36, message))
}
