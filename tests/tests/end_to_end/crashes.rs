//! What a function leaves behind that crashes after its write: somebody else finishes it.

use anyhow::{Result, bail};
use chrono::{TimeDelta, Utc};
use domain::event::EventSet;
use domain::id::{PayloadVersion, ProviderName, RenderJobId, SourceRecordId};
use domain::job::{Intent, Job, Observation, RenderResult, RenderStatus, Report, Step};
use domain::polling::Tracking;
use tests::{Order, Provider, World};

use crate::endings::assert_told_by_a_tick;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

/// The order's job right after the write that completed it, a minute ago: nobody has been
/// told, and it is still among the active ones.
fn completed_and_untold(order: &Order) -> Result<Job> {
    let then = Utc::now() - TimeDelta::minutes(1);
    let metadata = order.body["metadata"].as_object().cloned().unwrap_or_default();
    let job = Job::intend(
        Intent {
            id: order.job_id().clone(),
            provider: ProviderName::parse(order.provider.name())?,
            source_record_id: SourceRecordId::parse(&order.mark)?,
            payload_version: Some(PayloadVersion::parse("product-promo-v4")?),
            metadata,
            callback_url: order.body["callbackUrl"].as_str().map(str::to_owned),
            wanted: EventSet::ends(),
            fingerprint: [7; 32],
            tracking: Tracking::WebhookFirst,
            durations: None,
            shard: 0,
        },
        then,
    );
    let render = RenderJobId::parse("6d7acbe6-e7c1-4cf8-b8ea-94e7522878cc")?;
    let done = Report::Observed(Observation {
        render_job_id: Some(render.clone()),
        status: RenderStatus::Completed(RenderResult { url: Some(VIDEO.into()), expires_at: None }),
        provider_status: "done".into(),
        progress: None,
    });
    [Report::Accepted(render), done].iter().try_fold(job, |job, report| {
        match job.apply(report, 1, then) {
            Step::Changed(job) => Ok(*job),
            Step::Unchanged => bail!("{report:?} is no news"),
        }
    })
}

#[tokio::test]
async fn an_end_that_was_stored_and_not_told_is_told_by_the_next_tick() -> Result<()> {
    let world = World::open("crashed").await?;
    let order = world.order(Provider::Shotstack).await?;
    let crashed = completed_and_untold(&order)?;
    assert_eq!(crashed.outbox.len(), 1);
    world.leave_job(&crashed).await?;
    assert!(world.job_item(&order).await?.contains_key("shard"), "it is active");

    world.tick().await?;
    let job = world.settled(&order).await?;

    assert_eq!(job.states(), ["submitting", "queued", "completed"]);
    assert_eq!(job.result_url.as_deref(), Some(VIDEO));
    assert_told_by_a_tick(&world, &order, &job).await?;

    // Whoever ticks next finds nothing to do.
    let (item, events) = (world.job_item(&order).await?, world.events(&order).await?);
    world.tick().await?;
    assert_eq!(world.job_item(&order).await?, item);
    assert_eq!(world.events(&order).await?, events);
    Ok(())
}
