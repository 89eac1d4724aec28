//! A busy shard, and a shard with many jobs.

use anyhow::Result;
use measurements::{BusyShard, LargeShard};

use super::cloud;
use super::fleet::{EndReportedBy, Fleet};
use super::poll_client::{self, PollSpan};
use super::provider;
use crate::report::{Targets, TextTable, megabytes};

/// Jobs of these ages are due for about 950 polls a second.
const BUSY_JOBS: u32 = 10_400;
const YOUNGEST_S: u32 = 125;
const OLDEST_S: u32 = 165;

/// Long enough that each job is polled once.
const WARM_UP_S: u64 = 14;

/// The delays of a provider and of AWS, as in the same region.
const PROVIDER_MS: u64 = 100;
const AWS_MS: u64 = 6;

/// The least allowed number of polls a second by one process.
const MIN_RATE: f64 = 900.0;

/// The least allowed share of due polls that are made; the last ones are still in flight.
const MIN_MADE: f64 = 0.98;

/// The largest allowed memory of a process, in megabytes.
const MAX_MEMORY: f64 = 64.0;

/// The read units of a job: an eventually consistent read (1/2) and its share of the index.
const MAX_READ_UNITS: f64 = 0.55;

/// The memory of the smallest function in megabytes.
const SMALLEST: f64 = 128.0;

/// Measures a busy shard's poller, compared with a bare client at its rate.
pub(super) async fn busy(seconds: u64, targets: &mut Targets) -> Result<BusyShard> {
    let fleet = Fleet::now(BUSY_JOBS, EndReportedBy::Polls, YOUNGEST_S, OLDEST_S);
    let provider = provider::start(fleet.jobs, PROVIDER_MS)?;
    let cloud = cloud::start(&fleet, AWS_MS, provider.listening.port)?;
    let times = [
        "--warm-up-s".to_owned(),
        WARM_UP_S.to_string(),
        "--seconds".to_owned(),
        seconds.to_string(),
    ];

    let mut arguments = vec!["shard".to_owned()];
    arguments.extend(times.clone());
    arguments.extend(cloud.listening.wake_up_arguments());
    let environment = cloud.listening.environment();
    let shard: PollSpan =
        poll_client::start(&provider.listening, &fleet, &arguments, &environment)?.receive()?;
    let consumed = cloud.listening.consumed().await?;

    let per_second = shard.per_second().round();
    let mut arguments = vec!["bare".to_owned(), "--per-second".to_owned(), per_second.to_string()];
    arguments.extend(times);
    let bare: PollSpan =
        poll_client::start(&provider.listening, &fleet, &arguments, &[])?.receive()?;

    println!(
        "A shard of {BUSY_JOBS} jobs for {seconds} s; the provider takes {PROVIDER_MS} ms, AWS {AWS_MS} ms"
    );
    let mut table =
        TextTable::new(["", "polls/s", "due/s", "CPU µs per poll", "of a core", "peak MB"]);
    for (name, span) in [("bare client", &bare), ("poller", &shard)] {
        table.row([
            name.to_owned(),
            format!("{:.0}", span.per_second()),
            format!("{:.0}", span.due_per_second()),
            format!("{:.0}", span.cpu_us()),
            format!("{:.0} %", 100.0 * span.load()),
            format!("{:.1}", megabytes(span.peak)),
        ]);
    }
    println!("{table}");
    println!("AWS, the start included: {consumed}");
    targets.at_least("polls a second of a busy shard", shard.per_second(), MIN_RATE);
    targets.at_least(
        "part of the polls due that are made",
        shard.per_second() / shard.due_per_second(),
        MIN_MADE,
    );
    targets.at_most("part of a core", shard.load(), 1.0);
    targets.at_most(
        "peak memory in MB of a busy shard's poller",
        megabytes(shard.peak),
        MAX_MEMORY,
    );
    Ok(BusyShard {
        polls_per_second: shard.per_second(),
        ratio: shard.cpu_us() / bare.cpu_us(),
        peak_bytes: shard.peak,
    })
}

/// Measures the time from the wake-up call to the first poll of a large shard.
pub(super) async fn large(jobs: u32, targets: &mut Targets) -> Result<LargeShard> {
    // Some of these jobs are due for a safety poll at any time.
    let fleet = Fleet::now(jobs, EndReportedBy::Callbacks, 600, 900);
    let provider = provider::start(0, PROVIDER_MS)?;
    let cloud = cloud::start(&fleet, AWS_MS, provider.listening.port)?;
    let mut arguments = vec!["start".to_owned()];
    arguments.extend(cloud.listening.wake_up_arguments());
    let environment = cloud.listening.environment();
    let start: PollSpan =
        poll_client::start(&provider.listening, &fleet, &arguments, &environment)?.receive()?;
    let consumed = cloud.listening.consumed().await?;

    let read_units_per_job = consumed.read_units / f64::from(jobs);
    println!(
        "A shard of {jobs} jobs, from its wake-up call to the first poll; AWS takes {AWS_MS} ms"
    );
    let mut table = TextTable::new(["", "s", "CPU s", "read units", "units per job", "peak MB"]);
    table.row([
        "sweep start".to_owned(),
        format!("{:.1}", start.cost.wall.as_secs_f64()),
        format!("{:.1}", start.cost.cpu.as_secs_f64()),
        format!("{:.0}", consumed.read_units),
        format!("{read_units_per_job:.2}"),
        format!("{:.1}", megabytes(start.peak)),
    ]);
    println!("{table}");
    println!("AWS: {consumed}");
    targets.at_most("read units per job", read_units_per_job, MAX_READ_UNITS);
    targets.at_most("peak memory in MB of a large shard's poller", megabytes(start.peak), SMALLEST);
    Ok(LargeShard { jobs, read_units_per_job, peak_bytes: start.peak })
}
