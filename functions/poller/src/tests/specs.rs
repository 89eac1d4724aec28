//! Provider specs that are put, changed or missing while jobs are polled.

use aws_in_memory::clock::now;
use domain::job::State;
use domain::polling::Tracking;

use super::world::PollerWorld;

const SHOTSTACK: &str = include_str!("../../../../providers/shotstack.json");

fn asked(world: &PollerWorld, host: &str) -> usize {
    world.polls().iter().filter(|poll| poll.host == host).count()
}

#[tokio::test(start_paused = true)]
async fn missing_spec_is_awaited() {
    let world = PollerWorld::new();
    let waiting = world.submit("acme", Tracking::PollOnly, 1.0).await;
    world.run(600.0).await;
    assert_eq!(asked(&world, "acme.test"), 0);
    assert_eq!(world.job(&waiting).await.state, State::Queued);

    let acme = SHOTSTACK.replace("\"shotstack\"", "\"acme\"");
    world.aws.put_spec("acme", &acme).await.unwrap();
    world.run(130.0).await;
    assert_eq!(world.job(&waiting).await.state, State::Completed);
}

/// The poller is awake all the while, because a render is under way.
#[tokio::test(start_paused = true)]
async fn awake_poller_obeys_a_changed_spec() {
    let world = PollerWorld::new();
    let id = world.submit("shotstack", Tracking::PollOnly, 10_000.0).await;
    world.run(120.0).await;
    let before = asked(&world, "shotstack.test");
    assert!(before > 8, "{before}");
    let slow = SHOTSTACK.replace("\"pollFloorMs\": ", "\"pollFloorMs\": 600");
    assert_ne!(slow, SHOTSTACK);
    world.aws.put_spec("shotstack", &slow).await.unwrap();
    world.run(60.0).await;
    let (changed_at, settled) = (now(), asked(&world, "shotstack.test"));
    world.run(1200.0).await;
    let after = asked(&world, "shotstack.test") - settled;
    assert!(after <= 2, "{after} polls since {changed_at}");
    assert_eq!(world.job(&id).await.state, State::Processing);
}
