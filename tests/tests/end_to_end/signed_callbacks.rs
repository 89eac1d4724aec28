//! Callbacks that the provider signs: trusted with a valid signature, refused with an invalid one.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{SimulatedProvider, SimulatedRender, TestJob, TestStack};

use crate::endings::assert_published_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

/// Submits the job, and asserts that its callback ends it without a poll.
async fn assert_trusted(stack: &TestStack, test_job: &TestJob) -> Result<SimulatedRender> {
    stack.submit(test_job).await?;
    stack.end_render(test_job).await?;
    let job = stack.settled(test_job).await?;

    let render = stack.until_called_back(test_job, 1).await?;
    assert_eq!(stack.status_calls(&render.id).await?.len(), 0, "the provider was polled");
    assert_eq!(job.state, "completed");
    assert_eq!(job.render_job_id.as_ref(), Some(&render.id));
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_published_once(stack, test_job, &job).await?;
    Ok(render)
}

/// A job whose render does not end and whose provider never calls back.
async fn set_endless(
    stack: &TestStack,
    provider: SimulatedProvider,
) -> Result<(TestJob, SimulatedRender)> {
    let test_job = stack.new_job(provider).await?;
    stack.set_endless(&test_job, &json!({"callback": {"skip": true}})).await?;
    stack.submit(&test_job).await?;
    let render = stack.render(&test_job).await?;
    Ok((test_job, render))
}

