//! Changes of a job, and the events that follow: [`shared::tracker`].

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use aws_in_memory::network::Network;
use aws_in_memory::{InMemoryAws, builders, clock};
use bytes::Bytes;
use domain::address::TargetPolicy;
use domain::event::EventName;
use domain::failure::FailureCode;
use domain::id::ProviderName;
use domain::job::{Job, Report, Transition};
use domain::provider::StatusAnswer;
use domain::provider::catalogue::Adjustments;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use http::Response;
use serde_json::Value;
use shared::store::WebhookConfig;
use shared::tracker::{ApplyOutcome, ReportSource, Tracker};

fn job(callback_url: Option<&str>) -> Job {
    builders::job().callback_url(callback_url).created_at(clock::now()).build()
}

/// How many deliveries a job makes that fails, and which events went on the bus.
async fn published(callback_url: Option<&str>, receiver_wants: EventName) -> (usize, Vec<String>) {
    let aws = InMemoryAws::new(&[]);
    let tracker = aws.tracker().unwrap();
    let config = WebhookConfig {
        url: Some("https://shop.example/hooks".into()),
        events: [receiver_wants].into_iter().collect(),
        limits: domain::endpoint::EndpointLimits::default(),
        updated_at: clock::now(),
    };
    aws.put_webhook_config(&config).await.unwrap();
    let job = job(callback_url);
    tracker.store.insert_job(&job).await.unwrap();
    let failure = domain::failure::Failure::new(FailureCode::ProviderRejected, "no scenes");
    let outcome = tracker
        .apply_report(job, &Report::Rejected(failure), ReportSource::Other, 0, clock::now())
        .await
        .unwrap();
    let ApplyOutcome::Changed(job) = outcome else { panic!("{outcome:?}") };
    tracker.publish_outbox(job.clone(), clock::now()).await.unwrap();
    let deliveries = tracker.store.deliveries(&job.id).await.unwrap().len();
    (deliveries, aws.events().into_iter().map(|event| event.detail_type).collect())
}

