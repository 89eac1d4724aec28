//! Hostile input by the million: valid input, mutated where it means something, and a
//! property that must hold for every result. A panic is a failure of every target.
//!
//! Each execution is made from one seed, so a run is the same every time and one execution
//! can be repeated alone. As an ordinary test a target is short; `cargo xtask fuzz` runs it
//! optimised and as long as wanted, by the settings that `run` reads.
//!
//! - `run`: seeds, counting, what a failure prints.
//! - `random`: numbers from a seed.
//! - `mutation`: small changes to bytes and JSON.
//! - `signatures`: every scheme of the verifier.
//! - `provider_answers`: what providers answer and post, and their specs.
//! - `requests`: what clients send, and headers of receivers.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by a panic, and reports on the terminal"
)]

#[allow(dead_code, reason = "the tests of the verifier use the rest of it")]
mod sender;

mod fuzz {
    mod mutation;
    mod provider_answers;
    mod random;
    mod requests;
    mod run;
    mod signatures;
}
