//! The limits of AWS, held against the largest items, events and messages that callers,
//! providers and receivers can cause. Emulators do not enforce all of these limits, and AWS
//! would refuse what is above one again and again. The in-memory AWS enforces them.

use aws_in_memory::InMemoryAws;
use aws_in_memory::builders::{job, noon};
use domain::address::TargetPolicy;
use domain::attempt::Attempt;
use domain::attempt::AttemptOutcome;
use domain::delivery::EXCERPTS_KEPT;
use domain::delivery::{Delivery, DeliveryState, GiveUpReason, GivenUp, MAX_ATTEMPTS};
use domain::event::{DeliveryExhausted, Event, EventName};
use domain::failure::{Failure, FailureCode};
use domain::id::{JobId, RenderJobId, RequestId};
use domain::job::{Job, MAX_METADATA_BYTES, Observation, Report, Transition};
use domain::job::{RenderResult, RenderStatus};
use domain::polling::Tracking;
use domain::request::{JobRequest, RequestError};
use domain::retry::DeliverySchedule;
use serde_json::{Value, json};
use shared::entropy::Entropy;
use shared::queue::Ticket;
use shared::store::{Inserted, MAX_STORED_PAYLOAD, StoredPayload, Wait};
use shared::view;
use tokio::time::Duration;

/// Four bytes, and one character.
const WIDE: &str = "𝕏";

/// The longest result URL that is believed of a provider.
const MAX_RESULT_URL: usize = 8192;

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

/// The ends of a render that store most.
fn ends() -> [RenderStatus; 2] {
    let failure = Failure::new(FailureCode::RenderFailed, &WIDE.repeat(10_000));
    let failure = failure.with_provider_code(&WIDE.repeat(10_000));
    let url = format!("https://cdn.example/{}", "\u{1}".repeat(MAX_RESULT_URL - 20));
    let result = RenderResult { url: Some(url), expires_at: Some(noon()) };
    [RenderStatus::Completed(result), RenderStatus::Failed(failure)]
}

/// A job whose outbox holds everything that it went through.
fn largest_job(end: RenderStatus) -> Job {
    let request = parse(&largest_request()).unwrap();
    let intended = job().request(request).shard(u32::MAX).tracking(Tracking::WebhookFirst).build();
    let reports = [
        Report::SubmitUnclear,
        Report::Accepted(RenderJobId::parse(&WIDE.repeat(256)).unwrap()),
        observed(RenderStatus::Processing),
        observed(end),
    ];
    reports.iter().fold(intended, |job, report| match job.apply(report, u32::MAX, noon()) {
        Transition::Changed(job) => *job,
        Transition::Unchanged => panic!("{report:?} is no news"),
    })
}

/// The job's last delivery, with as many attempts as one may have and the longest excerpts.
fn largest_delivery(job: &Job) -> Delivery {
    let event = Event::of(job, job.outbox.last().unwrap());
    let fresh =
        Delivery::of(job, &event, job.request.callback_url.as_deref().unwrap(), noon()).unwrap();
    let attempt = |excerpt: &str| Attempt {
        at: noon(),
        duration_ms: u64::MAX,
        outcome: AttemptOutcome::Answered(500),
        excerpt: excerpt.to_owned(),
    };
    let last_round = DeliverySchedule::MAX_ATTEMPTS;
    let mut attempts = vec![attempt(""); MAX_ATTEMPTS - 1 + last_round - EXCERPTS_KEPT];
    attempts.extend(vec![attempt(&"x".repeat(1024)); EXCERPTS_KEPT]);
    let given_up = GivenUp { at: noon(), reason: GiveUpReason::AttemptsExhausted };
    Delivery { attempts, state: DeliveryState::GivenUp(given_up), ..fresh }
}

#[test]
fn longer_fields_are_refused() {
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
fn longest_source_record_is_a_key() {
    let longest = parse(&largest_request()).unwrap().source_record_id;
    assert!(longest.as_str().len() <= 2048);
}

#[tokio::test(start_paused = true)]
async fn largest_job_passes_all_services() {
    for end in ends() {
        let aws = InMemoryAws::new(&[]);
        let job = largest_job(end);
        assert!(job.outbox.len() > 1, "{:?}", job.outbox);
        assert_eq!(aws.store().insert_job(&job).await.unwrap(), Inserted::New);
        for entry in &job.outbox {
            let body = Event::of(&job, entry).to_body().unwrap();
            aws.bus().publish(entry.event.as_str(), &body).await.unwrap();
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
        let shown = view::delivery(&delivery).to_string().len() * EventName::ALL.len();
        assert!(shown < 6_000_000, "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn payload_size_is_limited() {
    let id = JobId::from_bytes([7; 16]);
    // Nothing that can be compressed.
    let noise: Vec<u8> =
        (0..MAX_STORED_PAYLOAD).map(|_| Entropy::os().bytes::<1>().unwrap()[0]).collect();
    // Deflate adds a few bytes to what it cannot make smaller.
    let (fits, too_much) = (&noise[..MAX_STORED_PAYLOAD - 1024], &noise[..]);
    let payload = StoredPayload::compress(fits).unwrap();
    let store = InMemoryAws::new(&[]).store();
    let record = store.new_record(id.clone(), [7; 32], noon());
    let stored = store.insert_record(&RequestId::of_job(&id), &record, &payload).await.unwrap();
    assert_eq!(stored, Inserted::New);
    assert!(StoredPayload::compress(too_much).is_err());
}
