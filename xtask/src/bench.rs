//! `cargo xtask bench`: runs the `bench` package with the release profile, which is deployed.

use anyhow::Result;
use clap::Args;

use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// What to measure.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Bench {
    /// The measurement and its options; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

/// Builds and measures. Fails when a target is missed.
pub(crate) fn run(bench: &Bench, workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--release", "--locked", "--package", "bench", "--"]);
    process::run(cargo.args(&bench.arguments), interrupt)
}
