//! The schedule's tick, and the work that only it finds.

use std::time::Duration;

use aws_in_memory::builders;
use aws_in_memory::clock::now;
use domain::job::{Job, State};
use domain::polling::{LognormalModel, Tracking};
use shared::store::Wait;
use tokio::time::timeout;

use super::world::PollerWorld;

#[tokio::test(start_paused = true)]
async fn idle_shard_costs_one_read_per_minute() {
    for shards in [1, 4] {
        let world = PollerWorld::with_shards(shards);
        // A process reads the highest number of shards with its first list of deliveries.
        world.run(301.0).await;
        let (before, asked) = (world.aws.table().consumed(), world.aws.calls().len());
        world.run(3_600.0).await;
        let after = world.aws.table().consumed();
        assert_eq!(after.writes, before.writes);
        assert_eq!(after.reads - before.reads, 60 * shards);
        assert_eq!(after.read_units - before.read_units, 30.0 * f64::from(shards));
        assert!(world.aws.calls()[asked..].iter().all(|operation| operation == "Query"));
        assert!(world.aws.wake_queue().sent().is_empty());
        assert_eq!(world.invocations(), 0, "the ticks were all there was");
    }
}

/// In every fifth minute the tick's one read is for deliveries, so a job may be found a tick
/// later.
#[tokio::test(start_paused = true)]
async fn job_after_quiet_minute_is_found() {
    let world = PollerWorld::new();
    world.run(1_000.0).await;
    for _ in 0..5 {
        let job = world.insert_job("zvid", Tracking::PollOnly, 1.0, None, now()).await;
        world.run(130.0).await;
        assert_eq!(world.job(&job.id).await.state, State::Completed);
        world.run(50.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn callback_job_costs_no_early_write() {
    let world = PollerWorld::new();
    let id = world.submit("shotstack", Tracking::WebhookFirst, 10_000.0).await;
    let writes = world.aws.table().consumed().writes;
    let due = world.due(&id, 200.0)[0];
    world.run(due - 61.0).await;
    assert_eq!(world.aws.table().consumed().writes, writes);
    assert!(world.polls().is_empty());
    world.run(65.0).await;
    let polled = world.polled_at(&id);
    assert_eq!(polled.len(), 1);
    assert!((0.0..2.0).contains(&(polled[0] - due)), "{polled:?}, due at {due}");
}

#[tokio::test(start_paused = true)]
async fn safety_poll_finds_lost_callback() {
    let world = PollerWorld::new();
    let duration_model = LognormalModel::new(20.0_f64.ln(), 0.5);
    let known = world
        .submit_with_model("shotstack", Tracking::WebhookFirst, 15.0, Some(duration_model))
        .await;
    let unknown = world.submit("shotstack", Tracking::WebhookFirst, 15.0).await;
    world.run(300.0).await;
    let [known, unknown] =
        [world.settled_at(&known).await.unwrap(), world.settled_at(&unknown).await.unwrap()];
    assert!((53.0..127.0).contains(&known), "{known}: a minute, and until the next tick");
    assert!((108.0..195.0).contains(&unknown), "{unknown}");
}

/// The drop's own ticket is lost: without another, no event says that nothing is sent any more.
#[tokio::test(start_paused = true)]
async fn dropped_delivery_gets_another_ticket() {
    let world = PollerWorld::new();
    let dropped = builders::delivery().created_at(now()).build().dropped(now()).unwrap();
    let store = world.aws.store();
    store.insert_delivery(&dropped, Wait::InIndex { until: now() }).await.unwrap();
    world.run(310.0).await;
    assert_eq!(world.aws.delivery_queue().sent().len(), 1);
    assert_eq!(store.due_deliveries(0, now()).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn crashed_submit_is_found() {
    let world = PollerWorld::new();
    let job = world.insert_job("zvid", Tracking::PollOnly, 30.0, None, now()).await;
    world.run(200.0).await;
    assert_eq!(world.job(&job.id).await.state, State::Completed);
}

#[tokio::test(start_paused = true)]
async fn unpublished_end_is_published() {
    let world = PollerWorld::new();
    let job = world.insert_job("shotstack", Tracking::WebhookFirst, 1.0, None, now()).await;
    let done = ended(&job);
    world.poller.tracker.store.commit_job(&done).await.unwrap();
    world.run(125.0).await;
    assert!(world.settled_at(&job.id).await.is_some());
    assert_eq!(world.aws.events().len(), 1);
    assert!(world.polls().is_empty(), "there was nothing to ask");
}

fn ended(job: &Job) -> Job {
    use domain::job::{Observation, RenderResult, RenderStatus, Report, Transition};
    let report = Report::Observed(Observation {
        render_job_id: job.render_job_id.clone(),
        status: RenderStatus::Completed(RenderResult {
            url: Some("https://cdn.example/v.mp4".into()),
            expires_at: None,
        }),
        provider_status: "done".into(),
        progress: None,
    });
    match job.apply(&report, 0, now()) {
        Transition::Changed(job) => *job,
        Transition::Unchanged => panic!("no news"),
    }
}

#[tokio::test(start_paused = true)]
async fn shards_are_polled_concurrently() {
    let world = PollerWorld::with_shards(4);
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(world.submit("zvid", Tracking::PollOnly, 50.0).await);
    }
    world.run(100.0).await;
    for id in &ids {
        assert_eq!(world.job(id).await.state, State::Completed);
    }
    for shard in 0..4 {
        assert!(world.epoch(shard).await > 0, "shard {shard} had a holder");
    }
}

#[tokio::test(start_paused = true)]
async fn invocation_polls_one_shard() {
    let world = PollerWorld::with_shards(2);
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(world.submit("zvid", Tracking::PollOnly, 10_000.0).await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The batch has calls of both shards.
    let event = world.next_batch().await;
    drop(timeout(Duration::from_secs(1), world.invocation(event)).await);
    let mut epochs = [world.epoch(0).await, world.epoch(1).await];
    epochs.sort_unstable();
    assert_eq!(epochs, [0, 1]);

    // Another invocation polls the other shard.
    world.run_unticked(10.0).await;
    assert!(ids.iter().all(|id| !world.polled_at(id).is_empty()));
}

#[tokio::test(start_paused = true)]
async fn jobs_of_removed_shards_settle() {
    let world = PollerWorld::with_shards(4);
    world.run(310.0).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(world.submit("shotstack", Tracking::WebhookFirst, 50.0).await);
    }
    let world = world.redeployed(1);
    world.run(900.0).await;
    for id in &ids {
        assert!(world.settled_at(id).await.is_some(), "its callback is lost, and its shard too");
    }
    assert_eq!(world.aws.table().indexed("active").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn durations_are_stored_once_a_minute() {
    let world = PollerWorld::new();
    for _ in 0..30 {
        world.submit("zvid", Tracking::PollOnly, 20.0).await;
        world.run(4.0).await;
    }
    world.run(180.0).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    let schedule =
        world.poller.tracker.duration_models.model(&"zvid".to_owned().try_into().unwrap()).await;
    let most = schedule.expect("thirty are enough").percentile_95().as_secs_f64();
    assert!((20.0..80.0).contains(&most), "{most}");
}
