//! JSON2Video over HTTP.

use http::Method;
use serde_json::{Value, json};

use crate::polling::{assert_in_order, forced_refusals, key_refusals, poll, refusals};
use crate::server::TestServer;

const MOVIES: &str = "/json2video/movies";

/// Submits a valid movie with `tag` in it and one export for each of `endpoints`, and returns its
/// project.
async fn submit(server: &TestServer, tag: &str, endpoints: &[String]) -> String {
    let export = |endpoint| json!({"destinations": [{"type": "webhook", "endpoint": endpoint}]});
    let exports: Vec<Value> = endpoints.iter().map(export).collect();
    let body = json!({"scenes": [], "client-data": {"tag": tag}, "exports": exports});
    let answer = server.call(Method::POST, MOVIES, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let project = answer.json()["project"].as_str().unwrap().to_owned();
    assert_eq!(project.len(), 16);
    project
}

async fn set(server: &TestServer, tag: &str, options: &Value) {
    let path = format!("/_control/scenarios/json2video/{tag}");
    assert_eq!(server.set(&path, &options.to_string()).await, 204);
}

fn status_path(project: &str) -> String {
    format!("{MOVIES}?project={project}&format=simple")
}

#[tokio::test]
async fn movie_completes() {
    let server = TestServer::start().await;
    set(&server, "j-1", &json!({"queuedMs": 200, "durationMs": 600})).await;

    let project = submit(&server, "j-1", &[]).await;
    let (seen, answer) = poll(&server, &status_path(&project), "/movie/status", "done").await;

    assert_in_order(&seen, &["pending", "running", "done"]);
    let url = format!("https://assets.json2video.com/clients/simulated/renders/{project}.mp4");
    assert_eq!(answer["movie"]["url"], url);
    assert_eq!(answer["movie"]["client-data"], json!({"tag": "j-1"}));
}

#[tokio::test]
async fn timeout_passes_and_error_stays() {
    let server = TestServer::start().await;
    set(&server, "j-2", &json!({"queuedMs": 0, "durationMs": 400, "timeoutAfterMs": 0})).await;
    let project = submit(&server, "j-2", &[]).await;
    let (seen, _) = poll(&server, &status_path(&project), "/movie/status", "done").await;
    assert_in_order(&seen, &["timeout", "done"]);

    set(&server, "j-3", &json!({"durationMs": 0, "failWith": "Scene #1: no codec"})).await;
    let project = submit(&server, "j-3", &[]).await;
    let (_, answer) = poll(&server, &status_path(&project), "/movie/status", "error").await;
    assert_eq!(answer["movie"]["message"], "Scene #1: no codec");
    assert_eq!((&answer["success"], &answer["movie"]["url"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn refusals_use_provider_wording() {
    let server = TestServer::start().await;
    insta::assert_snapshot!(key_refusals(&server, MOVIES).await, @r#"
    400 {"message":"Error: API Key not provided","success":false}
    400 {"message":"Error: Invalid API Key","success":false}
    "#);
    let calls = [
        (Method::GET, "/json2video/movies?project=unknown", ""),
        (Method::DELETE, "/json2video/movies?project=unknown", ""),
        (Method::DELETE, "/json2video/movies", ""),
        (Method::POST, MOVIES, ""),
        (Method::POST, MOVIES, "[]"),
        (Method::POST, MOVIES, "{}"),
        (Method::GET, "/json2video/movies?limit=101", ""),
    ];
    insta::assert_snapshot!(refusals(&server, &calls).await, @r#"
    400 {"message":"TypeError: Cannot read properties of null (reading 'success')","success":false}
    400 {"message":"TypeError: Cannot read properties of null (reading 'success')","success":false}
    404 {"message":"Not Found","success":false}
    400 {"message":"Error parsing movie JSON or the movie was empty","success":false}
    400 {"message":"No valid movie JSON received","success":false}
    400 {"code":"E1002","message":"Movie: scenes is required"}
    400 {"message":"Invalid limit","success":false}
    "#);
    let body = r#"{"scenes":[],"id":"refused"}"#;
    let statuses = [400, 401, 403, 404, 405, 409, 413, 429, 500];
    insta::assert_snapshot!(
        forced_refusals(&server, "json2video", MOVIES, body, &statuses).await, @r#"
    400 {"message":"Error: Insufficient credits","success":false}
    401 {"message":"You exceeded the quota of movies in your plan. Please upgrade your plan to continue.","success":false}
    403 {"message":"Forbidden","success":false}
    404 {"message":"Template not found","success":false}
    405 {"message":"Method Not Allowed","success":false}
    409 {"message":"Conflict","success":false}
    413 {"message":"Payload Too Large","success":false}
    429 {"message":"Too Many Requests","success":false}
    500 {"error":"Internal Server Error"}
    "#);
}

#[tokio::test]
async fn every_shape_of_callback_arrives() {
    let server = TestServer::start().await;
    for (index, (shape, content_type, expected)) in [
        ("nested", "json", "application/json"),
        ("flatStrings", "json", "application/json"),
        ("flat", "json", "application/json"),
        ("nested", "form", "application/x-www-form-urlencoded"),
        ("flatStrings", "form", "application/x-www-form-urlencoded"),
        ("flat", "form", "application/x-www-form-urlencoded"),
    ]
    .into_iter()
    .enumerate()
    {
        let tag = format!("j-shape-{index}");
        let options = json!({
            "durationMs": 0,
            "callbackShape": shape,
            "callbackContentType": content_type,
        });
        set(&server, &tag, &options).await;
        let project = submit(&server, &tag, &[server.url(&format!("/receiver/{tag}"))]).await;

        let path = format!("/_control/receivers/{tag}");
        let received = server.wait_for(&path, |it| it["received"][0].is_object()).await;
        let webhook = &received["received"][0];
        assert_eq!(webhook["headers"]["content-type"], expected);
        let body = webhook["body"].as_str().unwrap();
        assert!(body.contains(&project), "{body}");
        assert_eq!(body.contains("done"), shape != "flatStrings", "{body}");
        let is_signed = webhook["headers"].as_object().unwrap().keys().any(|it| it.contains("sig"));
        assert!(!is_signed);
    }
}

#[tokio::test]
async fn every_export_calls_back_once() {
    let server = TestServer::start().await;
    set(&server, "j-4", &json!({"durationMs": 0, "callbackRetryMs": 1})).await;
    server.set("/_control/receivers/j-4", r#"{"answers":[{"status":500},{"status":302}]}"#).await;
    let endpoint = server.url("/receiver/j-4");
    submit(&server, "j-4", &[endpoint.clone(), endpoint]).await;

    let path = "/_control/renders?tag=j-4";
    let both = |it: &Value| it[0]["callbacks"][1]["status"].is_u64();
    let renders = server.wait_for(path, both).await;
    let mut statuses: Vec<_> = renders[0]["callbacks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["status"].as_u64().unwrap())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [302, 500]);
}

#[tokio::test]
async fn movies_are_listed_newest_first() {
    let server = TestServer::start().await;
    let mut projects = Vec::new();
    for tag in ["l-1", "l-2", "l-3"] {
        projects.push(submit(&server, tag, &[]).await);
    }
    projects.reverse();

    let mut listed = Vec::new();
    let mut path = format!("{MOVIES}?limit=2");
    loop {
        let page = server.call(Method::GET, &path, "").await.json();
        for movie in page["movies"].as_array().unwrap() {
            assert_eq!(movie["json"]["client-data"], movie["client-data"]);
            listed.push(movie["project"].as_str().unwrap().to_owned());
        }
        assert_eq!(page["has_next"], page["next_token"].is_string());
        let Some(token) = page["next_token"].as_str() else { break };
        let token = url::form_urlencoded::byte_serialize(token.as_bytes());
        path = format!("{MOVIES}?limit=2&next_token={}", token.collect::<String>());
    }
    assert_eq!(listed, projects);
}

#[tokio::test]
async fn deletion_is_idempotent() {
    let server = TestServer::start().await;
    set(&server, "j-5", &json!({"durationMs": 0})).await;
    let path = format!("{MOVIES}?project={}", submit(&server, "j-5", &[]).await);

    let first = server.call(Method::DELETE, &path, "").await.json();
    let second = server.call(Method::DELETE, &path, "").await.json();
    assert_eq!((&first["success"], &first["project"]), (&json!(true), &second["project"]));
    assert_eq!(first["deleted_at"], second["deleted_at"]);
    let movie = &server.call(Method::GET, &path, "").await.json()["movie"];
    assert_eq!((&movie["status"], movie["url"].is_string()), (&json!("done"), true));
}
