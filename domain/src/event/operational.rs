//! The events about deliveries and endpoints: on the event bus only.

use serde::Serialize;

use super::EventName;
use crate::delivery::{Delivery, DeliverySubject, GivenUp};
use crate::endpoint::{Disabled, Endpoint};
use crate::id::{EndpointId, EventId};
use crate::time;

/// The event that a delivery was given up. It goes on the bus only.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryExhausted {
    event: &'static str,
    event_id: EventId,
    job_id: String,
    delivery_event_id: EventId,
    delivery_event: EventName,
    endpoint_id: EndpointId,
    reason: &'static str,
    attempts: usize,
    occurred_at: String,
}

impl DeliveryExhausted {
    /// The bus's detail-type and the body's `event`.
    pub const NAME: &str = "webhook.delivery.exhausted";

    /// The event of a delivery that was given up. A repeat for the same end has the same id; a
    /// delivery that is sent again and given up again has another. None for a test, because its
    /// sender watches the outcome and subscribers have lost nothing.
    #[must_use]
    pub fn of(delivery: &Delivery, given_up: GivenUp) -> Option<Self> {
        let (job_id, event) = match &delivery.subject {
            DeliverySubject::Render { job_id, event } => (job_id, *event),
            DeliverySubject::Test => return None,
        };
        let at = time::millis(given_up.at);
        let end = format!("{}/{}/{at}", Self::NAME, delivery.event_id.as_str());
        Some(Self {
            event: Self::NAME,
            event_id: EventId::of(job_id, &end),
            job_id: job_id.to_string(),
            delivery_event_id: delivery.event_id.clone(),
            delivery_event: event,
            endpoint_id: EndpointId::of(&delivery.url),
            reason: given_up.reason.name(),
            attempts: delivery.attempts.len(),
            occurred_at: time::text(given_up.at),
        })
    }

    /// The body to publish: JSON.
    ///
    /// # Errors
    /// Never in practice: the value is always valid JSON.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// The event that an endpoint was disabled. It goes on the bus only.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDisabled {
    event: &'static str,
    event_id: EventId,
    endpoint_id: EndpointId,
    host: String,
    reason: &'static str,
    failing_since: Option<String>,
    occurred_at: String,
}

impl EndpointDisabled {
    /// The bus's detail-type and the body's `event`.
    pub const NAME: &str = "webhook.endpoint.disabled";

    /// The event of an endpoint that was disabled. A repeat has the same id; an endpoint that is
    /// enabled and disabled again has another.
    #[must_use]
    pub fn of(endpoint: &Endpoint, disabled: Disabled) -> Self {
        let at = time::millis(disabled.at);
        Self {
            event: Self::NAME,
            event_id: EventId::of_endpoint(&endpoint.id, &format!("{}/{at}", Self::NAME)),
            endpoint_id: endpoint.id.clone(),
            host: endpoint.host.clone(),
            reason: disabled.reason.name(),
            failing_since: endpoint.failing.map(|failing| time::text(failing.since)),
            occurred_at: time::text(disabled.at),
        }
    }

    /// The body to publish: JSON.
    ///
    /// # Errors
    /// Never in practice: the value is always valid JSON.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::GiveUpReason;
    use crate::event::TestEvent;
    use crate::fixtures::noon;

    #[test]
    fn test_event_never_goes_on_the_bus() {
        let event = TestEvent::new([7; 16], noon());
        let body = event.to_body().unwrap();
        insta::assert_snapshot!(body, @r#"{"event":"webhook.test","eventId":"evt_07070707070707070707070707070707","occurredAt":"2026-05-24T12:00:00.000Z"}"#);
        let delivery = Delivery::of_test(&event, "https://shop.example/hooks", noon()).unwrap();
        assert_eq!((delivery.subject.event_name(), &delivery.body), (TestEvent::NAME, &body));
        let given_up = GivenUp { at: noon(), reason: GiveUpReason::Gone };
        assert_eq!(DeliveryExhausted::of(&delivery, given_up), None);
    }
}
