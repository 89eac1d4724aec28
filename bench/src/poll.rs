//! `cargo xtask bench poll`: what polling costs, and how late it finds the end of a render.

mod durations;
mod law;

use anyhow::Result;
use clap::Args;

use crate::report::Aims;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// How often a law is learnt anew from twenty renders.
    #[arg(long, default_value_t = 100)]
    draws: u32,
}

/// Measures, prints, and fails when an aim is missed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut aims = Aims::default();
    law::compare(options.draws, &mut aims);
    aims.conclude()
}
