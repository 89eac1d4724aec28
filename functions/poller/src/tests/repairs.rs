//! Work that another function left unfinished, and callbacks that never come.

use std::time::Duration;

use aws_in_memory::clock::now;
use domain::event::EventName;
use domain::id::ProviderName;
use domain::job::{OutboxEntry, State};
use domain::polling::Tracking;

use super::world::PollerWorld;
use crate::plan::PollTarget;

#[tokio::test(start_paused = true)]
async fn stale_outbox_is_published_without_poll() {
    let world = PollerWorld::new();
    let id = world.insert_job("zvid", Tracking::PollOnly, 1e9, None, now()).await.id;
    // The function that stored the outbox crashed before it published it.
    let mut job = world.job(&id).await.next_version();
    job.outbox = vec![OutboxEntry { event: EventName::Queued, status: State::Queued, at: now() }];
    world.aws.store().commit_job(&job).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;

    world.poller.poll_job(job, PollTarget::Provider { is_down: false }, now).await.unwrap();

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
