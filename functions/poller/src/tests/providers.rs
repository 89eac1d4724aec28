//! Providers that hang, are down or ask for fewer requests.

use std::time::Duration;

use aws_in_memory::clock::now;
use domain::id::JobId;
use domain::job::State;
use domain::polling::{PauseReason, Tracking};

use super::world::{PollerWorld, ProviderMode};

#[tokio::test(start_paused = true)]
async fn retry_after_outlives_every_sleep() {
    let world = PollerWorld::new();
    world.set_mode("zvid", ProviderMode::RetryAfter(429, 40));
    let first = world.submit("zvid", Tracking::PollOnly, 1.0).await;
    let second = world.submit("zvid", Tracking::PollOnly, 1.0).await;
    world.run_unticked(10.0).await;
    world.set_mode("zvid", ProviderMode::Healthy);
    let asked_at = world.polls()[0].at;
    let before = world.polls().len();
    assert!(before <= 2, "both may have been under way: {before}");
    let other = world.submit("shotstack", Tracking::PollOnly, 1.0).await;
    world.run_unticked(60.0).await;

    let next = world.polls()[before..].iter().find(|poll| poll.host == "zvid.test").unwrap().at;
    let waited = (next - asked_at).as_seconds_f64();
    assert!((40.0..43.0).contains(&waited), "{waited} s");
    assert_eq!(world.job(&first).await.state, State::Completed);
    assert_eq!(world.job(&second).await.state, State::Completed);
    assert!(world.polled_at(&other)[0] < 4.0, "another provider does not wait");
}

