//! The input and output that the functions share.
//!
//! `domain` decides, and this crate executes: DynamoDB ([`store`]), SQS ([`queue`]), EventBridge
//! ([`bus`]), SSM ([`secrets`]), providers ([`providers`]), receivers ([`egress`]), and the
//! only path on which a job changes ([`tracker`]).

pub mod api;
pub mod aws;
pub mod batch;
pub mod bus;
pub mod egress;
pub mod endpoints;
pub mod env;
#[cfg(any(test, feature = "fake-aws"))]
pub mod fake;
pub mod laws;
pub mod providers;
pub mod queue;
mod random;
pub mod secrets;
pub mod setup;
pub mod store;
pub mod telemetry;
pub mod tracker;
pub mod user_specs;
pub mod view;

#[cfg(test)]
mod limits_tests;

pub use random::{luck, random_bytes};
