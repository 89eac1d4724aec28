//! The functions' AWS requests, from the simulator's ledger.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::TestStack;
use crate::eventually::eventually;
use crate::simulator::LedgerEntry;
use crate::test_job::TestJob;

#[derive(Deserialize)]
struct LedgerPage {
    seq: u64,
    requests: Vec<LedgerEntry>,
}

impl TestStack {
    /// The number of the newest request in the ledger.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn ledger_now(&self) -> Result<u64> {
        Ok(self.ledger_page(u64::MAX, "").await?.seq)
    }

    /// The functions' requests to AWS after number `since` with `contains` in their body.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn ledger(&self, since: u64, contains: &str) -> Result<Vec<LedgerEntry>> {
        Ok(self.ledger_page(since, contains).await?.requests)
    }

    async fn ledger_page(&self, since: u64, contains: &str) -> Result<LedgerPage> {
        let contains = utf8_percent_encode(contains, NON_ALPHANUMERIC);
        self.control_get(&format!("/aws?since={since}&contains={contains}")).await
    }

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

    /// The number of independent `PutEvents` calls for an event that occurred at this time.
    /// Retries of one call by the SDK count once. Calls more than 15 seconds after the event
    /// do not count, because the poller then repairs what it takes for a crash.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn publisher_count(&self, event_id: &str, occurred_at: &str) -> Result<usize> {
        let repair = DateTime::parse_from_rfc3339(occurred_at)? + TimeDelta::seconds(15);
        let requests = self.ledger(0, event_id).await?;
        let mut puts = requests.into_iter().filter(|it| it.operation == "PutEvents");
        let first = puts.next().context("the event was not published")?;
        let others = puts.filter(|it| it.at < repair.timestamp_millis());
        let calls: BTreeSet<_> = others.chain([first]).map(|it| it.invocation).collect();
        Ok(calls.len())
    }
}
