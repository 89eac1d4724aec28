//! The event bus that downstream applications subscribe to. It has every event at least once, and
//! subscribers deduplicate by the event's id.

use std::error::Error;

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;

/// The `source` of all events that we publish.
pub const SOURCE: &str = "render-relay";

/// An event could not be put on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// EventBridge did not answer, or refused the request.
    #[error("an event could not be put on the bus")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// EventBridge answered and did not accept the entry.
    #[error("the bus refused an event: {code}")]
    Refused { code: String },
}

/// The stack's event bus.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
    name: String,
}

impl Bus {
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Publishes one event; `detail` is a JSON object.
    ///
    /// # Errors
    /// When EventBridge does not confirm it; the event may be published all the same. The call
    /// may be repeated: subscribers deduplicate by the event's id.
    pub async fn publish(&self, detail_type: &str, detail: &str) -> Result<(), BusError> {
        let entry = PutEventsRequestEntry::builder()
            .event_bus_name(&self.name)
            .source(SOURCE)
            .detail_type(detail_type)
            .detail(detail)
            .build();
        let output = self
            .client
            .put_events()
            .entries(entry)
            .send()
            .await
            .map_err(|error| BusError::Unavailable(error.into_service_error().into()))?;
        // PutEvents answers 200 even when it refuses the entry.
        let refused = output.entries().iter().find_map(|entry| entry.error_code());
        match refused {
            Some(code) => Err(BusError::Refused { code: code.to_owned() }),
            None => Ok(()),
        }
    }
}
