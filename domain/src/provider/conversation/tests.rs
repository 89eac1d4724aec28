use serde_json::json;

use super::*;
use crate::fixtures::noon;
use crate::id::ProviderName;
use crate::provider::catalogue::{Adjustments, Catalogue};

const EXAMPLE: &str = include_str!("../../../../docs/examples/zvid-conversation.json");

fn spec(name: &str) -> ProviderSpec {
    let name = ProviderName::parse(name).unwrap();
    Catalogue::load(&Adjustments::default()).unwrap().get(&name).unwrap().spec.clone()
}

fn replayed(
    provider: &str,
    conversation: &Value,
) -> Result<Vec<ReplayedExchange>, ConversationError> {
    Conversation::parse("c.json", &conversation.to_string())?.replay(&spec(provider), noon())
}

fn sentences(provider: &str, conversation: &Value) -> Vec<String> {
    let replies = replayed(provider, conversation).unwrap();
    let mismatches = replies.iter().flat_map(|reply| &reply.mismatches);
    mismatches.map(Mismatch::sentence).collect()
}

/// The example, with a value put at a pointer.
fn example_with(at: &str, value: Value) -> Value {
    let mut example: Value = serde_json::from_str(EXAMPLE).unwrap();
    *example.pointer_mut(at).unwrap_or_else(|| panic!("no {at}")) = value;
    example
}

#[test]
fn conversation_example_is_understood() {
    let example = serde_json::from_str(EXAMPLE).unwrap();
    assert_eq!(sentences("zvid", &example), [""; 0]);
    let about: Vec<_> = replayed("zvid", &example).unwrap().iter().map(|it| it.about).collect();
    assert_eq!(about, ["submit", "submit", "status", "status", "callback", "status"]);
}

#[test]
fn conversation_expectations_can_fail() {
    let example: Value = serde_json::from_str(EXAMPLE).unwrap();
    for (n, exchange) in example["exchanges"].as_array().unwrap().iter().enumerate() {
        let (about, message) = exchange.as_object().unwrap().iter().next().unwrap();
        for member in message["expect"].as_object().unwrap().keys() {
            let at = format!("/exchanges/{n}/{about}/expect/{member}");
            let sentences = sentences("zvid", &example_with(&at, json!("other")));
            assert_eq!(sentences.len(), 1, "{at}: {sentences:?}");
            assert!(sentences[0].starts_with(&format!("{member}: expected \"other\", got ")));
        }
    }
}

#[test]
fn conversation_unsigned_body_is_not_believed() {
    let forged = r#"{"event":"render.completed","jobId":"x","data":{"status":"failed"}}"#;
    assert_eq!(
        sentences("zvid", &example_with("/exchanges/4/callback/body", json!(forged))),
        [
            "renderJobId: expected \"5b6a0e2c-9d4f-8a13-b7c2-5e6f70819234\", got \"x\"",
            "resultUrl: expected \"https://cdn.zvid.io/videos/summer.mp4\", got null",
            "signature: expected \"verified\", got \
             \"invalid: no secret in force made the signature\"",
            "state: expected \"completed\", got null",
        ]
    );
}

#[test]
fn conversation_unknown_member_is_a_mismatch() {
    let message = json!({"status": 202, "body": {"jobId": "r"}, "expect": {"renderId": null}});
    assert_eq!(
        sentences("zvid", &json!({"exchanges": [{ "submit": message }]})),
        ["renderId: expected null, but there is no such member"]
    );
}

#[test]
fn conversation_has_lists_cancels_and_callbacks() {
    let job = JobId::from_bytes([7; 16]);
    let row = json!({"jobId": "r-7", "payload": {"movie": {"id": job}}});
    let conversation = json!({"jobId": job, "exchanges": [
        {"list": {"status": 200, "body": {"jobs": [], "nextCursor": "c2"},
            "expect": {"is": "next", "next": "c2"}}},
        {"list": {"status": 200, "body": {"jobs": [row]},
            "expect": {"is": "found", "renderJobId": "r-7"}}},
        {"cancel": {"status": 409, "body": {"error": "it is over"},
            "expect": {"is": "refused", "message": "it is over"}}},
        {"cancel": {"status": 503, "expect": {"is": "unavailable", "class": "transient"}}},
        {"callback": {"body": {"jobId": "r-7", "status": "done"},
            "expect": {"kind": "ended", "renderJobId": "r-7", "state": null}}},
        {"callback": {"body": "no json", "expect": {"error": "the body is not JSON"}}},
    ]});
    assert_eq!(sentences("viralsync", &conversation), [""; 0]);
}

#[test]
fn conversation_of_other_provider_is_refused() {
    let answer = json!({"status": 200});
    for (provider, conversation, expected) in [
        (
            "zvid",
            json!({"exchanges": [{"sumbit": {}}]}),
            "c.json: unknown variant `sumbit`, expected one of `submit`, `status`, `list`, \
             `cancel`, `callback` at line 1 column 23",
        ),
        (
            "shotstack",
            json!({"exchanges": [{ "status": answer }]}),
            "exchange 1: no submit before it was accepted, so there is no render to ask about",
        ),
        (
            "zvid",
            json!({"exchanges": [{"status": {}}]}),
            "exchange 1: an answer needs a `status`, and a callback has none",
        ),
        (
            "zvid",
            json!({"exchanges": [{ "callback": answer }]}),
            "exchange 1: an answer needs a `status`, and a callback has none",
        ),
        (
            "zvid",
            json!({"exchanges": [{ "cancel": answer }]}),
            "exchange 1: the spec has no `cancel`",
        ),
        (
            "shotstack",
            json!({"webhookSecrets": "s", "exchanges": []}),
            "webhookSecrets are given, but the spec has no webhook.signature",
        ),
        (
            "zvid",
            json!({"webhookSecrets": "", "exchanges": []}),
            "webhookSecrets: a secret is empty",
        ),
        (
            "zvid",
            json!({"jobId": "mine", "exchanges": []}),
            "jobId must be job_ and 32 hexadecimal digits",
        ),
    ] {
        let error = replayed(provider, &conversation).unwrap_err().to_string();
        assert_eq!(error, expected);
    }
}
