//! A provider whose spec is a parameter of the stack.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{SimulatedProvider, TestStack, eventually};

use crate::endings::{assert_published_by_tick, assert_published_once};

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn own_provider_callback_is_trusted() -> Result<()> {
    let stack = TestStack::connect("own").await?;
    let test_job = stack.new_job(SimulatedProvider::Studio).await?;
    // The provider's API is down, so only the callback reports the end.
    let options = json!({"statusCode": 503, "progressCallbacks": 0, "resultUrl": VIDEO});
    stack.set_endless(&test_job, &options).await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    let render = stack.until_called_back(&test_job, 1).await?;
    assert_eq!(render.callback_statuses(), [200]);
    let mut submitted = test_job.body["payload"].clone();
    submitted["movie"]["id"] = json!(test_job.job_id());
    submitted["callbackUrl"] =
        json!(stack.callback_url(test_job.provider, test_job.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.provider_status.as_deref(), Some("done"));
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!(job.render_job_id, Some(render.id));
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn safety_poll_finds_the_end() -> Result<()> {
    let stack = TestStack::connect("own-lost").await?;
    let test_job = stack.new_job(SimulatedProvider::Studio).await?;
    let lost = json!({
        "durationMs": 1, "callback": {"skip": true}, "progressCallbacks": 0, "resultUrl": VIDEO,
    });
    stack.set_scenario(&test_job, &lost).await?;

    let submitted = stack.submit(&test_job).await?;
    assert_eq!(submitted.state, "queued");
    // The schedule ticks once a minute; the test does not wait for it.
    eventually("a safety poll", async || {
        stack.tick().await?;
        let state = stack.job(&test_job).await?.state;
        ensure!(state == "completed", "the job is {state}");
        Ok(())
    })
    .await?;
    let job = stack.settled(&test_job).await?;

    let render = stack.render(&test_job).await?;
    assert!(render.callback_url().is_some(), "{render:?}");
    assert!(render.callbacks.is_empty(), "{render:?}");
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_published_by_tick(&stack, &test_job, &job).await
}

#[tokio::test]
async fn own_provider_job_is_cancelled() -> Result<()> {
    let stack = TestStack::connect("own-cancel").await?;
    let test_job = stack.new_job(SimulatedProvider::Studio).await?;
    stack.set_endless(&test_job, &json!({"callback": {"skip": true}})).await?;
    stack.submit(&test_job).await?;

    let answer = stack.cancel(&test_job).await?.expect(202)?;

    assert_eq!(answer.json::<Value>()?["provider"], "studio");
    let job = stack.settled(&test_job).await?;
    assert_eq!(job.state, "cancelled");
    Ok(())
}
