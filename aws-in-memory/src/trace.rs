//! The trace of an invocation, by which Lambda finds out that a function calls itself: every call
//! carries it, SQS keeps it with a message, and each function that a message reaches adds one to
//! its own count.
//!
//! On AWS it is a header that the SDK takes from a variable of the process. Here it belongs to the
//! process's view, because several processes share one.

use std::collections::BTreeMap;
use std::fmt;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};

/// The attribute in which SQS keeps it.
const ATTRIBUTE: &str = "AWSTraceHeader";

/// The trace of an invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The invocation that made the call, counted from 0.
    pub parent: u64,
    /// By function: how often it was invoked in this chain.
    lineage: BTreeMap<String, u32>,
}

impl Trace {
    /// Of an invocation of `function` that no message has led to.
    #[must_use]
    pub fn begun(function: &str, invocation: u64) -> Self {
        Self { parent: invocation, lineage: [(function.to_owned(), 1)].into() }
    }

    /// Of an invocation of `function` by these messages. Where they came along several chains
    /// each function's longest counts: AWS does not say, and this is the pessimistic reading.
    #[must_use]
    pub fn continued(function: &str, invocation: u64, batch: &SqsEvent) -> Self {
        let mut lineage: BTreeMap<String, u32> = BTreeMap::new();
        for trace in batch.records.iter().filter_map(of_record) {
            for (function, count) in trace.lineage {
                let longest = lineage.entry(function).or_default();
                *longest = count.max(*longest);
            }
        }
        let own = lineage.entry(function.to_owned()).or_default();
        *own = own.saturating_add(1);
        Self { parent: invocation, lineage }
    }

    /// How often a function was invoked in this chain.
    #[must_use]
    pub fn count(&self, function: &str) -> u32 {
        self.lineage.get(function).copied().unwrap_or_default()
    }

    fn parse(header: &str) -> Option<Self> {
        let mut trace = Self::default();
        for part in header.split(';') {
            match part.split_once('=')? {
                ("Parent", parent) => trace.parent = u64::from_str_radix(parent, 16).ok()?,
                ("Lineage", lineage) => {
                    for hop in lineage.split('|') {
                        let (function, count) = hop.split_once(':')?;
                        trace.lineage.insert(function.to_owned(), count.parse().ok()?);
                    }
                }
                _ => {}
            }
        }
        Some(trace)
    }
}

/// The header, as it travels.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root=1-00000000-{:024x};Parent={:016x};Sampled=0", self.parent, self.parent)?;
        let mut hops = self.lineage.iter().map(|(function, count)| format!("{function}:{count}"));
        match hops.next() {
            Some(first) => {
                write!(f, ";Lineage={first}")?;
                hops.try_for_each(|hop| write!(f, "|{hop}"))
            }
            None => Ok(()),
        }
    }
}

/// The trace that a message came with.
#[must_use]
pub fn of_record(record: &SqsMessage) -> Option<Trace> {
    record.attributes.get(ATTRIBUTE).and_then(|header| Trace::parse(header))
}

/// The attributes of a message with this trace header.
pub(super) fn attribute(header: &str) -> (String, String) {
    (ATTRIBUTE.to_owned(), header.to_owned())
}

/// A batch whose messages have these traces.
#[cfg(test)]
pub(super) fn batch(traces: &[&Trace]) -> SqsEvent {
    let mut event = SqsEvent::default();
    for trace in traces {
        let mut record = SqsMessage::default();
        record.attributes.extend([attribute(&trace.to_string())]);
        event.records.push(record);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lineage_grows_with_each_hop() {
        let submit = Trace::begun("submit", 7);
        let poller = Trace::continued("poller", 8, &batch(&[&submit]));
        let again = Trace::continued("poller", 9, &batch(&[&poller]));
        assert_eq!(["submit", "poller", "deliver"].map(|name| again.count(name)), [1, 2, 0]);
        assert_eq!(of_record(&batch(&[&again]).records[0]), Some(again.clone()));
    }

    #[test]
    fn batch_has_its_longest_lineage() {
        let first = Trace::begun("deliver", 1);
        let third = Trace::continued("deliver", 2, &batch(&[&first]));
        let both = Trace::continued("deliver", 3, &batch(&[&third, &first]));
        assert_eq!(both.count("deliver"), 3);
        let unknown = Trace::continued("deliver", 4, &batch(&[]));
        assert_eq!(unknown.count("deliver"), 1);
    }
}
