//! `cargo xtask`: commands that run, show, check and package the bundle.
//!
//! Everything runs on loopback and keeps its files below `.local/`. The children of a command end
//! with it: see [`process`].

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

mod artefacts;
mod bench;
mod check;
mod demo;
mod figures;
mod fuzz;
mod http;
mod load;
mod process;
mod rates;
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
    /// Push many jobs through a local stack with faults of all kinds.
    Load(load::Load),
    /// Simulate the bundle in one process, in virtual time and under random faults.
    Sim(sim::Sim),
    /// Submit at higher and higher rates in the simulation, and name the quota that binds first.
    Rates(rates::Rates),
    /// Build the functions as they are deployed, zip them, check their size.
    Package,
    /// Fuzz everything that reads foreign bytes.
    Fuzz(fuzz::Fuzz),
    /// Measure speed, memory and isolation of what is deployed.
    Bench(bench::Bench),
    /// Rewrite the figures in docs/cost.md from what was measured last.
    Figures(figures::Figures),
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
        Command::Rates(rates) => rates::run(rates, &workspace, &interrupt),
        Command::Package => artefacts::package(&workspace, &interrupt),
        Command::Fuzz(fuzz) => fuzz::run(fuzz, &workspace, &interrupt),
        Command::Bench(bench) => bench::run(bench, &workspace, &interrupt),
        Command::Figures(figures) => figures::run(figures, &workspace),
    }
}
