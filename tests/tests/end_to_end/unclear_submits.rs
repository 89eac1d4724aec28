//! Submits whose answer is lost: perhaps there is a render, and there must never be two.

use anyhow::{Result, bail, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::{Provider, World, eventually};

use crate::endings::assert_told_once;

#[tokio::test]
async fn a_render_whose_acceptance_was_lost_is_found_by_the_id_we_chose() -> Result<()> {
    let world = World::open("late-zvid").await?;
    let order = world.order(Provider::Zvid).await?;
    world.scenario(&order, &json!({"durationMs": 1, "submitAnswer": "never"})).await?;

    let accepted = world.submit(&order).await?;
    assert_eq!(accepted.state, "submit_unknown");
    assert_eq!((accepted.render_job_id, accepted.failure), (None, None));
    let again = world.submit(&order).await?;
    assert_eq!(again.job_id, accepted.job_id);
    let job = world.settled(&order).await?;

    assert_eq!(job.states(), ["submitting", "submit_unknown", "completed"]);
    assert_eq!(job.render_job_id, Some(order.job_id().as_uuid()));
    world.render(&order).await?;
    assert_eq!(world.submits(&order).await?, 1);
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn a_render_whose_acceptance_was_lost_is_found_by_its_callback() -> Result<()> {
    let world = World::open("late-shotstack").await?;
    let order = world.order(Provider::Shotstack).await?;
    world.endless(&order, &json!({"submitAnswer": "never"})).await?;

    assert_eq!(world.submit(&order).await?.state, "submit_unknown");
    world.end(&order).await?;
    let job = world.settled(&order).await?;

    assert_eq!(job.states(), ["submitting", "submit_unknown", "completed"]);
    assert_eq!(job.render_job_id, Some(world.render(&order).await?.id));
    assert_eq!(world.submits(&order).await?, 1);
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn a_render_whose_acceptance_was_lost_is_found_in_its_providers_list() -> Result<()> {
    let world = World::open("late-listed").await?;
    let all = [Provider::Json2Video, Provider::ViralSync, Provider::RenderIo];
    try_join_all(all.map(|provider| found_in_list(&world, provider))).await?;
    Ok(())
}

/// A render that nobody told us the id of: neither an answer nor a callback.
async fn found_in_list(world: &World, provider: Provider) -> Result<()> {
    let order = world.order(provider).await?;
    let silent = json!({
        "durationMs": 1,
        "submitAnswer": "never",
        "callback": {"skip": true},
    });
    world.scenario(&order, &silent).await?;

    let accepted = world.submit(&order).await?;
    assert_eq!((accepted.state.as_str(), accepted.render_job_id), ("submit_unknown", None));
    let again = world.submit(&order).await?;
    assert_eq!(again.job_id, accepted.job_id);
    let job = world.settled(&order).await?;

    let name = provider.name();
    assert_eq!(job.states(), ["submitting", "submit_unknown", "completed"], "{name}");
    let render = world.render(&order).await?;
    assert!(render.callbacks.is_empty(), "{name}: {render:?}");
    assert_eq!(job.render_job_id, Some(render.id), "{name}");
    assert_eq!(world.submits(&order).await?, 1, "{name}");
    assert_told_once(world, &order, &job).await
}

#[tokio::test]
async fn a_callback_may_beat_the_answer_to_the_submit() -> Result<()> {
    let world = World::open("beaten").await?;
    for _ in 0..5 {
        let order = world.order(Provider::Shotstack).await?;
        let knobs = json!({"durationMs": 1, "submitAnswer": "afterCallback"});
        world.scenario(&order, &knobs).await?;

        let accepted = world.submit(&order).await?;
        let job = world.settled(&order).await?;

        assert_eq!(job.render_job_id, Some(world.render(&order).await?.id));
        assert_eq!(world.submits(&order).await?, 1);
        assert_told_once(&world, &order, &job).await?;
        if job.states() == ["submitting", "submit_unknown", "completed"] {
            // The callback took so long that the answer to the submit was given up.
            continue;
        }
        assert_eq!(job.states(), ["submitting", "completed"]);
        assert_eq!(accepted.state, "completed", "the answer comes after the end, and says so");
        return Ok(());
    }
    bail!("no callback is quick enough to be told of by the answer to the submit");
}

#[tokio::test]
async fn a_provider_that_breaks_while_it_accepts_is_not_asked_to_render_again() -> Result<()> {
    let world = World::open("breaks").await?;
    let order = world.order(Provider::Zvid).await?;
    world.scenario(&order, &json!({"submitStatus": 500})).await?;

    assert_eq!(world.submit(&order).await?.state, "submit_unknown");
    assert_eq!(world.submit(&order).await?.state, "submit_unknown");
    eventually("the provider asked whether there is a render", async || {
        let asked = world.status_calls(&order.job_id().as_uuid()).await?.len();
        ensure!(asked >= 2, "{asked} times");
        Ok(())
    })
    .await?;

    // It has none, says the provider; that may still change, so nothing is told yet.
    assert_eq!(world.job(&order).await?.states(), ["submitting", "submit_unknown"]);
    assert_eq!(world.submits(&order).await?, 1);
    assert_eq!(world.events(&order).await?, []);
    Ok(())
}
