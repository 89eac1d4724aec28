//! Every combination that a row may be.

use serde_json::{Value, json};

use crate::sender::{NOON, PAYLOAD, Row, noon};
use domain::verifier::{Reason, SignatureScheme, Verification};

const CONTENTS: &[&str] = &[
    "{body}",
    "{timestamp}.{body}",
    "{timestamp}:{body}",
    "{timestamp}{body}",
    "{id}.{timestamp}.{body}",
    "v0:{timestamp}:{body}",
    "{id}\n{header:x-user}\n{timestamp}\n{sha256Hex(body)}",
    "{body}{timestamp}{secret}",
    "{body}{secret}",
    "{header:x-user}:{body}",
    "{form:payload}",
];

fn methods() -> Vec<Value> {
    let hashes = ["sha1", "sha256", "sha384", "sha512"];
    let kinds = ["hmac", "digest"];
    let hashed =
        kinds.iter().flat_map(|kind| hashes.map(|hash| json!({"kind": kind, "hash": hash})));
    hashed.chain([json!({"kind": "ed25519"})]).collect()
}

fn carriers() -> Vec<Value> {
    vec![
        json!({"kind": "header", "header": "x-sig"}),
        json!({"kind": "header", "header": "x-sig", "prefix": "sha256="}),
        json!({"kind": "pairs", "header": "x-sig", "separator": ",", "keys": ["v1"]}),
        json!({"kind": "pairs", "header": "x-sig", "separator": ";", "keys": ["h1", "h2"]}),
        json!({"kind": "list", "header": "x-sig", "prefix": "v1,"}),
        json!({"kind": "list", "header": "x-sig", "prefix": "v1a,"}),
        json!({"kind": "form", "field": "signature", "prefix": "sha384:"}),
    ]
}

fn keys() -> Vec<Value> {
    let encoded =
        |encoding, prefix| json!({"form": "encoded", "encoding": encoding, "prefix": prefix});
    vec![
        json!({"form": "text"}),
        encoded("base64", "whsec_"),
        encoded("base64", "whpk_"),
        encoded("base64Url", ""),
        encoded("hex", ""),
    ]
}

fn combinations() -> Vec<Value> {
    let mut all = Vec::new();
    for method in methods() {
        for (carrier_at, carrier) in carriers().iter().enumerate() {
            for (encoding_at, encoding) in ["hex", "base64", "base64Url"].into_iter().enumerate() {
                let mut keys = keys();
                if method["kind"] == "ed25519" {
                    // It is slow in a build for tests, so the forms take turns.
                    keys = vec![keys.remove(1 + (carrier_at + encoding_at) % 4)];
                }
                for key in &keys {
                    let schemes = CONTENTS
                        .iter()
                        .map(|content| combination(&method, carrier, encoding, key, content));
                    all.extend(schemes);
                }
            }
        }
    }
    all
}

fn combination(
    method: &Value,
    carrier: &Value,
    encoding: &str,
    key: &Value,
    content: &str,
) -> Value {
    let mut scheme = json!({
        "method": method, "carrier": carrier, "encoding": encoding, "key": key,
        "content": content, "replayId": {"kind": "pointer", "pointer": "/id"},
    });
    if content.contains("{id}") {
        scheme["replayId"] = json!({"kind": "header", "header": "x-id"});
    }
    if content.contains("{timestamp}") {
        let place = if carrier["kind"] == "pairs" {
            json!({"kind": "key", "key": "t"})
        } else {
            json!({"kind": "header", "header": "x-time"})
        };
        let unit = if encoding == "hex" { "seconds" } else { "milliseconds" };
        scheme["timestamp"] = json!({
            "place": place, "unit": unit, "maxAgeSeconds": 7200, "maxAheadSeconds": 300,
        });
    }
    scheme
}

#[test]
fn scheme_combinations_verify_only_signed_requests() {
    let mut sound = 0;
    for raw in combinations() {
        if serde_json::from_value::<SignatureScheme>(raw.clone()).is_err() {
            continue;
        }
        sound += 1;
        let row = Row::new("combination", raw);
        let secrets = row.secrets(&[2, 1]);
        let sealed = row.seal(&[1]);
        let expected = Verification::Verified {
            replay_id: if row.raw["replayId"]["kind"] == "header" { "msg_1" } else { "r-1" }.into(),
            signed_at: row.raw["timestamp"].is_object().then(noon),
        };
        let verdict = row.wire(&sealed).verify(&row, &secrets, noon());
        assert_eq!(verdict, expected, "{}", row.raw);

        let mut tampered = sealed;
        tampered.payload[9] ^= 1;
        let verdict = row.wire(&tampered).verify(&row, &secrets, noon());
        assert_eq!(verdict, Verification::Invalid(Reason::Mismatch), "{}", row.raw);
    }
    // HMAC: 8 contents in each of 6 headers, and a form field in all 7 carriers. A plain
    // hash: 2 contents in 6 headers. ed25519: what HMAC has, with one form of key each.
    let (hmac, digest, ed25519) = (6 * 8 + 7, 6 * 2, 6 * 8 + 7);
    let (hashes, encodings, keys) = (4, 3, 5);
    assert_eq!(sound, encodings * (hashes * keys * (hmac + digest) + ed25519));
}

#[test]
fn replay_id_falls_back_to_hash() {
    let row = Row::new(
        "pointer",
        json!({
            "method": {"kind": "hmac", "hash": "sha256"},
            "carrier": {"kind": "header", "header": "x-sig"},
            "encoding": "hex", "key": {"form": "text"}, "content": "{body}",
            "replayId": {"kind": "pointer", "pointer": "/event/id"},
        }),
    );
    let id = |body: &[u8]| {
        let wire = row.wire(&row.seal_with(body, "", &NOON.to_string(), &[1]));
        match wire.verify(&row, &row.secrets(&[1]), noon()) {
            Verification::Verified { replay_id, .. } => replay_id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(id(br#"{"event":{"id":"e-1"}}"#), "e-1");
    assert_eq!(id(br#"{"event":{"id":17}}"#), "17");
    for nothing in
        [PAYLOAD, b"", b"no json", br#"{"event":{"id":null}}"#, br#"{"event":{"id":""}}"#]
    {
        assert_eq!(id(nothing).len(), 64);
    }
}
