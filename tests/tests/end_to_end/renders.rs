//! Renders that go well, and renders that fail at their provider.

use anyhow::Result;
use chrono::{DateTime, TimeDelta};
use serde_json::json;
use tests::{JobView, Order, Provider, Render, World};

use crate::endings::assert_told_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

/// Places the order and follows it to its end; answers the job and its only render.
async fn follow(world: &World, order: &Order, ends: Ends) -> Result<(JobView, Render)> {
    assert_eq!(world.submit(order).await?.state, "queued");
    match ends {
        Ends::OnceAccepted => world.end(order).await?,
        Ends::OnceSeenAtWork => {
            world.until_state(order, "processing").await?;
            world.end(order).await?;
        }
    }
    let job = world.settled(order).await?;

    let render = world.render(order).await?;
    assert_eq!(world.submits(order).await?, 1);
    assert_eq!(job.render_job_id.as_ref(), Some(&render.id));
    assert_told_once(world, order, &job).await?;
    Ok((job, render))
}

/// When a render ends.
#[derive(Clone, Copy)]
enum Ends {
    OnceAccepted,
    OnceSeenAtWork,
}

#[tokio::test]
async fn a_polled_render_becomes_one_event_and_one_signed_webhook() -> Result<()> {
    let world = World::open("polled").await?;
    let order = world.order(Provider::Zvid).await?;
    world.endless(&order, &json!({"resultUrl": VIDEO})).await?;

    let (job, render) = follow(&world, &order, Ends::OnceSeenAtWork).await?;

    assert_eq!(job.states(), ["submitting", "queued", "processing", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!((job.progress, job.provider_status.as_deref()), (Some(1.0), Some("completed")));
    assert_eq!((job.failure, job.result_expires_at), (None, None));
    // Zvid takes what was submitted wrapped, under an id that we choose.
    let submitted = json!({"payload": order.body["payload"], "jobId": order.job_id().as_uuid()});
    assert_eq!(render.body, submitted);
    assert_eq!(render.id, order.job_id().as_uuid());
    assert!(render.polls >= 2, "{render:?}");
    Ok(())
}

#[tokio::test]
async fn a_render_whose_provider_is_asked_to_call_back_is_not_polled() -> Result<()> {
    let world = World::open("zvid-calls").await?;
    let order = world.order(Provider::Zvid).await?.with("providerWebhook", json!(true));
    world.endless(&order, &json!({"resultUrl": VIDEO})).await?;
    let since = world.ledger_now().await?;

    let (job, render) = follow(&world, &order, Ends::OnceAccepted).await?;

    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!(world.called_back(&order, 1).await?.callback_statuses(), [200]);
    // Once, to confirm the callback. A poll would need somebody to be woken.
    assert_eq!(render.polls, 1);
    let requests = world.ledger(since, order.job_id().as_str()).await?;
    let sent: Vec<_> = requests.iter().filter(|it| it.operation == "SendMessage").collect();
    assert_eq!(sent.len(), 1, "more than the delivery's ticket: {sent:#?}");
    Ok(())
}

#[tokio::test]
async fn a_callback_is_confirmed_and_becomes_one_event_and_one_signed_webhook() -> Result<()> {
    let world = World::open("shotstack-calls").await?;
    let order = world.order(Provider::Shotstack).await?;
    world.endless(&order, &json!({"resultUrl": VIDEO})).await?;

    let (job, render) = follow(&world, &order, Ends::OnceAccepted).await?;

    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    let [ended, expires] = [&job.settled_at, &job.result_expires_at]
        .map(|text| DateTime::parse_from_rfc3339(text.as_deref().unwrap()).unwrap());
    let kept = expires - ended;
    assert!(kept <= TimeDelta::hours(24) && kept > TimeDelta::hours(23), "{kept}");
    let mut submitted = order.body["payload"].clone();
    submitted["callback"] = json!(world.callback_url(order.provider, order.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(world.called_back(&order, 1).await?.callback_statuses(), [200]);
    assert_eq!(render.polls, 1);
    Ok(())
}

#[tokio::test]
async fn a_failed_render_is_told_in_the_providers_words() -> Result<()> {
    let world = World::open("fails").await?;
    for provider in [Provider::Zvid, Provider::Shotstack] {
        let order = world.order(provider).await?;
        let reason = "Asset \"logo.png\" is not reachable";
        world.endless(&order, &json!({"failWith": reason})).await?;

        let (job, _) = follow(&world, &order, Ends::OnceAccepted).await?;

        assert_eq!(job.states(), ["submitting", "queued", "failed"]);
        assert_eq!(job.failure, Some(json!({"code": "render_failed", "message": reason})));
        assert_eq!(job.result_url, None);
    }
    Ok(())
}
