//! The events that this service emits: a render's on the event bus and in webhooks, with the
//! same bytes; those about deliveries and endpoints on the bus only; a test in webhooks only.

mod name;
mod operational;
mod webhook;

pub use name::{EventName, EventSet};
pub use operational::{DeliveryExhausted, EndpointDisabled};
pub use webhook::{Event, TestEvent};
