//! Repeated submits and repeated callbacks.

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{JobView, SimulatedProvider, TestStack};

use crate::endings::assert_published_once;

#[tokio::test]
async fn submit_with_same_key_returns_same_job() -> Result<()> {
    let stack = TestStack::connect("again-asked").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 300})).await?;
    let first = stack.submit(&test_job).await?;
    let settled = stack.settled(&test_job).await?;

    // Whitespace and the order of members do not distinguish requests.
    let spacious = serde_json::to_string_pretty(&test_job.body)?;
    let bearer = stack.bearer();
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", &test_job.tag)];
    let second: JobView = stack.post_raw(&headers, spacious).await?.expect(202)?.json()?;

    assert_eq!((&second.job_id, second.state.as_str()), (&first.job_id, "completed"));
    assert_eq!(second.timeline, settled.timeline);
    stack.render(&test_job).await?;
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_eq!(stack.jobs_of_source(&test_job).await?, 1);
    assert_published_once(&stack, &test_job, &settled).await
}

#[tokio::test]
async fn submit_ten_times_renders_once() -> Result<()> {
    let stack = TestStack::connect("ten-at-once").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_endless(&test_job, &json!({})).await?;

    let answers = try_join_all((0..10).map(|_| stack.submit(&test_job))).await?;
    stack.end_render(&test_job).await?;

    for job in &answers {
        assert!(["submitting", "queued"].contains(&job.state.as_str()), "{job:?}");
    }
    let job = stack.settled(&test_job).await?;
    stack.render(&test_job).await?;
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_eq!(stack.jobs_of_source(&test_job).await?, 1);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn idempotency_key_refuses_another_body() -> Result<()> {
    let stack = TestStack::connect("mismatch").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 300})).await?;
    stack.submit(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    let before = stack.items(&test_job).await?;

    for (member, value) in [
        ("payloadVersion", json!("product-promo-v5")),
        ("sourceRecordId", json!(format!("{}-other", test_job.tag))),
        ("metadata", Value::Null),
    ] {
        let other = test_job.clone().with(member, value);
        let answer = stack.post(&other).await?.expect(422)?;
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem: Value = answer.json()?;
        assert_eq!(problem["code"], "idempotency_mismatch", "{member}");
        assert_eq!(problem["field"], "Idempotency-Key", "{member}");
    }

    assert_eq!(stack.items(&test_job).await?, before);
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn callback_repeats_are_published_once() -> Result<()> {
    let stack = TestStack::connect("repeats").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_endless(&test_job, &json!({"callback": {"times": 3, "lateMs": 3_000}})).await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    let before = stack.items(&test_job).await?;
    let render = stack.until_called_back(&test_job, 4).await?;

    assert_eq!(render.callback_statuses(), [200; 4]);
    let bodies: Vec<&str> = render.callbacks.iter().map(|it| it.body.as_str()).collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "the bodies differ");
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(stack.items(&test_job).await?, before, "the late callback changed something");
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn callback_repeated_immediately_is_published_once() -> Result<()> {
    let stack = TestStack::connect("moments-apart").await?;
    // At some of these times the first callback has stored the end and not yet published it.
    let moments_ms = [15, 30, 45, 60, 80, 100, 130, 160];
    try_join_all(moments_ms.map(|late_ms| repeated_callback(&stack, late_ms))).await?;
    Ok(())
}

/// A job whose provider repeats its callback after this time.
async fn repeated_callback(stack: &TestStack, late_ms: u32) -> Result<()> {
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_endless(&test_job, &json!({"callback": {"lateMs": late_ms}})).await?;
    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    let statuses = stack.until_called_back(&test_job, 2).await?.callback_statuses();
    assert_eq!(statuses, [200; 2], "{late_ms} ms");
    assert_published_once(stack, &test_job, &job).await
}
