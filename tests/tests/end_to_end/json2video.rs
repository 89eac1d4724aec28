//! JSON2Video: unsigned callbacks in several body shapes, and timed-out renders that complete.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{SimulatedProvider, TestStack, eventually};

use crate::endings::assert_published_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn callback_of_any_shape_causes_poll() -> Result<()> {
    let stack = TestStack::connect("json2video-shapes").await?;
    let shapes = ["nested", "flatStrings", "flat"];
    let encodings = ["json", "form"];
    let all = shapes.iter().flat_map(|shape| encodings.map(|encoding| (*shape, encoding)));
    try_join_all(all.map(|(shape, encoding)| confirmed(&stack, shape, encoding))).await?;
    Ok(())
}

/// A job whose provider sends callbacks of this shape and encoding.
async fn confirmed(stack: &TestStack, shape: &str, encoding: &str) -> Result<()> {
    let test_job = stack.new_job(SimulatedProvider::Json2Video).await?;
    let options = json!({
        "resultUrl": VIDEO,
        "callbackShape": shape,
        "callbackContentType": encoding,
    });
    stack.set_endless(&test_job, &options).await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    let render = stack.until_called_back(&test_job, 1).await?;
    let mut submitted = test_job.body["payload"].clone();
    submitted["client-data"]["relay_job"] = json!(test_job.job_id());
    let endpoint = stack.callback_url(test_job.provider, test_job.job_id()).await?;
    submitted["exports"] = json!([{"destinations": [{"type": "webhook", "endpoint": endpoint}]}]);
    assert_eq!(render.body, submitted);
    assert_eq!(render.callback_statuses(), [200], "{shape} {encoding}");
    assert_eq!(render.polls, 1, "{shape} {encoding}");
    assert_eq!(job.states(), ["submitting", "queued", "completed"], "{shape} {encoding}");
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!(job.render_job_id, Some(render.id));
    assert_published_once(stack, &test_job, &job).await
}

#[tokio::test]
async fn job_failure_has_json2videos_message() -> Result<()> {
    let stack = TestStack::connect("json2video-fails").await?;
    let test_job = stack.new_job(SimulatedProvider::Json2Video).await?;
    let reason = "Scene #1, element #1: Failed to download 'https://a.example/x.mp4' (404)";
    stack.set_endless(&test_job, &json!({"failWith": reason})).await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "queued", "failed"]);
    assert_eq!(job.failure, Some(json!({"code": "render_failed", "message": reason})));
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn job_timed_out_can_still_complete() -> Result<()> {
    let stack = TestStack::connect("json2video-late").await?;
    let test_job =
        stack.new_job(SimulatedProvider::Json2Video).await?.with("providerWebhook", json!(false));
    stack.set_endless(&test_job, &json!({"timeoutAfterMs": 0, "resultUrl": VIDEO})).await?;

    stack.submit(&test_job).await?;
    stack.until_state(&test_job, "timed_out").await?;
    assert!(!stack.job(&test_job).await?.is_final, "a late completion counts");
    stack.end_render(&test_job).await?;
    stack.until_state(&test_job, "completed").await?;
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "queued", "timed_out", "completed"]);
    assert_eq!((job.result_url.as_deref(), &job.failure), (Some(VIDEO), &None));
    let parts = |event: &Value| {
        let [name, status, url] = ["event", "status", "resultUrl"].map(|it| event[it].clone());
        (name, status, event["final"].clone(), url, event["failure"]["code"].clone())
    };
    let expected = [
        (
            json!("video.render.failed"),
            json!("timed_out"),
            json!(false),
            Value::Null,
            json!("timed_out"),
        ),
        (
            json!("video.render.completed"),
            json!("completed"),
            json!(true),
            json!(VIDEO),
            Value::Null,
        ),
    ];
    // Sorted by time, because neither the bus nor webhooks keep the order.
    let in_order = |mut all: Vec<Value>| {
        all.sort_by_key(|event| event["occurredAt"].to_string());
        all.iter().map(parts).collect::<Vec<_>>()
    };
    let events = stack.events(&test_job).await?;
    assert_eq!(in_order(events.into_iter().map(|it| it.detail).collect()), expected);
    let webhooks = stack.webhooks(&test_job).await?;
    let bodies = webhooks.iter().map(|it| serde_json::from_str(&it.body));
    assert_eq!(in_order(bodies.collect::<Result<_, _>>()?), expected);
    assert!(webhooks.iter().all(|webhook| webhook.verified == Some(true)), "{webhooks:#?}");
    Ok(())
}

#[tokio::test]
async fn callback_forged_completes_nothing() -> Result<()> {
    let stack = TestStack::connect("json2video-forged").await?;
    let test_job = stack.new_job(SimulatedProvider::Json2Video).await?;
    stack.set_endless(&test_job, &json!({})).await?;
    stack.submit(&test_job).await?;
    let render = stack.render(&test_job).await?;
    let url = stack.callback_url(test_job.provider, test_job.job_id()).await?;

    let forged = json!({"project": render.id, "status": "done", "url": "https://evil.example/v"});
    stack.call_back(&url, forged.to_string()).await?.expect(200)?;

    eventually("a poll of the provider", async || {
        ensure!(stack.render(&test_job).await?.polls >= 1);
        Ok(())
    })
    .await?;
    let job = stack.job(&test_job).await?;
    assert_eq!((job.state.as_str(), job.result_url), ("processing", None));
    assert_eq!(stack.events(&test_job).await?, []);
    Ok(())
}
