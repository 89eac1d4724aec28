//! `cargo xtask`: the project's own commands. Run the bundle locally, show it,
//! check it, package it.
//!
//! Everything runs on loopback and keeps its files below `.local/`. Whatever a
//! command starts ends with it, however it ends: see [`process`].

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

mod artefacts;
mod bench;
mod check;
mod demo;
mod fuzz;
mod http;
mod load;
mod process;
mod receivers;
mod sim;
mod stack;
mod venv;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::{Interrupt, Interrupted};
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Deploy the stack into a local AWS, render two videos, show every step.
    Demo {
        /// Render one video, with this provider.
        #[arg(long)]
        provider: Option<demo::Provider>,
    },
    /// Deploy the stack into a local AWS and leave it running until Ctrl-C.
    Up,
    /// Check everything: format, lints, purity, template, unit and end-to-end tests.
    Test,
    /// Push very many jobs through a local stack in which everything goes wrong that does.
    Load(load::Load),
    /// Simulate the whole bundle in one process, in virtual time and bad weather.
    Sim(sim::Sim),
    /// Build the functions as they are deployed, zip them, check their size.
    Package,
    /// Throw mutated input at everything that reads strangers' bytes.
    Fuzz(fuzz::Fuzz),
    /// Measure speed, memory and isolation of what is deployed.
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // 128 + SIGINT, as a shell reports it.
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    let workspace = Workspace::here()?;
    let interrupt = Interrupt::install()?;
    match command {
        Command::Demo { provider } => demo::run(&workspace, *provider, &interrupt),
        Command::Up => stack::up(&workspace, &interrupt),
        Command::Test => check::run(&workspace, &interrupt),
        Command::Load(load) => load::run(load, &workspace, &interrupt),
        Command::Sim(sim) => sim::run(sim, &workspace, &interrupt),
        Command::Package => artefacts::package(&workspace, &interrupt),
        Command::Fuzz(fuzz) => fuzz::run(fuzz, &workspace, &interrupt),
        Command::Bench(bench) => bench::run(bench, &workspace, &interrupt),
    }
}
