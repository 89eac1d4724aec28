use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::interceptor::{
    Call, CallInterceptor, FaultyOperation, Injected, Interception, NoFaults,
};
use aws_in_memory::network::{Network, host};
use aws_in_memory::quotas::{Quotas, Throttle};
use aws_in_memory::{InMemoryAws, clock};
use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use aws_lambda_events::encodings::Body;
use bytes::Bytes;
use domain::address::TargetPolicy;
use domain::credential::Scope;
use domain::provider::catalogue::Adjustments;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use http::Response;
use serde_json::{Value, json};
use shared::api_key_cache::ApiKeyCache;
use shared::shards::Shards;
use shared::tracker::Tracker;
use tokio::time::Instant;

use super::*;

mod records;

/// The key in `events/`.
const KEY: &str = "rr_example";
const ZVID_KEY: &str = r#"{"key": "zvid_key", "hosts": ["api.zvid.io"]}"#;
const OK: &str = include_str!("../../../events/submit-ok.json");
const MALFORMED: &str = include_str!("../../../events/submit-malformed.json");

/// AWS with these parameters, and with that key, which may submit.
async fn with_key(parameters: &[(&str, &str)]) -> InMemoryAws {
    let aws = InMemoryAws::new(parameters);
    aws.add_api_key(KEY, [Scope::Submit].into_iter().collect()).await.unwrap();
    aws
}

/// A network with `zvid.test`, which accepts all submits, and the bodies of these.
fn rendering_network() -> (Network, Arc<Mutex<Vec<Value>>>) {
    let (network, submits) = (Network::default(), Arc::<Mutex<Vec<Value>>>::default());
    let kept = Arc::clone(&submits);
    // Zvid's render has the id that we chose.
    let accepts = move |request: http::Request<Bytes>| {
        let submitted: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let id = submitted["jobId"].as_str().unwrap_or("r-1").to_owned();
        kept.lock().unwrap().push(submitted);
        let mut answer = Response::new(Bytes::from(json!({"jobId": id}).to_string()));
        *answer.status_mut() = http::StatusCode::ACCEPTED;
        answer
    };
    network.add("zvid.test", host(accepts));
    (network, submits)
}

fn at_zvid_test() -> Adjustments {
    let base_url = ("zvid".to_owned(), "http://zvid.test".parse().unwrap());
    let policy = TargetPolicy::local_use();
    Adjustments { base_urls: [base_url].into(), policy, ..Adjustments::default() }
}

async fn answered(aws: &InMemoryAws, request: ApiGatewayV2httpRequest) -> (i64, Value) {
    answered_by(aws, aws.tracker().unwrap(), request, Utc::now).await
}

