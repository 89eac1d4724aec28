//! What AWS takes, held against the largest that we make of what callers, providers and
//! receivers may send. Emulators do not know all of these limits, and on AWS an item, an event
//! or a message above one would be refused again and again. The AWS of these tests refuses
//! what is too much, as the real one does.

use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::attempt::Attempt;
use domain::attempt::Outcome;
use domain::delivery::EXCERPTS_KEPT;
use domain::delivery::{Delivery, DeliveryState, GiveUpReason, GivenUp, MOST_ATTEMPTS};
use domain::event::{DeliveryExhausted, Event, EventName};
use domain::failure::{Failure, FailureCode};
use domain::id::{JobId, RenderJobId};
use domain::job::{Job, MAX_METADATA_BYTES, Observation, Report, Step, StoredRequest};
use domain::job::{RenderResult, RenderStatus};
use domain::polling::Tracking;
use domain::request::{JobRequest, RequestError};
use domain::retry::DeliverySchedule;
use serde_json::{Value, json};
use tokio::time::Duration;

use crate::fake::FakeAws;
use crate::queue::Ticket;
use crate::store::{Inserted, MAX_STORED_PAYLOAD, StoredPayload, Wait};

/// Four bytes, and one character.
const WIDE: &str = "𝕏";

/// The longest result URL that is believed of a provider.
const LONGEST_RESULT_URL: usize = 8192;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// A request with everything as long as it may be.
fn largest_request() -> Value {
    let empty = json!({"k": ""}).to_string().len();
    json!({
        "provider": "zvid",
        "payload": {"name": "x"},
        "sourceRecordId": WIDE.repeat(256),
        "payloadVersion": WIDE.repeat(128),
        "callbackUrl": format!("https://shop.example/{}", "x".repeat(2048 - 21)),
        "events": EventName::ALL.map(EventName::as_str),
        "metadata": {"k": "x".repeat(MAX_METADATA_BYTES - empty)},
    })
}

fn parse(request: &Value) -> Result<JobRequest, RequestError> {
    JobRequest::parse(request.to_string().as_bytes(), &TargetPolicy::public())
}

fn observed(status: RenderStatus) -> Report {
    Report::Observed(Observation {
        render_job_id: Some(RenderJobId::parse(&WIDE.repeat(256)).unwrap()),
        status,
        provider_status: WIDE.repeat(64),
        progress: Some(1.0 / 3.0),
    })
}

/// The ends of a render that leave most behind.
fn ends() -> [RenderStatus; 2] {
    let failure = Failure::new(FailureCode::RenderFailed, &WIDE.repeat(10_000));
    let failure = failure.with_provider_code(&WIDE.repeat(10_000));
    let url = format!("https://cdn.example/{}", "\u{1}".repeat(LONGEST_RESULT_URL - 20));
    let result = RenderResult { url: Some(url), expires_at: Some(now()) };
    [RenderStatus::Completed(result), RenderStatus::Failed(failure)]
}

/// A job that has told nobody of anything that it went through.
fn largest_job(end: RenderStatus) -> Job {
    let request = parse(&largest_request()).unwrap();
    let request = StoredRequest {
        shard: u32::MAX,
        provider: request.provider,
        source_record_id: request.source_record_id,
        payload_version: request.payload_version,
        metadata: request.metadata,
        callback_url: request.callback_url.map(|url| url.as_str().to_owned()),
        wanted: request.wanted,
        fingerprint: request.fingerprint,
        tracking: Tracking::WebhookFirst,
        durations: None,
    };
    let reports = [
        Report::SubmitUnclear,
        Report::Accepted(RenderJobId::parse(&WIDE.repeat(256)).unwrap()),
        observed(RenderStatus::Processing),
        observed(end),
    ];
    reports.iter().fold(Job::new(JobId::from_bytes([7; 16]), request, now()), |job, report| {
        match job.apply(report, u32::MAX, now()) {
            Step::Changed(job) => *job,
            Step::Unchanged => panic!("{report:?} is no news"),
        }
    })
}

