//! A quiet shard, whose poller sleeps between continuation calls.

use std::time::Duration;

use aws_in_memory::clock::now;
use domain::job::State;
use domain::lease::TERM;
use domain::polling::Tracking;

use super::world::{PollerWorld, lateness};

#[tokio::test(start_paused = true)]
async fn lone_render_end_is_found_promptly() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 20.0).await;
    world.run(60.0).await;

    let job = world.job(&id).await;
    assert_eq!(job.state, State::Completed);
    let found = (job.ended_at().unwrap() - job.created_at).as_seconds_f64();
    assert!((20.0..26.0).contains(&found), "found after {found} s");
    let late = lateness(&world.polled_at(&id), &world.due(&id, found));
    assert!(late.iter().all(|late| *late < 0.2), "{late:?}");
    assert_eq!(job.attempt_count as usize, late.len(), "exact at the transition");
}

#[tokio::test(start_paused = true)]
async fn unindexed_job_is_awaited() {
    let world = PollerWorld::new();
    world.aws.table().delay_indexes(Duration::from_secs(4));
    let id = world.submit("zvid", Tracking::PollOnly, 1.0).await;
    world.run_unticked(10.0).await;
    let first = world.polled_at(&id)[0];
    assert!(first < 7.0, "first asked about after {first} s");
    assert!(world.settled_at(&id).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn unchanged_poll_writes_nothing() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 1_000.0).await;
    // The first poll learns that the render has begun.
    world.run_unticked(3.0).await;
    assert_eq!(world.job(&id).await.state, State::Processing);
    let (writes, polls) = (world.aws.table().consumed().writes, world.polls().len());

    world.run_unticked(50.0).await;

    assert!(world.polls().len() >= polls + 7);
    assert_eq!(world.aws.table().consumed().writes, writes);
}

#[tokio::test(start_paused = true)]
async fn lease_is_renewed_once_a_minute() {
    let world = PollerWorld::new();
    world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    world.run(600.0).await;
    let epoch = world.epoch(0).await;
    assert!((9..=11).contains(&epoch), "{epoch} writes in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn new_job_takeover_repeats_few_polls() {
    let world = PollerWorld::new();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.submit("zvid", Tracking::PollOnly, 10_000.0).await);
        world.run_unticked(7.3).await;
    }
    world.run_unticked(60.0).await;
    assert_eq!(world.aws.wake_queue().len(), 1, "one chain is left");
    for id in &ids {
        let age = (now() - world.job(id).await.created_at).as_seconds_f64();
        let polled = world.polled_at(id);
        let due = world.due(id, age - 1.3);
        // A takeover repeats the polls of the last moments.
        assert!(polled.len() >= due.len() && polled.len() <= due.len() + 4, "{polled:?} {due:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn last_job_ends_chain_and_lease() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 5.0).await;
    world.run(40.0).await;
    assert!(world.settled_at(&id).await.is_some());
    assert!(world.aws.wake_queue().is_empty());
    let lease = world.poller.tracker.store.lease(0).await.unwrap().unwrap();
    assert!(!lease.is_held(now()));
    assert_eq!(lease.epoch, 2, "taken and given back");
}

#[tokio::test(start_paused = true)]
async fn tick_restarts_a_lost_chain() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 400.0).await;
    world.run(30.0).await;
    let lost = world.next_batch().await;
    for record in lost.records {
        world.aws.wake_queue().delete(&record.message_id.unwrap());
    }
    assert!(world.aws.wake_queue().is_empty());
    let polls = world.polled_at(&id).len();

    world.run(TERM.as_secs_f64() + 65.0).await;
    assert!(world.polled_at(&id).len() > polls, "no poll is missed");
    world.run(300.0).await;
    let found = world.settled_at(&id).await.expect("found");
    assert!(found < 430.0, "{found}");
}

#[tokio::test(start_paused = true)]
async fn duplicate_message_starts_no_second_chain() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    world.run(30.0).await;
    let event = world.next_batch().await;
    let id_of_message = event.records[0].message_id.clone().unwrap();
    world.aws.wake_queue().deliver_again(&id_of_message, Duration::from_millis(200));
    world.invocation(event).await;

    world.run(120.0).await;
    let polls = world.polled_at(&id).len();
    world.run(60.0).await;
    assert_eq!(world.aws.wake_queue().len(), 1, "one chain is left");
    let due = world.due(&id, 211.0).len() - world.due(&id, 151.0).len();
    let polled = world.polled_at(&id).len() - polls;
    assert!(polled.abs_diff(due) <= 1, "{polled} polls in a minute, {due} were due");
}

#[tokio::test(start_paused = true)]
async fn late_message_is_caught_up() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    world.run_unticked(20.0).await;
    tokio::time::sleep(Duration::from_secs(45)).await;
    let polls = world.polled_at(&id).len();
    world.run_unticked(3.0).await;
    assert_eq!(world.polled_at(&id).len(), polls + 1, "asked at once, and once");
}

#[tokio::test(start_paused = true)]
async fn concurrent_holders_publish_end_once() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 20.0).await;
    world.run(18.0).await;
    // The continuation call is delivered twice, and both are handled at the same time.
    let event = world.next_batch().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    tokio::join!(world.invocation(event.clone()), world.invocation(event));
    world.run(60.0).await;

    assert_eq!(world.job(&id).await.state, State::Completed);
    assert!(world.settled_at(&id).await.is_some());
    let mut events = world.aws.events();
    events.dedup();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(world.aws.wake_queue().is_empty());
}

#[tokio::test(start_paused = true)]
async fn repeated_crashes_only_cost_time() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 60.0).await;
    // The poller crashes again and again at arbitrary points.
    for _ in 0..20 {
        world.run(5.03).await;
        world.crash().await;
    }
    world.run(1_200.0).await;
    assert_eq!(world.job(&id).await.state, State::Completed);
    assert!(world.settled_at(&id).await.is_some());
    assert_eq!(world.aws.table().indexed("active").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn unreachable_table_ends_no_chain() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 100.0).await;
    world.run_unticked(15.0).await;
    world.aws.lose_next_answer();
    world.run_unticked(120.0).await;
    assert_eq!(world.job(&id).await.state, State::Completed);
}
