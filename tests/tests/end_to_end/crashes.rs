//! Jobs of a function that crashed after its write, which the tick finishes.

use anyhow::Result;
use tests::{SimulatedProvider, TestStack};

use crate::endings::assert_published_by_tick;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn tick_publishes_a_stored_end() -> Result<()> {
    let stack = TestStack::connect("crashed").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    let crashed = test_job.completed_unpublished()?;
    assert_eq!(crashed.outbox.len(), 1);
    stack.insert_job(&crashed).await?;
    assert!(stack.job_item(&test_job).await?.contains_key("shard"), "it is active");

    stack.tick().await?;
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_published_by_tick(&stack, &test_job, &job).await?;

    // The next tick finds nothing to do.
    let (item, events) = (stack.job_item(&test_job).await?, stack.events(&test_job).await?);
    stack.tick().await?;
    assert_eq!(stack.job_item(&test_job).await?, item);
    assert_eq!(stack.events(&test_job).await?, events);
    Ok(())
}
