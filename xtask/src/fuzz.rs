//! `cargo xtask fuzz`: the fuzz targets of `domain`, optimised and with a chosen number of
//! executions. They also run as ordinary tests, with fewer.

use anyhow::Result;
use clap::Args;

use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// What to run, and how long.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Only this target, such as `verifier` or `callbacks::zvid`; `callbacks` is all of those.
    #[arg(long)]
    target: Option<String>,
    /// Executions per target.
    #[arg(long, default_value_t = 1_000_000)]
    executions: u64,
    /// The seed of the first execution; each one after it has the next number.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs all targets until one fails and names its seed.
pub(crate) fn run(fuzz: &Fuzz, workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let mut cargo = workspace.cargo();
    // This profile is optimised and keeps assertions and overflow checks.
    cargo.args(["test", "--locked", "--profile", "fuzz", "--package", "domain", "--test", "fuzz"]);
    cargo.args(["--", "--nocapture", "--test-threads", "1"]);
    if let Some(target) = &fuzz.target {
        // Targets and groups of targets are the last part of a test's path.
        let test = target.split("::").next().unwrap_or(target);
        cargo.arg(format!("::{test}"));
        cargo.env("FUZZ_TARGET", target);
    }
    cargo.env("FUZZ_EXECUTIONS", fuzz.executions.to_string());
    cargo.env("FUZZ_SEED", fuzz.seed.to_string());
    process::run(&mut cargo, interrupt)
}
