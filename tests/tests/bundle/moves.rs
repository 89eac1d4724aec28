//! Providers whose base URL changes while jobs are under way. The new place knows none of the
//! renders of the old one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_in_memory::network::host;
use bytes::Bytes;
use domain::provider::catalogue::Adjustments;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tests::SimulatedProvider;
use tokio::time::sleep;

use crate::checks::invariant_checker::text;
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::functions::{PROVIDERS, adjustments};
use crate::harness::provider_hosts::key_of;

const SHOTSTACK: &str = include_str!("../../../providers/shotstack.json");

/// Where all providers are now, and the number of requests there.
fn open_new_place(bundle: &Bundle) -> Arc<AtomicUsize> {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let answer = move |_: http::Request<Bytes>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut nothing = Response::new(Bytes::from_static(b"{}"));
        *nothing.status_mut() = StatusCode::NOT_FOUND;
        nothing
    };
    bundle.network.add("moved.test", host(answer));
    requests
}

/// Stores each key for these hosts, beside its old one if `keeps_old`.
fn store_keys(bundle: &Bundle, keeps_old: bool) {
    for provider in PROVIDERS {
        let name = provider.name();
        let old = keeps_old.then(|| format!("{name}.test:80"));
        let hosts: Vec<String> = old.into_iter().chain(["moved.test:80".to_owned()]).collect();
        let stored = json!({"key": key_of(provider), "hosts": hosts});
        bundle.aws.set_parameter(&format!("providers/{name}/api-key"), &stored.to_string());
    }
}

/// Deploys with the new place, and checks that it is in force.
async fn move_providers(bundle: &Arc<Bundle>) {
    let moved = PROVIDERS
        .map(|provider| (provider.name().to_owned(), "http://moved.test/v2".parse().unwrap()));
    bundle.deploy(Adjustments { base_urls: moved.into(), ..adjustments() });
    let path = "/v1/providers/zvid";
    let seen = bundle.call_api(Method::GET, path, None, &Value::Null).await;
    assert_eq!(seen.body["baseUrl"], "http://moved.test/v2", "{}", seen.body);
    // A poller that is at work ends when any spec changes.
    let mut acme: Value = serde_json::from_str(SHOTSTACK).unwrap();
    acme["name"] = json!("acme");
    let put = bundle.call_api(Method::PUT, "/v1/providers/acme", None, &acme).await;
    assert_eq!(put.status, 200, "{}", put.body);
    sleep(Duration::from_secs(25)).await;
}

/// The calls of a provider's API at the old place, as `GET /path`.
async fn calls(bundle: &Bundle, provider: SimulatedProvider, tag: &str) -> Vec<String> {
    let path = format!("/requests?provider={}&tag={tag}", provider.name());
    let calls = bundle.control(Method::GET, &path, &Value::Null).await;
    let calls = calls.as_array().into_iter().flatten();
    calls.map(|it| format!("{} {}", text_of(it, "method"), text_of(it, "path"))).collect()
}

fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A poll, a search in the list, the confirmation of a callback, and a cancel call.
#[test]
fn jobs_are_asked_about_where_submitted() {
    let mut requests = Arc::default();
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        requests = open_new_place(bundle);
        store_keys(bundle, true);
        let polled = json!({"durationMs": 120_000});
        bundle.set_render_options(SimulatedProvider::Zvid, "polled", &polled).await;
        let listed = json!({
            "durationMs": 120_000, "submitAnswer": "never", "callback": {"skip": true},
        });
        bundle.set_render_options(SimulatedProvider::Json2Video, "listed", &listed).await;
        let confirmed = json!({"durationMs": 120_000, "callbackRetryMs": 8000});
        bundle.set_render_options(SimulatedProvider::Shotstack, "confirmed", &confirmed).await;
        let stopped = json!({"durationMs": 900_000});
        bundle.set_render_options(SimulatedProvider::ViralSync, "stopped", &stopped).await;
        let submit = async |provider, tag| bundle.submit(&CallerRequest::new(provider, tag)).await;
        submit(SimulatedProvider::Zvid, "polled").await.unwrap();
        submit(SimulatedProvider::Shotstack, "confirmed").await.unwrap();
        let stopped = submit(SimulatedProvider::ViralSync, "stopped").await.unwrap();
        submit(SimulatedProvider::Json2Video, "listed").await.unwrap();
        let before = calls(bundle, SimulatedProvider::Zvid, "polled").await.len();
        move_providers(bundle).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(bundle.cancel(&stopped).await, Some(202));
        bundle.until_quiet().await;

        let polled = calls(bundle, SimulatedProvider::Zvid, "polled").await;
        assert!(polled.len() > before, "{polled:?}");
        let path = format!("/v1/jobs/{stopped}");
        let shown = bundle.call_api(Method::GET, &path, None, &Value::Null).await.body;
        assert_eq!(shown["submittedTo"], "viralsync.test:80", "{shown}");
        assert_eq!(shown["state"], "cancelled", "{shown}");
    });
    assert_eq!(requests.load(Ordering::SeqCst), 0, "the new place knows none of them");
    assert_eq!(bundle.checker.violations(), [""; 0], "{}", bundle.checker.log().text());
    let items = bundle.aws.table().items();
    let jobs = items.iter().filter(|item| text(item, "sk") == "job");
    let mut ends: Vec<_> = jobs.map(|job| (text(job, "source"), text(job, "state"))).collect();
    ends.sort_unstable();
    let expected = [
        ("confirmed", "completed"),
        ("listed", "completed"),
        ("polled", "completed"),
        ("stopped", "cancelled"),
    ];
    assert_eq!(ends, expected);
}

/// The key is for the new host alone. What was submitted to the old one cannot be told of, which
/// the log says with the host, and no request carries the key to it.
#[test]
fn key_withdrawn_from_old_host_is_not_sent() {
    let mut requests = Arc::default();
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        requests = open_new_place(bundle);
        store_keys(bundle, true);
        let options = json!({"durationMs": 120_000});
        bundle.set_render_options(SimulatedProvider::Zvid, "polled", &options).await;
        bundle.submit(&CallerRequest::new(SimulatedProvider::Zvid, "polled")).await.unwrap();
        store_keys(bundle, false);
        move_providers(bundle).await;
        let before = calls(bundle, SimulatedProvider::Zvid, "polled").await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(calls(bundle, SimulatedProvider::Zvid, "polled").await, before);
        let log = bundle.checker.log().text();
        assert!(log.contains("provider key unavailable; job status not fetched"), "{log}");
        assert!(log.contains("not for the host zvid.test:80"), "{log}");
        // The operator stores it for both.
        store_keys(bundle, true);
        bundle.end_warm_processes();
    });
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert_eq!(bundle.checker.violations(), [""; 0], "{}", bundle.checker.log().text());
}
