//! Jobs that their customer cancels.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{HttpAnswer, JobView, SimulatedProvider, TestJob, TestStack};

use crate::endings::assert_published_once;

/// A job whose render does not end by itself.
async fn set_endless(stack: &TestStack, provider: SimulatedProvider) -> Result<TestJob> {
    let test_job = stack.new_job(provider).await?;
    stack.set_endless(&test_job, &json!({})).await?;
    stack.submit(&test_job).await?;
    Ok(test_job)
}

fn code(answer: &HttpAnswer) -> Result<Value> {
    assert_eq!(answer.header("content-type"), "application/problem+json");
    answer.json::<Value>()?.get("code").cloned().context("a problem has a code")
}

#[tokio::test]
async fn cancel_publishes_the_end_once() -> Result<()> {
    let stack = TestStack::connect("cancelled").await?;
    let test_job = set_endless(&stack, SimulatedProvider::ViralSync).await?;

    let answer: JobView = stack.cancel(&test_job).await?.expect(202)?.json()?;
    assert_eq!(answer.job_id, test_job.job_id().as_str());
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.state, "cancelled");
    assert_eq!((&job.failure, &job.result_url), (&None, &None));
    assert_eq!(job.provider_status.as_deref(), Some("cancelled"));
    assert_published_once(&stack, &test_job, &job).await?;

    let again = stack.cancel(&test_job).await?.expect(409)?;
    assert_eq!(code(&again)?, "job_ended");
    let cancels = stack.provider_calls(&test_job).await?;
    let cancels = cancels.iter().filter(|call| call.path.ends_with("/cancel"));
    assert_eq!(cancels.map(|call| call.status).collect::<Vec<_>>(), [202]);
    Ok(())
}

#[tokio::test]
async fn cancel_after_the_end_is_refused() -> Result<()> {
    let stack = TestStack::connect("cancelled-late").await?;
    let test_job = stack.new_job(SimulatedProvider::ViralSync).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 500})).await?;
    stack.submit(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    let before = stack.items(&test_job).await?;

    let answer = stack.cancel(&test_job).await?.expect(409)?;

    assert_eq!(code(&answer)?, "job_ended");
    assert_eq!(stack.items(&test_job).await?, before);
    assert_eq!(stack.submit_count(&test_job).await?, 1, "the provider got no cancel request");
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn cancel_unsupported_leaves_render_running() -> Result<()> {
    let stack = TestStack::connect("uncancelled").await?;
    for provider in [
        SimulatedProvider::Zvid,
        SimulatedProvider::Shotstack,
        SimulatedProvider::Json2Video,
        SimulatedProvider::RenderIo,
    ] {
        let test_job = set_endless(&stack, provider).await?;

        let answer = stack.cancel(&test_job).await?.expect(409)?;

        assert_eq!(code(&answer)?, "cancel_not_supported", "{}", provider.name());
        let state = stack.job(&test_job).await?.state;
        assert!(["queued", "processing"].contains(&state.as_str()), "{state}");
        assert_eq!(stack.submit_count(&test_job).await?, 1);
        assert_eq!(stack.events(&test_job).await?, []);
    }
    Ok(())
}

#[tokio::test]
async fn cancel_of_unknown_job_is_refused() -> Result<()> {
    let stack = TestStack::connect("unknown").await?;
    let test_job = stack.new_job(SimulatedProvider::ViralSync).await?;
    test_job.keep_id(&format!("job_{}", "0".repeat(32)))?;
    let answer = stack.cancel(&test_job).await?.expect(404)?;
    assert_eq!(code(&answer)?, "not_found");
    Ok(())
}
