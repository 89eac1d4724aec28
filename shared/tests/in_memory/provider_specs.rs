//! Provider specs in the table: [`shared::provider_specs`].

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use aws_in_memory::network::{Network, host};
use aws_in_memory::{InMemoryAws, clock};
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use domain::address::TargetPolicy;
use domain::id::{ProviderName, RenderJobId};
use domain::provider::StatusAnswer;
use domain::provider::catalogue::Adjustments;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Response;
use shared::provider_specs::ProviderSpecs;
use shared::providers::KeyError;
use shared::store::Committed;
use shared::tracker::Tracker;
use tokio::time::advance;

const SHOTSTACK: &str = include_str!("../../../providers/shotstack.json");

fn acme() -> String {
    SHOTSTACK.replace("\"shotstack\"", "\"acme\"")
}

fn name(name: &str) -> ProviderName {
    ProviderName::parse(name).unwrap()
}

async fn loaded(aws: &InMemoryAws) -> ProviderSpecs {
    ProviderSpecs::load(aws.store(), Adjustments::default()).await.unwrap()
}

fn has(specs: &ProviderSpecs, provider: &str) -> bool {
    specs.in_force().get(&name(provider)).is_some()
}

async fn remove(aws: &InMemoryAws, provider: &str) {
    let index = aws.store().spec_index().await.unwrap();
    let removed = aws.store().commit_spec_index(&index.without(&name(provider))).await.unwrap();
    assert_eq!(removed, Committed::Stored);
}

#[tokio::test(start_paused = true)]
async fn specs_cost_one_read_when_none_is_put() {
    let aws = InMemoryAws::new(&[]);
    let specs = loaded(&aws).await;
    assert!(has(&specs, "shotstack"));
    assert_eq!(aws.calls(), ["GetItem"]);
    specs.refresh().await.unwrap();
    assert_eq!(aws.calls().len(), 1, "it is fresh");
    advance(Duration::from_secs(21)).await;
    specs.refresh().await.unwrap();
    specs.refresh().await.unwrap();
    assert_eq!(aws.calls(), ["GetItem"; 2]);
}

#[tokio::test(start_paused = true)]
async fn spec_is_in_force_within_a_minute() {
    let aws = InMemoryAws::new(&[]);
    let (warm, cold) = (loaded(&aws).await, loaded(&aws).await);
    aws.put_spec("acme", &acme()).await.unwrap();
    assert!(!has(&warm, "acme"));
    advance(Duration::from_secs(60)).await;
    for specs in [&warm, &cold, &loaded(&aws).await] {
        specs.refresh().await.unwrap();
        assert!(has(specs, "acme"));
    }
    remove(&aws, "acme").await;
    advance(Duration::from_secs(60)).await;
    warm.refresh().await.unwrap();
    assert!(!has(&warm, "acme") && has(&warm, "shotstack"));
}

/// Two hundred specs are not read again for one that changed.
#[tokio::test(start_paused = true)]
async fn unchanged_specs_are_not_read_again() {
    let aws = InMemoryAws::new(&[]);
    aws.put_spec("acme", &acme()).await.unwrap();
    let specs = loaded(&aws).await;
    let before = aws.calls().len();
    aws.put_spec("zvid", "{").await.unwrap();
    remove(&aws, "zvid").await;
    advance(Duration::from_secs(60)).await;
    let written = aws.calls().len();
    specs.refresh().await.unwrap();
    assert!(written > before);
    assert_eq!(aws.calls()[written..], ["GetItem"], "only the index");
    assert!(has(&specs, "acme"));
}

#[tokio::test(start_paused = true)]
async fn invalid_spec_leaves_others_in_force() {
    let aws = InMemoryAws::new(&[]);
    aws.put_spec("acme", &acme()).await.unwrap();
    aws.put_spec("later", &acme().replace("\"limits\"", "\"new\": 1, \"limits\"")).await.unwrap();
    aws.put_spec("zvid", "{\"name\":5}").await.unwrap();
    let specs = loaded(&aws).await;
    for provider in ["acme", "zvid", "shotstack"] {
        assert!(has(&specs, provider), "{provider}");
    }
    assert!(specs.in_force().is_left_out(&name("later")));
    let left_out = specs.in_force().stored["later"].left_out.clone().unwrap();
    assert!(left_out.starts_with("later.json: unknown field `new`"), "{left_out}");
}

