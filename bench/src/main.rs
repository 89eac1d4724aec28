//! What `cargo xtask bench` runs: how fast the functions are and what they cost, measured with
//! the build that is deployed.
//!
//! A shared machine drifts, so nothing here is judged by an absolute time. Whatever is
//! compared is measured in turns within one run, and the ratio is what counts. Servers run
//! as processes of their own, so that a process's CPU time is the client's alone.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

mod aws;
mod child;
mod cost;
mod deliver;
mod loopback;
mod poll;
mod receiver;
mod report;
mod tls;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Deliveries per second, CPU per delivery and peak memory of `deliver`.
    Deliver(deliver::Options),
    /// Polls per job and mean delay of the polling law, CPU per poll, and what a shard takes
    /// that is busy or large.
    Poll(poll::Options),
    /// A process that another measurement starts.
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
}

#[derive(Subcommand)]
enum Role {
    /// Takes webhooks by TLS.
    Receiver,
    /// Delivers, and says what that cost.
    Sender(deliver::sender::Options),
    /// A provider by TLS.
    Provider(poll::provider::Options),
    /// AWS, with active jobs.
    Cloud(poll::cloud::Options),
    /// Polls, and says what that cost.
    Asker(poll::asker::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread, as in the functions.
#[tokio::main(flavor = "current_thread")]
async fn run(what: What) -> anyhow::Result<()> {
    match what {
        What::Deliver(options) => deliver::run(&options),
        What::Poll(options) => poll::run(&options).await,
        What::Role { role: Role::Receiver } => receiver::serve().await,
        What::Role { role: Role::Sender(options) } => deliver::sender::run(&options).await,
        What::Role { role: Role::Provider(options) } => poll::provider::serve(&options).await,
        What::Role { role: Role::Cloud(options) } => poll::cloud::serve(&options).await,
        What::Role { role: Role::Asker(options) } => poll::asker::run(&options).await,
    }
}
