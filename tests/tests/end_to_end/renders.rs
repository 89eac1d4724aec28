//! Renders that complete, and renders that fail at their provider.

use anyhow::Result;
use chrono::{DateTime, TimeDelta};
use serde_json::json;
use tests::{JobView, SimulatedProvider, SimulatedRender, TestJob, TestStack};

use crate::endings::assert_published_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

/// Submits the job and waits for its end. Returns the job and its only render.
async fn follow(
    stack: &TestStack,
    test_job: &TestJob,
    ends: RenderEnd,
) -> Result<(JobView, SimulatedRender)> {
    assert_eq!(stack.submit(test_job).await?.state, "queued");
    match ends {
        RenderEnd::AfterAccepted => stack.end_render(test_job).await?,
        RenderEnd::AfterProcessing => {
            stack.until_state(test_job, "processing").await?;
            stack.end_render(test_job).await?;
        }
    }
    let job = stack.settled(test_job).await?;

    let render = stack.render(test_job).await?;
    assert_eq!(stack.submit_count(test_job).await?, 1);
    assert_eq!(job.render_job_id.as_ref(), Some(&render.id));
    assert_published_once(stack, test_job, &job).await?;
    Ok((job, render))
}

/// The moment at which the test ends a render.
#[derive(Clone, Copy)]
enum RenderEnd {
    AfterAccepted,
    AfterProcessing,
}

#[tokio::test]
async fn job_polled_is_published_once() -> Result<()> {
    let stack = TestStack::connect("polled").await?;
    let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
    stack.set_endless(&test_job, &json!({"resultUrl": VIDEO})).await?;

    let (job, render) = follow(&stack, &test_job, RenderEnd::AfterProcessing).await?;

    assert_eq!(job.states(), ["submitting", "queued", "processing", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!((job.progress, job.provider_status.as_deref()), (Some(1.0), Some("completed")));
    assert_eq!((job.failure, job.result_expires_at), (None, None));
    // Zvid expects the payload wrapped, and an id that we choose.
    let submitted =
        json!({"payload": test_job.body["payload"], "jobId": test_job.job_id().as_uuid()});
    assert_eq!(render.body, submitted);
    assert_eq!(render.id, test_job.job_id().as_uuid());
    assert!(render.polls >= 2, "{render:?}");
    Ok(())
}

#[tokio::test]
async fn job_with_callback_is_not_polled() -> Result<()> {
    let stack = TestStack::connect("zvid-calls").await?;
    let test_job =
        stack.new_job(SimulatedProvider::Zvid).await?.with("providerWebhook", json!(true));
    stack.set_endless(&test_job, &json!({"resultUrl": VIDEO})).await?;
    let since = stack.ledger_now().await?;

    let (job, render) = follow(&stack, &test_job, RenderEnd::AfterAccepted).await?;

    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_eq!(stack.until_called_back(&test_job, 1).await?.callback_statuses(), [200]);
    // The one poll confirmed the callback. Any other would need a wake-up call.
    assert_eq!(render.polls, 1);
    let requests = stack.ledger(since, test_job.job_id().as_str()).await?;
    let sent: Vec<_> = requests.iter().filter(|it| it.operation == "SendMessage").collect();
    assert_eq!(sent.len(), 1, "more than the delivery's ticket: {sent:#?}");
    Ok(())
}

#[tokio::test]
async fn job_called_back_is_published_once() -> Result<()> {
    let stack = TestStack::connect("shotstack-calls").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_endless(&test_job, &json!({"resultUrl": VIDEO})).await?;

    let (job, render) = follow(&stack, &test_job, RenderEnd::AfterAccepted).await?;

    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    let [ended, expires] = [&job.ended_at, &job.result_expires_at]
        .map(|text| DateTime::parse_from_rfc3339(text.as_deref().unwrap()).unwrap());
    let kept = expires - ended;
    assert!(kept <= TimeDelta::hours(24) && kept > TimeDelta::hours(23), "{kept}");
    let mut submitted = test_job.body["payload"].clone();
    submitted["callback"] = json!(stack.callback_url(test_job.provider, test_job.job_id()).await?);
    assert_eq!(render.body, submitted);
    assert_eq!(stack.until_called_back(&test_job, 1).await?.callback_statuses(), [200]);
    assert_eq!(render.polls, 1);
    Ok(())
}

#[tokio::test]
async fn job_failure_has_the_providers_message() -> Result<()> {
    let stack = TestStack::connect("fails").await?;
    for provider in [SimulatedProvider::Zvid, SimulatedProvider::Shotstack] {
        let test_job = stack.new_job(provider).await?;
        let reason = "Asset \"logo.png\" is not reachable";
        stack.set_endless(&test_job, &json!({"failWith": reason})).await?;

        let (job, _) = follow(&stack, &test_job, RenderEnd::AfterAccepted).await?;

        assert_eq!(job.states(), ["submitting", "queued", "failed"]);
        assert_eq!(job.failure, Some(json!({"code": "render_failed", "message": reason})));
        assert_eq!(job.result_url, None);
    }
    Ok(())
}
