//! A job's items and events, and waiting for its states.

use anyhow::{Context, Result, ensure};

use super::TestStack;
use crate::bus::BusEvent;
use crate::eventually::eventually;
use crate::relay::JobView;
use crate::table::{TableItem, text};
use crate::test_job::TestJob;

impl TestStack {
    /// All items of the job.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn items(&self, test_job: &TestJob) -> Result<Vec<TableItem>> {
        self.table.items_of(test_job.job_id()).await
    }

    /// The job's own item.
    ///
    /// # Errors
    /// When there is none.
    pub async fn job_item(&self, test_job: &TestJob) -> Result<TableItem> {
        let items = self.items(test_job).await?;
        items.into_iter().find(|item| text(item, "sk") == "job").context("there is no job yet")
    }

    /// The number of jobs with this job's source record.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn jobs_of_source(&self, test_job: &TestJob) -> Result<usize> {
        self.table.jobs_of_source(&test_job.tag).await
    }

    /// The events of the job that a subscriber of the bus got so far. An event that arrived
    /// twice counts once: a subscriber recognises it by its id.
    ///
    /// # Errors
    /// When the subscription does not answer.
    pub async fn events(&self, test_job: &TestJob) -> Result<Vec<BusEvent>> {
        let mut events: Vec<BusEvent> = Vec::new();
        for event in self.subscription.events_of("jobId", test_job.job_id().as_str()).await? {
            if !events.contains(&event) {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Waits until the job has entered a state, which it may have left since.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_state(&self, test_job: &TestJob, state: &str) -> Result<()> {
        eventually(&format!("job of {} {state}", test_job.tag), async || {
            let item = self.job_item(test_job).await?;
            let timeline = item.get("timeline").and_then(|it| it.as_l().ok());
            let seen =
                timeline.into_iter().flatten().filter_map(|entry| entry.as_l().ok()?.first());
            let seen: Vec<&String> = seen.filter_map(|name| name.as_s().ok()).collect();
            ensure!(seen.iter().any(|seen| *seen == state), "it went through {seen:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the job is settled and its deliveries were made or given up. Then all its
    /// events are on the bus, and every webhook has arrived.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_settled(&self, test_job: &TestJob) -> Result<()> {
        eventually(&format!("job of {} settled", test_job.tag), async || {
            let items = self.items(test_job).await?;
            let job = items.iter().find(|item| text(item, "sk") == "job");
            let job = job.context("there is no job yet")?;
            ensure!(!job.contains_key("shard"), "it is active, and {}", text(job, "state"));
            let mut deliveries =
                items.iter().filter(|item| text(item, "sk").starts_with("delivery#"));
            let over = |item: &TableItem| ["delivered", "exhausted"].contains(&text(item, "state"));
            ensure!(deliveries.clone().next().is_some(), "it has no delivery yet");
            ensure!(deliveries.all(over), "a delivery is still pending");
            Ok(())
        })
        .await
    }

    /// Waits like [`TestStack::until_settled`], and returns the job.
    ///
    /// # Errors
    /// When it times out.
    pub async fn settled(&self, test_job: &TestJob) -> Result<JobView> {
        self.until_settled(test_job).await?;
        self.job(test_job).await
    }
}
