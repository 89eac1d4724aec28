//! What the poller makes of what others have left unfinished, and of what it is not told.

use std::time::Duration;

use domain::event::EventName;
use domain::id::ProviderName;
use domain::job::{Notice, State};
use domain::polling::Tracking;
use shared::fake::clock::now;

use super::world::World;
use crate::plan::Asks;

#[tokio::test(start_paused = true)]
async fn what_nobody_was_told_of_is_told_without_a_word_to_the_provider() {
    let world = World::new();
    let id = world.leave("zvid", Tracking::PollOnly, 1e9, None, now()).await.id;
    // Whoever stored it died before it told anybody.
    let mut job = world.job(&id).await.bumped();
    job.outbox = vec![Notice { event: EventName::Queued, status: State::Queued, at: now() }];
    world.aws.store().commit_job(&job).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;

    world.poller.visit(job, Asks::Provider { is_down: false }, now).await.unwrap();

    assert_eq!(world.aws.events().len(), 1);
    assert!(world.job(&id).await.outbox.is_empty());
    assert_eq!(world.polls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn lost_callbacks_do_not_teach_that_renders_take_long() {
    let world = World::new();
    for _ in 0..30 {
        // Nobody calls back in this world.
        world.submit("zvid", Tracking::WebhookFirst, 20.0).await;
        world.submit("shotstack", Tracking::PollOnly, 20.0).await;
    }
    world.run(400.0).await;

    assert_eq!(world.aws.table().indexed("active").len(), 0, "safety polls have found them");
    let learnt = async |name: &str| {
        world.aws.store().learnt(&ProviderName::parse(name).unwrap()).await.unwrap()
    };
    assert!(learnt("zvid").await.is_none());
    assert!(learnt("shotstack").await.is_some(), "who is polled is known well enough");
}
