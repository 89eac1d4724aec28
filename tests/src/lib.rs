//! Support for the end-to-end tests: each test has a [`TestStack`] on the stack that
//! `cargo xtask test` (or `up`) runs.
//!
//! All tests run at the same time on one stack. They do not disturb each other, because
//! everything that a test creates carries the test's own tag: idempotency keys, and so job
//! ids; source records; renders at the simulator; receivers; the subscription to the bus.
//!
//! No test depends on the speed of the machine. A test does not sleep: it waits until it
//! observes what it expects ([`eventually`]), and it counts calls only after an event that
//! follows all of them. The order of two things is not timed but controlled: a render runs
//! until the test ends it ([`TestStack::end_render`]) or until it was polled often enough
//! (`endsAfterPolls`), and a receiver holds its answer back until the test releases it. Of a
//! wait, only the lower bound is asserted.

mod bus;
mod closed_port;
mod eventually;
mod foreign_receivers;
mod http;
mod list_prices;
mod relay;
mod simulator;
mod stack_description;
mod table;
mod test_job;
mod test_stack;
mod usage;

pub use crate::bus::BusEvent;
pub use crate::closed_port::ClosedPort;
pub use crate::eventually::eventually;
pub use crate::foreign_receivers::{ForeignReceiver, VerificationKey};
pub use crate::http::HttpAnswer;
pub use crate::relay::{AttemptView, DeliverySummary, DeliveryView, JobView, MilestoneView};
pub use crate::simulator::{
    ApiCall, CallbackAttempt, LedgerEntry, ReceivedWebhook, SimulatedRender,
};
pub use crate::stack_description::StackDescription;
pub use crate::table::TableItem;
pub use crate::test_job::{SimulatedProvider, TestJob};
pub use crate::test_stack::{SettledJob, SharedReceiver, TestStack};
pub use crate::usage::Usage;
