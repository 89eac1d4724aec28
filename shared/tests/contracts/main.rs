//! Tests that compare the published documents with the code: the OpenAPI document, the schema
//! of events, the schema of provider specs and the template's settings.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its helpers are outside its function"
)]

mod contract;
mod events;
mod logs;
mod openapi;
mod permissions;
mod providers;
mod recursion;
mod settings;
mod signatures;
mod source;
mod ticks;
mod values;
