//! `cargo xtask sim`: the bundle in one process under random faults, seed after seed.

use anyhow::Result;
use clap::Args;

use crate::check::BUNDLE;
use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// The seeds and jobs of a simulation.
#[derive(Args)]
pub(crate) struct Sim {
    /// The number of seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed; with `--seeds 1` the one that failed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The jobs of each seed, over five providers.
    #[arg(long, default_value_t = 25)]
    jobs: u64,
    /// Use optimised code with the same checks. It takes minutes to build and runs in a fraction
    /// of the time.
    #[arg(long)]
    fast: bool,
    /// Run in an account with ten concurrent executions and little of everything else.
    #[arg(long)]
    starved: bool,
}

/// Runs until every job of every seed is settled, and prints the faults and violations.
pub(crate) fn run(sim: &Sim, workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--locked", "--test", BUNDLE]);
    if sim.fast {
        cargo.args(["--profile", "fuzz"]);
    }
    let test = match sim.starved {
        true => "invariants_hold_in_starved_account",
        false => "invariants_hold_under_random_faults",
    };
    cargo.args(["--", "--nocapture", test]);
    cargo.env("SIM_SEEDS", sim.seeds.to_string());
    cargo.env("SIM_FIRST", sim.first.to_string());
    cargo.env("SIM_JOBS", sim.jobs.to_string());
    process::run(&mut cargo, interrupt)
}
