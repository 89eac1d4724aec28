//! Random faults from one seed: failing calls, dying processes, outages of minutes, and queues and
//! providers that repeat, lose and delay. A scenario can also start an outage itself.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use aws_in_memory::random::Random;
use chrono::TimeDelta;
use tokio::time::Instant;

use crate::faults::fault::Fault;
use crate::harness::invocation::CallRecord;

/// How long random faults happen. Afterwards every call succeeds.
const FAULT_PERIOD: Duration = Duration::from_secs(40 * 60);

/// The AWS services and hosts that can have an outage.
const SERVICES: [&str; 10] = [
    "dynamodb",
    "sqs",
    "events",
    "ssm",
    "zvid.test",
    "shotstack.test",
    "json2video.test",
    "viralsync.test",
    "renderio.test",
    "shop.test",
];

/// A period in which one service is unreachable or throttles.
#[derive(Clone, Debug)]
struct Outage {
    of: &'static str,
    from: Duration,
    until: Duration,
    fault: Fault,
}

#[derive(Debug)]
pub(crate) struct RandomFaults {
    begun: Instant,
    /// How long random faults happen; zero when they are disabled.
    lasts: Duration,
    /// By service: the fault of an outage that a scenario has started.
    planned_outages: Mutex<BTreeMap<&'static str, Fault>>,
    outages: Vec<Outage>,
    random: Mutex<Random>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl RandomFaults {
    /// No random faults.
    pub(crate) fn disabled(random: Random) -> Self {
        Self {
            begun: Instant::now(),
            lasts: Duration::ZERO,
            planned_outages: Mutex::default(),
            outages: Vec::new(),
            random: Mutex::new(random),
            counts: Mutex::default(),
        }
    }

    /// Random faults for [`FAULT_PERIOD`].
    pub(crate) fn enabled(mut random: Random) -> Self {
        let mut outages = Vec::new();
        for _ in 0..random.below(5) + 3 {
            let from = Duration::from_secs(random.below(FAULT_PERIOD.as_secs()));
            let lasts = Duration::from_secs(20 + random.below(280));
            let fault = if random.one_in(3) { Fault::Busy } else { Fault::Lost };
            let of = SERVICES[usize::try_from(random.below(10)).unwrap()];
            outages.push(Outage { of, from, until: (from + lasts).min(FAULT_PERIOD), fault });
        }
        Self { lasts: FAULT_PERIOD, outages, ..Self::disabled(random) }
    }

    /// Starts an outage that lasts until [`Self::end_outage`].
    pub(crate) fn start_outage(&self, service: &'static str, fault: Fault) {
        self.planned_outages.lock().unwrap().insert(service, fault);
    }

    pub(crate) fn end_outage(&self, service: &'static str) {
        self.planned_outages.lock().unwrap().remove(service);
    }

    /// By name: how often each fault happened.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.counts.lock().unwrap().clone()
    }

    /// Whether no more random faults will happen.
    pub(crate) fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.lasts
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    /// Whether a named fault happens now, with a probability of one in `one_in`.
    pub(crate) fn roll(&self, what: &'static str, one_in: u64) -> bool {
        let happens = !self.is_over() && self.random.lock().unwrap().one_in(one_in);
        if happens {
            self.count(what);
        }
        happens
    }

    /// A random duration up to `most`.
    pub(crate) fn duration_up_to(&self, most: Duration) -> Duration {
        if self.lasts.is_zero() {
            return Duration::ZERO;
        }
        let most = u64::try_from(most.as_millis()).unwrap();
        Duration::from_millis(self.random.lock().unwrap().below(most + 1))
    }

    /// A random index below `left`.
    pub(crate) fn pick(&self, left: usize) -> usize {
        if self.lasts.is_zero() {
            return 0;
        }
        let left = u64::try_from(left).unwrap();
        usize::try_from(self.random.lock().unwrap().below(left)).unwrap()
    }

    /// The clock error of a new process.
    pub(crate) fn skew(&self) -> TimeDelta {
        if !self.roll("clock is wrong", 4) {
            return TimeDelta::zero();
        }
        let most = TimeDelta::seconds(150);
        TimeDelta::from_std(self.duration_up_to(Duration::from_secs(300))).unwrap() - most
    }

    /// The fault of the current outage of a service, if it has one.
    pub(crate) fn outage(&self, of: &str) -> Option<Fault> {
        if let Some(fault) = self.planned_outages.lock().unwrap().get(of) {
            return Some(*fault);
        }
        let now = self.begun.elapsed();
        let outage = self.outages.iter().find(|it| it.of == of && it.from <= now && now < it.until);
        let fault = outage?.fault;
        // A provider or a receiver that throttles answers by its scenario.
        let fault = if of.ends_with(".test") { Fault::Lost } else { fault };
        self.count(if fault == Fault::Busy {
            "call while it is too busy"
        } else {
            "call while it is away"
        });
        Some(fault)
    }

    /// The random fault at a call, if any.
    pub(crate) fn roll_call(&self, to: &str, call: &CallRecord) -> Option<Fault> {
        if let Some(fault) = self.outage(to) {
            return Some(fault);
        }
        let faults = [
            (Fault::DiesBefore, "process ends before a call", 400),
            (Fault::DiesAfter, "process ends after a call", 400),
            (Fault::Lost, "call is lost", 150),
            (Fault::Unanswered, "answer is lost", 150),
            (Fault::Busy, "AWS is busy", 150),
            (Fault::Twice, "call is made twice", 150),
        ];
        faults
            .into_iter()
            .find(|(fault, what, one_in)| fault.applies_to(call) && self.roll(what, *one_in))
            .map(|(fault, ..)| fault)
    }

    /// The extra time that a call takes.
    pub(crate) fn delay(&self) -> Duration {
        if self.roll("call is slow", 60) {
            return self.duration_up_to(Duration::from_secs(8));
        }
        self.duration_up_to(Duration::from_millis(60))
    }
}
