mod api_keys;
mod deliveries;
mod missing;
mod provider_changes;
mod providers;
mod redirection;
mod webhook_config;

use aws_in_memory::interceptor::{FaultyOperation, Injected};
use aws_in_memory::{InMemoryAws, builders};
use aws_lambda_events::encodings::Body;
use domain::credential::Scope;
use domain::endpoint::EndpointLimits;
use domain::event::EventSet;
use domain::failure::{Failure, FailureCode};
use domain::id::RenderJobId;
use domain::job::{Job, Report, Transition};
use serde_json::{Value, json};
use shared::store::WebhookConfig;

use super::*;

/// The key in `events/`.
pub(crate) const KEY: &str = "rr_example";
pub(crate) const GET: &str = include_str!("../../../events/jobs-get.json");
const CANCEL: &str = include_str!("../../../events/jobs-cancel.json");
const TEST_WEBHOOK: &str = include_str!("../../../events/jobs-test-webhook.json");

/// AWS with that key, which may do everything.
pub(crate) async fn with_key() -> InMemoryAws {
    let aws = InMemoryAws::new(&[]);
    aws.add_api_key(KEY, Scope::ALL.into_iter().collect()).await.unwrap();
    aws
}

/// A process that was just started.
pub(crate) fn started(aws: &InMemoryAws) -> Jobs {
    let tracker = aws.tracker().unwrap();
    Jobs {
        secrets: Arc::clone(tracker.providers.secrets()),
        tracker,
        keys: ApiKeyCache::new(aws.store()),
        policy: TargetPolicy::public(),
        shards: Shards::new(1),
        entropy: aws.entropy(),
    }
}

