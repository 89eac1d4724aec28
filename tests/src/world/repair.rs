//! What a crash leaves behind, and the tick that finds it.

use ::http::Method;
use anyhow::{Context, Result, ensure};
use chrono::TimeDelta;
use domain::job::Job;
use shared::store::{Inserted, Store};
use tokio::sync::Mutex;

use super::World;

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
        let retention = TimeDelta::days(90);
        let store = Store::new(self.table.client.clone(), self.table.name.clone(), retention);
        let stored = store.insert_job(job).await?;
        ensure!(stored == Inserted::New, "it was there: {stored:?}");
        Ok(())
    }
}
