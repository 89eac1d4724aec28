//! Tests of the deployed template, from a customer's request to a receiver's webhook, with
//! repeats, forgeries, delays and refusals on the way.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its helpers are outside its function"
)]

mod account_webhooks;
mod api_keys;
mod bad_requests;
mod callbacks;
mod cancelling;
mod crashes;
mod dead_letters;
mod deliveries;
mod endings;
mod endpoints;
mod json2video;
mod other_stacks;
mod own_provider;
mod polling;
mod refusals;
mod renders;
mod repeats;
mod signed_callbacks;
mod unclear_submits;
