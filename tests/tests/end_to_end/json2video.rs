//! JSON2Video: unsigned callbacks in whatever shape, and a time-out that may pass.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{Provider, World, eventually};

use crate::endings::assert_told_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn a_callback_of_any_shape_is_a_hint_to_ask() -> Result<()> {
    let world = World::open("json2video-shapes").await?;
    let shapes = ["nested", "flatStrings", "flat"];
    let encodings = ["json", "form"];
    let all = shapes.iter().flat_map(|shape| encodings.map(|encoding| (*shape, encoding)));
    try_join_all(all.map(|(shape, encoding)| confirmed(&world, shape, encoding))).await?;
    Ok(())
}

/// A render whose provider calls back like this.
async fn confirmed(world: &World, shape: &str, encoding: &str) -> Result<()> {
    let order = world.order(Provider::Json2Video).await?;
    let knobs = json!({
        "resultUrl": VIDEO,
        "callbackShape": shape,
        "callbackContentType": encoding,
    });
    world.endless(&order, &knobs).await?;

    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;

    let render = world.called_back(&order, 1).await?;
    let mut submitted = order.body["payload"].clone();
    submitted["client-data"]["relay_job"] = json!(order.job_id());
    let endpoint = world.callback_url(order.provider, order.job_id()).await?;
    submitted["exports"] = json!([{"destinations": [{"type": "webhook", "endpoint": endpoint}]}]);
    assert_eq!(render.body, submitted);
    assert_eq!(render.callback_statuses(), [200], "{shape} {encoding}");
    assert_eq!(render.polls, 1, "{shape} {encoding}");
    assert_eq!(job.states(), ["submitting", "queued", "completed"], "{shape} {encoding}");
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!(job.render_job_id, Some(render.id));
    assert_told_once(world, &order, &job).await
}

#[tokio::test]
async fn a_failure_is_told_in_json2videos_words() -> Result<()> {
    let world = World::open("json2video-fails").await?;
    let order = world.order(Provider::Json2Video).await?;
    let reason = "Scene #1, element #1: Failed to download 'https://a.example/x.mp4' (404)";
    world.endless(&order, &json!({"failWith": reason})).await?;

    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;

    assert_eq!(job.states(), ["submitting", "queued", "failed"]);
    assert_eq!(job.failure, Some(json!({"code": "render_failed", "message": reason})));
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn a_render_that_was_called_timed_out_can_still_complete() -> Result<()> {
    let world = World::open("json2video-late").await?;
    let order = world.order(Provider::Json2Video).await?.with("providerWebhook", json!(false));
    world.endless(&order, &json!({"timeoutAfterMs": 0, "resultUrl": VIDEO})).await?;

    world.submit(&order).await?;
    world.until_state(&order, "timed_out").await?;
    world.end(&order).await?;
    world.until_state(&order, "completed").await?;
    let job = world.settled(&order).await?;

    assert_eq!(job.states(), ["submitting", "queued", "timed_out", "completed"]);
    assert_eq!((job.result_url.as_deref(), &job.failure), (Some(VIDEO), &None));
    let told = |event: &Value| {
        let [name, status, url] = ["event", "status", "resultUrl"].map(|it| event[it].clone());
        (name, status, url, event["failure"]["code"].clone())
    };
    let expected = [
        (json!("video.render.failed"), json!("timed_out"), Value::Null, json!("timed_out")),
        (json!("video.render.completed"), json!("completed"), json!(VIDEO), Value::Null),
    ];
    // By what they tell of: neither a bus nor a webhook promises to keep their order.
    let in_order = |mut all: Vec<Value>| {
        all.sort_by_key(|event| event["occurredAt"].to_string());
        all.iter().map(told).collect::<Vec<_>>()
    };
    let events = world.events(&order).await?;
    assert_eq!(in_order(events.into_iter().map(|it| it.detail).collect()), expected);
    let webhooks = world.webhooks(&order).await?;
    let bodies = webhooks.iter().map(|it| serde_json::from_str(&it.body));
    assert_eq!(in_order(bodies.collect::<Result<_, _>>()?), expected);
    assert!(webhooks.iter().all(|webhook| webhook.verified == Some(true)), "{webhooks:#?}");
    Ok(())
}

#[tokio::test]
async fn a_forged_callback_completes_nothing() -> Result<()> {
    let world = World::open("json2video-forged").await?;
    let order = world.order(Provider::Json2Video).await?;
    world.endless(&order, &json!({})).await?;
    world.submit(&order).await?;
    let render = world.render(&order).await?;
    let url = world.callback_url(order.provider, order.job_id()).await?;

    let forged = json!({"project": render.id, "status": "done", "url": "https://evil.example/v"});
    world.call_back(&url, forged.to_string()).await?.expect(503)?;

    eventually("the provider asked", async || {
        ensure!(world.render(&order).await?.polls >= 1);
        Ok(())
    })
    .await?;
    let job = world.job(&order).await?;
    assert_eq!((job.state.as_str(), job.result_url), ("processing", None));
    assert_eq!(world.events(&order).await?, []);
    Ok(())
}