/// A setting that no spec fits disables its provider, and no function.
#[tokio::test(start_paused = true)]
async fn unfit_shipped_spec_leaves_others_in_force() {
    let environments = BTreeMap::from([("shotstack".to_owned(), "v2".to_owned())]);
    let adjustments = Adjustments { environments, ..Adjustments::default() };
    let aws = InMemoryAws::new(&[]);
    let specs = ProviderSpecs::load(aws.store(), adjustments.clone()).await.unwrap();
    assert!(has(&specs, "zvid") && !has(&specs, "shotstack"));
    assert!(specs.in_force().is_left_out(&name("shotstack")));
    let v2 = "\"v2\": \"https://v2.example\", \"default\":";
    aws.put_spec("shotstack", &SHOTSTACK.replacen("\"default\":", v2, 1)).await.unwrap();
    specs.reload().await.unwrap();
    assert!(has(&specs, "shotstack"));

    let without = InMemoryAws::without_table(&[]);
    let specs = ProviderSpecs::load(without.store(), adjustments).await.unwrap();
    assert!(specs.refresh().await.is_err(), "it starts, and refuses its work");
}

/// An entry of another release, and a document that is gone.
#[tokio::test(start_paused = true)]
async fn unreadable_item_is_left_out() {
    let aws = InMemoryAws::new(&[]);
    aws.put_spec("acme", &acme()).await.unwrap();
    aws.put_spec("gone", &acme().replace("\"acme\"", "\"gone\"")).await.unwrap();
    let client = aws_sdk_dynamodb::Client::new(&aws.config());
    let key = |sk: &str| {
        [("pk", "provider-specs"), ("sk", sk)]
            .map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned())))
    };
    let get = client.get_item().table_name("table").set_key(Some(key("index").into()));
    let mut index = get.send().await.unwrap().item.unwrap();
    let Some(AttributeValue::M(entries)) = index.get_mut("specs") else { panic!("no specs") };
    let Some(AttributeValue::M(gone)) = entries.get("gone") else { panic!("no entry") };
    let id = gone["document"].as_s().unwrap().clone();
    let strange = BTreeMap::from([("form".to_owned(), AttributeValue::N("2".into()))]);
    entries.insert("later".into(), AttributeValue::M(strange.into_iter().collect()));
    client.put_item().table_name("table").set_item(Some(index)).send().await.unwrap();
    let delete = client.delete_item().table_name("table");
    delete.set_key(Some(key(&format!("document#{id}")).into())).send().await.unwrap();

    let specs = loaded(&aws).await;
    assert!(has(&specs, "acme"));
    for provider in ["gone", "later"] {
        assert!(specs.in_force().is_left_out(&name(provider)), "{provider}");
    }
    aws.put_spec("zvid", "{").await.unwrap();
    let index = aws.store().spec_index().await.unwrap();
    assert!(index.contains(&name("later")), "a change of another keeps it");
}

/// Refuses all reads while it lasts.
#[derive(Debug, Default)]
struct Outage(AtomicBool);

