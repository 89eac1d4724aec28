//! The simulator over real HTTP, as the functions and the tests use it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the whole target is a test"
)]

mod accounts;
mod json2video;
mod ledger;
mod polling;
mod providers;
mod receivers;
mod renderio;
mod server;
mod viralsync;
