//! The functions' AWS requests for one job.

use anyhow::{Result, ensure};

use super::TestStack;
use crate::eventually::eventually;
use crate::simulator::LedgerEntry;
use crate::test_job::TestJob;

impl TestStack {
    /// Waits until the job is settled and delivered, and until the ledger shows the last writes
    /// too, which can be later than the table. Returns the functions' AWS requests after number
    /// `since` with `contains` in their body.
    ///
    /// # Errors
    /// When it times out.
    pub async fn ledger_when_settled(
        &self,
        test_job: &TestJob,
        since: u64,
        contains: &str,
    ) -> Result<Vec<LedgerEntry>> {
        self.until_settled(test_job).await?;
        eventually("the last writes in the ledger", async || {
            let of_the_job = self.ledger(since, test_job.job_id().as_str()).await?;
            let is_written = |item: &str, text: &str| {
                let mut puts = of_the_job.iter().filter(|it| it.is_write() && it.item() == item);
                puts.any(|it| it.request.contains(text))
            };
            ensure!(is_written("job", "expires_at"), "the job is not settled");
            ensure!(is_written("delivery", "\"delivered\""), "the delivery is not delivered");
            self.ledger(since, contains).await
        })
        .await
    }
}