async fn answered(aws: &InMemoryAws, event: &str) -> (i64, Value) {
    let jobs = started(aws);
    let response = handle(&jobs, serde_json::from_str(event).unwrap(), Utc::now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

/// The job of the requests in `events/`.
fn job(provider: &str) -> Job {
    builders::job().provider(provider).created_at(Utc::now()).build()
}

fn after(job: &Job, report: &Report) -> Job {
    match job.apply(report, 0, job.created_at) {
        Transition::Changed(job) => *job,
        Transition::Unchanged => panic!("{report:?} changes nothing"),
    }
}

fn accepted(provider: &str) -> Job {
    after(&job(provider), &Report::Accepted(RenderJobId::parse("r-1").unwrap()))
}

fn rejected(provider: &str) -> Job {
    let failure = Failure::new(FailureCode::ProviderRejected, "no scenes");
    after(&job(provider), &Report::Rejected(failure))
}

async fn with_job(job: &Job) -> InMemoryAws {
    let aws = with_key().await;
    aws.tracker().unwrap().store.insert_job(job).await.unwrap();
    aws
}

#[tokio::test]
async fn job_is_shown() {
    let aws = with_job(&accepted("viralsync")).await;
    let (status, shown) = answered(&aws, GET).await;
    assert_eq!((status, &shown["state"]), (200, &"queued".into()));
    assert_eq!(shown["renderJobId"], "r-1");
}

#[tokio::test]
async fn listed_source_record_may_hold_a_comma() {
    let aws = with_key().await;
    let store = aws.tracker().unwrap().store;
    for (number, source) in ["shop", "shop,42", "42"].into_iter().enumerate() {
        let id = JobId::from_bytes([u8::try_from(number).unwrap(); 16]);
        let job = builders::job().id(id).source_record(source).created_at(Utc::now()).build();
        store.insert_job(&job).await.unwrap();
    }
    let mut event: Value = serde_json::from_str(GET).unwrap();
    event["routeKey"] = "GET /v1/jobs".into();
    // As API Gateway writes them: the map has no way to tell one value from two.
    event["rawQueryString"] = "sourceRecordId=shop%2C42&limit=5".into();
    event["queryStringParameters"] = json!({"sourceRecordId": "shop,42", "limit": "5"});
    let (status, listed) = answered(&aws, &event.to_string()).await;
    assert_eq!(status, 200, "{listed}");
    let [job] = listed["jobs"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!(job["sourceRecordId"], "shop,42");
}

#[tokio::test]
async fn unknown_job_is_not_found() {
    for event in [GET, CANCEL] {
        let (status, problem) = answered(&with_key().await, event).await;
        assert_eq!((status, &problem["code"]), (404, &"not_found".into()));
    }
}

#[tokio::test]
async fn wrong_api_key_is_unauthorized() {
    for event in [GET, CANCEL] {
        let aws = InMemoryAws::new(&[]);
        aws.add_api_key("rr_other", Scope::ALL.into_iter().collect()).await.unwrap();
        let (status, problem) = answered(&aws, event).await;
        assert_eq!((status, &problem["code"]), (401, &"unauthorized".into()));
        assert_eq!(aws.calls(), ["PutItem", "Query"], "nothing else was read");
    }
}

#[tokio::test]
async fn internal_failure_is_503_without_cause() {
    for event in [GET, CANCEL] {
        let aws = with_key().await;
        let refused = Injected::Refused(400, json!({"__type": "AccessDeniedException"}));
        // The keys, and the job.
        for operation in ["Query", "GetItem"] {
            let broken = aws.seen_by(FaultyOperation::new(operation, refused.clone()));
            let (status, problem) = answered(&broken, event).await;
            assert_eq!((status, &problem["code"]), (503, &"temporarily_unavailable".into()));
            assert!(!problem.to_string().contains("table"), "{problem}");
        }
    }
}

/// The provider is not asked: not even its API key is read.
#[tokio::test]
async fn impossible_cancel_asks_no_provider() {
    for (job, code) in [
        (rejected("viralsync"), "job_ended"),
        (rejected("zvid"), "job_ended"),
        (accepted("zvid"), "cancel_not_supported"),
        (job("zvid"), "cancel_not_supported"),
        (job("viralsync"), "not_accepted_yet"),
        (after(&job("viralsync"), &Report::SubmitUnclear), "not_accepted_yet"),
    ] {
        let aws = with_job(&job).await;
        let (status, problem) = answered(&aws, CANCEL).await;
        assert_eq!((status, &problem["code"]), (409, &code.into()), "{problem}");
        assert_eq!(aws.calls(), ["PutItem", "PutItem", "Query", "GetItem"], "{code}");
    }
}

#[tokio::test]
async fn cancel_needs_the_provider_key() {
    let aws = with_job(&accepted("viralsync")).await;
    let (status, problem) = answered(&aws, CANCEL).await;
    assert_eq!((status, &problem["code"]), (503, &"provider_not_configured".into()));
    assert_eq!(aws.calls(), ["PutItem", "PutItem", "Query", "GetItem", "GetItem", "GetParameters"]);
}

#[tokio::test]
async fn cancel_without_provider_spec_is_503() {
    let aws = with_job(&accepted("acme")).await;
    let (status, problem) = answered(&aws, CANCEL).await;
    assert_eq!((status, &problem["code"]), (503, &"provider_not_configured".into()));
}

async fn with_receiver(aws: &InMemoryAws) {
    let config = WebhookConfig {
        url: Some("https://shop.example/hooks".into()),
        events: EventSet::terminal(),
        limits: EndpointLimits::default(),
        updated_at: DateTime::UNIX_EPOCH,
    };
    aws.put_webhook_config(&config).await.unwrap();
}

/// The request for what became of a test.
fn about(test: &Value) -> String {
    let mut event: Value = serde_json::from_str(GET).unwrap();
    event["routeKey"] = "GET /v1/webhook-config/test/{eventId}".into();
    event["pathParameters"] = json!({"eventId": test["eventId"]});
    event.to_string()
}

#[tokio::test]
async fn webhook_test_is_sent_and_shown() {
    let aws = with_key().await;
    with_receiver(&aws).await;
    let (status, sent) = answered(&aws, TEST_WEBHOOK).await;
    assert_eq!((status, &sent["event"]), (202, &"webhook.test".into()), "{sent}");
    assert_eq!((&sent["state"], &sent["attempts"]), (&"pending".into(), &json!([])));
    assert_eq!(sent["url"], "https://shop.example/hooks");
    assert_eq!(answered(&aws, &about(&sent)).await, (200, sent.clone()));
    let asked = aws.calls();
    let reads = ["GetItem", "GetParameters", "Query"];
    let writes: Vec<_> = asked.iter().filter(|it| !reads.contains(&it.as_str())).collect();
    let expected =
        ["PutItem", "PutItem", "TransactWriteItems", "PutItem", "PutItem", "SendMessage"];
    assert_eq!(writes, expected, "nothing went on the bus");
    let (_, another) = answered(&aws, TEST_WEBHOOK).await;
    assert_ne!(another["eventId"], sent["eventId"]);
}

#[tokio::test]
async fn webhook_test_needs_a_receiver() {
    let aws = with_key().await;
    let (status, problem) = answered(&aws, TEST_WEBHOOK).await;
    assert_eq!((status, &problem["code"]), (409, &"webhook_not_configured".into()));
    let (status, problem) =
        answered(&aws, &about(&json!({"eventId": "evt_0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}))).await;
    assert_eq!((status, &problem["code"]), (404, &"not_found".into()));
    let (status, _) = answered(&aws, &about(&json!({"eventId": "evt_?"}))).await;
    assert_eq!(status, 404);
}

/// Lambda can then run several at once in one process, as its Managed Instances do.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Jobs, HttpEvent) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now));
}
