//! `cargo xtask sim`: the whole bundle in one process, in bad weather, seed after seed.

use anyhow::Result;
use clap::Args;

use crate::check::BUNDLE;
use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// How much.
#[derive(Args)]
pub(crate) struct Sim {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them; with `--seeds 1`, the one that failed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Jobs of each seed, over five providers.
    #[arg(long, default_value_t = 25)]
    jobs: u64,
    /// With optimised code that checks as much: minutes to build, a fraction of the time to
    /// run.
    #[arg(long)]
    fast: bool,
}

/// Runs until every job of every seed is settled, and prints what went wrong on the way.
pub(crate) fn run(sim: &Sim, workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--locked", "--test", BUNDLE]);
    if sim.fast {
        cargo.args(["--profile", "fuzz"]);
    }
    cargo.args(["--", "--nocapture", "invariants_hold_under_random_faults"]);
    cargo.env("SIM_SEEDS", sim.seeds.to_string());
    cargo.env("SIM_FIRST", sim.first.to_string());
    cargo.env("SIM_JOBS", sim.jobs.to_string());
    process::run(&mut cargo, interrupt)
}