/// What a process answers that has just started.
async fn answered_by(
    aws: &InMemoryAws,
    tracker: Tracker,
    request: ApiGatewayV2httpRequest,
    now: fn() -> DateTime<Utc>,
) -> (i64, Value) {
    let submitter = Submitter {
        secrets: Arc::clone(tracker.providers.secrets()),
        tracker,
        keys: ApiKeyCache::new(aws.store()),
        wakes: aws.wakes(),
        public_url: "https://api.example.com".into(),
        shards: Shards::new(1),
        policy: TargetPolicy::public(),
        entropy: aws.entropy(),
    };
    let response = handle(&submitter, request.into(), now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn missing_api_key_is_unauthorized() {
    let aws = with_key(&[]).await;
    let mut request: ApiGatewayV2httpRequest = serde_json::from_str(OK).unwrap();
    request.headers.remove("authorization");
    let (status, problem) = answered(&aws, request).await;
    assert_eq!((status, &problem["code"]), (401, &"unauthorized".into()));
}

#[tokio::test]
async fn malformed_body_is_refused() {
    let aws = with_key(&[]).await;
    let (status, problem) = answered(&aws, serde_json::from_str(MALFORMED).unwrap()).await;
    assert_eq!((status, &problem["code"]), (400, &"malformed_json".into()));
}

#[tokio::test]
async fn invalid_submit_stores_nothing() {
    // The request is good, but the provider's key is not stored.
    let aws = with_key(&[]).await;
    let (status, problem) = answered(&aws, serde_json::from_str(OK).unwrap()).await;
    assert_eq!((status, &problem["code"]), (503, &"provider_not_configured".into()));
    assert_eq!(aws.calls(), ["PutItem", "Query", "GetItem", "GetParameters"]);
}

#[tokio::test]
async fn submit_without_writes_asks_no_provider() {
    let aws = with_key(&[("providers/zvid/api-key", ZVID_KEY)]).await;
    let aws = aws.seen_by(FaultyOperation::new("PutItem", Injected::Lost));
    let (status, problem) = answered(&aws, serde_json::from_str(OK).unwrap()).await;
    let expected = (503, &"temporarily_unavailable".into());
    assert_eq!((status, &problem["code"]), expected, "invariant 3: nothing is stored");
}

/// Answers each call of AWS late, but not too late for the client.
#[derive(Debug)]
struct SlowAws;

impl CallInterceptor for SlowAws {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        tokio::time::sleep(Duration::from_millis(2_900)).map(|()| Injected::Answered.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn submit_with_little_time_left_stores_nothing() {
    let aws = with_key(&[("providers/zvid/api-key", ZVID_KEY)]).await;
    let (start, before) = (Instant::now(), aws.calls().len());
    let slow = aws.seen_by(Arc::new(SlowAws));
    let (status, problem) = answered(&slow, serde_json::from_str(OK).unwrap()).await;
    let expected = (503, &"temporarily_unavailable".into());
    assert_eq!((status, &problem["code"]), expected, "the provider was not asked");
    assert!(start.elapsed() > Duration::from_secs(11), "{:?}", start.elapsed());
    let calls = aws.calls().split_off(before);
    assert_eq!(aws.table().indexed("active").len(), 0, "{calls:?}");
}

#[tokio::test]
async fn submit_needs_its_scope() {
    for scope in Scope::ALL {
        let aws = InMemoryAws::new(&[]);
        aws.add_api_key(KEY, [scope].into_iter().collect()).await.unwrap();
        let (status, problem) = answered(&aws, serde_json::from_str(OK).unwrap()).await;
        let refused = (403, "scope_missing");
        let passed = (503, "provider_not_configured");
        let expected = if scope == Scope::Submit { passed } else { refused };
        assert_eq!((status, problem["code"].as_str().unwrap()), expected, "{scope:?}");
    }
}

/// On a stack that has made a job before, and on one that has not.
#[tokio::test(start_paused = true)]
async fn cold_submits_share_the_ssm_quota() {
    for secret in [None, Some("CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk")] {
        let key = r#"{"key": "zvid_key", "hosts": ["zvid.test:80"]}"#;
        let aws = with_key(&[("providers/zvid/api-key", key)]).await;
        if let Some(secret) = secret {
            aws.set_parameter("callback-secret", secret);
        }
        let (network, _) = rendering_network();
        let adjustments = at_zvid_test();
        aws.set_quotas(Quotas::default());
        let start = Instant::now();
        let submits = (0..200).map(async |number| {
            let aws = aws.seen_by(Arc::new(NoFaults));
            let dial = network.seen_by(Arc::new(NoFaults));
            let tracker = aws.started_tracker(dial, adjustments.clone()).await.unwrap();
            let mut request: ApiGatewayV2httpRequest = serde_json::from_str(OK).unwrap();
            let key = format!("product-{number}").parse().unwrap();
            request.headers.insert("idempotency-key", key);
            let mut body: Value = serde_json::from_str(request.body.as_ref().unwrap()).unwrap();
            body["providerWebhook"] = true.into();
            request.body = Some(body.to_string());
            answered_by(&aws, tracker, request, clock::now).await
        });
        for (status, body) in join_all(submits).await {
            assert_eq!(status, 202, "{body}");
        }
        let took = start.elapsed();
        let throttled = aws.throttles().get(&Throttle::ParameterRead).copied().unwrap_or_default();
        let calls = aws.calls().into_iter().filter(|it| it == "GetParameters").count();
        println!("200 cold submits: {took:?}, {calls} calls, {throttled} throttled");
        assert!(took < Duration::from_secs(29), "{took:?}");
        assert_eq!(calls - throttled, 200, "one for each process");
        assert!(aws.parameter("callback-secret").is_some());
    }
}

/// Lambda can then run several at once in one process, as its Managed Instances do.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Submitter, HttpEvent) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now));
}
