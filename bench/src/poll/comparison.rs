//! Polls per job and mean delay of the poll schedule, compared with a simulation of the same
//! policy (40,000 renders per distribution, no jitter) and with fixed intervals.
//!
//! Our figures include the jitter of jobs: the mean over [`SPREADS`]. A bimodal distribution is
//! stored as the nearest lognormal one, so the simulation has no counterpart of it.

use std::f64::consts::TAU;
use std::time::Duration;

use domain::polling::{LognormalModel, PollSchedule, Slowdown, Statistics, Tracking};

use super::durations::{Hump, Law, Price};
use crate::report::{Aims, Table};

/// The points in the jitter that are averaged.
const SPREADS: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

/// The largest allowed difference to the simulation.
const TOLERANCE: f64 = 0.05;

/// The number of renders that a model is learned from.
const LEARNT_FROM: u32 = 20;

/// A distribution of durations, and the simulation's figures for it: polls and delay.
struct Row {
    law: Law,
    /// With the known distribution: the square-root schedule with its guard.
    known: Option<[f64; 2]>,
    /// With the closed form for providers without history.
    unknown: Option<[f64; 2]>,
    /// With a model learned from twenty renders, the mean of twelve.
    learnt: [f64; 2],
}

const ROWS: [Row; 5] = [
    Row {
        law: Law {
            name: "short clips, median 6 s",
            humps: &[Hump { share: 1.0, median: 6.0, sigma: 0.6 }],
        },
        known: Some([4.34, 1.09]),
        unknown: None,
        learnt: [4.12, 1.43],
    },
    Row {
        law: Law {
            name: "Shotstack's statistics",
            humps: &[Hump { share: 1.0, median: 7.2, sigma: 1.66 }],
        },
        known: Some([6.57, 2.19]),
        unknown: Some([5.6, 2.5]),
        learnt: [6.77, 2.11],
    },
    Row {
        law: Law {
            name: "default, median 77 s",
            humps: &[Hump { share: 1.0, median: 77.4, sigma: 0.55 }],
        },
        known: Some([9.48, 3.98]),
        unknown: Some([15.2, 4.1]),
        learnt: [10.75, 3.97],
    },
    Row {
        law: Law {
            name: "long, median 240 s",
            humps: &[Hump { share: 1.0, median: 240.0, sigma: 0.8 }],
        },
        known: Some([18.48, 8.48]),
        unknown: Some([35.0, 6.1]),
        learnt: [21.64, 7.89],
    },
    Row {
        law: Law {
            name: "70 % of 20 s, 30 % of 300 s",
            humps: &[
                Hump { share: 0.7, median: 20.0, sigma: 0.5 },
                Hump { share: 0.3, median: 300.0, sigma: 0.5 },
            ],
        },
        known: None,
        unknown: None,
        learnt: [13.43, 4.77],
    },
];

/// Fixed intervals for comparison, in seconds.
const FIXED: [u32; 4] = [1, 2, 5, 60];

/// Prints the comparison. A figure too far from the simulation's is a missed target.
pub(crate) fn compare(draws: u32, aims: &mut Aims) {
    let mut table =
        Table::new(["polls per job / mean delay s", "ours", "simulated", "polls off", "delay off"]);
    let mut verdicts = Vec::new();
    for row in &ROWS {
        let Row { law, known, unknown, learnt } = row;
        table.row([
            format!("{}:", law.name),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
        let mut line = |what: String, ours: Price, simulated: Option<[f64; 2]>| {
            let off = |ours: f64, simulated: f64| ours / simulated - 1.0;
            let off =
                simulated.map(|[polls, delay]| [off(ours.polls, polls), off(ours.delay, delay)]);
            let percent = |off: f64| format!("{:+.1} %", 100.0 * off);
            table.row([
                format!("  {what}"),
                show([ours.polls, ours.delay]),
                simulated.map(show).unwrap_or_default(),
                off.map(|[polls, _]| percent(polls)).unwrap_or_default(),
                off.map(|[_, delay]| percent(delay)).unwrap_or_default(),
            ]);
            off
        };
        let law_known = if known.is_some() { "law known" } else { "nearest law known" };
        let known_off = line(law_known.into(), price(law, Some(law.learnt_in_the_end())), *known);
        let unknown_off = line("nothing known".into(), price(law, None), *unknown);
        line(format!("learnt from {LEARNT_FROM}"), learnt_price(law, draws), Some(*learnt));
        for seconds in FIXED {
            line(format!("every {seconds} s"), fixed_price(law, seconds), None);
        }
        for (policy, off) in [("law known", known_off), ("nothing known", unknown_off)] {
            for (figure, off) in ["polls", "delay"].into_iter().zip(off.into_iter().flatten()) {
                verdicts.push((format!("{figure} off, {}, {policy}", law.name), off.abs()));
            }
        }
    }
    println!("{table}");
    for (what, off) in verdicts {
        aims.at_most(&what, off, TOLERANCE);
    }
}

fn show([polls, delay]: [f64; 2]) -> String {
    format!("{polls:.2} / {delay:.2}")
}

/// The cost of a schedule, averaged over the jitter of jobs.
fn price(law: &Law, duration_model: Option<LognormalModel>) -> Price {
    let polling = PollSchedule {
        floor: Duration::from_secs(1),
        safety: Duration::from_secs(120),
        deadline: Duration::from_secs_f64(law.horizon()),
        duration_model,
        slowdown: Slowdown::NONE,
    };
    let mut mean = Price::default();
    for spread in SPREADS {
        mean.add(law.price(&ages(&polling, spread)), 1.0 / SPREADS.len() as f64);
    }
    mean
}

fn ages(polling: &PollSchedule, spread: f64) -> Vec<f64> {
    let next = |age: &Duration| Some(polling.next_after(Tracking::PollOnly, *age, spread));
    let due = std::iter::successors(next(&Duration::ZERO), next);
    due.take_while(|age| *age < polling.deadline).map(|age| age.as_secs_f64()).collect()
}

fn fixed_price(law: &Law, seconds: u32) -> Price {
    let every = f64::from(seconds);
    let ages = std::iter::successors(Some(every), |age| Some(age + every));
    let ages: Vec<f64> = ages.take_while(|age| *age < law.horizon() + every).collect();
    law.price(&ages)
}

/// The mean over this many models, each learned from twenty random renders.
fn learnt_price(law: &Law, draws: u32) -> Price {
    let mut lot = Lot(20_261_121);
    let mut mean = Price::default();
    for _ in 0..draws {
        let seen = (0..LEARNT_FROM).map(|_| Statistics::single(lot.render(law)));
        let learnt = seen.fold(Statistics::default(), Statistics::merge).model();
        mean.add(price(law, learnt), 1.0 / f64::from(draws));
    }
    mean
}

/// Random renders, the same in every run.
struct Lot(u64);

impl Lot {
    /// A random number between 0 and 1, both excluded (SplitMix64).
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 32) as f64 + 0.5) / 4_294_967_296.0
    }

    fn render(&mut self, law: &Law) -> Duration {
        let mut place = self.share();
        let hump = law.humps.iter().find(|hump| {
            place -= hump.share;
            place < 0.0
        });
        let normal = (-2.0 * self.share().ln()).sqrt() * (TAU * self.share()).cos();
        let seconds = hump.map_or(1.0, |hump| hump.median * (hump.sigma * normal).exp());
        Duration::from_secs_f64(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_cost_matches_simulation() {
        let mut aims = Aims::default();
        compare(1, &mut aims);
        aims.conclude().unwrap();
    }
}
