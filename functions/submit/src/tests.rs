use std::sync::Arc;

use std::time::Duration;

use aws_in_memory::interceptor::NoFaults;
use aws_in_memory::network::{Network, host};
use aws_in_memory::ssm_quota::SsmQuota;
use aws_in_memory::{InMemoryAws, clock};
use aws_lambda_events::encodings::Body;
use bytes::Bytes;
use domain::address::TargetPolicy;
use domain::provider::Catalogue;
use domain::provider::catalogue::Adjustments;
use futures_util::future::join_all;
use http::Response;
use serde_json::{Value, json};
use shared::tracker::Tracker;
use tokio::time::Instant;

use super::*;

/// SHA-256 of the key in `events/`.
const KEYS: (&str, &str) =
    ("api-key-hashes", "3944ff91afd9897e8b4cbd1cf39ffe676e9a7058600d02660748b9947f682ce4");
const OK: &str = include_str!("../../../events/submit-ok.json");
const MALFORMED: &str = include_str!("../../../events/submit-malformed.json");

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
        wakes: aws.wakes(),
        public_url: "https://api.example.com".into(),
        shards: 1,
        policy: TargetPolicy::public(),
        entropy: aws.entropy(),
    };
    let response = handle(&submitter, request, now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn missing_api_key_is_unauthorized() {
    let aws = InMemoryAws::new(&[KEYS]);
    let mut request: ApiGatewayV2httpRequest = serde_json::from_str(OK).unwrap();
    request.headers.remove("authorization");
    let (status, problem) = answered(&aws, request).await;
    assert_eq!((status, &problem["code"]), (401, &"unauthorized".into()));
}

#[tokio::test]
async fn malformed_body_is_refused() {
    let aws = InMemoryAws::new(&[KEYS]);
    let (status, problem) = answered(&aws, serde_json::from_str(MALFORMED).unwrap()).await;
    assert_eq!((status, &problem["code"]), (400, &"malformed_json".into()));
}

#[tokio::test]
async fn invalid_submit_stores_nothing() {
    // The request is good, but the provider's key is not stored.
    let aws = InMemoryAws::new(&[KEYS]);
    let (status, problem) = answered(&aws, serde_json::from_str(OK).unwrap()).await;
    assert_eq!((status, &problem["code"]), (503, &"provider_not_configured".into()));
    assert_eq!(aws.calls(), ["GetParameters", "GetParameters"]);
}

#[tokio::test]
async fn submit_without_table_asks_no_provider() {
    let aws = InMemoryAws::without_table(&[KEYS, ("providers/zvid/api-key", "zvid_key")]);
    let (status, problem) = answered(&aws, serde_json::from_str(OK).unwrap()).await;
    let expected = (503, &"temporarily_unavailable".into());
    assert_eq!((status, &problem["code"]), expected, "invariant 3: nothing is stored");
}

/// On a stack that has made a job before, and on one that has not.
#[tokio::test(start_paused = true)]
async fn cold_submits_share_the_ssm_quota() {
    for secret in [None, Some("CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk")] {
        let aws = InMemoryAws::new(&[KEYS, ("providers/zvid/api-key", "zvid_key")]);
        if let Some(secret) = secret {
            aws.set_parameter("callback-secret", secret);
        }
        let network = Network::default();
        // Zvid's render has the id that we chose.
        let accepts = |request: http::Request<Bytes>| {
            let submitted: Value = serde_json::from_slice(request.body()).unwrap_or_default();
            let id = submitted["id"].as_str().unwrap_or("r-1");
            Response::new(Bytes::from(json!({"id": id, "status": "queued"}).to_string()))
        };
        network.add("zvid.test", host(accepts));
        let base_url = ("zvid".to_owned(), "http://zvid.test".parse().unwrap());
        let adjustments = Adjustments { base_urls: [base_url].into(), ..Adjustments::default() };
        let catalogue = Catalogue::load(&adjustments).unwrap();
        let (quota, start) = (SsmQuota::new(), Instant::now());
        let submits = (0..200).map(async |number| {
            let aws = aws.seen_by(quota.clone());
            let dial = network.seen_by(Arc::new(NoFaults));
            let tracker = aws.tracker_on(dial, catalogue.clone()).unwrap();
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
        let (took, (reads, throttled)) = (start.elapsed(), quota.reads());
        println!("200 cold submits: {took:?}, {reads} reads, {throttled} throttled");
        assert!(took < Duration::from_secs(29), "{took:?}");
        assert_eq!(reads, 400, "the hashes of API keys, and the rest");
        assert!(aws.parameter("callback-secret").is_some());
    }
}

/// Lambda can then run several at once in one process, as its Managed Instances do.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Submitter, ApiGatewayV2httpRequest) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now));
}