impl CallInterceptor for Outage {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let injected = match self.0.load(Ordering::SeqCst) {
            true => Injected::Lost,
            false => Injected::Answered,
        };
        ready(injected.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn cached_specs_serve_without_the_table() {
    let aws = InMemoryAws::new(&[]);
    aws.put_spec("acme", &acme()).await.unwrap();
    let without = InMemoryAws::without_table(&[]);
    assert!(loaded(&without).await.refresh().await.is_err(), "it never read any");
    let outage = Arc::new(Outage::default());
    let process = aws.seen_by(outage.clone());
    let specs = ProviderSpecs::load(process.store(), Adjustments::default()).await.unwrap();
    outage.0.store(true, Ordering::SeqCst);
    aws.put_spec("zvid", "{").await.unwrap();
    advance(Duration::from_secs(60)).await;
    specs.refresh().await.unwrap();
    assert!(has(&specs, "acme"));
    assert!(!specs.in_force().stored.contains_key("zvid"));
    outage.0.store(false, Ordering::SeqCst);
    advance(Duration::from_secs(60)).await;
    specs.refresh().await.unwrap();
    assert!(specs.in_force().stored.contains_key("zvid"));
}

/// A process that points all requests of `shotstack` at `base_url`, by a spec in the table.
async fn moved(aws: &InMemoryAws, network: &Network, base_url: &str) -> Tracker {
    let spec = SHOTSTACK.replace("https://api.shotstack.io/edit/v1", base_url);
    aws.put_spec("shotstack", &spec).await.unwrap();
    let policy = TargetPolicy::local_use();
    let adjustments = Adjustments { policy, ..Adjustments::default() };
    aws.started_tracker(network.seen_by(Arc::new(NoFaults)), adjustments).await.unwrap()
}

fn listening(network: &Network, hosts: &[&str]) -> Arc<AtomicUsize> {
    let requests = Arc::new(AtomicUsize::new(0));
    for name in hosts {
        let requests = Arc::clone(&requests);
        let answer = move |_| {
            requests.fetch_add(1, Ordering::SeqCst);
            Response::new(Bytes::from_static(b"{}"))
        };
        network.add(name, host(answer));
    }
    requests
}

#[tokio::test(start_paused = true)]
async fn key_never_reaches_another_host() {
    let key = r#"{"key": "key-4242", "hosts": ["api.shotstack.io"]}"#;
    for base_url in [
        "https://evil.example/edit",
        "https://api.shotstack.io.evil.example",
        "https://api.shotstack.io:8443",
        "https://127.0.0.1",
        "https://[::1]",
        "https://xn--pi-7kc.shotstack.io",
    ] {
        let aws = InMemoryAws::new(&[("providers/shotstack/api-key", key)]);
        let network = Network::default();
        let hosts = [
            "evil.example",
            "api.shotstack.io.evil.example",
            "api.shotstack.io",
            "127.0.0.1",
            "[::1]",
            "xn--pi-7kc.shotstack.io",
        ];
        let requests = listening(&network, &hosts);
        let tracker = moved(&aws, &network, base_url).await;
        let provider = tracker.providers.get(&name("shotstack")).unwrap();
        assert!(provider.base_url.as_str().starts_with(base_url), "{}", provider.base_url);
        let render = RenderJobId::parse("r-1").unwrap();
        let status = tracker.providers.status(&provider, &render, clock::now()).await;
        assert!(matches!(status, Err(KeyError::NotForHost { .. })), "{base_url}: {status:?}");
        assert!(!format!("{status:?}").contains("4242"));
        assert_eq!(requests.load(Ordering::SeqCst), 0, "{base_url}");
    }
}

/// The same at the host that the key is for, so that the test above can fail.
#[tokio::test(start_paused = true)]
async fn key_reaches_its_host() {
    let key = r#"{"key": "key-4242", "hosts": ["other.test:80"]}"#;
    let aws = InMemoryAws::new(&[("providers/shotstack/api-key", key)]);
    let network = Network::default();
    let requests = listening(&network, &["other.test"]);
    let base_urls = [("shotstack".to_owned(), "http://other.test/edit".parse().unwrap())];
    let policy = TargetPolicy::local_use();
    let adjustments = Adjustments { base_urls: base_urls.into(), policy, ..Adjustments::default() };
    let view = network.seen_by(Arc::new(NoFaults));
    let tracker = aws.started_tracker(view, adjustments).await.unwrap();
    let provider = tracker.providers.get(&name("shotstack")).unwrap();
    let render = RenderJobId::parse("r-1").unwrap();
    let status = tracker.providers.status(&provider, &render, clock::now()).await.unwrap();
    assert!(matches!(status, StatusAnswer::Unavailable { .. }), "{status:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}
