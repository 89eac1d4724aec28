//! `cargo xtask bench poll`: the cost of polling, and the delay until the end of a render is
//! found.
//!
//! - The cost of the poll schedule per job, compared with a simulation of it ([`comparison`]).
//! - The cost of one poll of the simulator over kept TLS connections, by a bare client (the
//!   *floor*) and by the poller's code (the *core*), in turns.
//! - A busy shard: the whole poller at the rate of its jobs, compared with a bare client at that
//!   rate. AWS and the provider are processes of their own.
//! - A large shard: from the wake-up call to the first poll.

pub(crate) mod cloud;
mod comparison;
mod durations;
mod fleet;
pub(crate) mod poll_client;
pub(crate) mod provider;
mod shard;

use anyhow::Result;
use clap::Args;
use measurements::PollCost;
use serde::de::DeserializeOwned;

use crate::child::RoleProcess;
use crate::report::{Targets, TextTable, median, quantile};

use self::fleet::{EndReportedBy, Fleet};
use self::poll_client::{PollTurn, PollWay};

/// The options of the measurement.
#[derive(Args)]
pub(crate) struct PollOptions {
    /// The number of models that are learned from twenty renders each.
    #[arg(long, default_value_t = 100)]
    draws: u32,
    /// The number of turns of each way to poll.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// The seconds for which a busy shard is measured.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The number of jobs in a large shard.
    #[arg(long, default_value_t = 100_000)]
    jobs: u32,
}

/// The largest allowed ratio of a poll's processor time to the bare client's.
const MAX_CPU: f64 = 2.0;

/// Measures and prints. Fails when a target is missed.
pub(crate) async fn run(options: &PollOptions) -> Result<()> {
    let mut targets = Targets::default();
    comparison::compare(options.draws, &mut targets);
    println!();
    let poll_ratio = one_poll(options.rounds, &mut targets)?;
    println!();
    let busy_shard = shard::busy(options.seconds, &mut targets).await?;
    println!();
    let large_shard = shard::large(options.jobs, &mut targets).await?;
    measurements::save(PollCost { poll_ratio, busy_shard, large_shard })?;
    targets.conclude()
}

/// Measures the processor time of one poll, and returns its ratio to the bare client's.
fn one_poll(rounds: usize, targets: &mut Targets) -> Result<f64> {
    let fleet = Fleet::now(1_000, EndReportedBy::Polls, 125, 165);
    let provider = provider::start(fleet.jobs, 0)?;
    let arguments = ["cpu".to_owned(), "--rounds".to_owned(), rounds.to_string()];
    let mut poll_client = poll_client::start(&provider.listening, &fleet, &arguments, &[])?;
    let turns = (0..rounds * PollWay::ALL.len()).map(|_| poll_client.receive::<PollTurn>());
    let turns = turns.collect::<Result<Vec<_>>>()?;
    let of = |way: PollWay| turns.iter().filter(move |turn| turn.way == way).map(PollTurn::cpu_us);
    let ratios: Vec<f64> =
        of(PollWay::Core).zip(of(PollWay::Floor)).map(|(core, floor)| core / floor).collect();

    println!(
        "CPU per poll over kept TLS connections: median of {rounds} rounds, ten polls at a time; ratios are those of each round"
    );
    let mut table = TextTable::new(["", "floor µs", "core µs", "core/floor", "min", "max"]);
    table.row([
        "a render that goes on".to_owned(),
        format!("{:.1}", median(of(PollWay::Floor))),
        format!("{:.1}", median(of(PollWay::Core))),
        format!("{:.2}", median(ratios.clone())),
        format!("{:.2}", quantile(ratios.clone(), 0.0)),
        format!("{:.2}", quantile(ratios.clone(), 1.0)),
    ]);
    println!("{table}");
    let ratio = median(ratios);
    targets.at_most("core's CPU by the floor's, per poll", ratio, MAX_CPU);
    Ok(ratio)
}

/// A server process and its address.
struct Server<L> {
    listening: L,
    /// The process ends when this is dropped.
    _role: RoleProcess,
}

impl<L: DeserializeOwned> Server<L> {
    fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        let mut role = RoleProcess::start(name, arguments)?;
        Ok(Self { listening: role.receive()?, _role: role })
    }
}
