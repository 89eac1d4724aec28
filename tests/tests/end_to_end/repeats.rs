//! Customers that ask twice, and providers that tell twice.

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{JobView, Provider, World};

use crate::endings::assert_told_once;

#[tokio::test]
async fn asking_again_with_the_same_key_answers_with_the_same_job() -> Result<()> {
    let world = World::open("again-asked").await?;
    let order = world.order(Provider::Shotstack).await?;
    world.scenario(&order, &json!({"durationMs": 300})).await?;
    let first = world.submit(&order).await?;
    let settled = world.settled(&order).await?;

    // Spaces and the order of members are no part of what was asked for.
    let spacious = serde_json::to_string_pretty(&order.body)?;
    let bearer = world.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", &order.mark)];
    let second: JobView = world.post_raw(&headers, spacious).await?.expect(202)?.json()?;

    assert_eq!((&second.job_id, second.state.as_str()), (&first.job_id, "completed"));
    assert_eq!(second.timeline, settled.timeline);
    world.render(&order).await?;
    assert_eq!(world.submits(&order).await?, 1);
    assert_eq!(world.jobs_of_source(&order).await?, 1);
    assert_told_once(&world, &order, &settled).await
}

#[tokio::test]
async fn ten_at_once_with_the_same_key_make_one_render() -> Result<()> {
    let world = World::open("ten-at-once").await?;
    let order = world.order(Provider::Shotstack).await?;
    world.endless(&order, &json!({})).await?;

    let answers = try_join_all((0..10).map(|_| world.submit(&order))).await?;
    world.end(&order).await?;

    for job in &answers {
        assert!(["submitting", "queued"].contains(&job.state.as_str()), "{job:?}");
    }
    let job = world.settled(&order).await?;
    world.render(&order).await?;
    assert_eq!(world.submits(&order).await?, 1);
    assert_eq!(world.jobs_of_source(&order).await?, 1);
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn another_request_under_a_used_key_is_refused() -> Result<()> {
    let world = World::open("mismatch").await?;
    let order = world.order(Provider::Shotstack).await?;
    world.scenario(&order, &json!({"durationMs": 300})).await?;
    world.submit(&order).await?;
    let job = world.settled(&order).await?;
    let before = world.items(&order).await?;

    for (member, value) in [
        ("payloadVersion", json!("product-promo-v5")),
        ("sourceRecordId", json!(format!("{}-other", order.mark))),
        ("metadata", Value::Null),
    ] {
        let other = order.clone().with(member, value);
        let answer = world.post(&other).await?.expect(422)?;
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem: Value = answer.json()?;
        assert_eq!(problem["code"], "idempotency_mismatch", "{member}");
        assert_eq!(problem["field"], "Idempotency-Key", "{member}");
    }

    assert_eq!(world.items(&order).await?, before);
    assert_eq!(world.submits(&order).await?, 1);
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn a_callback_that_comes_three_times_and_once_late_is_told_once() -> Result<()> {
    let world = World::open("repeats").await?;
    let order = world.order(Provider::Shotstack).await?;
    world.endless(&order, &json!({"callback": {"times": 3, "lateMs": 3_000}})).await?;

    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;
    let before = world.items(&order).await?;
    let render = world.called_back(&order, 4).await?;

    assert_eq!(render.callback_statuses(), [200; 4]);
    let bodies: Vec<&str> = render.callbacks.iter().map(|it| it.body.as_str()).collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "they were true repeats");
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(world.items(&order).await?, before, "the late one changed something");
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn a_callback_that_comes_while_the_first_is_being_told_of_does_not_tell_it_again()
-> Result<()> {
    let world = World::open("moments-apart").await?;
    // Somewhere in here the first copy has stored the end and is still telling of it.
    let moments_ms = [15, 30, 45, 60, 80, 100, 130, 160];
    try_join_all(moments_ms.map(|late_ms| twice(&world, late_ms))).await?;
    Ok(())
}

/// A render whose provider calls again so much later.
async fn twice(world: &World, late_ms: u32) -> Result<()> {
    let order = world.order(Provider::Shotstack).await?;
    world.endless(&order, &json!({"callback": {"lateMs": late_ms}})).await?;
    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;
    let statuses = world.called_back(&order, 2).await?.callback_statuses();
    assert_eq!(statuses, [200; 2], "{late_ms} ms");
    assert_told_once(world, &order, &job).await
}
