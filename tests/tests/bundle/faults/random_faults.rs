//! What goes wrong around the functions. By chance, all of it from one seed: calls that break,
//! processes that end, neighbours that are away for minutes, queues and providers that repeat,
//! lose and delay. Or on purpose: a service that a scenario takes away for a while.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use crate::faults::fault::Fault;
use crate::harness::invocation::CallRecord;
use crate::harness::random::Random;

/// How long a delivery_faults lasts; afterwards nothing goes wrong any more.
const FAULT_PERIOD: Duration = Duration::from_secs(40 * 60);

/// What may be away: AWS services, and hosts of the network.
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

/// A span of time in which one service is away, or too busy.
#[derive(Clone, Debug)]
struct Outage {
    of: &'static str,
    from: Duration,
    until: Duration,
    fault: Fault,
}

/// Everything that goes wrong.
#[derive(Debug)]
pub(crate) struct RandomFaults {
    begun: Instant,
    /// How long things go wrong by chance.
    lasts: Duration,
    /// What a scenario took away, and how its absence shows.
    planned_outages: Mutex<BTreeMap<&'static str, Fault>>,
    outages: Vec<Outage>,
    random: Mutex<Random>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl RandomFaults {
    /// Nothing goes wrong by chance.
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

    /// Much does.
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

    /// Takes a service away, or has it say that it is too busy.
    pub(crate) fn start_outage(&self, service: &'static str, fault: Fault) {
        self.planned_outages.lock().unwrap().insert(service, fault);
    }

    /// Brings it back.
    pub(crate) fn end_outage(&self, service: &'static str) {
        self.planned_outages.lock().unwrap().remove(service);
    }

    /// How often what went wrong.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.counts.lock().unwrap().clone()
    }

    /// Whether nothing goes wrong by chance any more.
    pub(crate) fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.lasts
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    /// One in so many times something happens, which has a name.
    pub(crate) fn roll(&self, what: &'static str, one_in: u64) -> bool {
        let happens = !self.is_over() && self.random.lock().unwrap().one_in(one_in);
        if happens {
            self.count(what);
        }
        happens
    }

    /// A duration up to this one.
    pub(crate) fn duration_up_to(&self, most: Duration) -> Duration {
        if self.lasts.is_zero() {
            return Duration::ZERO;
        }
        let most = u64::try_from(most.as_millis()).unwrap();
        Duration::from_millis(self.random.lock().unwrap().below(most + 1))
    }

    /// Which of so many comes next.
    pub(crate) fn pick(&self, left: usize) -> usize {
        if self.lasts.is_zero() {
            return 0;
        }
        let left = u64::try_from(left).unwrap();
        usize::try_from(self.random.lock().unwrap().below(left)).unwrap()
    }

    /// How wrong the clock of a new process is.
    pub(crate) fn skew(&self) -> TimeDelta {
        if !self.roll("clock is wrong", 4) {
            return TimeDelta::zero();
        }
        let most = TimeDelta::seconds(150);
        TimeDelta::from_std(self.duration_up_to(Duration::from_secs(300))).unwrap() - most
    }

    /// Why a service does not answer now, if it does not.
    pub(crate) fn outage(&self, of: &str) -> Option<Fault> {
        if let Some(fault) = self.planned_outages.lock().unwrap().get(of) {
            return Some(*fault);
        }
        let now = self.begun.elapsed();
        let outage = self.outages.iter().find(|it| it.of == of && it.from <= now && now < it.until);
        let fault = outage?.fault;
        // A provider or receiver that is busy says so in its own words: the scenario's.
        let fault = if of.ends_with(".test") { Fault::Lost } else { fault };
        self.count(if fault == Fault::Busy {
            "call while it is too busy"
        } else {
            "call while it is away"
        });
        Some(fault)
    }

    /// What becomes of a call.
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

    /// How much longer than usual a call takes.
    pub(crate) fn delay(&self) -> Duration {
        if self.roll("call is slow", 60) {
            return self.duration_up_to(Duration::from_secs(8));
        }
        self.duration_up_to(Duration::from_millis(60))
    }
}
