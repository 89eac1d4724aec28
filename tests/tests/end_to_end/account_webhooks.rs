//! Webhooks that a provider's account has registered once, for all of its renders.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{Provider, World};

use crate::endings::assert_told_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn an_accounts_webhook_finds_the_job_that_it_is_about() -> Result<()> {
    let world = World::open("account").await?;
    for provider in [Provider::Zvid, Provider::RenderIo] {
        let order = world.order(provider).await?.with("providerWebhook", json!(false));
        // The provider's API is down, so only the webhook can tell.
        world.endless(&order, &json!({"statusCode": 503, "resultUrl": VIDEO})).await?;
        world.register_account_webhook(&order).await?;

        world.submit(&order).await?;
        world.end(&order).await?;
        let job = world.settled(&order).await?;

        let render = world.called_back(&order, 1).await?;
        assert_eq!(render.callback_url(), None);
        assert_eq!(render.callback_statuses(), [200]);
        assert_eq!(job.states(), ["submitting", "queued", "completed"]);
        assert_eq!(job.result_url.as_deref(), Some(VIDEO));
        assert_eq!(job.render_job_id, Some(render.id));
        assert_told_once(&world, &order, &job).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_render_and_its_account_that_both_call_are_told_of_once() -> Result<()> {
    let world = World::open("both-call").await?;
    let order = world.order(Provider::Zvid).await?.with("providerWebhook", json!(true));
    let knobs = json!({"callback": {"lateMs": 1_000}, "resultUrl": VIDEO});
    world.endless(&order, &knobs).await?;
    world.register_account_webhook(&order).await?;

    world.submit(&order).await?;
    world.end(&order).await?;
    let job = world.settled(&order).await?;
    // Both at the end, and each once more a second later.
    let render = world.called_back(&order, 4).await?;

    assert_eq!(render.callback_statuses(), [200; 4]);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_told_once(&world, &order, &job).await
}

#[tokio::test]
async fn an_accounts_webhook_is_opened_by_a_signature_only() -> Result<()> {
    let world = World::open("account-doors").await?;
    let order = world.order(Provider::RenderIo).await?;
    world.endless(&order, &json!({})).await?;
    world.submit(&order).await?;
    let render = world.render(&order).await?;
    let url = world.account_url(order.provider);
    let about = |job: &str| {
        let data = json!({
            "command_id": render.id,
            "status": "SUCCESS",
            "metadata": {"relay_job": job},
            "output_files": {"out_video": {"storage_url": "https://evil.example/v.mp4"}},
        });
        json!({"data": data, "timestamp": 1_779_602_403_000_u64}).to_string()
    };
    let ours = about(order.job_id().as_str());
    let before = world.items(&order).await?;

    // The same URL serves everybody, so an unsigned body is not even a hint.
    let unsigned = world.call_back(&url, ours.clone()).await?.expect(401)?;
    assert_eq!(unsigned.json::<Value>()?["code"], "invalid_signature");
    let strangers = about("job_00000000000000000000000000");
    let wrong = world.signature(order.provider, &strangers)?;
    let tampered = world.call_back_signed(&url, &wrong, &ours).await?.expect(401)?;
    assert_eq!(tampered.json::<Value>()?["code"], "invalid_signature");
    // RenderIO switches a webhook off that refuses renders it does not know.
    let unknown = world.call_back_signed(&url, &wrong, &strangers).await?.expect(200)?;
    assert_eq!(unknown.json::<Value>()?, json!({"status": "ignored"}));
    for without in [Provider::Shotstack, Provider::Json2Video, Provider::ViralSync] {
        world.call_back(&world.account_url(without), ours.clone()).await?.expect(404)?;
    }

    assert_eq!(world.items(&order).await?, before);
    assert_eq!(world.status_calls(&render.id).await?.len(), 0);
    assert_eq!(world.events(&order).await?, []);
    Ok(())
}
