//! Work that another function left unfinished, a bus that is missing, and callbacks that never
//! come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_in_memory::clock::now;
use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use domain::event::EventName;
use domain::id::ProviderName;
use domain::job::{OutboxEntry, Report, State, Transition};
use domain::polling::Tracking;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::time::Instant;

use super::world::PollerWorld;
use crate::plan::PollTarget;

#[tokio::test(start_paused = true)]
async fn stale_outbox_is_published_without_poll() {
    let world = PollerWorld::new();
    let id = world.insert_job("zvid", Tracking::PollOnly, 1e9, None, now()).await.id;
    // The function that stored the outbox crashed before it published it.
    let mut job = world.job(&id).await.next_version();
    job.outbox = vec![OutboxEntry::new(EventName::Queued, State::Queued, now())];
    world.aws.store().commit_job(&job).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;

    world.poller.poll_job(job, PollTarget::Repair, now).await.unwrap();

    assert_eq!(world.aws.events().len(), 1);
    assert!(world.job(&id).await.outbox.is_empty(), "invariant 2: it can settle");
    assert_eq!(world.polls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn lost_callbacks_record_no_duration() {
    let world = PollerWorld::new();
    for _ in 0..30 {
        // No callback ever comes in this world.
        world.submit("zvid", Tracking::WebhookFirst, 20.0).await;
        world.submit("shotstack", Tracking::PollOnly, 20.0).await;
    }
    world.run(400.0).await;

    assert_eq!(world.aws.table().indexed("active").len(), 0, "safety polls have found them");
    let duration_statistics = async |name: &str| {
        world.aws.store().duration_statistics(&ProviderName::parse(name).unwrap()).await.unwrap()
    };
    assert!(duration_statistics("zvid").await.is_none());
    assert!(duration_statistics("shotstack").await.is_some(), "who is polled is known well enough");
}

/// A bus that is missing for a while.
#[derive(Debug)]
struct MissingBus {
    until: Instant,
    /// The requests that it was sent meanwhile.
    requests: AtomicUsize,
}

impl MissingBus {
    fn new(lasts: Duration) -> Arc<Self> {
        Arc::new(Self { until: Instant::now() + lasts, requests: AtomicUsize::new(0) })
    }
}

impl CallInterceptor for MissingBus {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let is_missing = call.to == "events" && Instant::now() < self.until;
        self.requests.fetch_add(usize::from(is_missing), Ordering::SeqCst);
        let injected = if is_missing { Injected::Lost } else { Injected::Answered };
        ready(injected.into()).boxed()
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn bus_outage_delays_only_events() {
    let bus = MissingBus::new(HOUR);
    let world = PollerWorld::new().with_faults(bus.clone()).with_receiver().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(world.submit("zvid", Tracking::PollOnly, 20.0).await);
    }
    world.run(60.0).await;
    let tickets = world.aws.delivery_queue().sent().len();
    assert_eq!(tickets, ids.len(), "every webhook is under way");
    assert!(world.aws.events().is_empty());

    world.run(HOUR.as_secs_f64() - 60.0).await;
    let requests = bus.requests.load(Ordering::SeqCst);
    assert!(requests < 1_000, "{requests} requests to a bus that is missing");

    world.run(600.0).await;
    let events: BTreeSet<String> =
        world.aws.events().into_iter().map(|event| event.detail).collect();
    assert_eq!((events.len(), world.aws.events().len()), (ids.len(), ids.len()), "each once");
    assert_eq!(world.aws.delivery_queue().sent().len(), tickets, "and no second ticket");
    for id in &ids {
        assert!(world.settled_at(id).await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn unpublished_event_does_not_hide_the_end() {
    let bus = MissingBus::new(HOUR);
    let world = PollerWorld::new().with_faults(bus).with_receiver().await;
    let id = world.submit("zvid", Tracking::PollOnly, 60.0).await;
    // Its acceptance was stored, and its event could not be published.
    let mut job = world.job(&id).await.next_version();
    job.outbox = vec![OutboxEntry {
        delivery_queued: true,
        ..OutboxEntry::new(EventName::Queued, State::Queued, now())
    }];
    world.aws.store().commit_job(&job).await.unwrap();

    world.run(90.0).await;
    assert_eq!(world.job(&id).await.state, State::Completed);
    assert_eq!(world.aws.delivery_queue().sent().len(), 1, "its webhook is under way");

    world.run(HOUR.as_secs_f64() + 300.0).await;
    let names: Vec<String> = world.aws.events().into_iter().map(|it| it.detail_type).collect();
    assert_eq!(names, ["video.render.queued", "video.render.completed"]);
}

#[tokio::test(start_paused = true)]
async fn late_timeout_is_repaired() {
    let world = PollerWorld::new();
    let made_at = now() - HOUR * 8;
    let job = world.insert_job("zvid", Tracking::PollOnly, 1e9, None, made_at).await;
    let Transition::Changed(ended) = job.apply(&Report::DeadlinePassed, 1, made_at + HOUR) else {
        panic!("it goes on")
    };
    world.aws.store().commit_job(&ended).await.unwrap();

    world.run(600.0).await;
    assert_eq!(world.aws.events().len(), 1);
    assert!(world.settled_at(&job.id).await.is_some(), "invariant 2: it is not stuck");
}
