//! Deliveries whose tickets became dead letters, which an operator lists and redrives.

use anyhow::{Result, ensure};
use tests::{SimulatedProvider, TestJob, TestStack, eventually};

/// A settled job with a pending delivery, whose ticket is a dead letter.
async fn job_with_dead_ticket(stack: &TestStack) -> Result<TestJob> {
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    let ticket = stack.insert_undelivered(&test_job).await?;
    stack.add_dead_letter(&serde_json::to_string(&ticket)?).await?;
    Ok(test_job)
}

/// The job's line in the output of `relay dlq list`.
async fn listed(stack: &TestStack, test_job: &TestJob) -> Result<String> {
    eventually("a dead letter listed", async || {
        let listed = stack.relay_dlq(&["list"])?;
        let line = listed.lines().find(|line| line.contains(test_job.job_id().as_str()));
        ensure!(line.is_some(), "not in {listed}");
        Ok(line.unwrap_or_default().to_owned())
    })
    .await
}

async fn assert_delivered(stack: &TestStack, test_job: &TestJob) -> Result<()> {
    stack.until_settled(test_job).await?;
    let webhooks = stack.webhooks(test_job).await?;
    assert_eq!(webhooks.len(), 1, "{webhooks:#?}");
    assert_eq!(webhooks[0].verified, Some(true));
    Ok(())
}

#[tokio::test]
async fn dead_letters_are_listed_and_redriven() -> Result<()> {
    let stack = TestStack::connect("dead-letters").await?;
    let first = job_with_dead_ticket(&stack).await?;
    let second = job_with_dead_ticket(&stack).await?;
    // A message in the format of some other release.
    stack.add_dead_letter(&format!("{{\"delivery\": \"{}\"}}", first.tag)).await?;

    let line = listed(&stack, &first).await?;
    assert!(line.contains(&first.event_id("video.render.completed")), "{line}");
    listed(&stack, &second).await?;
    assert_eq!(stack.webhooks(&first).await?.len(), 0, "listing changes nothing");

    let output = stack.relay_dlq(&["redrive", "--job", first.job_id().as_str()])?;
    assert!(output.ends_with("\n1 message sent back\n"), "{output}");
    assert_delivered(&stack, &first).await?;
    assert_eq!(stack.webhooks(&second).await?.len(), 0, "it is another job");

    let output = stack.relay_dlq(&["redrive"])?;
    assert!(output.contains(second.job_id().as_str()), "{output}");
    assert!(output.contains("left: they are no tickets"), "{output}");
    assert_delivered(&stack, &second).await?;
    let left = stack.relay_dlq(&["list"])?;
    assert!(left.contains("no ticket"), "{left}");
    for test_job in [&first, &second] {
        assert!(!left.contains(test_job.job_id().as_str()), "{left}");
    }
    Ok(())
}
