//! `cargo xtask bench deliver`: the cost of a delivery, compared with bare clients.
//!
//! Four ways to make the same POST, measured in turns in one process:
//!
//! - *wire*: hyper and rustls alone, with explicit connections and a given signature. It is the
//!   cost of a sender to a single receiver.
//! - *floor*: hyper's client with its pool, and a signature made with the same library. It is the
//!   least cost of a sender to many receivers, without checks or records.
//! - *core*: what `deliver` does between reading a delivery and storing it: check the URL, sign,
//!   post, read the answer, decide what follows.
//! - *handler*: a whole invocation with ten messages, including reads, writes and the log. AWS is
//!   answered within the process; the cost of the answers is subtracted and shown.

mod core;
mod floor;
mod handler;
mod request;
pub(crate) mod sender;
mod wire;

use anyhow::Result;
use clap::Args;
use measurements::{DeliveryCase, DeliveryCost};

use crate::child::RoleProcess;
use crate::receiver::HELD_REQUESTS;
use crate::report::{Targets, TextTable, median, megabytes, quantile};
use crate::tls::TlsAddress;

use self::sender::{Case, DeliveryWay, Measured, Memory};

/// The largest allowed ratio of the core's processor time to the floor's.
const MAX_CPU: f64 = 1.3;

/// The largest allowed memory of a process with [`HELD_REQUESTS`] deliveries in flight, in
/// megabytes.
const MAX_MEMORY: f64 = 40.0;

/// The options of the measurement.
#[derive(Args)]
pub(crate) struct DeliverOptions {
    /// The number of turns of each way in each case.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

/// Measures and prints. Fails when a target is missed.
pub(crate) fn run(options: &DeliverOptions) -> Result<()> {
    let mut receiver = RoleProcess::start("receiver", &[])?;
    let listening: TlsAddress = receiver.receive()?;

    println!(
        "CPU per delivery: median of {} rounds, ten deliveries at a time; ratios are those of each round",
        options.rounds
    );
    let rounds = ["--rounds".to_owned(), options.rounds.to_string()];
    let mut targets = Targets::default();
    let mut table = TextTable::new([
        "connections, body",
        "wire µs",
        "floor µs",
        "core µs",
        "handler µs",
        "in-memory AWS µs",
        "core/floor",
        "min",
        "max",
        "handler/floor",
        "floor/s",
        "core/s",
        "handler/s",
    ]);
    let mut results = Vec::new();
    let mut cases = Vec::new();
    let mut sender = sender::start("cpu", &listening, &rounds)?;
    for case in Case::ALL {
        let measured: Vec<Measured> = sender.receive()?;
        let of = |way: DeliveryWay| measured.iter().filter(move |one| one.way == way);
        let cpu = |way: DeliveryWay| of(way).map(Measured::cpu_us);
        let rate = |way: DeliveryWay| format!("{:.0}", median(of(way).map(Measured::per_second)));
        let ratio = |way: DeliveryWay| -> Vec<f64> {
            cpu(way).zip(cpu(DeliveryWay::Floor)).map(|(one, floor)| one / floor).collect()
        };
        let core = ratio(DeliveryWay::Core);
        let [core_ratio, handler_ratio] =
            [DeliveryWay::Core, DeliveryWay::Handler].map(|way| median(ratio(way)));
        table.row([
            case.to_string(),
            format!("{:.1}", median(cpu(DeliveryWay::Wire))),
            format!("{:.1}", median(cpu(DeliveryWay::Floor))),
            format!("{:.1}", median(cpu(DeliveryWay::Core))),
            format!("{:.1}", median(cpu(DeliveryWay::Handler))),
            format!("{:.1}", median(of(DeliveryWay::Handler).map(Measured::aws_us))),
            format!("{core_ratio:.2}"),
            format!("{:.2}", quantile(core.clone(), 0.0)),
            format!("{:.2}", quantile(core, 1.0)),
            format!("{handler_ratio:.2}"),
            rate(DeliveryWay::Floor),
            rate(DeliveryWay::Core),
            rate(DeliveryWay::Handler),
        ]);
        results.push((format!("core's CPU by the floor's, {case}"), core_ratio));
        cases.push(DeliveryCase { case: case.to_string(), core_ratio, handler_ratio });
    }
    drop(sender);
    println!("{table}");
    measurements::save(DeliveryCost { cases })?;

    println!("Peak memory of a process with {HELD_REQUESTS} deliveries in flight, 20 KiB each");
    let mut table = TextTable::new(["way", "before MB", "peak MB"]);
    for way in DeliveryWay::ALL {
        let memory: Memory =
            sender::start("memory", &listening, &["--way".to_owned(), way.to_string()])?
                .receive()?;
        let (before, peak) = (megabytes(memory.before), megabytes(memory.peak));
        table.row([way.to_string(), format!("{before:.1}"), format!("{peak:.1}")]);
        if matches!(way, DeliveryWay::Core | DeliveryWay::Handler) {
            results.push((format!("peak memory in MB, {way}"), peak));
        }
    }
    println!("{table}");

    for (what, measured) in results {
        let limit = if what.starts_with("peak") { MAX_MEMORY } else { MAX_CPU };
        targets.at_most(&what, measured, limit);
    }
    targets.conclude()
}
