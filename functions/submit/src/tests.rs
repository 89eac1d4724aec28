use std::sync::Arc;

use aws_in_memory::InMemoryAws;
use aws_in_memory::interceptor::{FaultyOperation, Injected};
use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use aws_lambda_events::encodings::Body;
use domain::address::TargetPolicy;
use domain::credential::Scope;
use serde_json::Value;
use shared::api_key_cache::ApiKeyCache;
use shared::shards::Shards;

use super::*;

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

async fn answered(aws: &InMemoryAws, request: ApiGatewayV2httpRequest) -> (i64, Value) {
    let submitter = Submitter {
        tracker: aws.tracker().unwrap(),
        secrets: Arc::new(aws.secrets()),
        keys: ApiKeyCache::new(aws.store()),
        wakes: aws.wakes(),
        public_url: "https://api.example.com".into(),
        shards: Shards::new(1),
        policy: TargetPolicy::public(),
        entropy: aws.entropy(),
    };
    let response = handle(&submitter, request.into(), Utc::now).await.unwrap();
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
    assert_eq!(aws.calls(), ["PutItem", "Query", "GetParameter"]);
}

#[tokio::test]
async fn submit_without_writes_asks_no_provider() {
    let aws = with_key(&[("providers/zvid/api-key", ZVID_KEY)]).await;
    let aws = aws.seen_by(FaultyOperation::new("PutItem", Injected::Lost));
    let (status, problem) = answered(&aws, serde_json::from_str(OK).unwrap()).await;
    let expected = (503, &"temporarily_unavailable".into());
    assert_eq!((status, &problem["code"]), expected, "invariant 3: nothing is stored");
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

/// Lambda can then run several at once in one process, as its Managed Instances do.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Submitter, HttpEvent) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now));
}
