//! `cargo xtask bench`: measures what is deployed, so with the release profile. The
//! measuring is the `bench` package's.

use anyhow::Result;
use clap::Args;

use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// What to measure.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Bench {
    /// What to measure, and how; `--help` tells.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

/// Builds and measures; fails when an aim is missed.
pub(crate) fn run(bench: &Bench, workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--release", "--locked", "--package", "bench", "--"]);
    process::run(cargo.args(&bench.arguments), interrupt)
}
