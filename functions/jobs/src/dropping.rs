//! Giving up a delivery by hand: nothing more is sent, and an event says so.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::delivery::{Delivery, DeliveryState, DropError};
use domain::id::JobId;
use serde::Deserialize;
use shared::api::{self, Problem};
use shared::view;

use crate::Jobs;
use crate::reading::invalid_parameter;
use crate::recovery::is_of;
use crate::redelivery::{event_named, optional_body, under_way};

/// The body; it may be left out.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DropRequest {
    #[serde(default)]
    event: Option<String>,
}

impl Jobs {
    /// POST /v1/jobs/{jobId}/drop-delivery
    pub(crate) async fn drop_delivery(
        &self,
        id: &JobId,
        request: &ApiGatewayV2httpRequest,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let wish: DropRequest = optional_body(request)?;
        let named = wish.event.as_deref().map(event_named).transpose()?;
        let mut deliveries = self.tracker.store.deliveries(id).await?;
        if deliveries.is_empty() {
            let job = self.tracker.store.job(id).await?;
            job.ok_or_else(|| Problem::not_found("job"))?;
        }
        deliveries.retain(|delivery| match named {
            Some(event) => is_of(delivery, event),
            None => matches!(delivery.state, DeliveryState::Pending { .. }),
        });
        let delivery = match deliveries.as_slice() {
            [only] => only,
            [] => return Err(not_pending()),
            [_, _, ..] => {
                return Err(invalid_parameter("event", "must be given: several are pending"));
            }
        };
        let drop = |delivery: &Delivery| {
            delivery.dropped(now).map_err(|why| match why {
                DropError::Over => not_pending(),
                DropError::UnderWay { until } => under_way(until, now),
            })
        };
        // Its ticket has the event about the end published.
        let dropped = self.change_delivery(delivery.clone(), drop, now).await?;
        Ok(api::json(202, &view::delivery(&dropped)))
    }
}

fn not_pending() -> Problem {
    Problem::new(
        409,
        "not_pending",
        "Not pending",
        "This job has no such delivery that is still being tried, so nothing is to be dropped.",
    )
}
