//! The state that a crash leaves behind, and the tick that repairs it.

use ::http::Method;
use anyhow::{Context, Result, ensure};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use chrono::{TimeDelta, Utc};
use domain::delivery::Delivery;
use domain::event::Event;
use domain::job::Job;
use shared::entropy::Entropy;
use shared::queue::Ticket;
use shared::store::{Inserted, Store, Wait};
use tokio::sync::Mutex;

use super::TestStack;
use crate::test_job::TestJob;

/// Serialises the ticks, as the schedule does.
static TICKING: Mutex<()> = Mutex::const_new(());

impl TestStack {
    /// Runs the schedule's tick now, and waits for its end.
    ///
    /// # Errors
    /// When the poller fails.
    pub async fn tick(&self) -> Result<()> {
        let _guard = TICKING.lock().await;
        let name = self.description.functions.get("poller").context("the stack has no poller")?;
        let url =
            format!("{}/2015-03-31/functions/{name}/invocations", self.description.aws_endpoint);
        let answer =
            self.http.send(Method::POST, &url, &[], r#"{"shard":0}"#).await?.expect(200)?;
        ensure!(answer.header("x-amz-function-error").is_empty(), "the tick failed: {answer}");
        Ok(())
    }

    /// Stores a job as a function does that crashes right after this write.
    ///
    /// # Errors
    /// When the table does not answer, or already has the job.
    pub async fn insert_job(&self, job: &Job) -> Result<()> {
        let stored = self.store().insert_job(job).await?;
        ensure!(stored == Inserted::New, "it was stored before: {stored:?}");
        Ok(())
    }

    /// Stores the job as settled, and its delivery. Returns the delivery's first ticket, which
    /// is not sent.
    ///
    /// # Errors
    /// When the table does not answer, or already has the job.
    pub async fn insert_undelivered(&self, test_job: &TestJob) -> Result<Ticket> {
        let job = test_job.completed_unpublished()?;
        let entry = job.outbox.last().context("its outbox is empty")?;
        let receiver = test_job.receiver().context("it has no receiver")?;
        let delivery = Delivery::of(&job, &Event::of(&job, entry), receiver, Utc::now())?;
        let settled = job.mark_all_published().settle(TimeDelta::hours(1), Utc::now());
        self.insert_job(&settled.context("its outbox is not empty")?).await?;
        let stored = self.store().insert_delivery(&delivery, Wait::InQueue).await?;
        ensure!(stored == Inserted::New, "it was stored before: {stored:?}");
        Ok(Ticket::next(&delivery))
    }

    /// Sends the tickets in batches.
    ///
    /// # Errors
    /// When the queue refuses one.
    pub async fn send_tickets(&self, tickets: &[Ticket]) -> Result<()> {
        for ten in tickets.chunks(10) {
            let mut batch =
                self.sqs.send_message_batch().queue_url(&self.description.delivery_queue_url);
            for (number, ticket) in ten.iter().enumerate() {
                let entry = SendMessageBatchRequestEntry::builder().id(number.to_string());
                let entry = entry.message_body(serde_json::to_string(ticket)?).build()?;
                batch = batch.entries(entry);
            }
            let failed = batch.send().await?.failed;
            ensure!(failed.is_empty(), "not sent: {failed:?}");
        }
        Ok(())
    }

    /// The functions' view of the table.
    pub(super) fn store(&self) -> Store {
        let retention = TimeDelta::days(90);
        let (client, table) = (self.table.client.clone(), self.table.name.clone());
        Store::new(client, table, retention, Entropy::os())
    }
}
