//! How Render Relay reaches the world: what the functions share.
//!
//! `domain` decides and this crate does: DynamoDB ([`store`]), SQS ([`queue`]), EventBridge
//! ([`bus`]), SSM ([`secrets`]), providers ([`providers`]), receivers ([`egress`]), and the
//! one path on which a job changes ([`tracker`]).

pub mod api;
pub mod aws;
pub mod batch;
pub mod bus;
pub mod egress;
pub mod env;
#[cfg(any(test, feature = "fake-aws"))]
pub mod fake;
pub mod providers;
pub mod queue;
pub mod secrets;
pub mod setup;
pub mod store;
pub mod telemetry;
pub mod tracker;
pub mod user_specs;
pub mod view;

/// Bytes from the operating system's random source.
///
/// # Errors
/// When it has none, which no supported system does.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A random number in `0.0..1.0`, for jitter.
#[must_use]
pub fn luck() -> f64 {
    // Without randomness there is no jitter, and everything else still works.
    let bytes: [u8; 4] = random_bytes().unwrap_or_default();
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
