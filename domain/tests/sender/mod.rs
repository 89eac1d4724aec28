//! A sender for tests. It reads the rows' JSON by itself and makes HMAC from its definition;
//! its ed25519 is another library's.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ed25519_compact::{KeyPair, Seed};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use url::form_urlencoded;

use domain::verifier::{Incoming, SignatureScheme, Verification, VerifierSecrets};

/// Noon of the tests, in seconds.
pub(crate) const NOON: i64 = 1_700_000_000;
pub(crate) const PAYLOAD: &[u8] =
    br#"{"id":"r-1","status":"done","url":"https://cdn.example/a?b=1&c=2"}"#;
pub(crate) const ID: &str = "msg_1";

pub(crate) fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(NOON, 0).unwrap()
}

/// One sender.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) sender: String,
    pub(crate) scheme: SignatureScheme,
    pub(crate) raw: Value,
    /// How it writes a form, if it sends one.
    pub(crate) form: Form,
}

/// The two ways to write a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    UrlEncoded,
    Multipart,
}

/// What is sent, before it is written into headers.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) payload: Vec<u8>,
    pub(crate) id: String,
    pub(crate) timestamp: String,
    pub(crate) signatures: Vec<Vec<u8>>,
    /// What goes beside the signature, where the row has that.
    pub(crate) token: Vec<u8>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The rows of the table; those that read a form twice, because there are two ways to write
/// one.
pub(crate) fn rows() -> Vec<Row> {
    let rows: Vec<Value> =
        serde_json::from_str(include_str!("../../src/verifier/schemes.json")).unwrap();
    let rows = rows.iter().flat_map(|row| {
        let row = Row::new(row["sender"].as_str().unwrap(), row["scheme"].clone());
        let sender = format!("{}, multipart", row.sender);
        let multipart = Row { sender, form: Form::Multipart, ..row.clone() };
        let multipart = row.raw["content"].to_string().contains("{form:").then_some(multipart);
        [Some(row), multipart]
    });
    rows.flatten().collect()
}

pub(crate) fn row(sender: &str) -> Row {
    rows().into_iter().find(|row| row.sender == sender).unwrap()
}

impl Row {
    pub(crate) fn new(sender: &str, raw: Value) -> Self {
        let scheme = serde_json::from_value(raw.clone())
            .unwrap_or_else(|error| panic!("{sender}: {error}\n{raw}"));
        Self { sender: sender.to_owned(), scheme, raw, form: Form::UrlEncoded }
    }

    pub(crate) fn is_token(&self) -> bool {
        self.raw["method"]["kind"] == "token"
    }

    /// The header that has the signature; none when a form has it.
    pub(crate) fn signature_header(&self) -> Option<String> {
        self.raw["carrier"]["header"].as_str().map(str::to_owned)
    }

    /// Whether several signatures fit into one request.
    pub(crate) fn has_list(&self) -> bool {
        self.raw["carrier"]["kind"] == "pairs" || self.raw["carrier"]["kind"] == "list"
    }

    pub(crate) fn stamp(&self, seconds: i64) -> String {
        match self.raw["timestamp"]["unit"].as_str() {
            Some("milliseconds") => (seconds * 1000).to_string(),
            _ => seconds.to_string(),
        }
    }

    fn key_bytes(number: u8) -> [u8; 32] {
        Sha256::digest([number]).into()
    }

