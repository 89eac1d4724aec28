//! The quotas of an account, with the values that AWS documents for one that never asked for
//! more. Each is a knob: a test may have a smaller account, or one without an end.

pub mod executions;
pub mod routes;
pub mod scaling;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dynamodb_in_memory::bucket::TokenBucket;
use dynamodb_in_memory::{Throttle as TableThrottle, Throughput};

use super::trace::Trace;

/// A rate that is metered by a token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// What comes a second.
    pub per_second: f64,
    /// What is saved up at most.
    pub burst: f64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: f64::INFINITY, burst: f64::INFINITY };

    /// So many a second, of which one second's worth is saved up.
    #[must_use]
    pub const fn per_second(rate: f64) -> Self {
        Self { per_second: rate, burst: rate }
    }

    pub(super) fn bucket(self) -> TokenBucket {
        TokenBucket::new(self.per_second, self.burst)
    }
}

/// What an account may use. All functions share it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quotas {
    /// How often a function is invoked in one chain of messages, unless it allows recursion.
    pub recursion: u32,
    /// Lambda's concurrent executions.
    pub executions: usize,
    /// The concurrent batches with which an event source begins.
    pub first_batches: u32,
    /// The concurrent batches that it adds in a minute while messages wait.
    pub batches_a_minute: u32,
    /// SSM's calls that read parameters, of all kinds together.
    pub parameter_reads: Rate,
    /// SSM's calls that write parameters.
    pub parameter_writes: Rate,
    /// EventBridge's entries.
    pub bus_entries: Rate,
    /// DynamoDB's units of a table and of each of its indexes.
    pub table: Throughput,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            recursion: 16,
            executions: 1000,
            first_batches: 5,
            batches_a_minute: 300,
            parameter_reads: Rate::per_second(40.0),
            parameter_writes: Rate::per_second(3.0),
            bus_entries: Rate::per_second(10_000.0),
            table: Throughput::default(),
        }
    }
}

impl Quotas {
    /// A new account that other stacks use too: ten concurrent executions, and so few parameters
    /// and events a second that two dozen jobs at once are too many.
    #[must_use]
    pub fn starved() -> Self {
        Self {
            executions: 10,
            parameter_reads: Rate::per_second(4.0),
            parameter_writes: Rate::per_second(1.0),
            bus_entries: Rate::per_second(2.0),
            ..Self::default()
        }
    }

    /// A table that two dozen jobs at once are too many for. It is apart from
    /// [`Quotas::starved`], where so few executions begin that no table is busy.
    #[must_use]
    pub fn starved_table() -> Self {
        Self {
            table: Throughput {
                key_writes: 5.0,
                key_reads: 15.0,
                all_writes: 22.0,
                all_reads: 66.0,
            },
            ..Self::default()
        }
    }

    /// Whether Lambda takes an invocation of `function` for one of a loop that has no end.
    #[must_use]
    pub fn is_endless(&self, function: &str, trace: &Trace) -> bool {
        trace.count(function) > self.recursion
    }

    /// No limits: for measurements of what is ours.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            recursion: u32::MAX,
            executions: usize::MAX,
            first_batches: u32::MAX,
            batches_a_minute: 0,
            parameter_reads: Rate::UNLIMITED,
            parameter_writes: Rate::UNLIMITED,
            bus_entries: Rate::UNLIMITED,
            table: Throughput::UNLIMITED,
        }
    }
}

/// What was throttled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Throttle {
    /// A batch that recursion detection kept from its function.
    Recursion,
    /// An invocation.
    Execution,
    /// A call that reads parameters.
    ParameterRead,
    /// A call that writes one.
    ParameterWrite,
    /// An entry for the bus.
    BusEntry,
    /// A request to the API.
    Route,
    /// A call of the table.
    Table(TableThrottle),
}

impl Throttle {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recursion => "recursion is stopped",
            Self::Execution => "invocation is throttled",
            Self::ParameterRead => "parameter read is throttled",
            Self::ParameterWrite => "parameter write is throttled",
            Self::BusEntry => "event is throttled",
            Self::Route => "request is throttled",
            Self::Table(TableThrottle::Key) => "partition is throttled",
            Self::Table(TableThrottle::IndexKey) => "index partition is throttled",
            Self::Table(TableThrottle::Whole) => "table is throttled",
        }
    }
}

/// How much was throttled so far.
#[derive(Debug, Default)]
pub(super) struct Throttles(Mutex<BTreeMap<Throttle, usize>>);

impl Throttles {
    pub(super) fn count(&self, what: Throttle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<Throttle, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::batch;

    #[test]
    fn seventeenth_invocation_is_endless() {
        let quotas = Quotas::default();
        let mut trace = Trace::begun("deliver", 0);
        for _ in 1..16 {
            trace = Trace::continued("deliver", 0, &batch(&[&trace]));
        }
        assert!(!quotas.is_endless("deliver", &trace), "the sixteenth");
        trace = Trace::continued("deliver", 0, &batch(&[&trace]));
        assert!(quotas.is_endless("deliver", &trace));
        assert!(!quotas.is_endless("poller", &Trace::continued("poller", 0, &batch(&[&trace]))));
        assert!(!Quotas::unlimited().is_endless("deliver", &trace));
    }
}
