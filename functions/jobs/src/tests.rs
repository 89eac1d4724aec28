use aws_lambda_events::encodings::Body;
use domain::event::EventSet;
use domain::failure::{Failure, FailureCode};
use domain::id::{ProviderName, RenderJobId, SourceRecordId};
use domain::job::{Intent, Job, Report, Step};
use domain::polling::Tracking;
use serde_json::Value;
use shared::fake::FakeAws;

use super::*;

/// SHA-256 of the key in `events/`.
const KEYS: (&str, &str) =
    ("api-key-hashes", "3944ff91afd9897e8b4cbd1cf39ffe676e9a7058600d02660748b9947f682ce4");
const GET: &str = include_str!("../../../events/jobs-get.json");
const CANCEL: &str = include_str!("../../../events/jobs-cancel.json");

async fn answered(aws: &FakeAws, event: &str) -> (i64, Value) {
    let jobs = Jobs {
        tracker: aws.tracker().unwrap(),
        secrets: Arc::new(aws.secrets()),
        policy: TargetPolicy::public(),
    };
    let response = handle(&jobs, serde_json::from_str(event).unwrap(), Utc::now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

/// The job of the requests in `events/`.
fn job(provider: &str) -> Job {
    let intent = Intent {
        id: JobId::from_bytes([7; 16]),
        provider: ProviderName::parse(provider).unwrap(),
        source_record_id: SourceRecordId::parse("product-123").unwrap(),
        payload_version: None,
        metadata: serde_json::Map::new(),
        callback_url: None,
        wanted: EventSet::ends(),
        fingerprint: [1; 32],
        tracking: Tracking::PollOnly,
        shard: 0,
    };
    Job::intend(intent, Utc::now())
}

fn after(job: &Job, report: &Report) -> Job {
    match job.apply(report, 0, job.created_at) {
        Step::Changed(job) => *job,
        Step::Unchanged => panic!("{report:?} changes nothing"),
    }
}

fn accepted(provider: &str) -> Job {
    after(&job(provider), &Report::Accepted(RenderJobId::parse("r-1").unwrap()))
}

fn rejected(provider: &str) -> Job {
    let failure = Failure::new(FailureCode::ProviderRejected, "no scenes");
    after(&job(provider), &Report::Rejected(failure))
}

async fn with_job(job: &Job) -> FakeAws {
    let aws = FakeAws::new(&[KEYS]);
    aws.tracker().unwrap().store.insert_job(job).await.unwrap();
    aws
}

#[tokio::test]
async fn a_job_is_shown() {
    let aws = with_job(&accepted("viralsync")).await;
    let (status, shown) = answered(&aws, GET).await;
    assert_eq!((status, &shown["state"]), (200, &"queued".into()));
    assert_eq!(shown["renderJobId"], "r-1");
}

#[tokio::test]
async fn a_job_that_is_not_there_is_not_found() {
    for event in [GET, CANCEL] {
        let (status, problem) = answered(&FakeAws::new(&[KEYS]), event).await;
        assert_eq!((status, &problem["code"]), (404, &"not_found".into()));
    }
}

#[tokio::test]
async fn nobody_gets_in_with_another_key() {
    let other = "0".repeat(64);
    for event in [GET, CANCEL] {
        let aws = FakeAws::new(&[("api-key-hashes", &other)]);
        let (status, problem) = answered(&aws, event).await;
        assert_eq!((status, &problem["code"]), (401, &"unauthorized".into()));
        assert_eq!(aws.asked(), ["GetParameter"], "nothing was read");
    }
}

#[tokio::test]
async fn trouble_of_our_own_is_503_and_says_nothing_of_it() {
    for event in [GET, CANCEL] {
        let (status, problem) = answered(&FakeAws::without_table(&[KEYS]), event).await;
        assert_eq!((status, &problem["code"]), (503, &"temporarily_unavailable".into()));
        assert!(!problem.to_string().contains("table"), "{problem}");
    }
}

/// The provider is not asked: not even its API key is read.
#[tokio::test]
async fn what_cannot_be_cancelled_is_told_without_asking_the_provider() {
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
        assert_eq!(aws.asked(), ["PutItem", "GetParameter", "GetItem"], "{code}");
    }
}

#[tokio::test]
async fn a_provider_whose_key_is_missing_cannot_be_told_to_cancel() {
    let aws = with_job(&accepted("viralsync")).await;
    let (status, problem) = answered(&aws, CANCEL).await;
    assert_eq!((status, &problem["code"]), (503, &"temporarily_unavailable".into()));
    assert_eq!(aws.asked(), ["PutItem", "GetParameter", "GetItem", "GetParameter"]);
}
