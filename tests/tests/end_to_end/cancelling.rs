//! Renders that their customer calls off.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{Answer, JobView, Order, Provider, World};

use crate::endings::assert_told_once;

/// A render that goes on until somebody stops it.
async fn endless(world: &World, provider: Provider) -> Result<Order> {
    let order = world.order(provider).await?;
    world.endless(&order, &json!({})).await?;
    world.submit(&order).await?;
    Ok(order)
}

fn code(answer: &Answer) -> Result<Value> {
    assert_eq!(answer.header("content-type"), "application/problem+json");
    answer.json::<Value>()?.get("code").cloned().context("a problem has a code")
}

#[tokio::test]
async fn a_cancelled_render_is_told_of_like_any_other_end() -> Result<()> {
    let world = World::open("cancelled").await?;
    let order = endless(&world, Provider::ViralSync).await?;

    let answer: JobView = world.cancel(&order).await?.expect(202)?.json()?;
    assert_eq!(answer.job_id, order.job_id().as_str());
    let job = world.settled(&order).await?;

    assert_eq!(job.state, "cancelled");
    assert_eq!((&job.failure, &job.result_url), (&None, &None));
    assert_eq!(job.provider_status.as_deref(), Some("cancelled"));
    assert_told_once(&world, &order, &job).await?;

    let again = world.cancel(&order).await?.expect(409)?;
    assert_eq!(code(&again)?, "job_ended");
    let cancels = world.provider_calls(&order).await?;
    let cancels = cancels.iter().filter(|call| call.path.ends_with("/cancel"));
    assert_eq!(cancels.map(|call| call.status).collect::<Vec<_>>(), [202]);
    Ok(())
}

#[tokio::test]
async fn a_render_that_has_ended_cannot_be_cancelled() -> Result<()> {
    let world = World::open("cancelled-late").await?;
    let order = world.order(Provider::ViralSync).await?;
    world.scenario(&order, &json!({"durationMs": 500})).await?;
    world.submit(&order).await?;
    let job = world.settled(&order).await?;
    let before = world.items(&order).await?;

    let answer = world.cancel(&order).await?.expect(409)?;

    assert_eq!(code(&answer)?, "job_ended");
    assert_eq!(world.items(&order).await?, before);
    assert_eq!(world.submits(&order).await?, 1, "the provider was not asked to cancel either");
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn what_cannot_be_cancelled_goes_on() -> Result<()> {
    let world = World::open("uncancelled").await?;
    for provider in [Provider::Zvid, Provider::Shotstack, Provider::Json2Video, Provider::RenderIo]
    {
        let order = endless(&world, provider).await?;

        let answer = world.cancel(&order).await?.expect(409)?;

        assert_eq!(code(&answer)?, "cancel_not_supported", "{}", provider.name());
        let state = world.job(&order).await?.state;
        assert!(["queued", "processing"].contains(&state.as_str()), "{state}");
        assert_eq!(world.submits(&order).await?, 1);
        assert_eq!(world.events(&order).await?, []);
    }
    Ok(())
}

#[tokio::test]
async fn a_job_that_is_not_there_cannot_be_cancelled() -> Result<()> {
    let world = World::open("nobodys").await?;
    let order = world.order(Provider::ViralSync).await?;
    let answer = world.cancel(&order).await?.expect(404)?;
    assert_eq!(code(&answer)?, "not_found");
    Ok(())
}
