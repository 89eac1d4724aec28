//! Looks at hints: on time, once, and beside the polls of a shard.

use std::time::Duration;

use aws_in_memory::clock::now;
use chrono::TimeDelta;
use domain::hint::{FollowUp, Hint, HintDecision};
use domain::id::{JobId, RenderJobId};
use domain::job::State;
use domain::polling::Tracking;
use shared::queue::LookCall;

use super::world::{PollerWorld, ProviderMode};

/// Stores a hint about a job, as `webhook` does.
async fn store_hint(world: &PollerWorld, job: &JobId, follow_up: FollowUp) -> Hint {
    let stored = world.aws.store().hint(job).await.unwrap();
    // A hint that may be asked about: one that is old.
    let aged = stored.clone().map(|it| Hint { at: it.at - TimeDelta::minutes(5), ..it });
    let HintDecision::Ask(hint) = HintDecision::of(aged.as_ref(), None, now()) else {
        panic!("it joins")
    };
    let hint = Hint { follow_up, ..hint };
    world.aws.store().commit_hint(job, &hint).await.unwrap();
    hint
}

async fn send(world: &PollerWorld, call: &LookCall) {
    world.aws.wakes().send_look(call, Duration::ZERO).await.unwrap();
}

/// A job whose render ends after so many seconds, and of which a callback says that it has ended.
async fn hinted(world: &PollerWorld, ends_s: f64) -> JobId {
    let job = world.insert_job("zvid", Tracking::WebhookFirst, ends_s, None, now()).await;
    let hint = store_hint(world, &job.id, FollowUp::Queued).await;
    send(world, &LookCall::first(&job.id, &hint)).await;
    job.id
}

fn whole(seconds: &[f64]) -> Vec<i64> {
    seconds.iter().map(|at| format!("{at:.0}").parse().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn look_finds_end_and_publishes_it() {
    let world = PollerWorld::new().with_receiver().await;
    let id = hinted(&world, 0.0).await;
    world.run_unticked(2.0).await;
    assert_eq!(world.job(&id).await.state, State::Completed);
    assert!(world.settled_at(&id).await.is_some());
    assert_eq!(world.aws.events().len(), 1);
    assert_eq!(world.polls().len(), 1);
    assert!(world.aws.wake_queue().is_empty());
    assert_eq!(world.epoch(0).await, 0, "no lease is taken");
}

#[tokio::test(start_paused = true)]
async fn looks_end_after_the_fourth() {
    let world = PollerWorld::new();
    let id = hinted(&world, 10_000.0).await;
    world.run_unticked(300.0).await;
    assert_eq!(whole(&world.polled_at(&id)), [0, 5, 20, 60]);
    assert!(world.aws.wake_queue().is_empty());
    assert_eq!(world.job(&id).await.state, State::Processing, "what was seen is stored");
}

#[tokio::test(start_paused = true)]
async fn look_waits_for_retry_after() {
    let world = PollerWorld::new();
    world.set_mode("zvid", ProviderMode::RetryAfter(429, 30));
    let id = hinted(&world, 10_000.0).await;
    world.run_unticked(55.0).await;
    assert_eq!(whole(&world.polled_at(&id)), [0, 30]);
}

#[tokio::test(start_paused = true)]
async fn look_repeated_message_of_final_job_is_free() {
    let world = PollerWorld::new();
    let id = hinted(&world, 0.0).await;
    world.run_unticked(2.0).await;
    let hint = store_hint(&world, &id, FollowUp::Queued).await;
    send(&world, &LookCall::first(&id, &hint)).await;
    world.run_unticked(2.0).await;
    assert_eq!(world.polls().len(), 1, "nothing is left to ask");
}

#[tokio::test(start_paused = true)]
async fn look_ends_for_later_hint() {
    let world = PollerWorld::new();
    let id = hinted(&world, 10_000.0).await;
    world.run_unticked(2.0).await;
    store_hint(&world, &id, FollowUp::Queued).await;
    world.run_unticked(100.0).await;
    assert_eq!(world.polls().len(), 1, "the later one has looks of its own");
}

#[tokio::test(start_paused = true)]
async fn look_that_guards_is_void_once_queued() {
    for (follow_up, polls) in [(FollowUp::Asking, 1), (FollowUp::Guarded, 1), (FollowUp::Queued, 0)]
    {
        let world = PollerWorld::new();
        let job = world.insert_job("zvid", Tracking::WebhookFirst, 0.0, None, now()).await;
        let hint = store_hint(&world, &job.id, follow_up).await;
        send(&world, &LookCall::first(&job.id, &hint).guard()).await;
        world.run_unticked(2.0).await;
        assert_eq!(world.polls().len(), polls, "{follow_up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn look_for_another_render_asks_nothing() {
    let world = PollerWorld::new();
    let job = world.insert_job("shotstack", Tracking::WebhookFirst, 0.0, None, now()).await;
    let hint = store_hint(&world, &job.id, FollowUp::Queued).await;
    let other = Some(RenderJobId::parse("another-render").unwrap());
    let mut call = LookCall::first(&job.id, &hint);
    call.render_job_id = other;
    send(&world, &call).await;
    world.run_unticked(2.0).await;
    assert!(world.polls().is_empty());
    assert!(world.aws.wake_queue().is_empty());
}

/// A poller that stays with its shard for a quarter of an hour must not hold a look up.
#[tokio::test(start_paused = true)]
async fn look_is_taken_beside_a_shard() {
    let world = PollerWorld::new();
    let polled = world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    world.run_unticked(30.0).await;
    let id = hinted(&world, 0.0).await;
    world.run_unticked(2.0).await;
    assert_eq!(world.job(&id).await.state, State::Completed);
    world.run_unticked(30.0).await;
    assert!(world.polled_at(&polled).len() > 3, "the shard is polled on");
}
