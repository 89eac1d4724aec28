//! What Render Relay decides: jobs, events, deliveries, polling, providers.
//!
//! No IO here, by construction: no runtime, no AWS, no sockets, no clock, no environment.
//! Time, randomness and settings are arguments. Decisions are returned as values, and the crate
//! `shared` carries them out.

#![warn(missing_docs)]

pub mod address;
pub mod attempt;
pub mod credential;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod failure;
mod form;
pub mod headers;
pub mod hint;
pub mod id;
pub mod invisible;
pub mod job;
pub mod lease;
pub mod polling;
pub mod provider;
pub mod request;
pub mod retry;
pub mod signature;
pub mod time;
pub mod verifier;

#[cfg(test)]
mod fixtures;
