//! A busy shard, whose poller stays awake.

use std::time::Duration;

use aws_in_memory::clock::now;
use domain::id::JobId;
use domain::job::State;
use domain::polling::Tracking;

use super::world::{PollerWorld, lateness};

async fn submit_many(world: &PollerWorld, count: usize, ends_s: f64) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(world.submit("zvid", Tracking::PollOnly, ends_s).await);
        // The jobs are spread over time.
        tokio::time::sleep(Duration::from_millis(97)).await;
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn polls_are_punctual_and_unique() {
    let world = PollerWorld::new();
    let ids = submit_many(&world, 60, 10_000.0).await;
    world.run(20.0).await;
    let (start, before) = (now(), world.invocations());
    world.run(200.0).await;

    assert!(world.invocations() - before <= 1, "the holder stays awake");
    for id in &ids {
        let created_at = world.job(id).await.created_at;
        let since = (start - created_at).as_seconds_f64();
        let until = (now() - created_at).as_seconds_f64() - 0.2;
        let later = |ages: Vec<f64>| -> Vec<f64> {
            ages.into_iter().filter(|age| *age > since && *age < until).collect()
        };
        let (polled, due) = (later(world.polled_at(id)), later(world.due(id, until)));
        let late = lateness(&polled, &due);
        assert!(late.iter().all(|late| *late < 0.1), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn awake_poller_finds_new_job() {
    let world = PollerWorld::new();
    submit_many(&world, 60, 10_000.0).await;
    world.run(30.0).await;
    let (epoch, invocations) = (world.epoch(0).await, world.invocations());
    let new = world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    world.run(25.0).await;

    assert!(world.epoch(0).await <= epoch + 1, "renewed once at most");
    assert_eq!(world.invocations(), invocations + 1, "its message went back to sleep");
    let polled = world.polled_at(&new);
    let due = world.due(&new, 24.8);
    let late = lateness(&polled, &due);
    assert!(late[0] < 2.1 && late[1..].iter().all(|late| *late < 0.1), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn lagging_index_delays_only_briefly() {
    let world = PollerWorld::new();
    submit_many(&world, 60, 10_000.0).await;
    world.run(30.0).await;
    world.aws.table().delay_indexes(Duration::from_secs(9));
    let new = world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    world.run(20.0).await;
    let first = world.polled_at(&new)[0];
    assert!(first < 12.0, "first asked about after {first} s");
}

#[tokio::test(start_paused = true)]
async fn handover_misses_no_poll() {
    let world = PollerWorld::new().with_time_limit(Duration::from_secs(120));
    let ids = submit_many(&world, 60, 10_000.0).await;
    world.run(20.0).await;
    let (start, before) = (now(), world.invocations());
    world.run(400.0).await;

    let calls = world.invocations() - before;
    assert!((3..=6).contains(&calls), "{calls} invocations of two minutes");
    for id in &ids {
        let created_at = world.job(id).await.created_at;
        let since = (start - created_at).as_seconds_f64();
        let until = (now() - created_at).as_seconds_f64() - 1.0;
        let later = |ages: Vec<f64>| -> Vec<f64> {
            ages.into_iter().filter(|age| *age > since && *age < until).collect()
        };
        let (polled, due) = (later(world.polled_at(id)), later(world.due(id, until)));
        let late = lateness(&polled, &due);
        assert!(late.iter().all(|late| *late < 1.5), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_shard_goes_to_sleep() {
    let world = PollerWorld::new();
    let ids = submit_many(&world, 60, 100.0).await;
    let last = world.submit("zvid", Tracking::PollOnly, 600.0).await;
    world.run(300.0).await;
    for id in &ids {
        assert_eq!(world.job(id).await.state, State::Completed);
    }
    let lease = world.poller.tracker.store.lease(0).await.unwrap().unwrap();
    assert!(lease.is_held(now()) && !lease.is_awake(now()));
    assert_eq!(world.aws.wake_queue().len(), 1, "one chain goes on for the last");
    world.run(400.0).await;
    assert_eq!(world.job(&last).await.state, State::Completed);
    assert!(world.aws.wake_queue().is_empty());
}

#[tokio::test(start_paused = true)]
async fn crashed_awake_poller_is_replaced() {
    let world = PollerWorld::new();
    let ids = submit_many(&world, 60, 500.0).await;
    world.run(60.0).await;
    // The visibility timeout of its message is a quarter of an hour.
    world.crash().await;
    let polls = world.polls().len();
    world.run(215.0).await;
    assert!(world.polls().len() > polls, "another poller goes on");
    world.run(400.0).await;
    for id in &ids {
        assert!(world.settled_at(id).await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn shard_is_read_once() {
    let world = PollerWorld::new();
    submit_many(&world, 100, 10_000.0).await;
    world.run(30.0).await;
    let (before, polls) = (world.aws.table().consumed(), world.polls().len());
    world.run(60.0).await;
    let after = world.aws.table().consumed();
    let polls = world.polls().len() - polls;
    assert!(polls > 500, "{polls}");
    let units = after.read_units - before.read_units;
    assert!(units < 60.0, "{units} read units for {polls} polls");
    assert!(after.writes - before.writes <= 2, "one lease, and nothing else");
}
