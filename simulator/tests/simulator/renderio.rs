//! RenderIO over HTTP.

use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::polling::{assert_in_order, forced_refusals, key_refusals, poll, refusals};
use crate::server::TestServer;

const SUBMIT: &str = "/renderio/api/v1/run-ffmpeg-command";
const COMMANDS: &str = "/renderio/api/v1/commands";

fn body(tag: &str) -> Value {
    json!({
        "input_files": {"in_video": "https://e.example/sample.mp4"},
        "output_files": {"out_video": "result.webm"},
        "ffmpeg_command": "-i {{in_video}} {{out_video}}",
        "metadata": {"bridge_job": tag},
    })
}

/// Submits a valid command with `tag` in it, and returns the path of the status call.
async fn submit(server: &TestServer, tag: &str, webhook_url: Option<&str>) -> String {
    let mut body = body(tag);
    if let Some(url) = webhook_url {
        body["webhook_url"] = url.into();
    }
    let answer = server.call(Method::POST, SUBMIT, &body.to_string()).await;
    assert!([200, 202].contains(&answer.status), "{}", answer.text);
    format!("{COMMANDS}/{}", answer.json()["command_id"].as_str().unwrap())
}

async fn set(server: &TestServer, tag: &str, options: &Value) {
    let path = format!("/_control/scenarios/renderio/{tag}");
    assert_eq!(server.set(&path, &options.to_string()).await, 204);
}

/// The first webhook of receiver `name`.
async fn webhook(server: &TestServer, name: &str) -> Value {
    let path = format!("/_control/receivers/{name}");
    server.wait_for(&path, |it| it["received"][0].is_object()).await["received"][0].clone()
}

#[tokio::test]
async fn command_completes() {
    let server = TestServer::start().await;
    set(&server, "r-1", &json!({"queuedMs": 200, "durationMs": 600})).await;

    let path = submit(&server, "r-1", None).await;
    let (seen, answer) = poll(&server, &path, "/status", "SUCCESS").await;

    assert_in_order(&seen, &["QUEUED", "PROCESSING", "SUCCESS"]);
    let file = &answer["output_files"]["out_video"];
    assert_eq!((&file["status"], &file["filename"]), (&json!("STORED"), &json!("result.webm")));
    let url = file["storage_url"].as_str().unwrap();
    assert!(url.starts_with("https://storage.renderio.dev/files/"), "{url}");
    assert_eq!(answer["metadata"], json!({"bridge_job": "r-1"}));
}

#[tokio::test]
async fn command_fails_on_request() {
    let server = TestServer::start().await;
    set(&server, "r-2", &json!({"durationMs": 0, "failWith": "no such file"})).await;
    let path = submit(&server, "r-2", None).await;
    let (_, answer) = poll(&server, &path, "/status", "FAILED").await;
    assert_eq!(answer["error_message"], "no such file");
    assert_eq!(answer["output_files"]["out_video"]["status"], "FAILED");
}

#[tokio::test]
async fn success_may_have_no_url() {
    let server = TestServer::start().await;
    set(&server, "r-3", &json!({"durationMs": 0, "storedAfterPolls": 2})).await;
    let path = submit(&server, "r-3", None).await;
    for (status, is_there) in [("PROCESSING", false), ("PROCESSING", false), ("STORED", true)] {
        let answer = server.call(Method::GET, &path, "").await.json();
        assert_eq!(answer["status"], "SUCCESS");
        let file = &answer["output_files"]["out_video"];
        assert_eq!((&file["status"], file["storage_url"].is_string()), (&json!(status), is_there));
    }
}

