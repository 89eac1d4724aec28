//! What the functions asked of AWS for a job.

use anyhow::{Result, ensure};

use super::World;
use crate::order::Order;
use crate::patience::eventually;
use crate::simulator::LedgerEntry;

impl World {
    /// The functions' requests to AWS after number `since` with `contains` in their body, when
    /// nothing is left to do for the job, whose webhook was taken, and the ledger says so too:
    /// it may lag behind the table by an answer on its way.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn ledger_when_settled(
        &self,
        order: &Order,
        since: u64,
        contains: &str,
    ) -> Result<Vec<LedgerEntry>> {
        self.until_settled(order).await?;
        eventually("the last writes in the ledger", async || {
            let of_the_job = self.ledger(since, order.job_id().as_str()).await?;
            let last_of = |item: &str, sign: &str| {
                let mut puts = of_the_job.iter().filter(|it| it.is_write() && it.item() == item);
                puts.any(|it| it.request.contains(sign))
            };
            ensure!(last_of("job", "expires_at"), "the job is not settled");
            ensure!(last_of("delivery", "\"delivered\""), "the delivery is not delivered");
            self.ledger(since, contains).await
        })
        .await
    }
}
