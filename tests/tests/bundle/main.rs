//! The five functions as they are deployed, in one process and in virtual time, on an AWS, on
//! providers and on receivers that live in memory. README.md says what these tests verify.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the whole target is a test"
)]

mod checks;
mod cold_starts;
mod crash_points;
mod delivery_schedule;
mod echoes;
mod faults;
mod harness;
mod hints;
mod logs;
mod moves;
mod outages;
mod rates;
mod recursion;
mod scenarios;
mod simulation;
mod ssm_calls;
mod two_stacks;
mod unclear_answers;
mod weak_points;
