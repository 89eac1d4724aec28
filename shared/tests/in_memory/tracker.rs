//! Changes of a job, and the events that follow: [`shared::tracker`].

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::interceptor::NoFaults;
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
use http::Response;
use shared::store::WebhookConfig;
use shared::tracker::{ApplyOutcome, ReportSource};

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
    tracker.store.put_webhook_config(&config).await.unwrap();
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
