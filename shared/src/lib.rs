//! The input and output that the functions share.
//!
//! `domain` decides, and this crate executes: DynamoDB ([`store`]), SQS ([`queue`]), EventBridge
//! ([`bus`]), SSM ([`secrets`]), providers ([`providers`]), receivers ([`egress`]), and the
//! only path on which a job changes ([`tracker`]).

pub mod api;
pub mod api_key_cache;
pub mod aws;
pub mod batch;
pub mod bus;
pub mod callback_secret;
pub mod duration_models;
pub mod egress;
pub mod endpoint_cache;
pub mod entropy;
pub mod env;
pub mod http_event;
pub mod late_delivery;
pub mod looks;
mod moment;
pub mod provider_specs;
pub mod providers;
pub mod queue;
pub mod secrets;
pub mod setup;
pub mod shards;
pub mod store;
pub mod telemetry;
pub mod tracker;
pub mod view;
