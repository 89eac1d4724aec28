//! Valid and invalid signature schemes of callbacks.

use serde_json::{Value, json};

/// A valid signature scheme with changed members; `Value::Null` removes a member.
pub(crate) fn signature(changes: &Value) -> Value {
    let mut signature = json!({
        "method": {"kind": "hmac", "hash": "sha256"},
        "carrier": {"kind": "header", "header": "x-signature"},
        "encoding": "hex",
        "key": {"form": "text"},
        "content": "{body}",
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(signature.as_object_mut().unwrap().remove(name).unwrap()),
            value => signature[name] = value.clone(),
        }
    }
    signature
}

pub(crate) fn token() -> Value {
    signature(&json!({"method": {"kind": "token"}, "encoding": null, "content": null}))
}

pub(crate) fn pairs(keys: &[&str]) -> Value {
    json!({"kind": "pairs", "header": "x-signature", "separator": ",", "keys": keys})
}

pub(crate) fn timestamp(place: &Value) -> Value {
    json!({"place": place, "unit": "seconds"})
}

/// Signature schemes that schema and code must refuse.
pub(crate) fn invalid() -> Vec<Value> {
    let header = |name: &str| json!({"kind": "header", "header": name});
    let signed_time = timestamp(&header("x-time"));
    let mut invalid: Vec<Value> = [
        json!({"method": null}),
        json!({"method": {"kind": "hmac"}}),
        json!({"method": {"kind": "hmac", "hash": "md5"}}),
        json!({"method": {"kind": "rsa", "hash": "sha256"}}),
        json!({"method": {"kind": "ed25519", "hash": "sha256"}}),
        // Ed25519 keys are bytes, not text.
        json!({"method": {"kind": "ed25519"}}),
        json!({"method": {"kind": "token"}}),
        json!({"method": {"kind": "token"}, "encoding": null}),
        json!({"method": {"kind": "token"}, "content": null, "token": {"header": "x-token"}}),
        json!({"token": {}}),
        json!({"token": {"header": "x token"}}),
        json!({"token": {"header": "x-token", "encoding": "base32"}}),
        json!({"token": {"header": "x-token", "kind": "basic"}}),
        json!({"carrier": null}),
        json!({"carrier": {"kind": "query", "header": "signature"}}),
        json!({"carrier": header("")}),
        json!({"carrier": header("x signature")}),
        json!({"carrier": {"kind": "header"}}),
        json!({"carrier": {"kind": "header", "header": "x-signature", "keys": ["v1"]}}),
        json!({"carrier": pairs(&[])}),
        json!({"carrier": pairs(&[""])}),
        json!({"carrier": pairs(&["v1=", "v2"])}),
        json!({"carrier": pairs(&["v1", "v1"])}),
        json!({"carrier": {"kind": "pairs", "header": "x-s", "separator": "|", "keys": ["v1"]}}),
        json!({"carrier": {"kind": "list", "header": "x-signature"}}),
        json!({"carrier": {"kind": "list", "header": "x-signature", "prefix": ""}}),
        json!({"carrier": {"kind": "list", "header": "x-signature", "prefix": "v1 "}}),
        json!({"carrier": {"kind": "form", "field": "signature"}}),
        json!({"encoding": "base32"}),
        json!({"encoding": null}),
        json!({"key": null}),
        json!({"key": {"form": "guess"}}),
        json!({"key": {"form": "text", "prefix": "whsec_"}}),
        json!({"key": {"form": "encoded", "prefix": "whsec_"}}),
        json!({"content": null}),
        json!({"content": ""}),
        json!({"content": "body"}),
        json!({"content": "{body"}),
        json!({"content": "body}"}),
        json!({"content": "{url}.{body}"}),
        json!({"content": "{form:}"}),
        json!({"content": "{header:a b}.{body}"}),
        json!({"content": "{body}.{body}"}),
        json!({"content": "{body}\n{sha256Hex(body)}"}),
        json!({"content": "{body}{secret}"}),
        json!({"method": {"kind": "digest", "hash": "sha1"}}),
        json!({"method": {"kind": "digest", "hash": "sha1"}, "content": "{secret}{body}"}),
        json!({"method": {"kind": "digest", "hash": "sha1"}, "content": "{secret}{body}{secret}"}),
        json!({"content": "{timestamp}.{body}"}),
        json!({"timestamp": signed_time}),
        json!({"timestamp": signed_time, "content": "{timestamp}{body}"}),
        json!({"timestamp": signed_time, "content": "{sha256Hex(body)}{timestamp}"}),
        json!({"timestamp": {"place": header("x-time")}, "content": "{timestamp}.{body}"}),
        json!({"timestamp": {"unit": "seconds"}, "content": "{timestamp}.{body}"}),
        json!({"timestamp": timestamp(&json!({"kind": "body"})), "content": "{timestamp}.{body}"}),
        // Only a carrier of pairs has a key for the timestamp.
        json!({
            "timestamp": timestamp(&json!({"kind": "key", "key": "t"})),
            "content": "{timestamp}.{body}",
        }),
        json!({"content": "{id}.{body}"}),
        json!({"content": "{id}.{body}", "replayId": {"kind": "bodyHash"}}),
        json!({"content": "{id}{body}", "replayId": header("x-id")}),
        json!({"content": "{body}{header:x-user}"}),
        json!({"replayId": header("x-id")}),
        json!({"replayId": {"kind": "pointer"}}),
        json!({"replayId": {"kind": "pointer", "pointer": "id"}}),
        json!({"replayId": {"kind": "bodyHash", "pointer": "/id"}}),
    ]
    .iter()
    .map(signature)
    .collect();
    for (limit, value) in [("maxAgeSeconds", 0), ("maxAheadSeconds", -1)] {
        let mut limited = timestamp(&header("x-time"));
        limited[limit] = json!(value);
        invalid.push(signature(&json!({"timestamp": limited, "content": "{timestamp}.{body}"})));
    }
    invalid
}
