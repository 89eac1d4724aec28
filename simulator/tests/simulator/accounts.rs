//! Zvid's account: its registered webhooks and its list.

use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::server::TestServer;

async fn submit(server: &TestServer, tag: &str, webhook_url: Option<&str>) -> String {
    let mut body = json!({"payload": {"name": tag}});
    if let Some(url) = webhook_url {
        body["webhookUrl"] = url.into();
    }
    let answer = server.call(Method::POST, "/zvid/api/render/api-key", &body.to_string()).await;
    answer.json()["jobId"].as_str().unwrap().to_owned()
}

async fn received(server: &TestServer, name: &str) -> Vec<Value> {
    let path = format!("/_control/receivers/{name}");
    let received = server.wait_for(&path, |it| it["received"][0].is_object()).await;
    received["received"].as_array().unwrap().clone()
}

#[tokio::test]
async fn account_webhook_is_signed_and_additional() {
    let server = TestServer::start().await;
    server.set("/_control/scenarios/zvid/a-", r#"{"durationMs":0}"#).await;
    let webhook = json!({
        "url": server.url("/receiver/registered"),
        "secret": "whsec_test",
        "tag": "a-1",
    });
    let status = server.set("/_control/account-webhooks/zvid", &webhook.to_string()).await;
    assert_eq!(status, 204);

    let other = submit(&server, "a-2", Some(&server.url("/receiver/other"))).await;
    assert_eq!(received(&server, "other").await[0]["headers"]["x-zvid-job-id"], other);
    let id = submit(&server, "a-1", Some(&server.url("/receiver/own"))).await;

    let own = &received(&server, "own").await[0];
    assert_eq!(own["headers"]["x-zvid-signature"], Value::Null);
    let registered = received(&server, "registered").await;
    assert_eq!(registered.len(), 1, "the other render has not its tag");
    let headers = &registered[0]["headers"];
    assert_eq!(headers["x-zvid-job-id"], id);
    assert_ne!(headers["x-zvid-delivery-id"], own["headers"]["x-zvid-delivery-id"]);
    assert_eq!(registered[0]["body"], own["body"]);

    let timestamp = headers["x-zvid-timestamp"].as_str().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"whsec_test").unwrap();
    mac.update(format!("{timestamp}.{}", registered[0]["body"].as_str().unwrap()).as_bytes());
    let expected = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    assert_eq!(headers["x-zvid-signature"], expected);
}

#[tokio::test]
async fn account_webhook_can_be_removed() {
    let server = TestServer::start().await;
    server.set("/_control/scenarios/zvid/b-", r#"{"durationMs":0}"#).await;
    let webhook = json!({"url": server.url("/receiver/gone"), "secret": "s"});
    server.set("/_control/account-webhooks/zvid", &webhook.to_string()).await;
    server.set("/_control/account-webhooks/zvid", r#"{"url":null}"#).await;

    submit(&server, "b-1", Some(&server.url("/receiver/own"))).await;
    let path = "/_control/renders?tag=b-1";
    let renders = server.wait_for(path, |it| it[0]["callbacks"][0].is_object()).await;
    assert_eq!(renders[0]["callbacks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn zvid_jobs_are_listed_newest_first() {
    let server = TestServer::start().await;
    let mut ids = Vec::new();
    for tag in ["l-1", "l-2", "l-3"] {
        ids.push(submit(&server, tag, None).await);
    }
    let list = async |query: &str| -> (Vec<String>, bool) {
        let page = server.call(Method::GET, &format!("/zvid/api/jobs?{query}"), "").await.json();
        let jobs = page["jobs"].as_array().unwrap();
        let ids = jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        (ids, page["pagination"]["hasNext"].as_bool().unwrap())
    };
    assert_eq!(list("limit=2").await, (vec![ids[2].clone(), ids[1].clone()], true));
    assert_eq!(list("limit=2&page=2&type=video").await, (vec![ids[0].clone()], false));
    assert_eq!(list("type=image").await, (Vec::new(), false));
}
