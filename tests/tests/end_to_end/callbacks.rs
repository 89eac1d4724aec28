//! What is posted to callback URLs by others than the provider, or before its time.

use anyhow::{Context, Result};
use domain::id::JobId;
use serde_json::{Value, json};
use tests::{Order, Provider, Render, World};

/// A render that goes on for ever, and whose provider never calls.
async fn endless(world: &World) -> Result<(Order, Render)> {
    let order = world.order(Provider::Shotstack).await?;
    world.endless(&order, &json!({})).await?;
    world.submit(&order).await?;
    let render = world.render(&order).await?;
    Ok((order, render))
}

/// What Shotstack would say.
fn done(render: &Render) -> String {
    let body = json!({
        "type": "edit",
        "action": "render",
        "id": render.id,
        "owner": "5ca6hu7s9k",
        "status": "done",
        "url": "https://evil.example/video.mp4",
        "error": null,
    });
    body.to_string()
}

#[tokio::test]
async fn what_is_no_callback_of_ours_changes_nothing() -> Result<()> {
    let world = World::open("strangers").await?;
    let (order, render) = endless(&world).await?;
    let (other, _) = endless(&world).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;
    let (start, token) = url.rsplit_once('/').context("it ends with the token")?;
    let others_url = world.callback_url(other.provider, other.job_id()).await?;
    let others_token = others_url.rsplit('/').next().unwrap_or_default();
    let nobodys_url = world.callback_url(order.provider, &JobId::from_bytes([7; 16])).await?;
    let zvids_url = world.callback_url(Provider::Zvid, order.job_id()).await?;
    let done = done(&render);
    let serve = json!({
        "type": "serve", "action": "copy", "id": "a-1", "render": render.id, "status": "ready",
    });
    let zvids = json!({"event": "render.completed", "jobId": render.id, "test": false}).to_string();
    let large = format!("{{\"padding\":\"{}\"}}", "x".repeat(256 * 1024));
    let before = [world.items(&order).await?, world.items(&other).await?];

    for (what, url, body, status, code) in [
        ("no token", &format!("{start}/x"), &done, 401, "invalid_token"),
        ("a token cut short", &url[..url.len() - 1].to_owned(), &done, 401, "invalid_token"),
        ("another job's token", &format!("{start}/{others_token}"), &done, 401, "invalid_token"),
        ("no provider", &url.replace("shotstack", "nobody"), &done, 401, "invalid_token"),
        ("another provider", &url.replace("shotstack", "zvid"), &done, 401, "invalid_token"),
        ("no job id", &format!("{start}x/{token}"), &done, 401, "invalid_token"),
        ("another provider's own token", &zvids_url, &zvids, 404, "not_found"),
        ("a job that is not there", &nobodys_url, &done, 404, "not_found"),
        ("no JSON", &url.to_owned(), &"{".to_owned(), 400, "malformed_callback"),
        ("nothing", &url.to_owned(), &String::new(), 400, "malformed_callback"),
        ("too much", &url.to_owned(), &large, 413, "payload_too_large"),
        ("another kind of event", &url.to_owned(), &serve.to_string(), 200, ""),
        ("no event at all", &url.to_owned(), &"[]".to_owned(), 200, ""),
    ] {
        let answer = world.call_back(url, body.clone()).await?;
        assert_eq!(answer.status, status, "{what}: {answer}");
        let said: Value = answer.json()?;
        match code {
            "" => assert_eq!(said, json!({"status": "ignored"}), "{what}"),
            code => assert_eq!(said["code"], code, "{what}"),
        }
    }

    assert_eq!([world.items(&order).await?, world.items(&other).await?], before);
    assert_eq!(world.render(&order).await?.polls, 0, "none was worth asking the provider");
    assert_eq!(world.events(&order).await?, []);
    assert_eq!(world.webhooks(&order).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_forged_callback_does_not_complete_a_render_that_goes_on() -> Result<()> {
    let world = World::open("forged").await?;
    let (order, render) = endless(&world).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;

    // The provider is asked, and says that it renders: that much is true, and stored.
    let answer = world.call_back(url, done(&render)).await?.expect(503)?;
    assert_eq!(answer.json::<Value>()?["code"], "not_confirmed");
    assert!(!answer.header("retry-after").is_empty(), "a true one should come again");
    let job = world.job(&order).await?;
    assert_eq!(job.states(), ["submitting", "queued", "processing"]);
    assert_eq!((job.provider_status.as_deref(), job.result_url), (Some("rendering"), None));

    // Now there is nothing new to be learnt from it, however often it comes.
    let before = world.items(&order).await?;
    for _ in 0..2 {
        world.call_back(url, done(&render)).await?.expect(503)?;
    }
    assert_eq!(world.items(&order).await?, before);
    assert_eq!(world.render(&order).await?.polls, 3);
    assert_eq!(world.events(&order).await?, []);
    assert_eq!(world.webhooks(&order).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_callback_that_names_another_render_is_not_believed() -> Result<()> {
    let world = World::open("misnamed").await?;
    let (order, render) = endless(&world).await?;
    let finished = world.order(Provider::Shotstack).await?;
    world.scenario(&finished, &json!({"durationMs": 1})).await?;
    world.submit(&finished).await?;
    world.until_settled(&finished).await?;
    let finished = world.render(&finished).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;

    world.call_back(url, done(&finished)).await?.expect(503)?;

    let job = world.job(&order).await?;
    assert_eq!((job.state.as_str(), job.render_job_id), ("processing", Some(render.id)));
    assert_eq!(world.events(&order).await?, []);
    Ok(())
}
