//! A provider of the installation's own: one parameter of the stack, and nothing built.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Provider, World, eventually};

use crate::endings::{assert_told_by_a_tick, assert_told_once};

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn a_provider_of_ones_own_renders_and_its_signed_callback_is_believed() -> Result<()> {
    let world = World::open("own").await?;
    let order = world.order(Provider::Studio).await?;
    // Its API is down, so only the callback can tell.
    let knobs = json!({"statusCode": 503, "progressCallbacks": 0, "resultUrl": VIDEO});
    world.endless(&order, &knobs).await?;

    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;

    let render = world.called_back(&order, 1).await?;
    assert_eq!(render.callback_statuses(), [200]);
    let mut submitted = order.body["payload"].clone();
    submitted["movie"]["id"] = json!(order.job_id());
    submitted["callbackUrl"] = json!(world.callback_url(order.provider, order.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(world.submits(&order).await?, 1);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.provider_status.as_deref(), Some("done"));
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!(job.render_job_id, Some(render.id));
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn a_render_whose_callback_is_lost_is_found_by_the_safety_poll() -> Result<()> {
    let world = World::open("own-lost").await?;
    let order = world.order(Provider::Studio).await?;
    let lost = json!({
        "durationMs": 1, "callback": {"skip": true}, "progressCallbacks": 0, "resultUrl": VIDEO,
    });
    world.scenario(&order, &lost).await?;

    let submitted = world.submit(&order).await?;
    assert_eq!(submitted.state, "queued");
    // As the schedule does once a minute.
    eventually("a safety poll", async || {
        world.tick().await?;
        let state = world.job(&order).await?.state;
        ensure!(state == "completed", "the job is {state}");
        Ok(())
    })
    .await?;
    let job = world.settled(&order).await?;

    let render = world.render(&order).await?;
    assert!(render.callback_url().is_some(), "{render:?}");
    assert!(render.callbacks.is_empty(), "{render:?}");
    assert_eq!(world.submits(&order).await?, 1);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_told_by_a_tick(&world, &order, &job).await
}

#[tokio::test]
async fn a_provider_of_ones_own_is_told_to_cancel() -> Result<()> {
    let world = World::open("own-cancel").await?;
    let order = world.order(Provider::Studio).await?;
    world.endless(&order, &json!({"callback": {"skip": true}})).await?;
    world.submit(&order).await?;

    let answer = world.cancel(&order).await?.expect(202)?;

    assert_eq!(answer.json::<Value>()?["provider"], "studio");
    let job = world.settled(&order).await?;
    assert_eq!(job.state, "cancelled");
    Ok(())
}