/// The job's last delivery, tried as often as one may be by a receiver that says much.
fn largest_delivery(job: &Job) -> Delivery {
    let event = Event::of(job, job.outbox.last().unwrap());
    let fresh =
        Delivery::of(job, &event, job.request.callback_url.as_deref().unwrap(), now()).unwrap();
    let attempt = |excerpt: &str| Attempt {
        at: now(),
        duration_ms: u64::MAX,
        outcome: Outcome::Answered(500),
        excerpt: excerpt.to_owned(),
    };
    let last_round = DeliverySchedule::MOST_ATTEMPTS;
    let mut attempts = vec![attempt(""); MOST_ATTEMPTS - 1 + last_round - EXCERPTS_KEPT];
    attempts.extend(vec![attempt(&"x".repeat(1024)); EXCERPTS_KEPT]);
    let given_up = GivenUp { at: now(), reason: GiveUpReason::AttemptsExhausted };
    Delivery { attempts, state: DeliveryState::GivenUp(given_up), ..fresh }
}

#[test]
fn what_is_longer_than_its_limit_is_refused_before_anything_is_stored() {
    parse(&largest_request()).unwrap();
    let longer = [
        ("sourceRecordId", json!(WIDE.repeat(257))),
        ("payloadVersion", json!(WIDE.repeat(129))),
        ("callbackUrl", json!(format!("https://shop.example/{}", "x".repeat(2048 - 20)))),
        ("metadata", json!({"k": "x".repeat(MAX_METADATA_BYTES)})),
    ];
    for (field, value) in longer {
        let mut request = largest_request();
        request[field] = value;
        assert!(parse(&request).is_err(), "{field}");
    }
}

/// A key of the `by_source` index may have 2,048 bytes.
#[test]
fn the_longest_source_record_is_a_key() {
    let longest = parse(&largest_request()).unwrap().source_record_id;
    assert!(longest.as_str().len() <= 2048);
}

#[tokio::test(start_paused = true)]
async fn the_largest_job_and_its_delivery_are_stored_told_of_and_sent() {
    for end in ends() {
        let aws = FakeAws::new(&[]);
        let job = largest_job(end);
        assert!(job.outbox.len() > 1, "{:?}", job.outbox);
        assert_eq!(aws.store().insert_job(&job).await.unwrap(), Inserted::New);
        for notice in &job.outbox {
            let body = Event::of(&job, notice).to_body().unwrap();
            aws.bus().publish(notice.event.as_str(), &body).await.unwrap();
        }
        let delivery = largest_delivery(&job);
        let stored = aws.store().insert_delivery(&delivery, Wait::InQueue).await.unwrap();
        assert_eq!(stored, Inserted::New);
        let DeliveryState::GivenUp(given_up) = delivery.state else { panic!("{delivery:?}") };
        let body = DeliveryExhausted::of(&delivery, given_up).unwrap().to_body().unwrap();
        aws.bus().publish(DeliveryExhausted::NAME, &body).await.unwrap();
        aws.deliveries().send(&Ticket::next(&delivery), Duration::from_secs(901)).await.unwrap();
        assert_eq!(aws.delivery_queue().sent()[0].delay, Duration::from_secs(900));
        // What a reader of all of a job's deliveries is answered: Lambda takes 6 MB.
        let shown = crate::view::delivery(&delivery).to_string().len() * EventName::ALL.len();
        assert!(shown < 6_000_000, "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_payload_is_stored_and_a_larger_one_is_refused() {
    let id = JobId::from_bytes([7; 16]);
    // Nothing that can be compressed.
    let noise: Vec<u8> =
        (0..MAX_STORED_PAYLOAD).map(|_| crate::random_bytes::<1>().unwrap()[0]).collect();
    // Deflate adds a few bytes to what it cannot make smaller.
    let (fits, too_much) = (&noise[..MAX_STORED_PAYLOAD - 1024], &noise[..]);
    let payload = StoredPayload::compress(fits, [7; 32]).unwrap();
    FakeAws::new(&[]).store().insert_payload(&id, &payload, now()).await.unwrap();
    assert!(StoredPayload::compress(too_much, [7; 32]).is_err());
}
