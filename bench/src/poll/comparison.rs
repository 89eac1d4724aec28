//! Polls per job and mean delay of the poll schedule, compared with a simulation of the same
//! policy (40,000 renders per distribution, no jitter) and with fixed intervals.
//!
//! Our figures include the jitter of jobs: the mean over [`SPREADS`]. A bimodal distribution is
//! stored as the nearest lognormal one, so the simulation has no counterpart of it.

use std::f64::consts::TAU;
use std::time::Duration;

use domain::polling::{LognormalModel, PollSchedule, Slowdown, Statistics, Tracking};

use super::durations::{DurationDistribution, Mode, ScheduleCost};
use crate::report::{Targets, TextTable};

/// The points in the jitter that are averaged.
const SPREADS: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

/// The largest allowed difference to the simulation.
const TOLERANCE: f64 = 0.05;

/// The number of renders that a model is learned from.
const LEARNED_FROM: u32 = 20;

/// A distribution of durations, and the simulation's figures for it: polls and delay.
struct Comparison {
    distribution: DurationDistribution,
    /// With the known distribution: the square-root schedule with its guard.
    known: Option<[f64; 2]>,
    /// With the closed form for providers without history.
    unknown: Option<[f64; 2]>,
    /// With a model learned from twenty renders, the mean of twelve.
    learned: [f64; 2],
}

const ROWS: [Comparison; 5] = [
    Comparison {
        distribution: DurationDistribution {
            name: "short clips, median 6 s",
            modes: &[Mode { share: 1.0, median: 6.0, sigma: 0.6 }],
        },
        known: Some([4.34, 1.09]),
        unknown: None,
        learned: [4.12, 1.43],
    },
    Comparison {
        distribution: DurationDistribution {
            name: "Shotstack's statistics",
            modes: &[Mode { share: 1.0, median: 7.2, sigma: 1.66 }],
        },
        known: Some([6.57, 2.19]),
        unknown: Some([5.6, 2.5]),
        learned: [6.77, 2.11],
    },
    Comparison {
        distribution: DurationDistribution {
            name: "default, median 77 s",
            modes: &[Mode { share: 1.0, median: 77.4, sigma: 0.55 }],
        },
        known: Some([9.48, 3.98]),
        unknown: Some([15.2, 4.1]),
        learned: [10.75, 3.97],
    },
    Comparison {
        distribution: DurationDistribution {
            name: "long, median 240 s",
            modes: &[Mode { share: 1.0, median: 240.0, sigma: 0.8 }],
        },
        known: Some([18.48, 8.48]),
        unknown: Some([35.0, 6.1]),
        learned: [21.64, 7.89],
    },
    Comparison {
        distribution: DurationDistribution {
            name: "70 % of 20 s, 30 % of 300 s",
            modes: &[
                Mode { share: 0.7, median: 20.0, sigma: 0.5 },
                Mode { share: 0.3, median: 300.0, sigma: 0.5 },
            ],
        },
        known: None,
        unknown: None,
        learned: [13.43, 4.77],
    },
];

/// Fixed intervals for comparison, in seconds.
const FIXED: [u32; 4] = [1, 2, 5, 60];

/// Prints the comparison. A figure too far from the simulation's is a missed target.
pub(crate) fn compare(draws: u32, targets: &mut Targets) {
    let mut table = TextTable::new([
        "polls per job / mean delay s",
        "ours",
        "simulated",
        "polls off",
        "delay off",
    ]);
    let mut verdicts = Vec::new();
    for row in &ROWS {
        let Comparison { distribution, known, unknown, learned } = row;
        table.row([
            format!("{}:", distribution.name),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
        let mut line = |what: String, ours: ScheduleCost, simulated: Option<[f64; 2]>| {
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
        let known_label =
            if known.is_some() { "distribution known" } else { "nearest distribution known" };
        let known_off =
            line(known_label.into(), cost(distribution, Some(distribution.limit_model())), *known);
        let unknown_off = line("nothing known".into(), cost(distribution, None), *unknown);
        line(
            format!("learned from {LEARNED_FROM}"),
            learned_cost(distribution, draws),
            Some(*learned),
        );
        for seconds in FIXED {
            line(format!("every {seconds} s"), fixed_cost(distribution, seconds), None);
        }
        for (policy, off) in [("distribution known", known_off), ("nothing known", unknown_off)] {
            for (figure, off) in ["polls", "delay"].into_iter().zip(off.into_iter().flatten()) {
                verdicts
                    .push((format!("{figure} off, {}, {policy}", distribution.name), off.abs()));
            }
        }
    }
    println!("{table}");
    for (what, off) in verdicts {
        targets.at_most(&what, off, TOLERANCE);
    }
}

fn show([polls, delay]: [f64; 2]) -> String {
    format!("{polls:.2} / {delay:.2}")
}

/// The cost of a schedule, averaged over the jitter of jobs.
fn cost(
    distribution: &DurationDistribution,
    duration_model: Option<LognormalModel>,
) -> ScheduleCost {
    let polling = PollSchedule {
        floor: Duration::from_secs(1),
        safety: Duration::from_secs(120),
        deadline: Duration::from_secs_f64(distribution.horizon()),
        duration_model,
        slowdown: Slowdown::NONE,
    };
    let mut mean = ScheduleCost::default();
    for spread in SPREADS {
        mean.add(distribution.cost(&ages(&polling, spread)), 1.0 / SPREADS.len() as f64);
    }
    mean
}

fn ages(polling: &PollSchedule, spread: f64) -> Vec<f64> {
    let next = |age: &Duration| Some(polling.next_after(Tracking::PollOnly, *age, spread));
    let due = std::iter::successors(next(&Duration::ZERO), next);
    due.take_while(|age| *age < polling.deadline).map(|age| age.as_secs_f64()).collect()
}

fn fixed_cost(distribution: &DurationDistribution, seconds: u32) -> ScheduleCost {
    let every = f64::from(seconds);
    let ages = std::iter::successors(Some(every), |age| Some(age + every));
    let ages: Vec<f64> = ages.take_while(|age| *age < distribution.horizon() + every).collect();
    distribution.cost(&ages)
}

/// The mean over this many models, each learned from twenty random renders.
fn learned_cost(distribution: &DurationDistribution, draws: u32) -> ScheduleCost {
    let mut renders = RandomRenders(20_261_121);
    let mut mean = ScheduleCost::default();
    for _ in 0..draws {
        let seen = (0..LEARNED_FROM).map(|_| Statistics::single(renders.render(distribution)));
        let learned = seen.fold(Statistics::default(), Statistics::merge).model();
        mean.add(cost(distribution, learned), 1.0 / f64::from(draws));
    }
    mean
}

/// Random renders, the same in every run.
struct RandomRenders(u64);

impl RandomRenders {
    /// A random number between 0 and 1, both excluded (SplitMix64).
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 32) as f64 + 0.5) / 4_294_967_296.0
    }

    fn render(&mut self, distribution: &DurationDistribution) -> Duration {
        let mut place = self.share();
        let mode = distribution.modes.iter().find(|mode| {
            place -= mode.share;
            place < 0.0
        });
        let normal = (-2.0 * self.share().ln()).sqrt() * (TAU * self.share()).cos();
        let seconds = mode.map_or(1.0, |mode| mode.median * (mode.sigma * normal).exp());
        Duration::from_secs_f64(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_cost_matches_simulation() {
        let mut targets = Targets::default();
        compare(1, &mut targets);
        targets.conclude().unwrap();
    }
}
