//! `cargo xtask load`: many jobs on a stack of their own, with faults of all kinds.

use anyhow::Result;
use clap::Args;

use crate::artefacts::{self, For};
use crate::check::LOAD;
use crate::process::{self, Interrupt};
use crate::stack::{ONE_SHARD, Policies, Stack};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// The size of the load.
#[derive(Args)]
pub(crate) struct Load {
    /// The number of jobs, over five providers.
    #[arg(long, default_value_t = 2_000)]
    jobs: usize,
}

/// Runs until every job is settled, and prints the outcomes.
pub(crate) fn run(load: &Load, workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let venv = Venv::ensure(workspace, interrupt)?;
    let binaries = artefacts::build(workspace, For::Testing, interrupt)?;
    let stack =
        Stack::start(workspace, &venv, &binaries, Policies::Recorded, ONE_SHARD, interrupt)?;
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--locked", "--test", LOAD, "--", "--nocapture"]);
    cargo.env("RELAY_STACK", stack.file()).env("RELAY_LOAD_JOBS", load.jobs.to_string());
    process::run(&mut cargo, interrupt)
}
