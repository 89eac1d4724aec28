//! Submits whose answer is lost: there may be a render, and there must never be two.

use anyhow::{Result, bail, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::{SimulatedProvider, TestStack, eventually};

use crate::endings::assert_published_once;

#[tokio::test]
async fn submit_unknown_is_found_by_our_id() -> Result<()> {
    let stack = TestStack::connect("late-zvid").await?;
    let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 1, "submitAnswer": "never"})).await?;

    let accepted = stack.submit(&test_job).await?;
    assert_eq!(accepted.state, "submit_unknown");
    assert_eq!((accepted.render_job_id, accepted.failure), (None, None));
    let again = stack.submit(&test_job).await?;
    assert_eq!(again.job_id, accepted.job_id);
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "submit_unknown", "completed"]);
    assert_eq!(job.render_job_id, Some(test_job.job_id().as_uuid()));
    stack.render(&test_job).await?;
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn submit_redirected_makes_one_render() -> Result<()> {
    let stack = TestStack::connect("redirected").await?;
    let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 1, "submitHiddenBy": 303})).await?;

    assert_eq!(stack.submit(&test_job).await?.state, "submit_unknown");
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "submit_unknown", "completed"]);
    stack.render(&test_job).await?;
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn submit_unknown_is_found_by_callback() -> Result<()> {
    let stack = TestStack::connect("late-shotstack").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_endless(&test_job, &json!({"submitAnswer": "never"})).await?;

    assert_eq!(stack.submit(&test_job).await?.state, "submit_unknown");
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "submit_unknown", "completed"]);
    assert_eq!(job.render_job_id, Some(stack.render(&test_job).await?.id));
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn submit_unknown_is_found_in_list() -> Result<()> {
    let stack = TestStack::connect("late-listed").await?;
    let all =
        [SimulatedProvider::Json2Video, SimulatedProvider::ViralSync, SimulatedProvider::RenderIo];
    try_join_all(all.map(|provider| found_in_list(&stack, provider))).await?;
    Ok(())
}

/// A job whose render id reaches us neither in an answer nor in a callback.
async fn found_in_list(stack: &TestStack, provider: SimulatedProvider) -> Result<()> {
    let test_job = stack.new_job(provider).await?;
    let silent = json!({
        "durationMs": 1,
        "submitAnswer": "never",
        "callback": {"skip": true},
    });
    stack.set_scenario(&test_job, &silent).await?;

    let accepted = stack.submit(&test_job).await?;
    assert_eq!((accepted.state.as_str(), accepted.render_job_id), ("submit_unknown", None));
    let again = stack.submit(&test_job).await?;
    assert_eq!(again.job_id, accepted.job_id);
    let job = stack.settled(&test_job).await?;

    let name = provider.name();
    assert_eq!(job.states(), ["submitting", "submit_unknown", "completed"], "{name}");
    let render = stack.render(&test_job).await?;
    assert!(render.callbacks.is_empty(), "{name}: {render:?}");
    assert_eq!(job.render_job_id, Some(render.id), "{name}");
    assert_eq!(stack.submit_count(&test_job).await?, 1, "{name}");
    assert_published_once(stack, &test_job, &job).await
}

#[tokio::test]
async fn callback_can_precede_submit_answer() -> Result<()> {
    let stack = TestStack::connect("beaten").await?;
    for _ in 0..5 {
        let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
        let options = json!({"durationMs": 1, "submitAnswer": "afterCallback"});
        stack.set_scenario(&test_job, &options).await?;

        let accepted = stack.submit(&test_job).await?;
        let job = stack.settled(&test_job).await?;

        assert_eq!(job.render_job_id, Some(stack.render(&test_job).await?.id));
        assert_eq!(stack.submit_count(&test_job).await?, 1);
        assert_published_once(&stack, &test_job, &job).await?;
        if job.states() == ["submitting", "submit_unknown", "completed"] {
            // The callback took so long that the submit timed out.
            continue;
        }
        assert_eq!(job.states(), ["submitting", "completed"]);
        assert_eq!(accepted.state, "completed", "the answer shows the end");
        return Ok(());
    }
    bail!("no callback came before the answer to the submit");
}

#[tokio::test]
async fn submit_answered_500_is_not_repeated() -> Result<()> {
    let stack = TestStack::connect("breaks").await?;
    let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
    stack.set_scenario(&test_job, &json!({"submitStatus": 500})).await?;

    assert_eq!(stack.submit(&test_job).await?.state, "submit_unknown");
    assert_eq!(stack.submit(&test_job).await?.state, "submit_unknown");
    eventually("polls for the render", async || {
        let asked = stack.status_calls(&test_job.job_id().as_uuid()).await?.len();
        ensure!(asked >= 2, "{asked} times");
        Ok(())
    })
    .await?;

    // The provider knows no render. That may still change, so no event is published yet.
    assert_eq!(stack.job(&test_job).await?.states(), ["submitting", "submit_unknown"]);
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_eq!(stack.events(&test_job).await?, []);
    Ok(())
}
