//! The webhook receiver: verification, records and answers.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::server::{HttpAnswer, TestServer};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// Posts `body` with the signature of `signed_body` at `timestamp`.
async fn post(
    server: &TestServer,
    name: &str,
    timestamp: i64,
    signed_body: &str,
    body: &str,
) -> HttpAnswer {
    let signature =
        Webhook::new(SECRET).unwrap().sign("msg_1", timestamp, signed_body.as_bytes()).unwrap();
    let timestamp = timestamp.to_string();
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", timestamp.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    server.send(Method::POST, &server.url(&format!("/receiver/{name}")), &headers, body).await
}

async fn submit_results(server: &TestServer, name: &str) -> Vec<(Value, Value)> {
    let seen = server.look(&format!("/_control/receivers/{name}")).await;
    let received = seen["received"].as_array().unwrap();
    received.iter().map(|it| (it["verified"].clone(), it["verifyError"].clone())).collect()
}

#[tokio::test]
async fn signatures_are_verified() {
    let server = TestServer::start().await;
    let secret = json!({"secret": SECRET}).to_string();
    assert_eq!(server.set("/_control/receivers/signed", &secret).await, 204);

    post(&server, "signed", now(), "{}", "{}").await;
    post(&server, "signed", now(), "{}", "{ }").await;
    post(&server, "signed", now() - 3_600, "{}", "{}").await;
    server.send(Method::POST, &server.url("/receiver/signed"), &[], "{}").await;

    assert_eq!(
        submit_results(&server, "signed").await,
        [
            (json!(true), Value::Null),
            (json!(false), json!("signature invalid")),
            (json!(false), json!("signature timestamp too old")),
            (json!(false), json!("missing header id")),
        ]
    );
}

#[tokio::test]
async fn receiver_without_secret_verifies_nothing() {
    let server = TestServer::start().await;
    assert_eq!(post(&server, "plain", now(), "{}", "{}").await.status, 200);
    assert_eq!(submit_results(&server, "plain").await, [(Value::Null, Value::Null)]);
}

#[tokio::test]
async fn answers_are_used_up_in_order() {
    let server = TestServer::start().await;
    let answers = r#"{"answers":[
        {"status":503,"headers":{"retry-after":"2"},"body":"busy"},
        {"status":410,"delayMs":10}
    ]}"#;
    server.set("/_control/receivers/moody", answers).await;

    let first = post(&server, "moody", now(), "{}", "one").await;
    assert_eq!((first.status, first.text.as_str()), (503, "busy"));
    assert_eq!(first.headers["retry-after"], "2");
    assert_eq!(post(&server, "moody", now(), "{}", "two").await.status, 410);
    assert_eq!(post(&server, "moody", now(), "{}", "three").await.status, 200);

    // A held answer comes after the next configuration.
    server.set("/_control/receivers/moody", r#"{"answers":[{"status":500,"held":true}]}"#).await;
    let release = async {
        let path = "/_control/receivers/moody";
        server.wait_for(path, |it| it["received"][3].is_object()).await;
        server.set(path, r#"{"answers":[]}"#).await
    };
    let (held, released) = tokio::join!(post(&server, "moody", now(), "{}", "four"), release);
    assert_eq!((held.status, released), (500, 204));

    // A new behavior keeps the records.
    server.set("/_control/receivers/moody", "{}").await;
    let seen = server.look("/_control/receivers/moody").await;
    let seen: Vec<_> = seen["received"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {}", it["body"].as_str().unwrap(), it["answered"]))
        .collect();
    assert_eq!(seen, ["one 503", "two 410", "three 200", "four 500"]);
}