#[tokio::test]
async fn callback_signed_by_viralsync_is_trusted() -> Result<()> {
    let stack = TestStack::connect("viralsync-signs").await?;
    let test_job = stack.new_job(SimulatedProvider::ViralSync).await?;
    stack.set_endless(&test_job, &json!({"progressCallbacks": 0, "resultUrl": VIDEO})).await?;

    let render = assert_trusted(&stack, &test_job).await?;

    let mut submitted = test_job.body["payload"].clone();
    submitted["movie"]["id"] = json!(test_job.job_id());
    submitted["callbackUrl"] =
        json!(stack.callback_url(test_job.provider, test_job.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(render.callback_statuses(), [200]);
    Ok(())
}

#[tokio::test]
async fn callback_progress_moves_an_active_job() -> Result<()> {
    let stack = TestStack::connect("viralsync-moves").await?;
    let test_job = stack.new_job(SimulatedProvider::ViralSync).await?;
    stack.set_endless(&test_job, &json!({"progressCallbacks": 0, "resultUrl": VIDEO})).await?;

    let submitted = stack.submit(&test_job).await?;
    assert_eq!(submitted.progress, None);
    stack.report_progress(&test_job).await?;
    stack.until_state(&test_job, "processing").await?;
    assert_eq!(stack.job(&test_job).await?.progress, Some(0.25), "progress is stored in quarters");
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    assert_eq!(job.states(), ["submitting", "queued", "processing", "completed"]);
    assert_eq!(job.progress, Some(1.0));
    let before = stack.items(&test_job).await?;

    stack.report_progress(&test_job).await?;
    let render = stack.until_called_back(&test_job, 3).await?;
    assert_eq!(render.callback_statuses(), [200; 3]);
    assert_eq!(stack.items(&test_job).await?, before, "the late callback changed something");
    assert_eq!(stack.status_calls(&render.id).await?.len(), 0);
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn callback_without_valid_signature_is_refused() -> Result<()> {
    let stack = TestStack::connect("viralsync-forged").await?;
    let (test_job, render) = set_endless(&stack, SimulatedProvider::ViralSync).await?;
    let url = render.callback_url().context("ViralSync gets a callback URL")?;
    let evil = json!({
        "jobId": render.id,
        "status": "done",
        "progress": 1.0,
        "outputUrl": "https://evil.example/video.mp4",
        "timestamp": "2026-04-02T10:00:52.000Z",
    });
    let running = json!({"jobId": render.id, "status": "running", "progress": 0.1}).to_string();
    let before = stack.items(&test_job).await?;

    let evil = evil.to_string();
    let (header, other_signature) = stack.signature(test_job.provider, &running)?;
    let unsigned = stack.call_back(url, evil.clone()).await?;
    let tampered = stack.call_back_signed(url, &(header, other_signature.clone()), &evil).await?;
    let truncated =
        stack.call_back_signed(url, &(header, other_signature[..62].to_owned()), &running).await?;
    let empty = stack.call_back_signed(url, &(header, String::new()), &running).await?;

    for answer in [unsigned, tampered, truncated, empty] {
        let answer = answer.expect(401)?;
        assert_eq!(answer.json::<Value>()?["code"], "invalid_signature");
    }
    assert_eq!(stack.items(&test_job).await?, before);
    assert_eq!(stack.status_calls(&render.id).await?.len(), 0);
    assert_eq!(stack.events(&test_job).await?, []);

    // The same body with a valid signature completes the job.
    let (_, valid) = stack.signature(test_job.provider, &evil)?;
    stack.call_back_signed(url, &(header, valid), &evil).await?.expect(200)?;
    assert_eq!(stack.settled(&test_job).await?.state, "completed");
    Ok(())
}

#[tokio::test]
async fn callback_about_another_render_is_ignored() -> Result<()> {
    let stack = TestStack::connect("viralsync-child").await?;
    let (test_job, render) = set_endless(&stack, SimulatedProvider::ViralSync).await?;
    let url = render.callback_url().context("ViralSync gets a callback URL")?;
    let before = stack.items(&test_job).await?;

    let child = json!({
        "jobId": "job_00000000child",
        "status": "done",
        "progress": 1.0,
        "outputUrl": "https://r2.viralsync.io/outputs/child/scene.mp4",
    });
    let child = child.to_string();
    let signature = stack.signature(test_job.provider, &child)?;
    let answer = stack.call_back_signed(url, &signature, &child).await?.expect(200)?;

    assert_eq!(answer.json::<Value>()?, json!({"status": "ignored"}));
    assert_eq!(stack.items(&test_job).await?, before);
    Ok(())
}

#[tokio::test]
async fn callback_signed_by_renderio_is_trusted() -> Result<()> {
    let stack = TestStack::connect("renderio-signs").await?;
    let test_job = stack.new_job(SimulatedProvider::RenderIo).await?;
    stack.set_endless(&test_job, &json!({"acceptedStatus": 202, "resultUrl": VIDEO})).await?;

    let render = assert_trusted(&stack, &test_job).await?;

    let mut submitted = test_job.body["payload"].clone();
    submitted["metadata"]["relay_job"] = json!(test_job.job_id());
    submitted["webhook_url"] =
        json!(stack.callback_url(test_job.provider, test_job.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(render.callback_statuses(), [200]);
    Ok(())
}

#[tokio::test]
async fn callback_unsigned_by_renderio_causes_poll() -> Result<()> {
    let stack = TestStack::connect("renderio-hints").await?;
    let test_job = stack.new_job(SimulatedProvider::RenderIo).await?;
    stack.set_endless(&test_job, &json!({"callbackSigned": false, "resultUrl": VIDEO})).await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    let render = stack.until_called_back(&test_job, 1).await?;
    assert_eq!(render.callback_statuses(), [200]);
    assert_eq!(render.polls, 1);
    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_published_once(&stack, &test_job, &job).await
}

#[tokio::test]
async fn callback_result_is_first_output_url() -> Result<()> {
    let stack = TestStack::connect("renderio-outputs").await?;
    let (test_job, render) = set_endless(&stack, SimulatedProvider::RenderIo).await?;
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
    let signature = stack.signature(test_job.provider, &body)?;
    stack.call_back_signed(url, &signature, &body).await?.expect(200)?;

    let job = stack.settled(&test_job).await?;
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_published_once(&stack, &test_job, &job).await
}
