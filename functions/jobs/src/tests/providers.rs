//! The stack's providers, over the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_in_memory::interceptor::NoFaults;
use aws_in_memory::network::{Network, host};
use domain::id::ProviderName;
use domain::lease::Lease;
use domain::polling::{Pause, PauseReason};
use domain::provider::catalogue::Adjustments;
use shared::store::Committed;
use shared::tracker::Tracker;

use super::*;

pub(super) const VIRALSYNC: &str = include_str!("../../../../providers/viralsync.json");

/// A started function, and the whole request and response.
pub(super) struct Stack {
    pub(super) aws: InMemoryAws,
    jobs: Jobs,
}

/// A tracker of a process that starts now.
async fn started(aws: &InMemoryAws, network: &Network) -> Tracker {
    let network = network.seen_by(Arc::new(NoFaults));
    aws.started_tracker(network, Adjustments::default()).await.unwrap()
}

impl Stack {
    async fn start(aws: InMemoryAws, network: &Network) -> Self {
        let jobs = Jobs { tracker: started(&aws, network).await, ..super::started(&aws) };
        Self { aws, jobs }
    }

    pub(super) async fn new() -> Self {
        Self::start(with_key().await, &Network::default()).await
    }

    /// On a stack with these settings.
    pub(super) async fn adjusted(aws: InMemoryAws, adjustments: Adjustments) -> Self {
        let network = Network::default().seen_by(Arc::new(NoFaults));
        let tracker = aws.started_tracker(network, adjustments).await.unwrap();
        let jobs = Jobs { tracker, ..super::started(&aws) };
        Self { aws, jobs }
    }

    pub(super) async fn call(&self, method: &str, name: Option<&str>, body: &str) -> (i64, Value) {
        self.call_seeing(method, name, body, None).await
    }

    pub(super) async fn call_seeing(
        &self,
        method: &str,
        name: Option<&str>,
        body: &str,
        seen: Option<&str>,
    ) -> (i64, Value) {
        let mut event: Value = serde_json::from_str(GET).unwrap();
        let (method, end) = match method {
            "RESUME" => ("POST", "/resume"),
            method => (method, ""),
        };
        let path = if name.is_some() { "/v1/providers/{name}" } else { "/v1/providers" };
        event["routeKey"] = format!("{method} {path}{end}").into();
        event["pathParameters"] = json!({"name": name.unwrap_or_default()});
        event["body"] = body.into();
        if let Some(seen) = seen {
            event["headers"]["if-match"] = seen.into();
        }
        let request = serde_json::from_value(event).unwrap();
        let response = handle(&self.jobs, request, Utc::now).await.unwrap();
        let Some(Body::Text(body)) = response.body else { panic!("no text") };
        let mut shown: Value = serde_json::from_str(&body).unwrap();
        if let Some(tag) = response.headers.get("etag") {
            shown["etag"] = tag.to_str().unwrap().into();
        }
        (response.status_code, shown)
    }
}

pub(super) fn acme() -> String {
    VIRALSYNC.replace("\"viralsync\"", "\"acme\"")
}

#[tokio::test]
async fn put_spec_is_shown_with_its_author() {
    let stack = Stack::new().await;
    let (status, put) = stack.call("PUT", Some("acme"), &acme()).await;
    assert_eq!((status, &put["inForce"]), (200, &true.into()), "{put}");
    assert_eq!((&put["version"], &put["etag"]), (&1.into(), &"\"1\"".into()));
    let put_by = put["putBy"].as_str().unwrap();
    assert!(put_by.starts_with("may-submit-read-operate-admin (key_"), "{put_by}");
    assert!(put["putAt"].is_string() && put["keyHost"].is_string(), "{put}");

    let (status, shown) = stack.call("GET", Some("acme"), "").await;
    assert_eq!((status, &shown["origin"]), (200, &"stored".into()));
    assert_eq!(shown["spec"], serde_json::from_str::<Value>(&acme()).unwrap());
    let (_, listed) = stack.call("GET", None, "").await;
    let names = listed["providers"].as_array().unwrap().iter().map(|it| it["name"].clone());
    let names: Vec<_> = names.collect();
    assert!(names.contains(&"acme".into()) && names.contains(&"zvid".into()), "{names:?}");
    assert!(names.is_sorted_by_key(|name| name.as_str().unwrap().to_owned()));
}

