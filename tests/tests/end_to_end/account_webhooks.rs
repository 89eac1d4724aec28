//! Webhooks that are registered once for all renders of a provider's account.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{SimulatedProvider, TestStack};

use crate::endings::assert_published_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn account_callback_finds_its_job() -> Result<()> {
    let stack = TestStack::connect("account").await?;
    for provider in [SimulatedProvider::Zvid, SimulatedProvider::RenderIo] {
        let test_job = stack.new_job(provider).await?.with("providerWebhook", json!(false));
        // The provider's API is down, so only the webhook reports the end.
        stack.set_endless(&test_job, &json!({"statusCode": 503, "resultUrl": VIDEO})).await?;
        stack.register_account_webhook(&test_job).await?;

        stack.submit(&test_job).await?;
        stack.end_render(&test_job).await?;
        let job = stack.settled(&test_job).await?;

        let render = stack.until_called_back(&test_job, 1).await?;
        assert_eq!(render.callback_url(), None);
        assert_eq!(render.callback_statuses(), [200]);
        assert_eq!(job.states(), ["submitting", "queued", "completed"]);
        assert_eq!(job.result_url.as_deref(), Some(VIDEO));
        assert_eq!(job.render_job_id, Some(render.id));
        assert_published_once(&stack, &test_job, &job).await?;
    }
    Ok(())
}

#[tokio::test]
async fn account_and_job_callbacks_publish_once() -> Result<()> {
    let stack = TestStack::connect("both-call").await?;
    let test_job =
        stack.new_job(SimulatedProvider::Zvid).await?.with("providerWebhook", json!(true));
    let options = json!({"callback": {"lateMs": 1_000}, "resultUrl": VIDEO});
    stack.set_endless(&test_job, &options).await?;
    stack.register_account_webhook(&test_job).await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    // Both call at the end, and each repeats its callback a second later.
    let render = stack.until_called_back(&test_job, 4).await?;

    assert_eq!(render.callback_statuses(), [200; 4]);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn account_callback_requires_signature() -> Result<()> {
    let stack = TestStack::connect("account-doors").await?;
    let test_job = stack.new_job(SimulatedProvider::RenderIo).await?;
    stack.set_endless(&test_job, &json!({})).await?;
    stack.submit(&test_job).await?;
    let render = stack.render(&test_job).await?;
    let url = stack.account_url(test_job.provider);
    let about = |job: &str| {
        let data = json!({
            "command_id": render.id,
            "status": "SUCCESS",
            "metadata": {"relay_job": job},
            "output_files": {"out_video": {"storage_url": "https://evil.example/v.mp4"}},
        });
        json!({"data": data, "timestamp": 1_779_602_403_000_u64}).to_string()
    };
    let own = about(test_job.job_id().as_str());
    let before = stack.items(&test_job).await?;

    // The URL is the same for all jobs, so an unsigned body does not even cause a poll.
    let unsigned = stack.call_back(&url, own.clone()).await?.expect(401)?;
    assert_eq!(unsigned.json::<Value>()?["code"], "invalid_signature");
    let unknown_job = about("job_00000000000000000000000000");
    let other_signature = stack.signature(test_job.provider, &unknown_job)?;
    let tampered = stack.call_back_signed(&url, &other_signature, &own).await?.expect(401)?;
    assert_eq!(tampered.json::<Value>()?["code"], "invalid_signature");
    // RenderIO disables a webhook that refuses renders, so unknown renders are accepted too.
    let unknown =
        stack.call_back_signed(&url, &other_signature, &unknown_job).await?.expect(200)?;
    assert_eq!(unknown.json::<Value>()?, json!({"status": "ignored"}));
    for without in
        [SimulatedProvider::Shotstack, SimulatedProvider::Json2Video, SimulatedProvider::ViralSync]
    {
        stack.call_back(&stack.account_url(without), own.clone()).await?.expect(404)?;
    }

    assert_eq!(stack.items(&test_job).await?, before);
    assert_eq!(stack.status_calls(&render.id).await?.len(), 0);
    assert_eq!(stack.events(&test_job).await?, []);
    Ok(())
}
