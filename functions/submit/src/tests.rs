use std::sync::Arc;

use aws_in_memory::InMemoryAws;
use aws_lambda_events::encodings::Body;
use domain::address::TargetPolicy;
use serde_json::Value;

use super::*;

/// SHA-256 of the key in `events/`.
const KEYS: (&str, &str) =
    ("api-key-hashes", "3944ff91afd9897e8b4cbd1cf39ffe676e9a7058600d02660748b9947f682ce4");
const OK: &str = include_str!("../../../events/submit-ok.json");
const MALFORMED: &str = include_str!("../../../events/submit-malformed.json");

async fn answered(aws: &InMemoryAws, request: ApiGatewayV2httpRequest) -> (i64, Value) {
    let tracker = aws.tracker().unwrap();
    let submitter = Submitter {
        secrets: Arc::clone(tracker.providers.secrets()),
        tracker,
        wakes: aws.wakes(),
        public_url: "https://api.example.com".into(),
        shards: 1,
        policy: TargetPolicy::public(),
        entropy: aws.entropy(),
    };
    let response = handle(&submitter, request, Utc::now).await.unwrap();
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

/// Lambda can then run several at once in one process, as its Managed Instances do.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Submitter, ApiGatewayV2httpRequest) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now));
}
