//! What a crash leaves behind, and what finds it.

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

use super::World;
use crate::order::Order;

/// One tick at a time, as the schedule has it.
static TICKING: Mutex<()> = Mutex::const_new(());

impl World {
    /// Does what the schedule does every minute, now; over when this returns.
    ///
    /// # Errors
    /// When the poller fails.
    pub async fn tick(&self) -> Result<()> {
        let _alone = TICKING.lock().await;
        let name = self.stack.functions.get("poller").context("the stack has no poller")?;
        let url = format!("{}/2015-03-31/functions/{name}/invocations", self.stack.aws_endpoint);
        let answer =
            self.http.send(Method::POST, &url, &[], r#"{"shard":0}"#).await?.expect(200)?;
        ensure!(answer.header("x-amz-function-error").is_empty(), "the tick failed: {answer}");
        Ok(())
    }

    /// Stores a job as a function does that stores nothing more.
    ///
    /// # Errors
    /// When the table does not answer, or has the job.
    pub async fn leave_job(&self, job: &Job) -> Result<()> {
        let stored = self.store().insert_job(job).await?;
        ensure!(stored == Inserted::New, "it was there: {stored:?}");
        Ok(())
    }

    /// Stores the order's job as one that everybody was told of, and the delivery of its
    /// event, whose first ticket nobody has sent: this one.
    ///
    /// # Errors
    /// When the table does not answer, or has the job.
    pub async fn leave_undelivered(&self, order: &Order) -> Result<Ticket> {
        let job = order.completed_and_untold()?;
        let notice = job.outbox.last().context("it has nothing to tell")?;
        let receiver = order.receiver().context("it has no receiver")?;
        let delivery = Delivery::of(&job, &Event::of(&job, notice), receiver, Utc::now())?;
        let settled = job.told(&job.outbox).settle(TimeDelta::hours(1), Utc::now());
        self.leave_job(&settled.context("it has something left to tell")?).await?;
        let stored = self.store().insert_delivery(&delivery, Wait::InQueue).await?;
        ensure!(stored == Inserted::New, "it was there: {stored:?}");
        Ok(Ticket::next(&delivery))
    }

    /// Sends the tickets.
    ///
    /// # Errors
    /// When the queue does not take one.
    pub async fn send_tickets(&self, tickets: &[Ticket]) -> Result<()> {
        for ten in tickets.chunks(10) {
            let mut batch = self.sqs.send_message_batch().queue_url(&self.stack.delivery_queue_url);
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

    /// The table, as the functions see it.
    pub(super) fn store(&self) -> Store {
        let retention = TimeDelta::days(90);
        let (client, table) = (self.table.client.clone(), self.table.name.clone());
        Store::new(client, table, retention, Entropy::os())
    }
}
