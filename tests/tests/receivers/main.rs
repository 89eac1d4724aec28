//! The default receiver's configuration: rotation of secrets, subscribed events and headers.
//! Receivers in Python and Node verify the signatures with public libraries.
//!
//! A stack has one webhook configuration, so these tests have a stack of their own, and run one
//! after the other.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, and its helpers are outside its function"
)]

mod configuration;
mod owner;
mod rotation;
