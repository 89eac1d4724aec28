//! What goes wrong on a delivery's way from a moment on: a delivery_faults, in which everything that may
//! happen to tickets and to those who follow them does, at random and by a seed, for as long
//! as deliveries take. Other than the random_faults ([`crate::faults::random_faults`]) it knows whom it befell.

use std::sync::Mutex;
use std::time::Duration;

use crate::faults::fault::{Fault, PlannedFault};
use crate::harness::functions::Function;
use crate::harness::random::Random;

/// How far into an invocation a fault may come: about as many calls as an attempt has.
const CALLS: u64 = 12;
/// How long a message is held at most before its function is called: longer than its
/// visibility timeout, so that it is there again before it was worked at.
const MAX_DELAY_S: u64 = 400;
/// How much later a message's copy comes at most: its delivery may be several attempts on by
/// then, or over.
const MAX_COPY_DELAY_S: u64 = 6 * 3600;

/// How often something went wrong, beside what befell invocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that came twice, some of them long after.
    pub(crate) copies: usize,
    /// Messages that were held.
    pub(crate) late: usize,
    /// Messages that came before an older one.
    pub(crate) reordered: usize,
}

/// A delivery_faults, which begins when it is told to.
#[derive(Debug, Default)]
pub(crate) struct DeliveryFaults {
    random: Mutex<Option<Random>>,
    counts: Mutex<Counts>,
}

impl DeliveryFaults {
    /// From now on everything goes wrong now and then, as `seed` will have it.
    pub(crate) fn begin(&self, seed: u64) {
        *self.random.lock().unwrap() = Some(Random::new(seed));
    }

    /// What it has come to.
    pub(crate) fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }

    /// What befalls an invocation that begins: something every third attempt, and now and
    /// then a tick, of which there are many.
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

    /// Which of so many messages comes next; none when there is no delivery_faults.
    pub(crate) fn pick(&self, left: usize) -> Option<usize> {
        let among = u64::try_from(left).unwrap();
        let any = self.chance(1, |random| usize::try_from(random.next() % among).unwrap());
        self.counts.lock().unwrap().reordered += usize::from(any > Some(0));
        any
    }

    /// How much later a message comes again that was taken; none when it does not.
    pub(crate) fn copies_after(&self) -> Option<Duration> {
        let seconds = |random: &mut Random, most| Duration::from_secs(random.next() % most);
        // At once, as a rule; else long after.
        let after = self.chance(3, |random| match random.next() % 2 {
            0 => seconds(random, 2),
            _ => seconds(random, MAX_COPY_DELAY_S),
        });
        self.counts.lock().unwrap().copies += usize::from(after.is_some());
        after
    }

    /// How much later than it could a function is called with messages.
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
