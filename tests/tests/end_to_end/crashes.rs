//! What a function leaves behind that crashes after its write: somebody else finishes it.

use anyhow::Result;
use tests::{Provider, World};

use crate::endings::assert_told_by_a_tick;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn an_end_that_was_stored_and_not_told_is_told_by_the_next_tick() -> Result<()> {
    let world = World::open("crashed").await?;
    let order = world.order(Provider::Shotstack).await?;
    let crashed = order.completed_and_untold()?;
    assert_eq!(crashed.outbox.len(), 1);
    world.leave_job(&crashed).await?;
    assert!(world.job_item(&order).await?.contains_key("shard"), "it is active");

    world.tick().await?;
    let job = world.settled(&order).await?;

    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_told_by_a_tick(&world, &order, &job).await?;

    // Whoever ticks next finds nothing to do.
    let (item, events) = (world.job_item(&order).await?, world.events(&order).await?);
    world.tick().await?;
    assert_eq!(world.job_item(&order).await?, item);
    assert_eq!(world.events(&order).await?, events);
    Ok(())
}
