//! Deliveries whose tickets died while something of our own was broken: an operator sees
//! them, and sends them back.

use anyhow::{Result, ensure};
use tests::{Order, Provider, World, eventually};

/// A job that was told of but for its webhook, whose ticket is a dead letter.
async fn order_whose_ticket_died(world: &World) -> Result<Order> {
    let order = world.order(Provider::Shotstack).await?;
    let ticket = world.leave_undelivered(&order).await?;
    world.bury(&serde_json::to_string(&ticket)?).await?;
    Ok(order)
}

/// The line that `relay dlq list` has of the order.
async fn listed(world: &World, order: &Order) -> Result<String> {
    eventually("a dead letter listed", async || {
        let listed = world.relay_dlq(&["list"])?;
        let line = listed.lines().find(|line| line.contains(order.job_id().as_str()));
        ensure!(line.is_some(), "not in {listed}");
        Ok(line.unwrap_or_default().to_owned())
    })
    .await
}

async fn assert_delivered(world: &World, order: &Order) -> Result<()> {
    world.until_settled(order).await?;
    let webhooks = world.webhooks(order).await?;
    assert_eq!(webhooks.len(), 1, "{webhooks:#?}");
    assert_eq!(webhooks[0].verified, Some(true));
    Ok(())
}

#[tokio::test]
async fn tickets_that_died_are_listed_and_sent_back() -> Result<()> {
    let world = World::open("dead-letters").await?;
    let first = order_whose_ticket_died(&world).await?;
    let second = order_whose_ticket_died(&world).await?;
    // As a release that is not ours would write it.
    world.bury(&format!("{{\"delivery\": \"{}\"}}", first.mark)).await?;

    let line = listed(&world, &first).await?;
    assert!(line.contains(&first.event_id("video.render.completed")), "{line}");
    listed(&world, &second).await?;
    assert_eq!(world.webhooks(&first).await?.len(), 0, "to look is to change nothing");

    let said = world.relay_dlq(&["redrive", "--job", first.job_id().as_str()])?;
    assert!(said.ends_with("\n1 message sent back\n"), "{said}");
    assert_delivered(&world, &first).await?;
    assert_eq!(world.webhooks(&second).await?.len(), 0, "it was not asked for");

    let said = world.relay_dlq(&["redrive"])?;
    assert!(said.contains(second.job_id().as_str()), "{said}");
    assert!(said.contains("left: they are no tickets"), "{said}");
    assert_delivered(&world, &second).await?;
    let left = world.relay_dlq(&["list"])?;
    assert!(left.contains("no ticket"), "{left}");
    for order in [&first, &second] {
        assert!(!left.contains(order.job_id().as_str()), "{left}");
    }
    Ok(())
}
