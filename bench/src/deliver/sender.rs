//! The measured process: makes deliveries in each way, and measures their cost.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_in_memory::builders;
use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use domain::delivery::Delivery;
use domain::id::{EventId, JobId};
use domain::signature::{SignatureType, SigningSecrets, WebhookSecret};
use serde::{Deserialize, Serialize};
use shared::telemetry;

use crate::child::{self, RoleProcess};
use crate::cost::{self, Cost, Stopwatch};
use crate::receiver::{CLOSE, HELD_REQUESTS, HOLD, KEEP};
use crate::tls::{self, DOMAIN, TlsAddress};

use super::core::Core;
use super::floor::Floor;
use super::handler::Handler;
use super::request::posts;
use super::wire::Wire;

/// The number of concurrent deliveries: a batch.
const AT_ONCE: usize = 10;

/// The measurement and the receiver's address.
#[derive(Args)]
pub(crate) struct SenderOptions {
    #[command(flatten)]
    receiver: TlsAddress,
    #[command(subcommand)]
    measure: DeliveryMeasurement,
}

#[derive(Subcommand)]
enum DeliveryMeasurement {
    Cpu {
        #[arg(long)]
        rounds: usize,
    },
    Memory {
        #[arg(long)]
        way: DeliveryWay,
    },
}

/// A way to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(super) enum DeliveryWay {
    Wire,
    Floor,
    Core,
    Handler,
}

impl DeliveryWay {
    pub(super) const ALL: [Self; 4] = [Self::Wire, Self::Floor, Self::Core, Self::Handler];
}

impl fmt::Display for DeliveryWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wire => "wire",
            Self::Floor => "floor",
            Self::Core => "core",
            Self::Handler => "handler",
        })
    }
}

/// The size of a delivery, and the kind of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    connections: Connections,
    body: usize,
    /// The deliveries in a turn: enough to measure, few enough for many turns.
    deliveries: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    Kept,
    Fresh,
}

impl Case {
    pub(super) const ALL: [Self; 4] = [
        Self { connections: Connections::Kept, body: 1024, deliveries: 1000 },
        Self { connections: Connections::Kept, body: 20 * 1024, deliveries: 1000 },
        Self { connections: Connections::Fresh, body: 1024, deliveries: 200 },
        Self { connections: Connections::Fresh, body: 20 * 1024, deliveries: 200 },
    ];

    fn path(self) -> &'static str {
        match self.connections {
            Connections::Kept => KEEP,
            Connections::Fresh => CLOSE,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = match self.connections {
            Connections::Kept => "kept",
            Connections::Fresh => "fresh",
        };
        write!(f, "{connections}, {} KiB", self.body / 1024)
    }
}

/// The result of one turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) way: DeliveryWay,
    deliveries: u32,
    cost: Cost,
    /// What the in-memory AWS took of it.
    aws: Duration,
}

impl Measured {
    /// Processor time per delivery without that of AWS in memory, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.each(self.cost.cpu.saturating_sub(self.aws)) * 1e6
    }

    /// Processor time of the in-memory AWS per delivery, in microseconds.
    pub(super) fn aws_us(&self) -> f64 {
        self.each(self.aws) * 1e6
    }

    pub(super) fn per_second(&self) -> f64 {
        1.0 / self.each(self.cost.wall)
    }

    fn each(&self, time: Duration) -> f64 {
        time.as_secs_f64() / f64::from(self.deliveries)
    }
}

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    /// The peak before the first delivery.
    pub(super) before: u64,
    /// The peak overall.
    pub(super) peak: u64,
}

pub(super) fn start(measure: &str, receiver: &TlsAddress, more: &[String]) -> Result<RoleProcess> {
    let mut arguments = receiver.arguments();
    arguments.push(measure.to_owned());
    arguments.extend_from_slice(more);
    RoleProcess::start("sender", &arguments)
}

/// Runs the measurement, and sends the results to the parent.
pub(crate) async fn run(options: &SenderOptions) -> Result<()> {
    child::exit_with_parent();
    // The log is part of a function's cost.
    telemetry::init();
    match options.measure {
        DeliveryMeasurement::Cpu { rounds } => {
            for case in Case::ALL {
                child::send(&cpu(options, case, rounds).await?)?;
            }
            Ok(())
        }
        DeliveryMeasurement::Memory { way } => child::send(&memory(options, way).await?),
    }
}

