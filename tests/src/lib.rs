//! What the end-to-end tests share: a [`World`] for each, on the stack that
//! `cargo xtask test` (or `up`) has running.
//!
//! All tests run at the same time on one stack. They never meet, because whatever
//! a world makes carries its mark: idempotency keys, and so job ids; source
//! records; renders at the simulator; receivers; its subscription to the bus.
//!
//! Nothing here depends on how quick the machine is. No test sleeps to let something
//! happen: it waits for what it can see ([`eventually`]), and counts only after
//! something that comes later than whatever it counts. What has to happen in between
//! two things is not timed but told: a render goes on until it is ended
//! ([`World::end`]) or was asked about often enough (`endsAfterPolls`), a receiver
//! holds its answer until it is told otherwise. Of a wait, only the least is checked.

mod bus;
mod closed_port;
mod http;
mod list_prices;
mod order;
mod patience;
mod relay;
mod simulator;
mod stack;
mod table;
mod usage;
mod verifiers;
mod world;

pub use crate::bus::BusEvent;
pub use crate::closed_port::ClosedPort;
pub use crate::http::Answer;
pub use crate::order::{Order, Provider};
pub use crate::patience::eventually;
pub use crate::relay::{AttemptView, DeliverySummary, DeliveryView, JobView, Milestone};
pub use crate::simulator::{ApiCall, CallbackAttempt, LedgerEntry, Render, Webhook};
pub use crate::stack::Stack;
pub use crate::table::Item;
pub use crate::usage::Usage;
pub use crate::verifiers::{Known, Verifier};
pub use crate::world::{Outcome, Receiver, World};
