//! Asking providers: what it costs when there is nothing new, and what happens when
//! they do not tell.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{LedgerEntry, Order, Provider, World};

use crate::endings::assert_told_once;

#[tokio::test]
async fn a_poll_that_finds_nothing_new_writes_nothing() -> Result<()> {
    let world = World::open("nothing-new").await?;
    let order = world.order(Provider::Zvid).await?;
    world.endless(&order, &json!({})).await?;
    world.submit(&order).await?;
    world.until_state(&order, "processing").await?;
    // Whoever stored that is through with it when the next poll comes.
    world.until_asked(&order, 1).await?;
    let since = world.ledger_now().await?;
    let before = world.ledger(0, order.job_id().as_str()).await?;
    assert!(before.iter().any(LedgerEntry::is_write), "the ledger does not see the job");
    let item = world.job_item(&order).await?;

    // The third look is over when the fourth begins.
    world.until_asked(&order, 4).await?;

    let requests = world.ledger(since, order.job_id().as_str()).await?;
    let writes: Vec<_> = requests.iter().filter(|it| it.is_write()).collect();
    assert!(writes.is_empty(), "{writes:#?}");
    assert_eq!(world.job_item(&order).await?, item);
    Ok(())
}

/// A polled render is over in no time, but its provider has these troubles telling so.
async fn polled_through(world: &World, trouble: &Value) -> Result<Order> {
    let order = world.order(Provider::Zvid).await?;
    let mut knobs = json!({"durationMs": 1});
    for (name, value) in trouble.as_object().into_iter().flatten() {
        knobs[name] = value.clone();
    }
    world.scenario(&order, &knobs).await?;
    world.submit(&order).await?;
    let job = world.settled(&order).await?;
    assert_eq!(job.states(), ["submitting", "queued", "completed"], "{trouble}");
    assert_eq!(world.submits(&order).await?, 1);
    assert_told_once(world, &order, &job).await?;
    Ok(order)
}

/// What the order's provider answered when it was asked, oldest first.
async fn statuses(world: &World, order: &Order) -> Result<Vec<u16>> {
    let render = world.render(order).await?;
    Ok(world.status_calls(&render.id).await?.iter().map(|call| call.status).collect())
}

#[tokio::test]
async fn a_provider_that_is_down_for_a_while_delays_the_news_and_loses_none() -> Result<()> {
    let world = World::open("down").await?;
    let order = polled_through(&world, &json!({"statusCode": 503, "statusCodeTimes": 2})).await?;
    assert_eq!(statuses(&world, &order).await?[..3], [503, 503, 200]);
    Ok(())
}

#[tokio::test]
async fn a_render_that_its_provider_does_not_know_yet_is_asked_about_again() -> Result<()> {
    let world = World::open("not-yet").await?;
    let order = polled_through(&world, &json!({"statusCode": 404, "statusCodeTimes": 1})).await?;
    assert_eq!(statuses(&world, &order).await?[..2], [404, 200]);
    Ok(())
}

/// That nobody asks before is seen where one shard is alone with its poller: here others take
/// the shard over all the time, and one of them may be asking at that moment.
#[tokio::test]
async fn a_provider_that_wants_to_be_left_alone_delays_the_news_and_loses_none() -> Result<()> {
    let world = World::open("left-alone").await?;
    let busy = json!({"statusCode": 429, "statusCodeTimes": 1, "retryAfter": "5"});
    let order = polled_through(&world, &busy).await?;
    assert_eq!(statuses(&world, &order).await?[..2], [429, 200]);
    Ok(())
}

#[tokio::test]
async fn a_callback_that_outruns_the_providers_own_reads_comes_again() -> Result<()> {
    let world = World::open("outruns").await?;
    let order = world.order(Provider::Shotstack).await?;
    // Shotstack's word for a render that it does not find.
    world.endless(&order, &json!({"statusCode": 400, "statusCodeTimes": 1})).await?;

    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;

    let render = world.called_back(&order, 2).await?;
    assert_eq!(render.callback_statuses(), [503, 200]);
    assert_eq!(render.polls, 2);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn a_result_that_has_no_url_yet_is_waited_for() -> Result<()> {
    let world = World::open("stored-later").await?;
    let order = world.order(Provider::RenderIo).await?.with("providerWebhook", json!(false));
    // The first poll finds the render done and its file on the way.
    world.scenario(&order, &json!({"durationMs": 1, "storedAfterPolls": 1})).await?;

    world.submit(&order).await?;
    let job = world.settled(&order).await?;

    // Who takes a shard over may ask at the same time, and the later answer be stored first.
    let states: Vec<_> = job.states().into_iter().filter(|it| *it != "processing").collect();
    assert_eq!(states, ["submitting", "queued", "completed"]);
    assert!(job.result_url.is_some(), "{job:?}");
    assert!(world.render(&order).await?.polls >= 2);
    assert_told_once(&world, &order, &job).await
}
