//! What a table lets through a second: by partition key, and as a whole.
//!
//! "Burst and adaptive capacity" and "Read/write capacity mode" of the developer guide. The burst
//! is a second's worth: what DynamoDB saves up beyond it is not promised.

use std::collections::HashMap;

use super::bucket::TokenBucket;

/// The units a second of a table, and of each of its indexes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    /// Write units of one partition key.
    pub key_writes: f64,
    /// Read units of one partition key.
    pub key_reads: f64,
    /// Write units of all keys: what a new on-demand table begins with.
    pub all_writes: f64,
    /// Read units of all keys.
    pub all_reads: f64,
}

impl Default for Throughput {
    fn default() -> Self {
        Self { key_writes: 1000.0, key_reads: 3000.0, all_writes: 4000.0, all_reads: 12_000.0 }
    }
}

impl Throughput {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        key_writes: f64::INFINITY,
        key_reads: f64::INFINITY,
        all_writes: f64::INFINITY,
        all_reads: f64::INFINITY,
    };
}

/// What a throttled call met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Throttle {
    /// The limit of one partition key of the table.
    Key,
    /// The limit of one partition key of an index, which throttles the table with it.
    IndexKey,
    /// The limit of the table, or of an index, as a whole.
    Whole,
}

/// Whether a call writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Read,
    Write,
}

/// A part of what a call uses.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// None is the table.
    pub(super) index: Option<&'static str>,
    /// The partition key; none is all of them, as in a scan.
    pub(super) key: Option<String>,
    pub(super) units: f64,
}

/// A meter belongs to the table or an index, to one of its partition keys or to all.
type MeterId = (Access, Option<&'static str>, Option<String>);

/// Meters are dropped when there are more than this and they are full.
const MAX_METERS: usize = 4096;

/// The meters of a table.
#[derive(Clone, Debug)]
pub(super) struct Meters {
    throughput: Throughput,
    meters: HashMap<MeterId, TokenBucket>,
}

impl Meters {
    pub(super) fn new(throughput: Throughput) -> Self {
        Self { throughput, meters: HashMap::new() }
    }

    /// Uses all of it or, when a limit is met, nothing.
    pub(super) fn admit(&mut self, access: Access, uses: &[Use]) -> Result<(), Throttle> {
        if self.throughput == Throughput::UNLIMITED {
            return Ok(());
        }
        self.forget_full();
        let keys = uses.iter().filter(|used| used.key.is_some());
        let keys = keys.map(|used| ((access, used.index, used.key.clone()), used.units));
        let wholes = uses.iter().map(|used| ((access, used.index, None), used.units));
        // An entry that moves within a partition of an index uses it twice.
        let mut parts: Vec<(MeterId, f64)> = Vec::new();
        for (meter, units) in keys.chain(wholes) {
            match parts.iter_mut().find(|(known, _)| *known == meter) {
                Some((_, sum)) => *sum += units,
                None => parts.push((meter, units)),
            }
        }
        for ((_, index, key), units) in &parts {
            if !self.meter(access, *index, key.clone()).has(*units) {
                return Err(match (index, key) {
                    (_, None) => Throttle::Whole,
                    (None, Some(_)) => Throttle::Key,
                    (Some(_), Some(_)) => Throttle::IndexKey,
                });
            }
        }
        for ((_, index, key), units) in parts {
            self.meter(access, index, key).take(units);
        }
        Ok(())
    }

    fn meter(
        &mut self,
        access: Access,
        index: Option<&'static str>,
        key: Option<String>,
    ) -> &mut TokenBucket {
        let Throughput { key_writes, key_reads, all_writes, all_reads } = self.throughput;
        let rate = match (access, &key) {
            (Access::Read, Some(_)) => key_reads,
            (Access::Read, None) => all_reads,
            (Access::Write, Some(_)) => key_writes,
            (Access::Write, None) => all_writes,
        };
        let id = (access, index, key);
        self.meters.entry(id).or_insert_with(|| TokenBucket::new(rate, rate))
    }

    fn forget_full(&mut self) {
        if self.meters.len() > MAX_METERS {
            self.meters.retain(|_, meter| !meter.is_full());
        }
    }
}
