//! `cargo xtask bench poll`: what polling costs, and how late it finds the end of a render.
//!
//! - What the polling law costs per job, beside a simulation of it ([`law`]).
//! - What one poll costs: the simulator is asked over kept TLS connections, by a bare client
//!   (the *floor*) and as the poller asks (the *core*), in turns.
//! - A busy shard: the whole poller, at the pace that its jobs want, beside a bare client at
//!   that pace. AWS is a process of its own, and so is the provider.
//! - A large shard: from the wake-up call to the first poll.

pub(crate) mod asker;
pub(crate) mod cloud;
mod durations;
mod fleet;
mod law;
pub(crate) mod provider;
mod shard;

use anyhow::Result;
use clap::Args;
use serde::de::DeserializeOwned;

use crate::child::RoleProcess;
use crate::report::{Aims, Table, median, quantile};

use self::asker::{Turn, Way};
use self::fleet::{Fleet, ToldBy};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// How often a law is learnt anew from twenty renders.
    #[arg(long, default_value_t = 100)]
    draws: u32,
    /// How often each way to ask has its turn.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long a busy shard is watched.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many jobs are in a large shard.
    #[arg(long, default_value_t = 100_000)]
    jobs: u32,
}

/// Times the bare client's processor time that a poll may cost.
const MAX_CPU: f64 = 2.0;

/// Measures, prints, and fails when an aim is missed.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut aims = Aims::default();
    law::compare(options.draws, &mut aims);
    println!();
    one_poll(options.rounds, &mut aims)?;
    println!();
    shard::busy(options.seconds, &mut aims).await?;
    println!();
    shard::large(options.jobs, &mut aims).await?;
    aims.conclude()
}

/// Processor time of one poll beside that of a bare client.
fn one_poll(rounds: usize, aims: &mut Aims) -> Result<()> {
    let fleet = Fleet::now(1_000, ToldBy::Polls, 125, 165);
    let provider = provider::start(fleet.jobs, 0)?;
    let arguments = ["cpu".to_owned(), "--rounds".to_owned(), rounds.to_string()];
    let mut asker = asker::start(&provider.listening, &fleet, &arguments, &[])?;
    let turns = (0..rounds * Way::ALL.len()).map(|_| asker.receive::<Turn>());
    let turns = turns.collect::<Result<Vec<_>>>()?;
    let of = |way: Way| turns.iter().filter(move |turn| turn.way == way).map(Turn::cpu_us);
    let ratios: Vec<f64> =
        of(Way::Core).zip(of(Way::Floor)).map(|(core, floor)| core / floor).collect();

    println!(
        "CPU per poll over kept TLS connections: median of {rounds} rounds, ten polls at a time; ratios are those of each round"
    );
    let mut table = Table::new(["", "floor µs", "core µs", "core/floor", "min", "max"]);
    table.row([
        "a render that goes on".to_owned(),
        format!("{:.1}", median(of(Way::Floor))),
        format!("{:.1}", median(of(Way::Core))),
        format!("{:.2}", median(ratios.clone())),
        format!("{:.2}", quantile(ratios.clone(), 0.0)),
        format!("{:.2}", quantile(ratios.clone(), 1.0)),
    ]);
    println!("{table}");
    aims.at_most("core's CPU by the floor's, per poll", median(ratios), MAX_CPU);
    Ok(())
}

/// A process, and where it listens.
struct Server<L> {
    listening: L,
    /// It ends with this.
    _role: RoleProcess,
}

impl<L: DeserializeOwned> Server<L> {
    fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        let mut role = RoleProcess::start(name, arguments)?;
        Ok(Self { listening: role.receive()?, _role: role })
    }
}
