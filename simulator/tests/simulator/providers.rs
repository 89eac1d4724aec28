//! What all providers have in common, tested with Zvid and Shotstack: submits, polls, refusals and
//! callbacks.

use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use crate::polling::{assert_in_order, poll};
use crate::server::{TestServer, unserved_url, until};

const ZVID_SUBMIT: &str = "/zvid/api/render/api-key";
const SHOTSTACK_SUBMIT: &str = "/shotstack/render";

/// Submits a valid body with `tag` in it, and returns the path of the status call.
async fn zvid(server: &TestServer, tag: &str, webhook_url: Option<&str>) -> String {
    let mut body = json!({"payload": {"name": tag}});
    if let Some(url) = webhook_url {
        body["webhookUrl"] = url.into();
    }
    let answer = server.call(Method::POST, ZVID_SUBMIT, &body.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    format!("/zvid/api/jobs/{}", answer.json()["jobId"].as_str().unwrap())
}

async fn shotstack(server: &TestServer, tag: &str, callback: Option<&str>) -> String {
    let body = json!({"timeline": {"tag": tag}, "output": {}, "callback": callback});
    let answer = server.call(Method::POST, SHOTSTACK_SUBMIT, &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    format!("/shotstack/render/{}?data=false", answer.json()["response"]["id"].as_str().unwrap())
}

#[tokio::test]
async fn zvid_render_completes() {
    let server = TestServer::start().await;
    server.set("/_control/scenarios/zvid/z-1", r#"{"queuedMs":200,"durationMs":600}"#).await;

    let path = zvid(&server, "z-1", None).await;
    let (seen, answer) = poll(&server, &path, "/state", "completed").await;

    assert_in_order(&seen, &["queued", "active", "completed"]);
    let id = path.rsplit('/').next().unwrap();
    assert_eq!(answer["id"], id);
    assert_eq!(answer["result"], format!("https://cdn.zvid.io/{id}.mp4"));
}

#[tokio::test]
async fn shotstack_render_completes() {
    let server = TestServer::start().await;
    let options = r#"{"queuedMs":200,"durationMs":1000,"resultUrl":"https://r.example/v.mp4"}"#;
    server.set("/_control/scenarios/shotstack/s-1", options).await;

    let path = shotstack(&server, "s-1", None).await;
    let (seen, answer) = poll(&server, &path, "/response/status", "done").await;

    assert_in_order(&seen, &["queued", "fetching", "rendering", "saving", "done"]);
    assert_eq!(answer["response"]["url"], "https://r.example/v.mp4");
}

#[tokio::test]
async fn renders_fail_on_request() {
    let server = TestServer::start().await;
    let options = r#"{"durationMs":0,"failWith":"Failed to download image"}"#;
    for provider in ["zvid", "shotstack"] {
        server.set(&format!("/_control/scenarios/{provider}/f-1"), options).await;
    }

    let path = zvid(&server, "f-1", None).await;
    let (_, answer) = poll(&server, &path, "/state", "failed").await;
    assert_eq!(answer["failedReason"], "Failed to download image");
    assert_eq!(answer["result"], Value::Null);

    let path = shotstack(&server, "f-1", None).await;
    let (_, answer) = poll(&server, &path, "/response/status", "failed").await;
    assert_eq!(answer["response"]["error"], "Failed to download image");
}

#[tokio::test]
async fn refusals_use_provider_wording() {
    let server = TestServer::start().await;
    let wrong_key = [("x-api-key", "other")];
    let mut answers = Vec::new();
    for (method, path, headers, body) in [
        (Method::POST, ZVID_SUBMIT, &wrong_key[..], "{}"),
        (Method::GET, "/zvid/api/jobs/1", &[], ""),
        (Method::POST, SHOTSTACK_SUBMIT, &wrong_key[..], "{}"),
        (Method::GET, "/shotstack/render/1", &[], ""),
    ] {
        let answer = server.send(method, &server.url(path), headers, body).await;
        answers.push(format!("{} {}", answer.status, answer.text));
    }
    for (method, path, body) in [
        (Method::GET, "/zvid/api/jobs/7", ""),
        (Method::POST, ZVID_SUBMIT, "{"),
        (Method::DELETE, "/zvid/api/jobs/7", ""),
        (Method::GET, "/shotstack/render/7", ""),
        (Method::POST, SHOTSTACK_SUBMIT, "{"),
        (Method::DELETE, "/shotstack/render/7", ""),
    ] {
        let answer = server.call(method, path, body).await;
        answers.push(format!("{} {}", answer.status, answer.text));
    }
    insta::assert_snapshot!(answers.join("\n"), @r#"
    401 {"error":"Unauthorized","message":"Invalid API key"}
    401 {"error":"Unauthorized","message":"Invalid API key"}
    403 {"message":"Forbidden"}
    403 {"message":"Forbidden"}
    404 {"error":"Not found","message":"Job not found"}
    400 {"details":[{"field":"body","message":"must be valid JSON"}],"error":"Validation failed","message":"Please check your input and try again"}
    404 {"error":"Not found","message":"Route not found"}
    400 {"message":"Bad Request","response":"Render not found","success":false}
    400 {"message":"Bad Request","response":"Invalid JSON","success":false}
    403 {"message":"Missing Authentication Token"}
    "#);
    assert_eq!(server.look("/_control/renders").await, json!([]));
}

#[tokio::test]
async fn zvid_job_id_identifies_render() {
    let server = TestServer::start().await;
    let id = "550e8400-e29b-41d4-a716-446655440000";
    let body = json!({"payload": {}, "jobId": id}).to_string();

    for _ in 0..2 {
        let answer = server.call(Method::POST, ZVID_SUBMIT, &body).await;
        assert_eq!((answer.status, &answer.json()["jobId"]), (202, &json!(id)));
    }

    let renders = server.look("/_control/renders").await;
    assert_eq!(renders.as_array().unwrap().len(), 1);
    let requests = server.look(&format!("/_control/requests?tag={id}&provider=zvid")).await;
    assert_eq!(requests.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn submits_are_refused_n_times() {
    let server = TestServer::start().await;
    let options = r#"{"submitStatus":429,"submitStatusTimes":1,"retryAfter":"1"}"#;
    server.set("/_control/scenarios/shotstack/r-1", options).await;
    let body = r#"{"timeline":{"tag":"r-1"},"output":{}}"#;

    let refused = server.call(Method::POST, SHOTSTACK_SUBMIT, body).await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_bytes()), (429, &b"1"[..]));
    assert_eq!(refused.text, r#"{"message":"Too Many Requests"}"#);
    assert_eq!(server.look("/_control/renders?tag=r-1").await, json!([]));

    assert_eq!(server.call(Method::POST, SHOTSTACK_SUBMIT, body).await.status, 201);
}

#[tokio::test]
async fn refusal_has_configured_body() {
    let server = TestServer::start().await;
    let options = r#"{"submitStatus":402,"submitBody":{"error":"no credits"}}"#;
    server.set("/_control/scenarios/zvid/r-2", options).await;

    let refused = server.call(Method::POST, ZVID_SUBMIT, r#"{"payload":{"name":"r-2"}}"#).await;
    assert_eq!((refused.status, refused.text.as_str()), (402, r#"{"error":"no credits"}"#));
}

#[tokio::test]
async fn unanswered_submit_still_makes_render() {
    let server = TestServer::start().await;
    for (tag, late) in [("d-1", r#""submitAnswer":"never""#), ("d-0", r#""submitDelayMs":600000"#)]
    {
        let options = format!(r#"{{{late},"freezeProgress":0,"queuedMs":0}}"#);
        server.set(&format!("/_control/scenarios/zvid/{tag}"), &options).await;

        let body = json!({"payload": {"name": tag}}).to_string();
        let path = format!("/_control/renders?tag={tag}");
        tokio::select! {
            answer = server.call(Method::POST, ZVID_SUBMIT, &body) => panic!("{}", answer.status),
            _ = server.wait_for(&path, |it| it[0]["state"] == "active") => {}
        }
    }
}

#[tokio::test]
async fn answer_may_follow_callback() {
    let server = TestServer::start().await;
    let options = r#"{"submitAnswer":"afterCallback","freezeProgress":0,"callbackRetryMs":1}"#;
    server.set("/_control/scenarios/shotstack/d-2", options).await;
    server.set("/_control/receivers/d-2", r#"{"answers":[{"status":500},{"held":true}]}"#).await;
    let callback = server.url("/receiver/d-2");
    let body = json!({"timeline": {"tag": "d-2"}, "output": {}, "callback": callback});

    let submit = async {
        let answer = server.call(Method::POST, SHOTSTACK_SUBMIT, &body.to_string()).await;
        (answer.status, server.look("/_control/renders?tag=d-2").await)
    };
    let end = async {
        server.wait_for("/_control/renders?tag=d-2", |it| it[0].is_object()).await;
        server.post("/_control/renders/shotstack/d-2/end").await
    };
    let ((status, renders), ended) = tokio::join!(submit, end);

    assert_eq!((status, ended), (201, 204));
    assert_eq!(renders[0]["callbacks"][0]["status"], 500, "any answer will do");
}

#[tokio::test]
async fn status_calls_fail_n_times() {
    let server = TestServer::start().await;
    let options = r#"{"durationMs":0,"statusCode":503,"statusCodeTimes":2,"retryAfter":"7"}"#;
    server.set("/_control/scenarios/zvid/p-1", options).await;
    let path = zvid(&server, "p-1", None).await;

    for expected in [503, 503, 200] {
        let answer = server.call(Method::GET, &path, "").await;
        let retry_after = answer.headers.get("retry-after").map(|value| value.as_bytes());
        assert_eq!((answer.status, retry_after.is_some()), (expected, expected == 503));
    }
    let renders = server.look("/_control/renders?tag=p-1").await;
    assert_eq!((&renders[0]["polls"], &renders[0]["state"]), (&json!(3), &json!("completed")));
}

#[tokio::test]
async fn frozen_renders_stay_frozen() {
    let server = TestServer::start().await;
    let options = r#"{"queuedMs":0,"durationMs":1,"freezeProgress":0.4}"#;
    server.set("/_control/scenarios/zvid/h-1", options).await;
    let path = zvid(&server, "h-1", None).await;

    let answer = until("40 %", async || {
        let answer = server.call(Method::GET, &path, "").await.json();
        (answer["progress"]["percentage"] == 40).then_some(answer)
    })
    .await;
    assert_eq!(answer["state"], "active");
    assert_eq!(server.post("/_control/renders/zvid/h-/end").await, 204);
    let (_, answer) = poll(&server, &path, "/state", "completed").await;
    assert_eq!(answer["progress"]["percentage"], 100);
    assert_eq!(server.post("/_control/renders/zvid/h-1/end").await, 409, "it is over");
}

#[tokio::test]
async fn frozen_renders_end_after_n_polls() {
    let server = TestServer::start().await;
    let options = r#"{"queuedMs":0,"freezeProgress":0,"endsAfterPolls":2,"failWith":"no codec"}"#;
    server.set("/_control/scenarios/zvid/h-2", options).await;
    let path = zvid(&server, "h-2", Some(&server.url("/receiver/h-2"))).await;

    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(server.call(Method::GET, &path, "").await.json()["state"].clone());
    }
    assert_eq!(seen, ["active", "active", "failed"]);
    let received = "/_control/receivers/h-2";
    let received = server.wait_for(received, |it| it["received"][0].is_object()).await;
    assert_eq!(received["received"][0]["headers"]["x-zvid-event"], "render.failed");
}

#[tokio::test]
async fn callback_repeats_until_accepted() {
    let server = TestServer::start().await;
    let options = r#"{"durationMs":50,"callbackRetryMs":10}"#;
    server.set("/_control/scenarios/shotstack/c-1", options).await;
    server.set("/_control/receivers/c-1", r#"{"answers":[{"status":500},{"status":404}]}"#).await;
    shotstack(&server, "c-1", Some(&server.url("/receiver/c-1"))).await;

    let path = "/_control/renders?tag=c-1";
    let renders = server.wait_for(path, |it| it[0]["callbacks"][2]["status"] == 200).await;
    let attempts = renders[0]["callbacks"].as_array().unwrap();
    let statuses: Vec<_> = attempts.iter().map(|it| it["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [500, 404, 200]);

    let received = server.look("/_control/receivers/c-1").await;
    let received = received["received"].as_array().unwrap();
    for (number, webhook) in (1..).zip(received) {
        let headers = &webhook["headers"];
        assert_eq!(headers["user-agent"], "Shotstack-Webhook/1.0");
        assert_eq!(headers["x-shotstack-event-type"], "edit");
        assert_eq!(headers["x-shotstack-attempt"], format!("{number}"));
        assert_eq!(webhook["body"], attempts[0]["body"]);
    }
    let body: Value = serde_json::from_str(received[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["status"], &body["id"]), (&json!("done"), &renders[0]["id"]));
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let server = TestServer::start().await;
    // The late copy comes after any repeat of the first.
    let options = r#"{"durationMs":0,"callbackRetryMs":1,"callback":{"lateMs":200}}"#;
    server.set("/_control/scenarios/zvid/c-2", options).await;
    let moved = json!({"answers": [
        {"status": 302, "headers": {"location": server.url("/receiver/elsewhere")}},
    ]});
    server.set("/_control/receivers/c-2", &moved.to_string()).await;
    zvid(&server, "c-2", Some(&server.url("/receiver/c-2"))).await;

    let path = "/_control/renders?tag=c-2";
    let renders = server.wait_for(path, |it| it[0]["callbacks"][1].is_object()).await;
    let submitted_at = renders[0]["submittedAt"].as_i64().unwrap();
    let attempts = renders[0]["callbacks"].as_array().unwrap().iter();
    let mut attempts: Vec<_> = attempts
        .map(|it| (it["at"].as_i64().unwrap() - submitted_at, it["status"].clone()))
        .collect();
    attempts.sort_by_key(|(after, _)| *after);
    let statuses: Vec<&Value> = attempts.iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [302, 200]);
    assert!(attempts[1].0 >= 200, "{attempts:?}");
    assert_eq!(server.look("/_control/receivers/elsewhere").await["received"], json!([]));
}

#[tokio::test]
async fn callbacks_repeat_and_delay_on_request() {
    let server = TestServer::start().await;
    let options = r#"{"durationMs":20,"callback":{"times":2,"delayMs":30,"lateMs":100}}"#;
    server.set("/_control/scenarios/zvid/c-3", options).await;
    let begun = Instant::now();
    zvid(&server, "c-3", Some(&server.url("/receiver/c-3"))).await;

    let path = "/_control/receivers/c-3";
    let received = server.wait_for(path, |it| it["received"][2].is_object()).await;
    assert!(begun.elapsed().as_millis() >= 150, "the late one came early");
    let received = received["received"].as_array().unwrap();
    let deliveries: std::collections::HashSet<_> =
        received.iter().map(|it| it["headers"]["x-zvid-delivery-id"].as_str().unwrap()).collect();
    assert_eq!(deliveries.len(), 3);
    assert!(received.iter().all(|it| it["headers"]["x-zvid-event"] == "render.completed"));
    assert!(received.iter().all(|it| it["body"] == received[0]["body"]));
}

#[tokio::test]
async fn unreachable_callback_is_recorded() {
    let server = TestServer::start().await;
    server.set("/_control/scenarios/zvid/c-4", r#"{"durationMs":0,"callbackRetryMs":1}"#).await;
    let (_port, unserved_url) = unserved_url();
    zvid(&server, "c-4", Some(&unserved_url)).await;

    let path = "/_control/renders?tag=c-4";
    let renders = server.wait_for(path, |it| it[0]["callbacks"][3].is_object()).await;
    for attempt in renders[0]["callbacks"].as_array().unwrap() {
        assert_eq!((&attempt["status"], attempt["error"].is_string()), (&Value::Null, true));
    }
}

#[tokio::test]
async fn wrong_control_calls_are_refused() {
    let server = TestServer::start().await;
    for (path, body, status) in [
        ("/_control/scenarios/unknown/m", "{}", 400),
        ("/_control/scenarios/zvid/m", r#"{"duration":1}"#, 422),
        ("/_control/scenarios/zvid/m", r#"{"callbackShape":"flat"}"#, 422),
        ("/_control/scenarios/shotstack/m", r#"{"resultShape":"url"}"#, 422),
        ("/_control/secrets/unknown", r#"{"secret":"s"}"#, 400),
        ("/_control/secrets/json2video", r#"{"secret":"s"}"#, 400),
        ("/_control/secrets/viralsync", r#"{"secret":""}"#, 422),
        ("/_control/account-webhooks/unknown", r#"{"url":"http://h/"}"#, 400),
        ("/_control/account-webhooks/viralsync", r#"{"url":"http://h/"}"#, 400),
        ("/_control/account-webhooks/zvid", r#"{"url":"http://h/"}"#, 400),
        ("/_control/account-webhooks/renderio", r#"{"uri":"http://h/"}"#, 422),
        ("/_control/receivers/r", r#"{"secret":"whsec_?"}"#, 400),
        ("/_control/receivers/r", r#"{"answers":[{"status":99}]}"#, 422),
        ("/_control/receivers/r", r#"{"answers":[{"headers":{"a b":"c"}}]}"#, 422),
    ] {
        assert_eq!(server.set(path, body).await, status, "{path} {body}");
    }
    assert_eq!(server.call(Method::GET, "/unknown/x", "").await.status, 404);
}
