//! `cargo xtask rates`: the rates of jobs that the default quotas let through.

use anyhow::Result;
use clap::Args;

use crate::check::BUNDLE;
use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// The rates to try.
#[derive(Args)]
pub(crate) struct Rates {
    /// Jobs a second, one rate after the other.
    #[arg(value_delimiter = ',', default_value = "100,200,300")]
    rates: Vec<u32>,
}

/// Submits at each rate and prints what was throttled.
pub(crate) fn run(rates: &Rates, workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let rates: Vec<String> = rates.rates.iter().map(u32::to_string).collect();
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--locked", "--test", BUNDLE]);
    cargo.args(["--", "--nocapture", "new_stack_carries_the_promised_rate"]);
    cargo.env("RATES", rates.join(","));
    process::run(&mut cargo, interrupt)
}
