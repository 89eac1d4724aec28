//! Polls: the writes of a poll without news, and providers that fail or throttle.

use anyhow::{Result, anyhow};
use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};
use tests::{LedgerEntry, SimulatedProvider, TestJob, TestStack};

use crate::endings::assert_published_once;

#[tokio::test]
async fn poll_without_news_writes_nothing() -> Result<()> {
    let stack = TestStack::connect("nothing-new").await?;
    let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
    stack.set_endless(&test_job, &json!({})).await?;
    stack.submit(&test_job).await?;
    stack.until_state(&test_job, "processing").await?;
    // At the next poll, the poller that stored this state has finished its writes.
    stack.until_polled(&test_job, 1).await?;
    let since = stack.ledger_now().await?;
    let before = stack.ledger(0, test_job.job_id().as_str()).await?;
    assert!(before.iter().any(LedgerEntry::is_write), "the ledger does not show the job");
    let item = stack.job_item(&test_job).await?;

    // The third poll is finished when the fourth begins.
    stack.until_polled(&test_job, 4).await?;

    let requests = stack.ledger(since, test_job.job_id().as_str()).await?;
    // Another test's new job may have moved the lease. For some seconds the holder before, which
    // knows an older version of this job, polls it too; its write is refused.
    let version = item["v"].as_n().map_err(|_| anyhow!("the version is no number"))?;
    let expects_it = format!(r#"":v":{{"N":"{version}"}}"#);
    let is_of_earlier_holder =
        |it: &LedgerEntry| it.status == 400 && !it.request.contains(&expects_it);
    let writes: Vec<_> =
        requests.iter().filter(|it| it.is_write() && !is_of_earlier_holder(it)).collect();
    assert!(writes.is_empty(), "{writes:#?}");
    assert_eq!(stack.job_item(&test_job).await?, item);
    Ok(())
}

/// Submits a job whose render ends at once and whose provider has these faults, and waits for
/// its end.
async fn polled_through(stack: &TestStack, faults: &Value) -> Result<TestJob> {
    let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
    let mut options = json!({"durationMs": 1});
    for (name, value) in faults.as_object().into_iter().flatten() {
        options[name] = value.clone();
    }
    stack.set_scenario(&test_job, &options).await?;
    stack.submit(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    assert_eq!(job.states(), ["submitting", "queued", "completed"], "{faults}");
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    assert_published_once(stack, &test_job, &job).await?;
    Ok(test_job)
}

/// The statuses of the provider's answers to polls of the job, oldest first.
async fn statuses(stack: &TestStack, test_job: &TestJob) -> Result<Vec<u16>> {
    let render = stack.render(test_job).await?;
    Ok(stack.status_calls(&render.id).await?.iter().map(|call| call.status).collect())
}

#[tokio::test]
async fn poll_retries_while_provider_is_down() -> Result<()> {
    let stack = TestStack::connect("down").await?;
    let test_job =
        polled_through(&stack, &json!({"statusCode": 503, "statusCodeTimes": 2})).await?;
    assert_eq!(statuses(&stack, &test_job).await?[..3], [503, 503, 200]);
    Ok(())
}

#[tokio::test]
async fn poll_retries_while_render_is_unknown() -> Result<()> {
    let stack = TestStack::connect("not-yet").await?;
    let test_job =
        polled_through(&stack, &json!({"statusCode": 404, "statusCodeTimes": 1})).await?;
    assert_eq!(statuses(&stack, &test_job).await?[..2], [404, 200]);
    Ok(())
}

/// This test cannot assert that no poll comes before the pause is over: other tests' jobs make
/// pollers take the shard over all the time, and one of them may poll at that moment. Tests with
/// a single poller assert it.
#[tokio::test]
async fn poll_retries_after_rate_limit() -> Result<()> {
    let stack = TestStack::connect("left-alone").await?;
    let busy = json!({"statusCode": 429, "statusCodeTimes": 1, "retryAfter": "5"});
    let test_job = polled_through(&stack, &busy).await?;
    assert_eq!(statuses(&stack, &test_job).await?[..2], [429, 200]);
    Ok(())
}

/// Three renders whose status calls answer 500 for ever, and five that end.
#[tokio::test]
async fn healthy_renders_are_found_beside_sick_ones() -> Result<()> {
    const TAKES: TimeDelta = TimeDelta::seconds(15);
    let stack = TestStack::connect("beside-sick").await?;
    let mut sick = Vec::new();
    for _ in 0..3 {
        let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
        stack.set_endless(&test_job, &json!({"statusCode": 500})).await?;
        stack.submit(&test_job).await?;
        sick.push(test_job);
    }
    for test_job in &sick {
        stack.until_polled(test_job, 2).await?;
    }
    let mut healthy = Vec::new();
    for _ in 0..5 {
        let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
        stack.set_scenario(&test_job, &json!({"durationMs": TAKES.num_milliseconds()})).await?;
        let job = stack.submit(&test_job).await?;
        healthy.push((test_job, job));
    }
    for (test_job, submitted) in &healthy {
        let job = stack.settled(test_job).await?;
        assert_eq!(job.state, "completed");
        let ended_at = job.ended_at.as_deref().ok_or_else(|| anyhow!("it has not ended"))?;
        let from = DateTime::parse_from_rfc3339(&submitted.created_at)?;
        let took = DateTime::parse_from_rfc3339(ended_at)? - from;
        assert!(took < TAKES + TimeDelta::seconds(10), "found after {took}");
    }
    for test_job in &sick {
        let statuses = statuses(&stack, test_job).await?;
        assert!(statuses.len() >= 2 && statuses.iter().all(|it| *it == 500), "{statuses:?}");
    }
    Ok(())
}

#[tokio::test]
async fn callback_ahead_of_status_is_looked_at() -> Result<()> {
    let stack = TestStack::connect("outruns").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    // Shotstack answers 400 for a render that it does not find.
    stack.set_endless(&test_job, &json!({"statusCode": 400, "statusCodeTimes": 1})).await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    let render = stack.until_called_back(&test_job, 1).await?;
    assert_eq!(render.callback_statuses(), [200], "it is stored as a hint");
    assert_eq!(render.polls, 2);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn poll_waits_for_the_result_url() -> Result<()> {
    let stack = TestStack::connect("stored-later").await?;
    let test_job =
        stack.new_job(SimulatedProvider::RenderIo).await?.with("providerWebhook", json!(false));
    // The first poll finds the render completed, but without its file.
    stack.set_scenario(&test_job, &json!({"durationMs": 1, "storedAfterPolls": 1})).await?;

    stack.submit(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    // A poller that takes over may poll at the same time, and its later answer be stored first.
    let states: Vec<_> = job.states().into_iter().filter(|it| *it != "processing").collect();
    assert_eq!(states, ["submitting", "queued", "completed"]);
    assert!(job.result_url.is_some(), "{job:?}");
    assert!(stack.render(&test_job).await?.polls >= 2);
    assert_published_once(&stack, &test_job, &job).await
}
