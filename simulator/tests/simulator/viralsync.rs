//! ViralSync over HTTP.

use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::polling::{assert_in_order, forced_refusals, key_refusals, poll, refusals};
use crate::server::TestServer;

const SUBMIT: &str = "/viralsync/v1/render/jobs";
const JOBS: &str = "/viralsync/v1/jobs";

/// Submits a valid movie with `tag` in it, and returns the path of the status call.
async fn submit(server: &TestServer, tag: &str, callback_url: Option<&str>) -> String {
    let mut body =
        json!({"kind": "movie", "projectId": "p", "movie": {"title": tag, "scenes": [{}, {}]}});
    if let Some(url) = callback_url {
        body["callbackUrl"] = url.into();
    }
    let answer = server.call(Method::POST, SUBMIT, &body.to_string()).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("queued")));
    format!("{JOBS}/{}", answer.json()["jobId"].as_str().unwrap())
}

async fn set(server: &TestServer, tag: &str, options: &Value) {
    let path = format!("/_control/scenarios/viralsync/{tag}");
    assert_eq!(server.set(&path, &options.to_string()).await, 204);
}

/// The bodies of webhooks after verification of their signatures.
fn verified(received: &Value, secret: &str) -> Vec<Value> {
    let webhooks = received["received"].as_array().unwrap().iter();
    let body = |webhook: &Value| {
        let body = webhook["body"].as_str().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let expected = hex::encode(mac.finalize().into_bytes());
        assert_eq!(webhook["headers"]["x-render-signature"], expected);
        serde_json::from_str(body).unwrap()
    };
    webhooks.map(body).collect()
}

#[tokio::test]
async fn job_completes() {
    let server = TestServer::start().await;
    set(&server, "v-1", &json!({"queuedMs": 200, "durationMs": 1_000})).await;

    let path = submit(&server, "v-1", None).await;
    let (seen, answer) = poll(&server, &path, "/status", "done").await;

    assert_in_order(&seen, &["queued", "running", "waiting", "running", "done"]);
    let id = path.rsplit('/').next().unwrap();
    assert_eq!(answer["outputUrl"], format!("https://r2.viralsync.io/outputs/{id}/output.mp4"));
    assert_eq!((&answer["progress"], &answer["type"]), (&json!(1.0), &json!("render")));
    assert_eq!(answer["payload"]["movie"]["title"], "v-1");
}

#[tokio::test]
async fn job_fails_on_request() {
    let server = TestServer::start().await;
    set(&server, "v-2", &json!({"durationMs": 0, "failWith": "SCENE_RENDER_FAILED: x"})).await;
    let path = submit(&server, "v-2", None).await;
    let (_, answer) = poll(&server, &path, "/status", "failed").await;
    assert_eq!(answer["error"], "SCENE_RENDER_FAILED: x");
}

