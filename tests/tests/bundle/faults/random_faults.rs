//! What goes wrong around the functions. By chance, all of it from one seed: calls that break,
//! processes that end, neighbours that are away for minutes, queues and providers that repeat,
//! lose and delay. Or on purpose: a neighbour that a story takes away for a while.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use crate::faults::fault::Fault;
use crate::harness::invocation::Made;
use crate::harness::random::Random;

/// How long a storm lasts; afterwards nothing goes wrong any more.
const STORMY: Duration = Duration::from_secs(40 * 60);

/// What may be away: AWS services, and hosts of the network.
const NEIGHBOURS: [&str; 10] = [
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

/// A span of time in which one neighbour is away, or too busy.
#[derive(Clone, Debug)]
struct Outage {
    of: &'static str,
    from: Duration,
    until: Duration,
    fault: Fault,
}

/// Everything that goes wrong.
#[derive(Debug)]
pub(crate) struct Weather {
    begun: Instant,
    /// How long things go wrong by chance.
    lasts: Duration,
    /// What a story took away, and how its absence shows.
    away: Mutex<BTreeMap<&'static str, Fault>>,
    outages: Vec<Outage>,
    random: Mutex<Random>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl Weather {
    /// Nothing goes wrong by chance.
    pub(crate) fn calm(random: Random) -> Self {
        Self {
            begun: Instant::now(),
            lasts: Duration::ZERO,
            away: Mutex::default(),
            outages: Vec::new(),
            random: Mutex::new(random),
            counts: Mutex::default(),
        }
    }

    /// Much does.
    pub(crate) fn storm(mut random: Random) -> Self {
        let mut outages = Vec::new();
        for _ in 0..random.below(5) + 3 {
            let from = Duration::from_secs(random.below(STORMY.as_secs()));
            let lasts = Duration::from_secs(20 + random.below(280));
            let fault = if random.one_in(3) { Fault::Busy } else { Fault::Lost };
            let of = NEIGHBOURS[usize::try_from(random.below(10)).unwrap()];
            outages.push(Outage { of, from, until: (from + lasts).min(STORMY), fault });
        }
        Self { lasts: STORMY, outages, ..Self::calm(random) }
    }

    /// Takes a neighbour away, or has it say that it is too busy.
    pub(crate) fn take_away(&self, neighbour: &'static str, fault: Fault) {
        self.away.lock().unwrap().insert(neighbour, fault);
    }

    /// Brings it back.
    pub(crate) fn bring_back(&self, neighbour: &'static str) {
        self.away.lock().unwrap().remove(neighbour);
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
    pub(crate) fn strikes(&self, what: &'static str, one_in: u64) -> bool {
        let strikes = !self.is_over() && self.random.lock().unwrap().one_in(one_in);
        if strikes {
            self.count(what);
        }
        strikes
    }

    /// A duration up to this one.
    pub(crate) fn up_to(&self, most: Duration) -> Duration {
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
        if !self.strikes("clock is wrong", 4) {
            return TimeDelta::zero();
        }
        let most = TimeDelta::seconds(150);
        TimeDelta::from_std(self.up_to(Duration::from_secs(300))).unwrap() - most
    }

    /// Why a neighbour does not answer now, if it does not.
    pub(crate) fn outage(&self, of: &str) -> Option<Fault> {
        if let Some(fault) = self.away.lock().unwrap().get(of) {
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
    pub(crate) fn befalls(&self, to: &str, call: &Made) -> Option<Fault> {
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
            .find(|(fault, what, one_in)| fault.befalls(call) && self.strikes(what, *one_in))
            .map(|(fault, ..)| fault)
    }

    /// How much longer than usual a call takes.
    pub(crate) fn delay(&self) -> Duration {
        if self.strikes("call is slow", 60) {
            return self.up_to(Duration::from_secs(8));
        }
        self.up_to(Duration::from_millis(60))
    }
}