    fn signer(number: u8) -> &'static KeyPair {
        static SIGNERS: LazyLock<Vec<KeyPair>> = LazyLock::new(|| {
            let seeds = (0..=3).map(|number| Seed::new(Row::key_bytes(number)));
            seeds.map(KeyPair::from_seed).collect()
        });
        &SIGNERS[usize::from(number)]
    }

    /// The text by which the receiver knows secret `number`.
    pub(crate) fn secret_text(&self, number: u8) -> String {
        let key = self.key_text(number);
        match self.raw["token"].is_object() {
            true => format!("{}:{key}", Self::token_text(number)),
            false => key,
        }
    }

    /// A password may have colons.
    fn token_text(number: u8) -> String {
        format!("user-{number}:pass:word")
    }

    fn key_text(&self, number: u8) -> String {
        let bytes = match self.raw["method"]["kind"].as_str() {
            Some("ed25519") => *Self::signer(number).pk,
            _ => Self::key_bytes(number),
        };
        let key = &self.raw["key"];
        match key["form"].as_str() {
            Some("text") => format!("whsec_text {number} {}", hex::encode(&bytes[..8])),
            _ => {
                let prefix = key["prefix"].as_str().unwrap_or_default();
                let encoding = key["encoding"].as_str().unwrap();
                format!("{prefix}{}", encoded(encoding, &bytes))
            }
        }
    }

    pub(crate) fn secrets(&self, numbers: &[u8]) -> VerifierSecrets {
        let texts: Vec<String> = numbers.iter().map(|number| self.secret_text(*number)).collect();
        self.scheme.parse_secrets(&texts.join(",")).unwrap()
    }

    pub(crate) fn seal(&self, numbers: &[u8]) -> Sealed {
        self.seal_with(PAYLOAD, ID, &self.stamp(NOON), numbers)
    }

    pub(crate) fn seal_with(
        &self,
        payload: &[u8],
        id: &str,
        timestamp: &str,
        numbers: &[u8],
    ) -> Sealed {
        let signatures = numbers.iter().map(|number| {
            let text = self.key_text(*number);
            let shared = match self.raw["key"]["form"].as_str() {
                Some("text") => text.into_bytes(),
                _ => Self::key_bytes(*number).to_vec(),
            };
            let message = self.message(payload, id, timestamp, &shared);
            let hash = self.raw["method"]["hash"].as_str();
            match self.raw["method"]["kind"].as_str().unwrap() {
                "token" => shared,
                "hmac" => hmac(hash.unwrap(), &shared, &message),
                "digest" => digest(hash.unwrap(), &message),
                "ed25519" => Self::signer(*number).sk.sign(message, None).to_vec(),
                other => panic!("{other}"),
            }
        });
        Sealed {
            payload: payload.to_vec(),
            id: id.to_owned(),
            timestamp: timestamp.to_owned(),
            signatures: signatures.collect(),
            token: Self::token_text(numbers[0]).into_bytes(),
        }
    }

    fn message(&self, payload: &[u8], id: &str, timestamp: &str, secret: &[u8]) -> Vec<u8> {
        let Some(template) = self.raw["content"].as_str() else { return Vec::new() };
        let mut parts = template.split('{');
        let mut message = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            let (name, text) = part.split_once('}').unwrap();
            message.extend(match name {
                "timestamp" => timestamp.as_bytes().to_vec(),
                "id" => id.as_bytes().to_vec(),
                "secret" => secret.to_vec(),
                "sha256Hex(body)" => hex::encode(Sha256::digest(payload)).into_bytes(),
                header if header.starts_with("header:") => b"value".to_vec(),
                _ => payload.to_vec(),
            });
            message.extend(text.as_bytes());
        }
        message
    }

    pub(crate) fn wire(&self, sealed: &Sealed) -> Wire {
        let encoding = self.raw["encoding"].as_str().unwrap_or("none");
        let texts: Vec<String> =
            sealed.signatures.iter().map(|signature| encoded(encoding, signature)).collect();
        self.wire_with(sealed, &texts)
    }

    /// Writes `signatures`, already encoded, in the place of the sealed ones.
    pub(crate) fn wire_with(&self, sealed: &Sealed, signatures: &[String]) -> Wire {
        let mut headers = vec![("Content-Type".to_owned(), b"application/json".to_vec())];
        let place = &self.raw["timestamp"]["place"];
        if let Some(header) = place["header"].as_str() {
            headers.push((header.to_owned(), sealed.timestamp.clone().into_bytes()));
        }
        if let Some(header) = self.raw["replayId"]["header"].as_str() {
            headers.push((header.to_owned(), sealed.id.clone().into_bytes()));
        }
        let content = self.raw["content"].as_str().unwrap_or_default();
        for part in content.split("{header:").skip(1) {
            headers.push((part.split_once('}').unwrap().0.to_owned(), b"value".to_vec()));
        }

        let carrier = &self.raw["carrier"];
        let prefix = carrier["prefix"].as_str().unwrap_or_default();
        let value = match carrier["kind"].as_str().unwrap() {
            "pairs" => {
                let key = carrier["keys"][0].as_str().unwrap();
                let mut pairs = vec!["other=1".to_owned()];
                if let Some(key) = place["key"].as_str() {
                    pairs.push(format!("{key}={}", sealed.timestamp));
                }
                pairs.extend(signatures.iter().map(|signature| format!("{key}={signature}")));
                pairs.join(carrier["separator"].as_str().unwrap())
            }
            "list" => {
                let entries = signatures.iter().map(|signature| format!("{prefix}{signature}"));
                let entries: Vec<String> =
                    ["v9,other".to_owned()].into_iter().chain(entries).collect();
                entries.join(" ")
            }
            _ => format!("{prefix}{}", signatures[0]),
        };
        if let Some(header) = carrier["header"].as_str() {
            headers.push((header.to_uppercase(), value.clone().into_bytes()));
        }

        let token = &self.raw["token"];
        if let Some(header) = token["header"].as_str() {
            let prefix = token["prefix"].as_str().unwrap_or_default();
            let encoding = token["encoding"].as_str().unwrap_or("none");
            let text = format!("{prefix}{}", encoded(encoding, &sealed.token));
            headers.push((header.to_uppercase(), text.into_bytes()));
        }

        let own = carrier["field"].as_str().map(|field| (field, value.into_bytes()));
        let body = match content.split_once("{form:") {
            None => sealed.payload.clone(),
            Some((_, rest)) => {
                let field = rest.split_once('}').unwrap().0;
                self.form.written(own.into_iter().chain([(field, sealed.payload.clone())]))
            }
        };
        Wire { headers, body }
    }
}

