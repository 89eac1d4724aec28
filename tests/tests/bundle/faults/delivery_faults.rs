//! Random faults of tickets and of the functions that handle them, from a seed and without an end.
//! Unlike [`crate::faults::random_faults`] each fault is assigned to an invocation.

use std::sync::Mutex;
use std::time::Duration;

use crate::faults::fault::{Fault, PlannedFault};
use crate::harness::functions::Function;
use aws_in_memory::random::Random;

/// The range of call numbers for a fault: about as many as an attempt has.
const CALLS: u64 = 12;
/// The longest delay of a message, longer than its visibility timeout.
const MAX_DELAY_S: u64 = 400;
/// The longest delay of a copy. Its delivery may be several attempts further by then, or over.
const MAX_COPY_DELAY_S: u64 = 6 * 3600;

/// The number of faults apart from those at calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that were delayed.
    pub(crate) copies: usize,
    /// Messages that were held.
    pub(crate) late: usize,
    /// Messages that overtook an older one.
    pub(crate) reordered: usize,
}

/// Random faults, which begin on request.
#[derive(Debug, Default)]
pub(crate) struct DeliveryFaults {
    random: Mutex<Option<Random>>,
    counts: Mutex<Counts>,
}

impl DeliveryFaults {
    /// Begins, with this seed.
    pub(crate) fn begin(&self, seed: u64) {
        *self.random.lock().unwrap() = Some(Random::new(seed));
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }

    /// The fault of a new invocation: at every third attempt, and rarely at a tick.
    pub(crate) fn roll(&self, function: Function) -> Option<PlannedFault> {
        let one_in = match function {
            Function::Deliver => 3,
            Function::Poller => 25,
            Function::Submit | Function::Webhook | Function::Jobs => return None,
        };
        self.chance(one_in, |random| {
            let call = usize::try_from(random.next() % CALLS).unwrap();
            let faults = u64::try_from(Fault::ALL.len()).unwrap();
            let fault = Fault::ALL[usize::try_from(random.next() % faults).unwrap()];
            PlannedFault { call, fault }
        })
    }

    /// The index of the next message; none before the begin.
    pub(crate) fn pick(&self, left: usize) -> Option<usize> {
        let among = u64::try_from(left).unwrap();
        let any = self.chance(1, |random| usize::try_from(random.next() % among).unwrap());
        self.counts.lock().unwrap().reordered += usize::from(any > Some(0));
        any
    }

    /// The delay of a copy of a message; none when there is no copy.
    pub(crate) fn copies_after(&self) -> Option<Duration> {
        let seconds = |random: &mut Random, most| Duration::from_secs(random.next() % most);
        // Half of the copies come at once, the others much later.
        let after = self.chance(3, |random| match random.next() % 2 {
            0 => seconds(random, 2),
            _ => seconds(random, MAX_COPY_DELAY_S),
        });
        self.counts.lock().unwrap().copies += usize::from(after.is_some());
        after
    }

    /// The delay of a message.
    pub(crate) fn late(&self) -> Duration {
        let late = self.chance(5, |random| Duration::from_secs(random.next() % MAX_DELAY_S));
        self.counts.lock().unwrap().late += usize::from(late.is_some());
        late.unwrap_or_default()
    }

    fn chance<T>(&self, one_in: u64, then: impl FnOnce(&mut Random) -> T) -> Option<T> {
        let mut random = self.random.lock().unwrap();
        let random = random.as_mut()?;
        (random.next() % one_in == 0).then(|| then(random))
    }
}