#[tokio::test(start_paused = true)]
async fn unlisted_provider_error_is_reported() {
    let aws = InMemoryAws::new(&[(
        "providers/viralsync/api-key",
        r#"{"key": "key", "hosts": ["viralsync.test:80"]}"#,
    )]);
    let network = Network::default();
    let refuses = |_| {
        let refusal = Response::builder().status(503).header("retry-after", 30);
        ready(refusal.body(Bytes::new()).unwrap()).boxed()
    };
    network.add("viralsync.test", Arc::new(refuses));
    let base_urls = [("viralsync".to_owned(), "http://viralsync.test".parse().unwrap())];
    let policy = TargetPolicy::local_use();
    let adjustments = Adjustments { base_urls: base_urls.into(), policy, ..Adjustments::default() };
    let tracker = aws.tracker_on(network.seen_by(Arc::new(NoFaults)), adjustments).unwrap();
    let mut job = job(None);
    job.request.provider = ProviderName::parse("viralsync").unwrap();
    job.request.submitted_to = "http://viralsync.test".parse().unwrap();
    let Transition::Changed(job) = job.apply(&Report::SubmitUnclear, 0, clock::now()) else {
        panic!("it is unclear")
    };

    let answer = tracker.fetch_status(&job, None, clock::now()).await.unwrap();

    let Some(StatusAnswer::Unavailable { retry_after, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn default_receiver_filters_events() {
    let on_bus = vec!["video.render.failed".to_owned()];
    assert_eq!(published(None, EventName::Failed).await, (1, on_bus.clone()));
    assert_eq!(published(None, EventName::Completed).await, (0, on_bus.clone()));
    let own = Some("https://other.example/hooks");
    assert_eq!(
        published(own, EventName::Completed).await,
        (1, on_bus),
        "the default receiver was not asked"
    );
}

/// The write units of a failed job from its creation on, and whether it is then in the index.
async fn cost(config: Option<WebhookConfig>) -> (f64, bool) {
    let aws = InMemoryAws::new(&[]);
    let tracker = aws.tracker().unwrap();
    if let Some(config) = config {
        InMemoryAws::switch(&tracker.store, &config).await.unwrap();
    }
    let before = aws.table().consumed().write_units;
    let job = job(None);
    tracker.store.insert_job(&job).await.unwrap();
    let failure = domain::failure::Failure::new(FailureCode::ProviderRejected, "no scenes");
    let report = Report::Rejected(failure);
    let outcome = tracker.apply_report(job, &report, ReportSource::Other, 0, clock::now()).await;
    let ApplyOutcome::Changed(job) = outcome.unwrap() else { panic!() };
    let job = tracker.publish_outbox(job, clock::now()).await.unwrap();
    assert!(job.settled_at.is_some());
    let is_indexed = !aws.table().indexed("undelivered").is_empty();
    (aws.table().consumed().write_units - before, is_indexed)
}

/// A new job is three units (the item and two entries), its end one, its settlement two (the item
/// and the entry that goes), a delivery one.
#[tokio::test(start_paused = true)]
async fn only_missed_receiver_costs_a_unit() {
    let config = |url: Option<&str>| WebhookConfig {
        url: url.map(str::to_owned),
        events: EventName::ALL.into_iter().collect(),
        limits: domain::endpoint::EndpointLimits::default(),
        updated_at: clock::now(),
    };
    assert_eq!(cost(None).await, (6.0, false), "it only uses the bus");
    assert_eq!(cost(Some(config(Some("https://shop.example/hooks")))).await, (7.0, false));
    let picky = WebhookConfig {
        events: EventName::Completed.into(),
        ..config(Some("https://shop.example/hooks"))
    };
    assert_eq!(cost(Some(picky)).await, (6.0, false), "the receiver does not want it");
    assert_eq!(cost(Some(config(None))).await, (7.0, true), "its receiver is gone");
}

/// Calls that fail while they are said to.
#[derive(Debug)]
struct Outage {
    of: fn(&Call<'_>) -> bool,
    is_on: AtomicBool,
}

impl Outage {
    fn new(of: fn(&Call<'_>) -> bool) -> Arc<Self> {
        Arc::new(Self { of, is_on: AtomicBool::new(true) })
    }

    fn end(&self) {
        self.is_on.store(false, Ordering::SeqCst);
    }
}

impl CallInterceptor for Outage {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let fails = self.is_on.load(Ordering::SeqCst) && (self.of)(call);
        let injected = if fails { Injected::Lost } else { Injected::Answered };
        ready(injected.into()).boxed()
    }
}

/// A completed job with a receiver of its own, stored with its outbox.
async fn completed(tracker: &Tracker) -> Job {
    let job = job(Some("https://shop.example/hooks"));
    tracker.store.insert_job(&job).await.unwrap();
    let failure = domain::failure::Failure::new(FailureCode::RenderFailed, "no");
    let report = Report::Rejected(failure);
    let outcome = tracker.apply_report(job, &report, ReportSource::Other, 0, clock::now()).await;
    let ApplyOutcome::Changed(job) = outcome.unwrap() else { panic!() };
    job
}

fn writes(aws: &InMemoryAws) -> usize {
    aws.calls().iter().filter(|call| *call == "PutItem").count()
}

/// Publishes while one way fails, twice, and again when it works. Returns after each: events,
/// tickets, and the writes that it took.
async fn published_in_outage(of: fn(&Call<'_>) -> bool) -> Vec<(usize, usize, usize)> {
    let aws = InMemoryAws::new(&[]);
    let outage = Outage::new(of);
    let tracker = aws.seen_by(outage.clone()).tracker().unwrap();
    let mut job = completed(&aws.tracker().unwrap()).await;
    let mut seen = Vec::new();
    for publish in 0..3 {
        if publish == 2 {
            outage.end();
        }
        let before = writes(&aws);
        job = tracker.publish_outbox(job, clock::now()).await.unwrap();
        let stored = aws.store().job(&job.id).await.unwrap().unwrap();
        assert_eq!(stored, job, "what is done is stored");
        seen.push((aws.events().len(), aws.delivery_queue().len(), writes(&aws) - before));
    }
    assert!(job.settled_at.is_some());
    seen
}

#[tokio::test(start_paused = true)]
async fn working_bus_costs_no_further_write() {
    let seen = published_in_outage(|_| false).await;
    assert_eq!(seen, [(1, 1, 2), (1, 1, 0), (1, 1, 0)], "the delivery and the job");
}

#[tokio::test(start_paused = true)]
async fn missing_bus_delays_no_webhook() {
    let seen = published_in_outage(|call| call.to == "events").await;
    assert_eq!(seen, [(0, 1, 2), (0, 1, 0), (1, 1, 1)], "and no ticket is sent twice");
}

#[tokio::test(start_paused = true)]
async fn missing_queue_delays_no_event() {
    let seen = published_in_outage(|call| call.to == "sqs").await;
    // That the delivery is there is found out by a write.
    assert_eq!(seen, [(1, 0, 2), (1, 0, 1), (1, 1, 2)], "and no event is published twice");
}

#[tokio::test(start_paused = true)]
async fn failing_delivery_write_delays_no_event() {
    let seen = published_in_outage(|call| {
        let sk = call.body.pointer("/Item/sk/S").and_then(Value::as_str);
        sk.is_some_and(|sk| sk.starts_with("delivery#"))
    })
    .await;
    assert_eq!(seen, [(1, 0, 1), (1, 0, 0), (1, 1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn outbox_goes_in_one_request() {
    let aws = InMemoryAws::new(&[]);
    let tracker = aws.tracker().unwrap();
    let mut job = completed(&tracker).await;
    for event in [EventName::Queued, EventName::Processing] {
        job.outbox.push(domain::job::OutboxEntry::new(event, job.state, clock::now()));
    }
    tracker.publish_outbox(job, clock::now()).await.unwrap();
    assert_eq!((aws.events().len(), aws.delivery_queue().len()), (3, 3));
    assert_eq!(aws.calls().iter().filter(|call| *call == "PutEvents").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn jobs_share_the_default_receiver() {
    let aws = InMemoryAws::new(&[]);
    let tracker = aws.tracker().unwrap();
    let jobs = (0..100_u8).map(|number| {
        let id = domain::id::JobId::from_bytes([number; 16]);
        let mut job = builders::job().id(id).created_at(clock::now()).build();
        job.outbox.push(domain::job::OutboxEntry::new(
            EventName::Completed,
            domain::job::State::Completed,
            clock::now(),
        ));
        job
    });
    let jobs: Vec<Job> = jobs.collect();
    for job in &jobs {
        tracker.store.insert_job(job).await.unwrap();
    }
    join_all(jobs.into_iter().map(|job| tracker.publish_outbox(job, clock::now()))).await;
    assert_eq!(aws.events().len(), 100);
    assert_eq!(aws.calls().iter().filter(|call| *call == "GetItem").count(), 1);
    assert_eq!(aws.calls().iter().filter(|call| *call == "PutEvents").count(), 10);
}