/// All turns of a case in order.
async fn cpu(options: &SenderOptions, case: Case, rounds: usize) -> Result<Vec<Measured>> {
    let mut senders = Senders::new(options, AT_ONCE)?;
    // The first turns warm up connections, caches and branch predictors.
    for way in DeliveryWay::ALL {
        senders.turn(way, case.path(), case.body, case.deliveries / 4).await?;
    }
    let mut measured = Vec::new();
    for round in 0..rounds {
        for turn in 0..DeliveryWay::ALL.len() {
            // Each round begins with another way.
            let Some(&way) = DeliveryWay::ALL.get((round + turn) % DeliveryWay::ALL.len()) else {
                continue;
            };
            measured.push(senders.turn(way, case.path(), case.body, case.deliveries).await?);
        }
    }
    Ok(measured)
}

/// Measures memory with [`HELD_REQUESTS`] deliveries in flight, which the receiver holds.
async fn memory(options: &SenderOptions, way: DeliveryWay) -> Result<Memory> {
    let mut senders = Senders::new(options, HELD_REQUESTS)?;
    let before = cost::peak_memory()?;
    senders.turn(way, HOLD, 20 * 1024, HELD_REQUESTS).await?;
    Ok(Memory { before, peak: cost::peak_memory()? })
}

/// All ways, each with its own connections.
struct Senders {
    wire: Wire,
    floor: Floor,
    core: Core,
    handler: Handler,
    port: u16,
    at_once: usize,
    made: u64,
}

impl Senders {
    fn new(options: &SenderOptions, at_once: usize) -> Result<Self> {
        let key = [7; 32];
        let secret = WebhookSecret::from_random(SignatureType::V1, key).reveal();
        let client = tls::client(&options.receiver.certificate)?;
        Ok(Self {
            wire: Wire::new(options.receiver.port, client.clone(), at_once),
            floor: Floor::new(options.receiver.port, client.clone(), &key),
            core: Core::new(
                options.receiver.port,
                client.clone(),
                SigningSecrets::parse(&secret)?,
            )?,
            handler: Handler::new(options.receiver.port, client, &secret)?,
            port: options.receiver.port,
            at_once,
            made: 0,
        })
    }

    /// Makes this many deliveries in batches. Their preparation is not measured.
    async fn turn(
        &mut self,
        way: DeliveryWay,
        path: &str,
        body: usize,
        count: usize,
    ) -> Result<Measured> {
        let deliveries = (0..count)
            .map(|_| {
                self.made += 1;
                delivery(self.made, &format!("https://{DOMAIN}:{}{path}", self.port), body)
            })
            .collect::<Result<Vec<_>>>()?;
        let cost = match way {
            DeliveryWay::Wire => {
                let posts = posts(&deliveries, path)?;
                let watch = Stopwatch::start()?;
                for batch in posts.chunks(self.at_once) {
                    self.wire.post(batch).await?;
                }
                watch.stop()?
            }
            DeliveryWay::Floor => {
                let posts = posts(&deliveries, path)?;
                let watch = Stopwatch::start()?;
                for batch in posts.chunks(self.at_once) {
                    self.floor.post(batch).await?;
                }
                watch.stop()?
            }
            DeliveryWay::Core => {
                let mut left = deliveries.into_iter();
                let watch = Stopwatch::start()?;
                loop {
                    let batch: Vec<_> = left.by_ref().take(self.at_once).collect();
                    if batch.is_empty() {
                        break;
                    }
                    self.core.deliver(batch).await?;
                }
                watch.stop()?
            }
            DeliveryWay::Handler => {
                let mut left = self.handler.prepare(&deliveries).await?.into_iter();
                self.handler.aws.take_cost();
                let watch = Stopwatch::start()?;
                loop {
                    let together: Vec<_> = left.by_ref().take(self.at_once / AT_ONCE).collect();
                    if together.is_empty() {
                        break;
                    }
                    self.handler.invoke(together).await?;
                }
                watch.stop()?
            }
        };
        Ok(Measured {
            way,
            deliveries: u32::try_from(count)?,
            cost,
            aws: self.handler.aws.take_cost(),
        })
    }
}

/// A delivery that is due now, with a body of exactly this many bytes.
fn delivery(number: u64, url: &str, body: usize) -> Result<Delivery> {
    let head = r#"{"event":"video.render.completed","metadata":{"text":""#;
    let tail = r#""}}"#;
    let filling = body.checked_sub(head.len() + tail.len()).context("too short a body")?;
    Ok(builders::delivery()
        .job_id(JobId::from_bytes(u128::from(number).to_be_bytes()))
        .event_id(EventId::parse(&format!("evt_{number:032x}"))?)
        .url(url)
        .body(format!("{head}{}{tail}", "x".repeat(filling)))
        .created_at(Utc::now())
        .build())
}
