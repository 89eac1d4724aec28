//! Callbacks that their provider signs: believed when the signature holds, refused when
//! it does not.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{Order, Provider, Render, World};

use crate::endings::assert_told_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

/// Places the order, and sees it to its end without a question to the provider.
async fn believed(world: &World, order: &Order) -> Result<Render> {
    world.submit(order).await?;
    world.end(order).await?;
    let job = world.settled(order).await?;

    let render = world.called_back(order, 1).await?;
    assert_eq!(world.status_calls(&render.id).await?.len(), 0, "the provider was asked");
    assert_eq!(job.state, "completed");
    assert_eq!(job.render_job_id.as_ref(), Some(&render.id));
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_told_once(world, order, &job).await?;
    Ok(render)
}

/// A render that goes on for ever, and whose provider never calls.
async fn endless(world: &World, provider: Provider) -> Result<(Order, Render)> {
    let order = world.order(provider).await?;
    world.endless(&order, &json!({"callback": {"skip": true}})).await?;
    world.submit(&order).await?;
    let render = world.render(&order).await?;
    Ok((order, render))
}

#[tokio::test]
async fn a_signed_callback_of_viralsync_is_believed() -> Result<()> {
    let world = World::open("viralsync-signs").await?;
    let order = world.order(Provider::ViralSync).await?;
    world.endless(&order, &json!({"progressCallbacks": 0, "resultUrl": VIDEO})).await?;

    let render = believed(&world, &order).await?;

    let mut submitted = order.body["payload"].clone();
    submitted["movie"]["id"] = json!(order.job_id());
    submitted["callbackUrl"] = json!(world.callback_url(order.provider, order.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(render.callback_statuses(), [200]);
    Ok(())
}

#[tokio::test]
async fn signed_progress_moves_a_job_until_it_has_ended() -> Result<()> {
    let world = World::open("viralsync-moves").await?;
    let order = world.order(Provider::ViralSync).await?;
    world.endless(&order, &json!({"progressCallbacks": 0, "resultUrl": VIDEO})).await?;

    let submitted = world.submit(&order).await?;
    assert_eq!(submitted.progress, None);
    world.tell_progress(&order).await?;
    world.until_state(&order, "processing").await?;
    assert_eq!(world.job(&order).await?.progress, Some(0.25), "in quarters");
    world.end(&order).await?;
    let job = world.settled(&order).await?;
    assert_eq!(job.states(), ["submitting", "queued", "processing", "completed"]);
    assert_eq!(job.progress, Some(1.0));
    let before = world.items(&order).await?;

    world.tell_progress(&order).await?;
    let render = world.called_back(&order, 3).await?;
    assert_eq!(render.callback_statuses(), [200; 3]);
    assert_eq!(world.items(&order).await?, before, "the late one changed something");
    assert_eq!(world.status_calls(&render.id).await?.len(), 0);
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn viralsyncs_callbacks_are_nothing_without_their_signature() -> Result<()> {
    let world = World::open("viralsync-forged").await?;
    let (order, render) = endless(&world, Provider::ViralSync).await?;
    let url = render.callback_url().context("ViralSync gets a callback URL")?;
    let evil = json!({
        "jobId": render.id,
        "status": "done",
        "progress": 1.0,
        "outputUrl": "https://evil.example/video.mp4",
        "timestamp": "2026-04-02T10:00:52.000Z",
    });
    let running = json!({"jobId": render.id, "status": "running", "progress": 0.1}).to_string();
    let before = world.items(&order).await?;

    let evil = evil.to_string();
    let (header, anothers) = world.signature(order.provider, &running)?;
    let unsigned = world.call_back(url, evil.clone()).await?;
    let tampered = world.call_back_signed(url, &(header, anothers.clone()), &evil).await?;
    let cut = world.call_back_signed(url, &(header, anothers[..62].to_owned()), &running).await?;
    let empty = world.call_back_signed(url, &(header, String::new()), &running).await?;

    for answer in [unsigned, tampered, cut, empty] {
        let answer = answer.expect(401)?;
        assert_eq!(answer.json::<Value>()?["code"], "invalid_signature");
    }
    assert_eq!(world.items(&order).await?, before);
    assert_eq!(world.status_calls(&render.id).await?.len(), 0);
    assert_eq!(world.events(&order).await?, []);

    // The signature is what was missing, and nothing else.
    let (_, right) = world.signature(order.provider, &evil)?;
    world.call_back_signed(url, &(header, right), &evil).await?.expect(200)?;
    assert_eq!(world.settled(&order).await?.state, "completed");
    Ok(())
}

#[tokio::test]
async fn a_signed_callback_about_another_render_is_ignored() -> Result<()> {
    let world = World::open("viralsync-child").await?;
    let (order, render) = endless(&world, Provider::ViralSync).await?;
    let url = render.callback_url().context("ViralSync gets a callback URL")?;
    let before = world.items(&order).await?;

    let childs = json!({
        "jobId": "job_00000000child",
        "status": "done",
        "progress": 1.0,
        "outputUrl": "https://r2.viralsync.io/outputs/child/scene.mp4",
    });
    let childs = childs.to_string();
    let signature = world.signature(order.provider, &childs)?;
    let answer = world.call_back_signed(url, &signature, &childs).await?.expect(200)?;

    assert_eq!(answer.json::<Value>()?, json!({"status": "ignored"}));
    assert_eq!(world.items(&order).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_signed_callback_of_renderio_is_believed() -> Result<()> {
    let world = World::open("renderio-signs").await?;
    let order = world.order(Provider::RenderIo).await?;
    world.endless(&order, &json!({"acceptedStatus": 202, "resultUrl": VIDEO})).await?;

    let render = believed(&world, &order).await?;

    let mut submitted = order.body["payload"].clone();
    submitted["metadata"]["relay_job"] = json!(order.job_id());
    submitted["webhook_url"] = json!(world.callback_url(order.provider, order.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(render.callback_statuses(), [200]);
    Ok(())
}

#[tokio::test]
async fn an_unsigned_callback_of_renderio_is_a_hint_to_ask() -> Result<()> {
    let world = World::open("renderio-hints").await?;
    let order = world.order(Provider::RenderIo).await?;
    world.endless(&order, &json!({"callbackSigned": false, "resultUrl": VIDEO})).await?;

    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;

    let render = world.called_back(&order, 1).await?;
    assert_eq!(render.callback_statuses(), [200]);
    assert_eq!(render.polls, 1);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn the_first_output_that_has_a_url_is_the_result() -> Result<()> {
    let world = World::open("renderio-outputs").await?;
    let (order, render) = endless(&world, Provider::RenderIo).await?;
    let url = render.callback_url().context("RenderIO gets a callback URL")?;

    let body = json!({
        "data": {
            "command_id": render.id,
            "status": "SUCCESS",
            "command_type": "FFMPEG_COMMAND",
            "output_files": {
                "out_a": {"file_id": "f-1", "storage_url": null, "status": "PROCESSING"},
                "out_b": {"file_id": "f-2", "storage_url": VIDEO, "status": "STORED"},
            },
        },
        "timestamp": 1_779_602_403_000_u64,
    });
    let body = body.to_string();
    let signature = world.signature(order.provider, &body)?;
    world.call_back_signed(url, &signature, &body).await?.expect(200)?;

    let job = world.settled(&order).await?;
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_told_once(&world, &order, &job).await
}
