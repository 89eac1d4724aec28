//! Test events: a delivery to the default receiver that is about no job, made like all others.

use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use domain::delivery::Delivery;
use domain::event::TestEvent;
use domain::id::EventId;
use shared::api::{self, Problem};
use shared::queue::Ticket;
use shared::store::Wait;
use shared::view;

use crate::Jobs;

impl Jobs {
    /// POST /v1/webhook-config/test
    pub(crate) async fn test_webhook(
        &self,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let config = self.tracker.store.webhook_config().await?;
        let Some(url) = config.and_then(|config| config.url) else {
            return Err(Problem::new(
                409,
                "webhook_not_configured",
                "Webhooks are not configured",
                "There is no default receiver to send a test to; call PUT /v1/webhook-config \
                 first.",
            ));
        };
        let random = self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))?;
        let event = TestEvent::new(random, now);
        let delivery = Delivery::of_test(&event, &url, now);
        let delivery = delivery.map_err(|cause| Problem::unavailable(&cause))?;
        // The delivery is in the `due` index from the start: if its ticket is lost, the poller
        // sends another.
        self.tracker.store.insert_delivery(&delivery, Wait::InIndex { until: now }).await?;
        self.tracker.deliveries.send(&Ticket::next(&delivery), Duration::ZERO).await?;
        let path = format!("/v1/webhook-config/test/{}", delivery.event_id);
        Ok(api::accepted(&path, &view::delivery(&delivery)))
    }

    /// GET /v1/webhook-config/test/{eventId}
    pub(crate) async fn show_webhook_test(
        &self,
        event: &EventId,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let delivery = self.tracker.store.delivery(None, event).await?;
        let delivery = delivery.ok_or_else(|| Problem::not_found("event"))?;
        Ok(api::json(200, &view::delivery(&delivery)))
    }
}