#[tokio::test(start_paused = true)]
async fn down_provider_is_probed_rarely() {
    let world = PollerWorld::new();
    world.set_mode("shotstack", ProviderMode::Fails(503));
    let mut down = Vec::new();
    let mut well = Vec::new();
    for _ in 0..60 {
        down.push(world.submit("shotstack", Tracking::PollOnly, 100.0).await);
        well.push(world.submit("zvid", Tracking::PollOnly, 100.0).await);
    }
    world.run(600.0).await;

    let asked = world.polls().iter().filter(|poll| poll.host == "shotstack.test").count();
    // Each of the sixty a few times until it counts as down, and then one in a minute.
    assert!((60..260).contains(&asked), "{asked} questions to a provider that is down");
    for id in &well {
        let found = world.settled_at(id).await.expect("found");
        assert!(found < 112.0, "found after {found} s");
    }

    world.set_mode("shotstack", ProviderMode::Healthy);
    world.run(130.0).await;
    for id in &down {
        assert_eq!(world.job(id).await.state, State::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_provider_leaves_room() {
    let world = PollerWorld::new();
    world.set_mode("zvid", ProviderMode::Hangs);
    for _ in 0..400 {
        world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    }
    let mut well = Vec::new();
    for _ in 0..20 {
        well.push(world.submit("shotstack", Tracking::PollOnly, 60.0).await);
    }
    world.run(100.0).await;
    for id in &well {
        let found = world.settled_at(id).await.expect("found");
        assert!(found < 72.0, "found after {found} s");
    }
}

#[tokio::test(start_paused = true)]
async fn backlog_survives_a_handover() {
    let world = PollerWorld::new().with_time_limit(Duration::from_secs(60));
    let mut ids = Vec::new();
    for _ in 0..400 {
        ids.push(world.submit("shotstack", Tracking::PollOnly, 10_000.0).await);
    }
    world.run(300.0).await;
    // At 3.75 polls a second it takes two minutes to poll all jobs once, and longer because some
    // are polled again meanwhile.
    let forgotten = ids.iter().filter(|id| world.polled_at(id).is_empty()).count();
    assert_eq!(forgotten, 0);
}

/// Three renders, so that their provider counts as down.
async fn submit_three(world: &PollerWorld) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.submit("zvid", Tracking::PollOnly, 1_000.0).await);
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn outage_keeps_deadlines_and_loses_nothing() {
    for mode in [ProviderMode::Fails(503), ProviderMode::RetryAfter(429, 86_400)] {
        let world = PollerWorld::new();
        // The provider's deadline is half an hour.
        let ids = submit_three(&world).await;
        world.run(20.0).await;
        world.set_mode("zvid", mode.clone());
        world.run(1_760.0).await;
        for id in &ids {
            assert_eq!(world.job(id).await.state, State::Processing);
        }
        world.run(90.0).await;
        for id in &ids {
            let asked = world.polled_at(id);
            let at_deadline = asked.iter().filter(|at| (1_799.0..1_862.0).contains(*at)).count();
            assert!(at_deadline >= 1, "invariant 2: asked once more, {mode:?}: {asked:.0?}");
            let job = world.job(id).await;
            assert_eq!((job.state, job.settled_at), (State::TimedOut, None), "{mode:?}");
            let told = (job.ended_at().unwrap() - job.created_at).as_seconds_f64();
            assert!((1_800.0..1_861.0).contains(&told), "told after {told} s, {mode:?}");
        }
        world.run(3.0 * 3_600.0).await;
        world.set_mode("zvid", ProviderMode::Healthy);
        world.run(1_000.0).await;
        for id in &ids {
            assert_eq!(world.job(id).await.state, State::Completed, "{mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sick_render_times_out_at_deadline() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 3_000.0).await;
    world.set_sick(&id, ProviderMode::RetryAfter(429, 3_600));
    world.run(1_870.0).await;
    assert_eq!(world.job(&id).await.state, State::TimedOut);
    world.set_sick(&id, ProviderMode::Healthy);
    world.run(3.0 * 3_600.0).await;
    assert_eq!(world.job(&id).await.state, State::Completed, "a result still counts");
}

#[tokio::test(start_paused = true)]
async fn endless_outage_gives_job_up() {
    let world = PollerWorld::new();
    world.set_mode("zvid", ProviderMode::Fails(503));
    let ids = submit_three(&world).await;
    world.run(6.4 * 3_600.0).await;
    for id in &ids {
        let job = world.job(id).await;
        assert_eq!((job.state, job.settled_at), (State::TimedOut, None));
    }
    world.run(0.2 * 3_600.0).await;
    for id in &ids {
        assert!(world.settled_at(id).await.is_some());
        let late = world.polled_at(id).iter().filter(|at| **at > 1_900.0).count();
        // One of the three is the probe in each pause of a minute.
        assert!((20..140).contains(&late), "{late} questions in six hours");
    }
    assert!(world.aws.wake_queue().is_empty());
}

#[tokio::test(start_paused = true)]
async fn resume_ends_the_pause_within_a_minute() {
    for is_resumed in [false, true] {
        let world = PollerWorld::new();
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(world.submit("zvid", Tracking::PollOnly, 60.0).await);
        }
        world.set_mode("zvid", ProviderMode::RetryAfter(429, 900));
        world.run(120.0).await;
        let paused = world.pauses(0).await;
        assert_eq!(paused.len(), 1, "it is in the lease");
        let pause = paused.values().next().unwrap();
        let shown = (pause.reason, pause.status, pause.renders);
        assert_eq!(shown, (PauseReason::RateLimited, Some(429), 3));
        world.set_mode("zvid", ProviderMode::Healthy);
        if is_resumed {
            world.resume("zvid").await;
        }
        world.run(90.0).await;
        for id in &ids {
            let is_found = world.job(id).await.state == State::Completed;
            assert_eq!(is_found, is_resumed, "{id}");
        }
        assert_eq!(world.pauses(0).await.is_empty(), is_resumed);
    }
}

#[tokio::test(start_paused = true)]
async fn down_provider_is_found_again_within_a_pause() {
    let world = PollerWorld::new();
    world.set_mode("zvid", ProviderMode::Fails(500));
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(world.submit("zvid", Tracking::PollOnly, 60.0).await);
    }
    world.run(1_200.0).await;
    let before = world.polls().len();
    world.run(300.0).await;
    let asked = world.polls().len() - before;
    assert!((3..=8).contains(&asked), "{asked} questions in five minutes");
    world.set_mode("zvid", ProviderMode::Healthy);
    world.run(75.0).await;
    for id in &ids {
        assert_eq!(world.job(id).await.state, State::Completed, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn deadlines_in_an_outage_are_no_flood() {
    let world = PollerWorld::new();
    world.set_mode("zvid", ProviderMode::Fails(503));
    for _ in 0..900 {
        world.submit("zvid", Tracking::PollOnly, 1e6).await;
    }
    world.run(1_790.0).await;
    let before = world.polls().len();
    world.run(90.0).await;
    let asked = world.polls().len() - before;
    assert!((300..750).contains(&asked), "{asked} questions in a minute and a half");
    let jobs = world.all_jobs().await;
    let untold = jobs.iter().filter(|job| job.state != State::TimedOut).count();
    assert_eq!(untold, 0, "of 900, a minute after their deadlines");
}

#[tokio::test(start_paused = true)]
async fn endless_render_times_out() {
    let world = PollerWorld::new();
    let id = world.submit("zvid", Tracking::PollOnly, 1e6).await;
    world.run(2_000.0).await;
    let job = world.job(&id).await;
    assert_eq!(job.state, State::TimedOut);
    let ended = (job.ended_at().unwrap() - job.created_at).as_seconds_f64();
    assert!((1_800.0..1_862.0).contains(&ended), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn budget_is_kept_without_starvation() {
    let world = PollerWorld::new();
    // The budget is 300 requests a minute, of which polls may make 225: 3.75 a second.
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(world.submit("shotstack", Tracking::PollOnly, 10_000.0).await);
    }
    world.run(60.0).await;
    let before = world.polls().len();
    world.run(240.0).await;
    let rate = (world.polls().len() - before) as f64 / 240.0;
    assert!((1.5..=3.8).contains(&rate), "{rate} a second; they want 20 and more");
    let start = now() - Duration::from_secs(240);
    for id in &ids {
        let uuid = id.as_uuid();
        let polls = world.polls();
        let lately = polls.iter().filter(|poll| poll.render == uuid && poll.at > start).count();
        assert!(lately >= 1, "{id} was not asked about in four minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn shards_share_the_budget() {
    let world = PollerWorld::with_shards(2);
    for _ in 0..200 {
        world.submit("shotstack", Tracking::PollOnly, 10_000.0).await;
    }
    world.run(60.0).await;
    let before = world.polls().len();
    world.run(240.0).await;
    let rate = (world.polls().len() - before) as f64 / 240.0;
    assert!(rate <= 3.8, "{rate} a second, both shards together");
}
