//! Restarting a job's last delivery, with the same id and bytes and a new schedule.

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use domain::delivery::RedeliverError;
use domain::id::JobId;
use shared::api::{self, Problem};
use shared::store::Committed;
use shared::view;

use crate::Jobs;

impl Jobs {
    /// POST /v1/jobs/{jobId}/redeliver
    pub(crate) async fn redeliver(
        &self,
        id: &JobId,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let deliveries = self.tracker.store.deliveries(id).await?;
        let Some(delivery) = deliveries.last() else {
            let job = self.tracker.store.job(id).await?;
            job.ok_or_else(|| Problem::not_found("job"))?;
            return Err(Problem::new(
                409,
                "nothing_to_deliver",
                "Nothing to deliver",
                "This job has no delivery: it has not ended, or no receiver was configured.",
            ));
        };
        let again = delivery.redeliver(now).map_err(|why| match why {
            RedeliverError::Pending => Problem::new(
                409,
                "delivery_pending",
                "Delivery pending",
                "This delivery is still being tried by itself; see its nextAttemptAt.",
            ),
            RedeliverError::TooOften => Problem::new(
                409,
                "too_many_attempts",
                "Too many attempts",
                "This delivery was tried a thousand times. What it says is in its body.",
            ),
        })?;
        match self.restart(&again, now).await? {
            Committed::Stored => {}
            Committed::Conflict(_) => {
                return Err(Problem::new(
                    409,
                    "delivery_pending",
                    "Delivery pending",
                    "Another request has just sent this delivery again.",
                ));
            }
        }
        Ok(api::json(202, &view::delivery(&again)))
    }
}
