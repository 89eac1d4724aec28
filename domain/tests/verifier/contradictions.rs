//! Rows that must not load, and the sentence that says why.

use serde_json::{Value, json};

use domain::verifier::SignatureScheme;

/// A sound scheme with members exchanged; `null` takes a member away.
fn with(changes: &Value) -> Value {
    let mut scheme = json!({
        "method": {"kind": "hmac", "hash": "sha256"},
        "carrier": {"kind": "header", "header": "x-sig"},
        "encoding": "hex",
        "key": {"form": "text"},
        "content": "{body}",
    });
    let members = scheme.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        members.remove(name);
        if !value.is_null() {
            members.insert(name.clone(), value.clone());
        }
    }
    scheme
}

fn refusal(changes: &Value) -> String {
    serde_json::from_value::<SignatureScheme>(with(changes)).unwrap_err().to_string()
}

fn clock() -> Value {
    json!({"place": {"kind": "header", "header": "x-time"}, "unit": "seconds", "maxAgeSeconds": 300})
}

fn timeless_clock() -> Value {
    json!({"place": {"kind": "header", "header": "x-time"}, "unit": "seconds"})
}

fn key_clock(key: &str) -> Value {
    json!({"place": {"kind": "key", "key": key}, "unit": "seconds"})
}

fn pairs(keys: &[&str]) -> Value {
    json!({"kind": "pairs", "header": "x-sig", "separator": ",", "keys": keys})
}

fn id_in(header: &str) -> Value {
    json!({"kind": "header", "header": header})
}

#[test]
fn scheme_plain_loads() {
    serde_json::from_value::<SignatureScheme>(with(&json!({}))).unwrap();
}