/// The lease of the one shard, in which zvid is paused.
async fn with_pause(stack: &Stack) -> Pause {
    let since = Utc::now() - chrono::TimeDelta::minutes(3);
    let pause = Pause {
        since,
        until: since + chrono::TimeDelta::minutes(4),
        failures: 5,
        reason: PauseReason::ServerError,
        status: Some(503),
        renders: 14,
        spec: 0,
    };
    let pauses = [(ProviderName::parse("zvid").unwrap(), pause)].into();
    let lease = Lease::taken_over(None, 0, since).renewed(false, since, pauses, since);
    let store = stack.aws.store();
    store.commit_lease(&Lease::taken_over(None, 0, since)).await.unwrap();
    assert_eq!(store.commit_lease(&lease).await.unwrap(), Committed::Stored);
    pause
}

#[tokio::test]
async fn pause_is_shown_until_it_is_ended() {
    let stack = Stack::new().await;
    let pause = with_pause(&stack).await;
    let expected = json!([{
        "shard": 0,
        "since": domain::time::text(pause.since),
        "until": domain::time::text(pause.until),
        "reason": "server_error",
        "status": 503,
        "renders": 14,
    }]);
    assert_eq!(stack.call("GET", Some("zvid"), "").await.1["pauses"], expected);
    assert_eq!(stack.call("GET", Some("shotstack"), "").await.1["pauses"], json!([]));
    let (_, listed) = stack.call("GET", None, "").await;
    let paused = listed["providers"].as_array().unwrap().iter();
    let paused: Vec<_> = paused.filter(|it| it["pauses"] != json!([])).collect();
    assert!(paused.len() == 1 && paused[0]["name"] == "zvid", "{paused:?}");

    let resumed = |answer: (i64, Value)| (answer.0, answer.1["pauses"].clone());
    let answer = stack.call("RESUME", Some("shotstack"), "").await;
    assert_eq!(resumed(answer), (200, 0.into()), "another provider");
    let revision = stack.aws.store().spec_index().await.unwrap().revision;
    assert_eq!(revision, 0, "nothing is stored without a pause");
    let answer = stack.call("RESUME", Some("zvid"), "").await;
    assert_eq!(resumed(answer), (200, 1.into()));
    assert_eq!(stack.call("GET", Some("zvid"), "").await.1["pauses"], json!([]));
    let answer = stack.call("RESUME", Some("zvid"), "").await;
    assert_eq!(resumed(answer), (200, 0.into()), "it is ended");
    assert_eq!(stack.call("RESUME", Some("unknown"), "").await.0, 404);
}

#[tokio::test]
async fn new_spec_ends_the_pause() {
    let stack = Stack::new().await;
    with_pause(&stack).await;
    let spec = include_str!("../../../../providers/zvid.json");
    let (status, put) = stack.call("PUT", Some("zvid"), spec).await;
    assert_eq!((status, &put["pauses"]), (200, &json!([])), "{put}");
}

#[tokio::test]
async fn put_spec_may_replace_a_shipped_one() {
    let stack = Stack::new().await;
    let moved = VIRALSYNC.replace("https://", "https://eu.");
    let (status, put) = stack.call("PUT", Some("viralsync"), &moved).await;
    assert_eq!((status, &put["replacesShipped"]), (200, &true.into()));
    let (status, removed) = stack.call("DELETE", Some("viralsync"), "").await;
    assert_eq!((status, &removed["shippedInForce"]), (200, &true.into()));
    assert_eq!(removed["warning"], Value::Null);
    let (_, shown) = stack.call("GET", Some("viralsync"), "").await;
    assert_eq!((&shown["origin"], &shown["version"]), (&"shipped".into(), &Value::Null));
    assert_eq!(shown["spec"]["name"], "viralsync");
    let (status, problem) = stack.call("DELETE", Some("viralsync"), "").await;
    assert_eq!((status, &problem["code"]), (404, &"not_found".into()));
    assert!(problem["detail"].as_str().unwrap().contains("shipped"), "{problem}");
}