#[tokio::test]
async fn refusals_use_provider_wording() {
    let server = TestServer::start().await;
    insta::assert_snapshot!(key_refusals(&server, JOBS).await, @r#"
    401 {"code":"UNAUTHORIZED","error":"Invalid or missing API key."}
    401 {"code":"UNAUTHORIZED","error":"Invalid or missing API key."}
    "#);
    let calls = [
        (Method::GET, "/viralsync/v1/jobs/unknown", ""),
        (Method::POST, "/viralsync/v1/jobs/unknown/cancel", ""),
        (Method::DELETE, "/viralsync/v1/jobs/unknown", ""),
        (Method::POST, SUBMIT, "{"),
        (Method::POST, SUBMIT, "{}"),
        (Method::GET, "/viralsync/v1/jobs?limit=0", ""),
        (Method::GET, "/viralsync/v1/jobs?cursor=x", ""),
    ];
    insta::assert_snapshot!(refusals(&server, &calls).await, @r#"
    404 {"code":"NOT_FOUND","error":"Job not found."}
    404 {"code":"NOT_FOUND","error":"Job not found."}
    404 {"code":"NOT_FOUND","error":"Not found."}
    400 {"code":"INVALID_REQUEST","error":"Request body is not valid JSON."}
    400 {"code":"INVALID_REQUEST","error":"kind must be \"movie\""}
    400 {"code":"INVALID_REQUEST","error":"limit must be between 1 and 100"}
    400 {"code":"INVALID_REQUEST","error":"cursor is not valid"}
    "#);
    let body = r#"{"kind":"movie","projectId":"refused","movie":{"scenes":[{}]}}"#;
    let statuses = [400, 401, 402, 403, 404, 409, 429, 500, 503];
    insta::assert_snapshot!(
        forced_refusals(&server, "viralsync", SUBMIT, body, &statuses).await, @r#"
    400 {"code":"INVALID_REQUEST","error":"Invalid request."}
    401 {"code":"API_KEY_REVOKED","error":"This API key has been revoked."}
    402 {"code":"RENDER_QUOTA_EXCEEDED","error":"Monthly render quota exceeded."}
    403 {"code":"FORBIDDEN","error":"Forbidden."}
    404 {"code":"NOT_FOUND","error":"Job not found."}
    409 {"code":"CONCURRENCY_LIMIT_EXCEEDED","error":"Concurrent render limit exceeded."}
    429 (14) {"code":"RATE_LIMITED","error":"Rate limit exceeded."}
    500 {"code":"INTERNAL_ERROR","error":"Internal error."}
    503 {"code":"SERVICE_UNAVAILABLE","error":"Service unavailable."}
    "#);
}

#[tokio::test]
async fn callbacks_are_signed_and_report_progress() {
    let server = TestServer::start().await;
    server.set("/_control/secrets/viralsync", r#"{"secret":"whsec_viral"}"#).await;
    let options = json!({"queuedMs": 0, "durationMs": 300, "lateProgressMs": 100});
    set(&server, "v-3", &options).await;
    submit(&server, "v-3", Some(&server.url("/receiver/v-3"))).await;

    let path = "/_control/receivers/v-3";
    let received = server.wait_for(path, |it| it["received"][3].is_object()).await;
    let bodies = verified(&received, "whsec_viral");
    let mut reported: Vec<String> = bodies
        .iter()
        .map(|body| format!("{} {} {}", body["status"], body["phase"], body["progress"]))
        .collect();
    // A busy machine may send them in another order.
    reported.sort_unstable();
    insta::assert_snapshot!(reported.join("\n"), @r#"
    "done" null 1.0
    "running" "rendering" 0.5
    "running" "rendering" 0.66
    "waiting" "waiting" 0.33
    "#);

    let held_up = bodies.iter().position(|body| body["progress"] == 0.5).unwrap();
    let renders = server.look("/_control/renders?tag=v-3").await;
    let ended_at = renders[0]["submittedAt"].as_i64().unwrap() + 300;
    assert!(received["received"][held_up]["at"].as_i64().unwrap() >= ended_at + 100);
}

#[tokio::test]
async fn progress_on_demand_never_passes_end() {
    let server = TestServer::start().await;
    let options =
        json!({"queuedMs": 0, "durationMs": 0, "freezeProgress": 0.4, "progressCallbacks": 0});
    set(&server, "v-7", &options).await;
    submit(&server, "v-7", Some(&server.url("/receiver/v-7"))).await;

    let mut reported = Vec::new();
    for (number, what) in ["progress", "end", "progress"].into_iter().enumerate() {
        assert_eq!(server.post(&format!("/_control/renders/viralsync/v-7/{what}")).await, 204);
        let path = "/_control/receivers/v-7";
        let received = server.wait_for(path, |it| it["received"][number].is_object()).await;
        let body = received["received"][number]["body"].as_str().unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        reported.push(format!("{} {}", body["status"], body["progress"]));
    }
    assert_eq!(reported, [r#""running" 0.4"#, r#""done" 1.0"#, r#""running" 0.4"#]);
    assert_eq!(server.post("/_control/renders/zvid/v-7/progress").await, 400, "it has no word");
}

#[tokio::test]
async fn callbacks_without_secret_are_unsigned() {
    let server = TestServer::start().await;
    server.set("/_control/secrets/viralsync", r#"{"secret":"s"}"#).await;
    server.set("/_control/secrets/viralsync", r#"{"secret":null}"#).await;
    set(&server, "v-4", &json!({"durationMs": 0, "progressCallbacks": 0})).await;
    submit(&server, "v-4", Some(&server.url("/receiver/v-4"))).await;
    let path = "/_control/receivers/v-4";
    let received = server.wait_for(path, |it| it["received"][0].is_object()).await;
    assert_eq!(received["received"][0]["headers"]["x-render-signature"], Value::Null);
}

#[tokio::test]
async fn redirect_is_retried() {
    let server = TestServer::start().await;
    let options = json!({"durationMs": 0, "progressCallbacks": 0, "callbackRetryMs": 1});
    set(&server, "v-5", &options).await;
    server.set("/_control/receivers/v-5", r#"{"answers":[{"status":302}]}"#).await;
    submit(&server, "v-5", Some(&server.url("/receiver/v-5"))).await;
    let path = "/_control/renders?tag=v-5";
    let renders = server.wait_for(path, |it| it[0]["callbacks"][1]["status"].is_u64()).await;
    let callbacks = &renders[0]["callbacks"];
    assert_eq!((&callbacks[0]["status"], &callbacks[1]["status"]), (&json!(302), &json!(200)));
    assert_eq!(callbacks[0]["body"], callbacks[1]["body"]);
}

#[tokio::test]
async fn cancelled_job_reports_only_cancellation() {
    let server = TestServer::start().await;
    server.set("/_control/secrets/viralsync", r#"{"secret":"s"}"#).await;
    let options = json!({"queuedMs": 0, "durationMs": 0, "freezeProgress": 0.4,
        "progressCallbacks": 0, "callback": {"delayMs": 200, "lateMs": 200}});
    set(&server, "v-6", &options).await;
    let path = submit(&server, "v-6", Some(&server.url("/receiver/v-6"))).await;
    assert_eq!(server.post("/_control/renders/viralsync/v-6/progress").await, 204);

    let cancel = format!("{path}/cancel");
    let first = server.call(Method::POST, &cancel, "").await;
    let second = server.call(Method::POST, &cancel, "").await;
    assert_eq!((first.status, first.text.as_str(), second.status), (202, "{}", 409));
    assert_eq!(second.json()["code"], "INVALID_STATUS_TRANSITION");
    assert_eq!(server.call(Method::GET, &path, "").await.json()["status"], "cancelled");

    // The copies about the cancellation leave later than those about progress.
    let is_of = |attempt: &Value| -> Value {
        serde_json::from_str(attempt["body"].as_str().unwrap()).unwrap()
    };
    let cancellations = |renders: &Value| {
        let attempts = renders[0]["callbacks"].as_array().unwrap().iter().map(is_of);
        attempts.filter(|body| body["status"] == "cancelled").collect::<Vec<_>>()
    };
    let at = "/_control/renders?tag=v-6";
    let renders = server.wait_for(at, |it| cancellations(it).len() == 2).await;
    assert_eq!(renders[0]["state"], "cancelled");
    let reported = cancellations(&renders);
    assert_eq!(reported[0], reported[1]);
    let cancelled_at = reported[0]["timestamp"].as_str().unwrap();
    let cancelled_at = chrono::DateTime::parse_from_rfc3339(cancelled_at).unwrap();
    for attempt in renders[0]["callbacks"].as_array().unwrap() {
        // Only a slow machine sends any before the cancellation.
        let in_time = attempt["at"].as_i64().unwrap() <= cancelled_at.timestamp_millis();
        assert!(is_of(attempt)["status"] == "cancelled" || in_time, "{attempt}");
    }
    let received = server.wait_for("/_control/receivers/v-6", |it| it["received"][1].is_object());
    verified(&received.await, "s");
}

#[tokio::test]
async fn jobs_are_listed_newest_first() {
    let server = TestServer::start().await;
    set(&server, "l-", &json!({"durationMs": 600_000})).await;
    set(&server, "l-2", &json!({"durationMs": 0})).await;
    let mut ids = Vec::new();
    for tag in ["l-1", "l-2", "l-3"] {
        let path = submit(&server, tag, None).await;
        ids.push(path.rsplit('/').next().unwrap().to_owned());
    }
    let list = async |query: &str| {
        let page = server.call(Method::GET, &format!("{JOBS}?{query}"), "").await.json();
        let jobs = page["jobs"].as_array().unwrap();
        let ids: Vec<String> =
            jobs.iter().map(|job| job["jobId"].as_str().unwrap().to_owned()).collect();
        (ids, page["nextCursor"].as_str().map(str::to_owned))
    };

    let (first, cursor) = list("limit=2").await;
    assert_eq!(first, [ids[2].clone(), ids[1].clone()]);
    let cursor = cursor.unwrap();
    let cursor: String = url::form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
    // New jobs do not move the pages.
    submit(&server, "l-4", None).await;
    assert_eq!(list(&format!("limit=2&cursor={cursor}")).await, (vec![ids[0].clone()], None));
    assert_eq!(list("status=done").await, (vec![ids[1].clone()], None));
    assert_eq!(list("type=transcription").await, (Vec::new(), None));
}
