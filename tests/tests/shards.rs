//! The number of shards is raised and lowered while jobs are active and deliveries are given up:
//! no shard is forgotten.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{SharedReceiver, SimulatedProvider, TestJob, TestStack};

/// The jobs that are submitted at each number of shards, at least and at most. Ids are random:
/// sixteen jobs leave one of four shards empty in one run of 25.
const JOBS: usize = 16;
const MAX_JOBS: usize = 100;

/// Submits jobs that are polled, until so many shards have some. Their renders run until the test
/// ends them.
async fn submit_active(stack: &TestStack, number: usize) -> Result<Vec<TestJob>> {
    let mut active = Vec::new();
    let mut shards = BTreeSet::new();
    while active.len() < JOBS || (shards.len() < number && active.len() < MAX_JOBS) {
        let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
        stack.set_endless(&test_job, &json!({})).await?;
        stack.submit(&test_job).await?;
        shards.extend(shard(stack, &test_job).await?);
        active.push(test_job);
    }
    assert_eq!(shards.len(), number, "{} jobs", active.len());
    Ok(active)
}

/// Submits jobs whose webhooks are given up at their first attempt.
async fn give_up(stack: &TestStack, receiver: &SharedReceiver) -> Result<Vec<TestJob>> {
    let mut given_up = Vec::new();
    for _ in 0..JOBS {
        let test_job = stack.new_job_to(SimulatedProvider::Zvid, receiver);
        stack.set_scenario(&test_job, &json!({"durationMs": 1})).await?;
        stack.submit(&test_job).await?;
        given_up.push(test_job);
    }
    for test_job in &given_up {
        stack.until_delivery(test_job, "exhausted", Some("aborted")).await?;
    }
    Ok(given_up)
}

async fn shard(stack: &TestStack, test_job: &TestJob) -> Result<Option<String>> {
    let item = stack.job_item(test_job).await?;
    Ok(item.get("shard").and_then(|shard| shard.as_n().ok()).cloned())
}

async fn end_all(stack: &TestStack, test_jobs: &[TestJob]) -> Result<()> {
    for test_job in test_jobs {
        stack.end_render(test_job).await?;
    }
    for test_job in test_jobs {
        // The emulator ends a poller when it updates its function. In a shard above the number,
        // another one begins at a tick of every fifth minute, when the lease is over: in up to
        // eight minutes, which is longer than one wait.
        let job = match stack.settled(test_job).await {
            Ok(job) => job,
            Err(_) => stack.settled(test_job).await?,
        };
        ensure!(job.state == "completed", "{job:?}");
        ensure!(stack.submit_count(test_job).await? == 1, "{job:?}");
    }
    Ok(())
}

#[tokio::test]
async fn shards_changed_under_load_hide_nothing() -> Result<()> {
    let stack = TestStack::connect("shards").await?;
    let since = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    stack.set_parameter("PollerShards", "4").await?;
    let abort = json!({"status": 422, "headers": {"webhook-delivery": "abort-message"}});
    let receiver = stack.receiver("aborting", &vec![abort; JOBS]).await?;
    let given_up = give_up(&stack, &receiver).await?;
    let of_four = submit_active(&stack, 4).await?;

    stack.set_parameter("PollerShards", "1").await?;
    let of_one = submit_active(&stack, 1).await?;
    let endpoint = stack.deliveries(&given_up[0]).await?.remove(0).endpoint_id;
    let listed = stack.deliveries_in("exhausted", &since, &endpoint).await?;
    assert_eq!(listed.len(), JOBS, "what was given up in higher shards is listed");
    let recovered = stack.recover(&endpoint, &since).await?;
    assert_eq!(recovered["queued"], JOBS, "and sent again");
    for test_job in &given_up {
        stack.until_delivery(test_job, "delivered", None).await?;
    }
    end_all(&stack, &of_four).await?;

    stack.set_parameter("PollerShards", "2").await?;
    let of_two = submit_active(&stack, 2).await?;
    end_all(&stack, &of_one).await?;
    end_all(&stack, &of_two).await
}