#[tokio::test]
async fn removed_spec_names_its_waiting_jobs() {
    let stack = Stack::new().await;
    stack.call("PUT", Some("acme"), &acme()).await;
    let (status, removed) = stack.call("DELETE", Some("acme"), "").await;
    assert_eq!((status, &removed["shippedInForce"]), (200, &false.into()));
    assert!(removed["warning"].as_str().unwrap().contains("GET /v1/jobs?state="), "{removed}");
    assert_eq!(stack.call("GET", Some("acme"), "").await.0, 404);
}

#[tokio::test]
async fn invalid_spec_is_refused_with_its_place() {
    let stack = Stack::new().await;
    let spec = acme();
    for (body, field, part) in [
        ("{".to_owned(), Value::Null, "acme.json: EOF while parsing an object at line 1 column 1."),
        (spec.replace("\"limits\"", "\"limit\""), Value::Null, "acme.json: unknown field `limit`"),
        (VIRALSYNC.to_owned(), "name".into(), "the spec calls itself `viralsync`."),
        (spec.replace("https://", "http://"), Value::Null, "baseUrls.default is not https."),
        (with_base_url("https://u:p@a.example"), Value::Null, "has more than a host and a path."),
        (with_base_url("https://10.1.2.3"), "baseUrls.default".into(), "private network"),
        (with_base_url("https://0x7f.1"), "baseUrls.default".into(), "loopback"),
        (with_base_url("https://169.254.169.254"), "baseUrls.default".into(), "link-local"),
        (with_base_url("https://[::ffff:10.0.0.1]"), "baseUrls.default".into(), "private network"),
        (with_base_url("https://localhost"), "baseUrls.default".into(), "PrivateProviderHosts"),
        (with_base_url("https://x.internal"), "baseUrls.default".into(), "PrivateProviderHosts"),
    ] {
        let (status, problem) = stack.call("PUT", Some("acme"), &body).await;
        assert_eq!((status, &problem["code"]), (422, &"invalid_provider_spec".into()), "{part}");
        assert_eq!(problem.get("field").cloned().unwrap_or_default(), field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    for name in ["ACME", "", "a b", &"x".repeat(33)] {
        let (status, problem) = stack.call("PUT", Some(name), &spec).await;
        assert_eq!((status, &problem["code"]), (422, &"invalid_field".into()), "{name}");
    }
    let large = format!("{spec}{}", " ".repeat(16 * 1024));
    let (status, problem) = stack.call("PUT", Some("acme"), &large).await;
    assert_eq!((status, &problem["code"]), (413, &"payload_too_large".into()));
    let puts = stack.aws.calls().into_iter().filter(|it| it == "PutItem").count();
    assert_eq!(puts, 1, "nothing was stored but the API key of this test");
}

fn with_base_url(url: &str) -> String {
    let mut spec: Value = serde_json::from_str(&acme()).unwrap();
    spec["baseUrls"]["default"] = url.into();
    spec.to_string()
}

#[tokio::test]
async fn spec_version_guards_a_change() {
    let stack = Stack::new().await;
    stack.call("PUT", Some("acme"), &acme()).await;
    stack.call("PUT", Some("other"), &acme().replace("\"acme\"", "\"other\"")).await;
    for (method, name, seen) in
        [("PUT", "acme", "\"2\""), ("DELETE", "acme", "7"), ("PUT", "new", "\"1\"")]
    {
        let body = acme().replace("\"acme\"", &format!("\"{name}\""));
        let (status, problem) = stack.call_seeing(method, Some(name), &body, Some(seen)).await;
        assert_eq!((status, &problem["code"]), (412, &"version_mismatch".into()), "{problem}");
    }
    let (status, problem) = stack.call_seeing("PUT", Some("acme"), &acme(), Some("*")).await;
    assert_eq!((status, &problem["code"]), (422, &"invalid_field".into()));
    let (status, put) = stack.call_seeing("PUT", Some("acme"), &acme(), Some("\"1\"")).await;
    assert_eq!((status, &put["version"]), (200, &3.into()));
    let (status, _) = stack.call_seeing("DELETE", Some("acme"), "", Some("3")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn stack_holds_two_hundred_specs() {
    let stack = Stack::new().await;
    for number in 0..200 {
        stack.aws.put_spec(&format!("p{number}"), "{}").await.unwrap();
    }
    let (status, problem) = stack.call("PUT", Some("acme"), &acme()).await;
    assert_eq!((status, &problem["code"]), (409, &"too_many_providers".into()));
    let p7 = acme().replace("\"acme\"", "\"p7\"");
    assert_eq!(stack.call("PUT", Some("p7"), &p7).await.0, 200, "in place of another");
}

/// A function holds all of them, and reads them when it starts.
#[tokio::test]
async fn stack_holds_a_mebibyte_of_specs() {
    let stack = Stack::new().await;
    for number in 0..64 {
        let padding = " ".repeat(16 * 1024 - 2);
        stack.aws.put_spec(&format!("p{number}"), &format!("{{{padding}}}")).await.unwrap();
    }
    let (status, problem) = stack.call("PUT", Some("acme"), &acme()).await;
    assert_eq!((status, &problem["code"]), (409, &"too_many_providers".into()));
    assert!(problem["detail"].as_str().unwrap().contains("1048576 bytes"), "{problem}");
    let p7 = acme().replace("\"acme\"", "\"p7\"");
    assert_eq!(stack.call("PUT", Some("p7"), &p7).await.0, 200, "in place of a larger one");
    assert_eq!(stack.call("PUT", Some("acme"), &acme()).await.0, 200, "there is room now");
}

/// Two writers at once: both changes are kept.
#[tokio::test]
async fn concurrent_puts_are_both_kept() {
    let stack = Stack::new().await;
    let (acme, other) = (acme(), acme().replace("\"acme\"", "\"other\""));
    let (first, second) = tokio::join!(
        stack.call("PUT", Some("acme"), &acme),
        stack.call("PUT", Some("other"), &other)
    );
    assert_eq!((first.0, second.0), (200, 200));
    for name in ["acme", "other"] {
        assert_eq!(stack.call("GET", Some(name), "").await.0, 200, "{name}");
    }
}

/// Nothing that an API key may do sends a provider's key elsewhere.
#[tokio::test(start_paused = true)]
async fn put_spec_takes_no_key_elsewhere() {
    let key = r#"{"key": "key-4242", "hosts": ["api.viralsync.io", "api.viralsync.app"]}"#;
    let network = Network::default();
    let requests = Arc::new(AtomicUsize::new(0));
    for name in ["evil.example", "api.viralsync.io"] {
        let requests = Arc::clone(&requests);
        let answer = move |_| {
            requests.fetch_add(1, Ordering::SeqCst);
            http::Response::new("{}".into())
        };
        network.add(name, host(answer));
    }
    let aws = with_key().await;
    aws.set_parameter("providers/viralsync/api-key", key);
    let stack = Stack::start(aws, &network).await;
    // Not even what the table says of a job.
    let mut job = accepted("viralsync");
    job.request.submitted_to = "https://evil.example/api".parse().unwrap();
    stack.jobs.tracker.store.insert_job(&job).await.unwrap();
    let warm = started(&stack.aws, &network).await;
    let mut evil: Value = serde_json::from_str(VIRALSYNC).unwrap();
    evil["baseUrls"]["default"] = "https://evil.example/api".into();
    let (status, put) = stack.call("PUT", Some("viralsync"), &evil.to_string()).await;
    assert_eq!((status, &put["keyHost"]), (200, &"evil.example".into()), "{put}");

    let request = serde_json::from_str(CANCEL).unwrap();
    let response = handle(&stack.jobs, request, Utc::now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    assert_eq!(response.status_code, 503);
    assert!(body.contains("provider_key_not_for_this_host") && body.contains("evil.example"));
    assert!(body.contains("relay provider set-key viralsync"), "{body}");

    // Another process that was running all the while.
    tokio::time::advance(Duration::from_secs(60)).await;
    let polled = warm.fetch_status(&job, None, Utc::now()).await;
    assert!(format!("{polled:?}").contains("NotForHost"), "{polled:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 0, "no request was made at all");
}
