//! Sending a job's last event again: same id, same bytes, a fresh schedule.

use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use domain::id::JobId;
use shared::api::{self, Problem};
use shared::queue::Ticket;
use shared::store::{Committed, Wait};
use shared::view;

use crate::Jobs;

impl Jobs {
    /// POST /v1/jobs/{jobId}/redeliver
    pub(crate) async fn redeliver(
        &self,
        id: &JobId,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let deliveries = self
            .tracker
            .store
            .deliveries(id)
            .await
            .map_err(|cause| Problem::unavailable(&cause))?;
        let Some(delivery) = deliveries.last() else {
            let job =
                self.tracker.store.job(id).await.map_err(|cause| Problem::unavailable(&cause))?;
            job.ok_or_else(|| Problem::not_found("job"))?;
            return Err(Problem::new(
                409,
                "nothing_to_deliver",
                "Nothing to deliver",
                "This job has no delivery: it has not ended, or no receiver was configured.",
            ));
        };
        let Some(again) = delivery.redeliver(now) else {
            return Err(Problem::new(
                409,
                "delivery_pending",
                "Delivery pending",
                "This delivery is still being tried by itself; see its nextAttemptAt.",
            ));
        };
        // The index first: if the ticket is lost, the poller sends another.
        let committed =
            self.tracker.store.commit_delivery(&again, Wait::InIndex { until: now }).await;
        match committed.map_err(|cause| Problem::unavailable(&cause))? {
            Committed::Stored => {}
            Committed::Overtaken(_) => {
                return Err(Problem::new(
                    409,
                    "delivery_pending",
                    "Delivery pending",
                    "Somebody else has just sent this delivery again.",
                ));
            }
        }
        self.tracker
            .deliveries
            .send(&Ticket::next(&again), Duration::ZERO)
            .await
            .map_err(|cause| Problem::unavailable(&cause))?;
        Ok(api::json(202, &view::delivery(&again)))
    }
}
