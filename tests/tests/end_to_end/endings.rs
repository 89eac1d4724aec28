//! Assertions about every job that has ended and whose receiver accepted the first attempt.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{BusEvent, DeliverySummary, JobView, TestJob, TestStack};

/// Asserts that the job's end was published once: as one event on the bus and one signed
/// webhook with the same content, whose bytes the API shows. The job must be settled.
pub(crate) async fn assert_published_once(
    stack: &TestStack,
    test_job: &TestJob,
    job: &JobView,
) -> Result<()> {
    let event_id = test_job.event_id(&format!("video.render.{}", job.state));
    let ended = job.ended_at.as_deref().unwrap_or_default();
    assert_eq!(stack.publisher_count(&event_id, ended).await?, 1, "published more than once");
    assert_published_by_tick(stack, test_job, job).await
}

/// Like [`assert_published_once`], for a job that a tick of the test finished. The schedule's
/// own tick may publish the event at the same moment, so the bus can have it twice, with the
/// same id. The receiver gets one webhook all the same.
pub(crate) async fn assert_published_by_tick(
    stack: &TestStack,
    test_job: &TestJob,
    job: &JobView,
) -> Result<()> {
    assert_eq!(stack.events(test_job).await?, [on_the_bus(test_job, job)]);
    assert_delivered_once(stack, test_job, job).await
}

fn on_the_bus(test_job: &TestJob, job: &JobView) -> BusEvent {
    let detail_type = format!("video.render.{}", job.state);
    let detail = test_job.final_event(job);
    BusEvent { source: "render-relay".into(), detail_type, detail }
}

async fn assert_delivered_once(stack: &TestStack, test_job: &TestJob, job: &JobView) -> Result<()> {
    let expected = test_job.final_event(job);
    let event_id = test_job.event_id(&format!("video.render.{}", job.state));

    let webhooks = stack.webhooks(test_job).await?;
    assert_eq!(webhooks.len(), 1, "{webhooks:#?}");
    assert_eq!(webhooks[0].verified, Some(true));
    assert_eq!(webhooks[0].header("webhook-id"), event_id);
    assert_eq!(webhooks[0].header("content-type"), "application/json");
    assert_eq!(serde_json::from_str::<Value>(&webhooks[0].body)?, expected);

    let deliveries = stack.deliveries(test_job).await?;
    assert_eq!(deliveries.len(), 1, "{deliveries:#?}");
    assert_eq!(deliveries[0].body, webhooks[0].body);
    assert_eq!(deliveries[0].event_id, event_id);
    assert_eq!(json!(deliveries[0].url), test_job.body["callbackUrl"]);
    assert_eq!(deliveries[0].statuses(), [Some(200)]);
    let summary = DeliverySummary {
        event_id,
        state: "delivered".into(),
        reason: None,
        attempts: 1,
        next_attempt_at: None,
    };
    assert_eq!(job.delivery, Some(summary));

    assert_ordered(job);
    let item = stack.job_item(test_job).await?;
    for key in ["shard", "since", "outbox"] {
        assert!(!item.contains_key(key), "{key}: {item:#?}");
    }
    assert!(item.contains_key("expires_at"), "{item:#?}");
    Ok(())
}

/// Asserts that the timeline is ordered, from the creation to the end.
fn assert_ordered(job: &JobView) {
    let times: Vec<&str> = job.timeline.iter().map(|line| line.at.as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(times.first().copied(), Some(job.created_at.as_str()));
    assert_eq!(times.last().copied(), job.ended_at.as_deref());
    assert_eq!(job.states().last().copied(), Some(job.state.as_str()));
}
