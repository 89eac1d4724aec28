//! The cost of a piece of work.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Processor time of all threads, including that in the kernel.
    pub(crate) cpu: Duration,
    /// Elapsed time.
    pub(crate) wall: Duration,
}

/// Measures from its start on.
pub(crate) struct Stopwatch {
    cpu: Duration,
    wall: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { cpu: clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)?, wall: Instant::now() })
    }

    pub(crate) fn stop(&self) -> Result<Cost> {
        let wall = self.wall.elapsed();
        let cpu = clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(self.cpu);
        Ok(Cost { cpu, wall })
    }
}

/// The processor time of this thread so far.
pub(crate) fn thread_cpu() -> Result<Duration> {
    clock(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// The peak of this process's memory, in bytes.
pub(crate) fn peak_memory() -> Result<u64> {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Ok(u64::try_from(getrusage(UsageWho::RUSAGE_SELF)?.max_rss())? * unit)
}

fn clock(id: ClockId) -> Result<Duration> {
    Ok(clock_gettime(id)?.into())
}
