//! Whether messages are sent round for nothing. The functions opt out of Lambda's recursion
//! detection, so their chains need a bound of their own: a message that an invocation sends about
//! the errand of one that it handles is the next of its chain, and
//!
//! - along a chain, at most [`MAX_IDLE`] messages in a row come to nothing: no attempt, no poll and
//!   no change is stored, although AWS refused nothing;
//! - along a chain, [`WINDOW`] messages in a row take at least as many seconds.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};

use crate::checks::invariant::Invariant;
use crate::harness::bundle::Bundle;
use crate::harness::invocation::Errand;

/// A ticket comes early by a wrong clock, changes its lane or meets a contended endpoint. A
/// wake-up call finds that another poller was quicker, or waits for the next.
const MAX_IDLE: usize = 8;

/// The messages in a row whose time is looked at.
const WINDOW: usize = 30;

/// The end of a chain.
#[derive(Clone, Debug, Default)]
struct Chain {
    /// Its last messages that came to nothing.
    idle: usize,
    /// The invocations that handled its last messages, and when.
    handled: VecDeque<(usize, DateTime<Utc>)>,
}

impl Chain {
    fn next(&self, came_further: bool, at: (usize, DateTime<Utc>)) -> Self {
        let mut next = self.clone();
        next.idle = if came_further { 0 } else { self.idle + 1 };
        next.handled.push_back(at);
        if next.handled.len() > WINDOW {
            next.handled.pop_front();
        }
        next
    }

    fn is_too_fast(&self) -> bool {
        let (Some((_, first)), Some((_, last))) = (self.handled.front(), self.handled.back())
        else {
            return false;
        };
        let least = TimeDelta::seconds(i64::try_from(WINDOW).unwrap() - 1);
        self.handled.len() == WINDOW && *last - *first < least
    }
}

impl Bundle {
    /// Checks all chains of messages, and returns the most messages in a row that came to nothing.
    pub(crate) fn check_rounds(&self) -> usize {
        // By invocation and errand, as the messages were when it sent the next.
        let mut chains: BTreeMap<(usize, Errand), Chain> = BTreeMap::new();
        let mut longest = 0;
        for invocation in self.invocations() {
            for message in &invocation.messages {
                let errand = &message.errand;
                let before = chains.get(&(message.sent_by, errand.clone())).cloned();
                let came_further = invocation.got_further(errand) || invocation.was_hindered();
                let chain = before
                    .unwrap_or_default()
                    .next(came_further, (invocation.number, invocation.begun));
                longest = longest.max(chain.idle);
                if chain.idle > MAX_IDLE {
                    self.checker.violated(
                        Invariant::EveryJobSettles,
                        format!(
                            "{errand:?} is sent round {} times for nothing: {:?}",
                            chain.idle, chain.handled
                        ),
                    );
                }
                if chain.is_too_fast() {
                    self.checker.violated(
                        Invariant::EveryJobSettles,
                        format!("{errand:?} is sent round too fast: {:?}", chain.handled),
                    );
                }
                let end = chains.entry((invocation.number, errand.clone())).or_default();
                if end.handled.is_empty() || chain.idle > end.idle {
                    *end = chain;
                }
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(messages: usize, every: TimeDelta, came_further: bool) -> Chain {
        let at = |n: usize| DateTime::UNIX_EPOCH + every * i32::try_from(n).unwrap();
        (0..messages).fold(Chain::default(), |chain, n| chain.next(came_further, (n, at(n))))
    }

    #[test]
    fn thirty_messages_take_thirty_seconds() {
        assert!(chain(30, TimeDelta::milliseconds(999), true).is_too_fast());
        assert!(!chain(30, TimeDelta::seconds(1), true).is_too_fast());
        assert!(!chain(29, TimeDelta::zero(), true).is_too_fast(), "too few to tell");
        assert!(chain(90, TimeDelta::milliseconds(999), true).is_too_fast(), "the last thirty");
    }

    #[test]
    fn chain_that_comes_further_begins_anew() {
        let idle = chain(7, TimeDelta::seconds(1), false);
        assert_eq!(idle.idle, 7);
        assert_eq!(idle.next(true, (7, DateTime::UNIX_EPOCH)).idle, 0);
    }
}
