//! `cargo xtask bench`: the speed and cost of the functions, measured with the deployed build.
//!
//! The speed of a shared machine varies, so no absolute time is a target. What is compared is
//! measured in turns within one run, and the ratio counts. Servers are processes of their own, so
//! that the CPU time of a process is only that of the client.

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
    Deliver(deliver::DeliverOptions),
    /// Polls per job and mean delay of the poll schedule, CPU per poll, and the cost of a busy
    /// shard and of a large one.
    Poll(poll::PollOptions),
    /// A process of another measurement.
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
}

#[derive(Subcommand)]
enum Role {
    /// Receives webhooks over TLS.
    Receiver,
    /// Delivers, and measures the cost.
    Sender(deliver::sender::SenderOptions),
    /// A provider over TLS.
    Provider(poll::provider::ProviderOptions),
    /// AWS, with active jobs.
    Cloud(poll::cloud::CloudOptions),
    /// Polls, and measures the cost.
    PollClient(poll::poll_client::PollClientOptions),
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

/// One thread, like the functions.
#[tokio::main(flavor = "current_thread")]
async fn run(what: What) -> anyhow::Result<()> {
    match what {
        What::Deliver(options) => deliver::run(&options),
        What::Poll(options) => poll::run(&options).await,
        What::Role { role: Role::Receiver } => receiver::serve().await,
        What::Role { role: Role::Sender(options) } => deliver::sender::run(&options).await,
        What::Role { role: Role::Provider(options) } => poll::provider::serve(&options).await,
        What::Role { role: Role::Cloud(options) } => poll::cloud::serve(&options).await,
        What::Role { role: Role::PollClient(options) } => poll::poll_client::run(&options).await,
    }
}