impl Form {
    pub(crate) fn written<'a>(
        self,
        fields: impl IntoIterator<Item = (&'a str, Vec<u8>)>,
    ) -> Vec<u8> {
        match self {
            Self::UrlEncoded => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                for (name, value) in fields {
                    form.append_pair(name, std::str::from_utf8(&value).unwrap());
                }
                form.finish().into_bytes()
            }
            Self::Multipart => {
                let mut body = Vec::new();
                for (name, value) in fields {
                    let head = format!("Content-Disposition: form-data; name=\"{name}\"");
                    body.extend(format!("--bound-ary\r\n{head}\r\n\r\n").into_bytes());
                    body.extend(value);
                    body.extend(b"\r\n");
                }
                body.extend(b"--bound-ary--\r\n");
                body
            }
        }
    }
}

impl Wire {
    pub(crate) fn verify(
        &self,
        row: &Row,
        secrets: &VerifierSecrets,
        now: DateTime<Utc>,
    ) -> Verification {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        row.scheme.verify(&Incoming { headers: &headers, body: &self.body }, secrets, now)
    }

    pub(crate) fn without(&self, name: &str) -> Self {
        let mut wire = self.clone();
        wire.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        wire
    }

    pub(crate) fn with(&self, name: &str, value: &[u8]) -> Self {
        let mut wire = self.without(name);
        wire.headers.push((name.to_owned(), value.to_vec()));
        wire
    }
}

pub(crate) fn encoded(encoding: &str, bytes: &[u8]) -> String {
    match encoding {
        "hex" => hex::encode(bytes),
        "base64" => STANDARD.encode(bytes),
        "base64Url" => URL_SAFE_NO_PAD.encode(bytes),
        _ => String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

fn digest(hash: &str, message: &[u8]) -> Vec<u8> {
    match hash {
        "sha1" => Sha1::digest(message).to_vec(),
        "sha256" => Sha256::digest(message).to_vec(),
        "sha384" => Sha384::digest(message).to_vec(),
        "sha512" => Sha512::digest(message).to_vec(),
        other => panic!("{other}"),
    }
}

/// RFC 2104, from its definition.
pub(crate) fn hmac(hash: &str, key: &[u8], message: &[u8]) -> Vec<u8> {
    let block = if matches!(hash, "sha1" | "sha256") { 64 } else { 128 };
    let mut padded = if key.len() > block { digest(hash, key) } else { key.to_vec() };
    padded.resize(block, 0);
    let keyed = |pad: u8, text: &[u8]| {
        let key = padded.iter().map(|byte| byte ^ pad);
        digest(hash, &key.chain(text.iter().copied()).collect::<Vec<u8>>())
    };
    keyed(0x5c, &keyed(0x36, message))
}