#[tokio::test]
async fn submits_are_accepted_two_ways() {
    let server = TestServer::start().await;
    for (tag, options, expected) in [
        ("r-4", json!({}), 200),
        ("r-5", json!({"acceptedStatus": 200}), 200),
        ("r-6", json!({"acceptedStatus": 202}), 202),
    ] {
        set(&server, tag, &options).await;
        let answer = server.call(Method::POST, SUBMIT, &body(tag).to_string()).await;
        assert_eq!(answer.status, expected);
    }
    let status = server.set("/_control/scenarios/renderio/m", r#"{"acceptedStatus":201}"#).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn refusals_use_provider_wording() {
    let server = TestServer::start().await;
    insta::assert_snapshot!(key_refusals(&server, COMMANDS).await, @r#"
    401 {"error":"UNAUTHORIZED"}
    401 {"error":"UNAUTHORIZED"}
    "#);
    let calls = [
        (Method::GET, "/renderio/api/v1/commands/unknown", ""),
        (Method::DELETE, "/renderio/api/v1/commands/unknown", ""),
        (Method::POST, SUBMIT, "{"),
        (Method::POST, SUBMIT, "{}"),
        (Method::GET, "/renderio/api/v1/commands?limit=101", ""),
        (Method::GET, "/renderio/api/v1/commands?status=done", ""),
    ];
    insta::assert_snapshot!(refusals(&server, &calls).await, @r#"
    404 {"error":"Not found"}
    404 {"error":"Not found"}
    400 {"error":"INVALID_REQUEST"}
    422 {"detail":[{"loc":["ffmpeg_command"],"msg":"field required","type":"value_error"},{"loc":["output_files"],"msg":"field required","type":"value_error"}]}
    400 {"error":"INVALID_REQUEST"}
    400 {"error":"INVALID_REQUEST"}
    "#);
    let body = body("refused").to_string();
    let statuses = [400, 401, 404, 422, 429, 500];
    insta::assert_snapshot!(
        forced_refusals(&server, "renderio", SUBMIT, &body, &statuses).await, @r#"
    400 {"error":"INVALID_REQUEST"}
    401 {"error":"UNAUTHORIZED"}
    404 {"error":"Not found"}
    422 {"detail":[{"loc":["ffmpeg_command"],"msg":"invalid","type":"value_error"}]}
    429 (30) {"error":"RATE_LIMITED"}
    500 {"error":"INTERNAL_ERROR"}
    "#);
}

#[tokio::test]
async fn callbacks_are_signed_given_secret() {
    let server = TestServer::start().await;
    set(&server, "r-7", &json!({"durationMs": 0})).await;
    submit(&server, "r-7", Some(&server.url("/receiver/r-7"))).await;
    let unsigned = webhook(&server, "r-7").await;
    assert_eq!(unsigned["headers"]["x-webhook-signature"], Value::Null);
    assert_eq!(unsigned["headers"]["user-agent"], "RenderIO-Webhook/1.0");
    let reported: Value = serde_json::from_str(unsigned["body"].as_str().unwrap()).unwrap();
    assert_eq!(reported["data"]["status"], "SUCCESS");
    assert_eq!(reported["data"]["metadata"], json!({"bridge_job": "r-7"}));
    assert!(reported["timestamp"].is_i64());

    server.set("/_control/secrets/renderio", r#"{"secret":"ours"}"#).await;
    set(&server, "r-8", &json!({"durationMs": 0, "failWith": "no codec"})).await;
    submit(&server, "r-8", Some(&server.url("/receiver/r-8"))).await;
    let signed = webhook(&server, "r-8").await;
    let mut mac = Hmac::<Sha256>::new_from_slice(b"ours").unwrap();
    mac.update(signed["body"].as_str().unwrap().as_bytes());
    let expected = hex::encode(mac.finalize().into_bytes());
    assert_eq!(signed["headers"]["x-webhook-signature"], expected);

    set(&server, "r-9", &json!({"durationMs": 0, "callbackSigned": false})).await;
    submit(&server, "r-9", Some(&server.url("/receiver/r-9"))).await;
    let unsigned = webhook(&server, "r-9").await;
    assert_eq!(unsigned["headers"]["x-webhook-signature"], Value::Null);
}

#[tokio::test]
async fn account_webhook_serves_renders_without_url() {
    let server = TestServer::start().await;
    let account = json!({"url": server.url("/receiver/account")}).to_string();
    assert_eq!(server.set("/_control/account-webhooks/renderio", &account).await, 204);
    for tag in ["r-10", "r-11"] {
        set(&server, tag, &json!({"durationMs": 0})).await;
    }

    submit(&server, "r-10", Some(&server.url("/receiver/own"))).await;
    let own = webhook(&server, "own").await;
    assert!(own["body"].as_str().unwrap().contains("r-10"));
    submit(&server, "r-11", None).await;
    webhook(&server, "account").await;

    let received = server.look("/_control/receivers/account").await;
    let received = received["received"].as_array().unwrap();
    assert_eq!(received.len(), 1);
    assert!(received[0]["body"].as_str().unwrap().contains("r-11"));
}

#[tokio::test]
async fn commands_are_listed_newest_first() {
    let server = TestServer::start().await;
    set(&server, "l-", &json!({"durationMs": 600_000})).await;
    set(&server, "l-1", &json!({"durationMs": 0})).await;
    for tag in ["l-1", "l-2", "l-3"] {
        submit(&server, tag, None).await;
    }
    let list = async |query: &str| -> Vec<String> {
        let page = server.call(Method::GET, &format!("{COMMANDS}?{query}"), "").await.json();
        let commands = page["commands"].as_array().unwrap();
        commands
            .iter()
            .map(|it| it["metadata"]["bridge_job"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(list("").await, ["l-3", "l-2", "l-1"]);
    assert_eq!(list("limit=1&offset=1").await, ["l-2"]);
    assert_eq!(list("status=SUCCESS").await, ["l-1"]);
}