#[test]
fn scheme_contradiction_is_refused() {
    let token = json!({"kind": "token"});
    let digest = json!({"kind": "digest", "hash": "sha1"});
    let ed25519 = json!({"kind": "ed25519"});
    let bytes = json!({"form": "encoded", "encoding": "hex"});
    let form = json!({"kind": "form", "field": "signature"});
    let cases = [
        (json!({"content": "{body"}), "`{body` has a brace without its partner"),
        (json!({"content": "body}"}), "`body}` has a brace without its partner"),
        (json!({"content": "{url}"}), "`{url}` stands for nothing in signed content"),
        (json!({"content": "{form:}"}), "`{form:}` stands for nothing in signed content"),
        (json!({"content": "{header:a b}.{body}"}), "`a b` is not the name of a header"),
        (
            json!({"method": token}),
            "a token signs nothing: it has neither content, timestamp nor another token",
        ),
        (
            json!({"method": token, "encoding": null, "content": null, "timestamp": clock()}),
            "a token signs nothing: it has neither content, timestamp nor another token",
        ),
        (
            json!({"method": token, "content": null, "token": {"header": "x-token"}}),
            "a token signs nothing: it has neither content, timestamp nor another token",
        ),
        (
            json!({"method": token, "encoding": null, "content": null, "key": bytes}),
            "a token is the secret itself: its key has the form `text`",
        ),
        (
            json!({"token": {"header": "X-Sig"}}),
            "the signature, the timestamp, the id and the token need a header each",
        ),
        (json!({"encoding": null}), "a signature needs both encoding and content"),
        (json!({"content": null}), "a signature needs both encoding and content"),
        (json!({"method": ed25519}), "an ed25519 public key is encoded: its form is not `text`"),
        (
            json!({"carrier": pairs(&[])}),
            "a list of pairs needs keys, each of them once, not empty and without `=`",
        ),
        (
            json!({"carrier": pairs(&["v1", "v1"])}),
            "a list of pairs needs keys, each of them once, not empty and without `=`",
        ),
        (
            json!({"carrier": {"kind": "list", "header": "x-sig", "prefix": ""}}),
            "a list by spaces needs a prefix, without spaces, that tells its version",
        ),
        (
            json!({"content": "{timestamp}", "timestamp": clock()}),
            "content must have the body exactly once: whole, hashed or one form field of it",
        ),
        (
            json!({"content": "{body}{sha256Hex(body)}"}),
            "content must have the body exactly once: whole, hashed or one form field of it",
        ),
        (
            json!({"carrier": form}),
            "the signature is in the form that it signs: content must be another field of it",
        ),
        (
            json!({"carrier": form, "content": "{form:signature}"}),
            "the signature is in the form that it signs: content must be another field of it",
        ),
        (
            json!({"method": digest}),
            "a plain hash needs the secret in its content, once and at the end",
        ),
        (
            json!({"method": digest, "content": "{secret}{body}"}),
            "a plain hash needs the secret in its content, once and at the end",
        ),
        (json!({"content": "{body}{secret}"}), "only a plain hash has the secret in its content"),
        (
            json!({"content": "{timestamp}.{body}"}),
            "content must have {timestamp} if and only if there is a timestamp",
        ),
        (
            json!({"timestamp": clock()}),
            "content must have {timestamp} if and only if there is a timestamp",
        ),
        (
            json!({"content": "{timestamp}.{body}", "timestamp": key_clock("t")}),
            "a timestamp can be a key only in a list of pairs, and not one of the signatures'",
        ),
        (
            json!({
                "content": "{timestamp}.{body}", "timestamp": key_clock("v1"),
                "carrier": pairs(&["v1"]),
            }),
            "a timestamp can be a key only in a list of pairs, and not one of the signatures'",
        ),
        (
            json!({
                "content": "{timestamp}.{body}", "timestamp": clock(),
                "carrier": {"kind": "header", "header": "X-Time"},
            }),
            "the signature, the timestamp, the id and the token need a header each",
        ),
        (
            json!({"content": "{id}.{body}", "replayId": id_in("X-Sig")}),
            "the signature, the timestamp, the id and the token need a header each",
        ),
        (
            json!({
                "content": "{id}.{timestamp}.{body}", "timestamp": clock(),
                "replayId": id_in("x-time"),
            }),
            "the signature, the timestamp, the id and the token need a header each",
        ),
        (
            json!({"content": "{timestamp}{body}", "timestamp": timeless_clock()}),
            "nothing parts {timestamp} from the body: that needs a maxAgeSeconds",
        ),
        (
            json!({"content": "{id}{body}", "replayId": id_in("x-id")}),
            "{id} and {header:…} need text between them and their neighbours",
        ),
        (
            json!({"content": "{body}{header:x-user}"}),
            "{id} and {header:…} need text between them and their neighbours",
        ),
        (json!({"content": "{id}.{body}"}), "content has {id}, but replayId is not a header"),
        (
            json!({"replayId": id_in("x-id")}),
            "replayId is a header that content does not sign: a copy could change it",
        ),
    ];
    for (changes, sentence) in cases {
        assert_eq!(refusal(&changes), sentence, "{changes}");
    }
}

#[test]
fn scheme_unknown_member_is_refused() {
    let unknown = [
        json!({"absent": "refetch"}),
        json!({"encoding": "base32"}),
        json!({"method": {"kind": "hmac", "hash": "md5"}}),
        json!({"method": {"kind": "ed25519", "hash": "sha256"}}),
        json!({"method": {"kind": "rsa"}}),
        json!({"key": {"form": "text", "prefix": "whsec_"}}),
        json!({"token": {}}),
        json!({"token": {"header": "x-token", "kind": "basic"}}),
        json!({"carrier": {"kind": "header", "header": ""}}),
        json!({"carrier": {"kind": "header", "header": "x-sig", "keys": ["v1"]}}),
        json!({"carrier": {"kind": "pairs", "header": "x-sig", "separator": "|", "keys": ["v1"]}}),
        json!({"replayId": {"kind": "bodyHash", "pointer": "/id"}}),
        json!({"replayId": {"kind": "pointer", "pointer": "id"}}),
        json!({"content": "{timestamp}.{body}", "timestamp": {
            "place": {"kind": "header", "header": "x-time"}, "unit": "seconds", "maxAgeSeconds": 0,
        }}),
    ];
    for changes in unknown {
        assert!(serde_json::from_value::<SignatureScheme>(with(&changes)).is_err(), "{changes}");
    }
}
