//! What was seen of how long a provider's renders take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Durations;

/// What is assumed of a provider before its first render: median 30 s, sigma 1.2, and how
/// many renders that is worth.
const PRIOR_LOG_MEDIAN: f64 = 3.401_197_4;
const PRIOR_SIGMA: f64 = 1.2;
const PRIOR_WEIGHT: f64 = 5.0;

/// How many renders must have been seen before a law is made of them.
const LEARNT_AFTER: u64 = 20;

/// How many renders are remembered: older ones fade, as providers change.
const MEMORY: f64 = 200.0;

/// Mean and variance of the logarithms of durations, the latest ones counting most. Values of
/// several processes can be merged, in any order and grouping, into nearly the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// All renders ever seen.
    count: u64,
    /// Those that are remembered, at most [`MEMORY`].
    weight: f64,
    mean: f64,
    variance: f64,
}

impl Statistics {
    /// One render.
    #[must_use]
    pub fn of(duration: Duration) -> Self {
        // A clock that goes backwards must not make minus infinity of it.
        let mean = duration.as_secs_f64().max(0.1).ln();
        Self { count: 1, weight: 1.0, mean, variance: 0.0 }
    }

    /// These and newer ones.
    #[must_use]
    pub fn and(self, newer: Self) -> Self {
        let older_weight = self.weight.min((MEMORY - newer.weight).max(0.0));
        let weight = older_weight + newer.weight;
        if weight <= 0.0 {
            return self;
        }
        let share = newer.weight / weight;
        let apart = newer.mean - self.mean;
        Self {
            count: self.count.saturating_add(newer.count),
            weight: weight.min(MEMORY),
            mean: self.mean + share * apart,
            variance: (1.0 - share) * self.variance
                + share * newer.variance
                + share * (1.0 - share) * apart * apart,
        }
    }

    /// How many renders were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The law they suggest, once they are enough to suggest one.
    #[must_use]
    pub fn law(&self) -> Option<Durations> {
        if self.count < LEARNT_AFTER {
            return None;
        }
        let weight = self.weight + PRIOR_WEIGHT;
        let mean = (self.weight * self.mean + PRIOR_WEIGHT * PRIOR_LOG_MEDIAN) / weight;
        let off = self.mean - mean;
        let seen = self.weight * (self.variance + off * off);
        let variance = (seen + PRIOR_WEIGHT * PRIOR_SIGMA * PRIOR_SIGMA) / weight;
        Some(Durations::lognormal(mean, variance.sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: &[f64]) -> Statistics {
        let one = |seconds: &f64| Statistics::of(Duration::from_secs_f64(*seconds));
        seconds.iter().map(one).fold(Statistics::default(), Statistics::and)
    }

    #[test]
    fn statistics_need_twenty_renders() {
        assert_eq!(Statistics::default().law(), None);
        assert_eq!(seen(&[10.0; 19]).law(), None);
        // (20 ln 10 + 5 ln 30) / 25 and the prior's spread, by hand.
        let expected = Durations::lognormal(2.522_31, 0.571_5);
        assert_eq!(seen(&[10.0; 20]).law(), Some(expected));
    }

    #[test]
    fn statistics_merge_like_one_process() {
        let all: Vec<f64> = (1..=60).map(|n| 5.0 + f64::from(n * n % 37)).collect();
        let (left, right) = all.split_at(23);
        let merged = seen(left).and(seen(right));
        let alone = seen(&all);
        assert_eq!(merged.count(), 60);
        assert!((merged.mean - alone.mean).abs() < 1e-9);
        assert!((merged.variance - alone.variance).abs() < 1e-9);
        assert_eq!(merged.law(), alone.law());
    }

    #[test]
    fn statistics_follow_a_faster_provider() {
        let slow = seen(&[300.0; 1_000]);
        let quick = seen(&[300.0; 1_000]).and(seen(&[10.0; 1_000]));
        assert!(slow.law().unwrap().percentile_95() > Duration::from_secs(300));
        assert!(quick.law().unwrap().percentile_95() < Duration::from_secs(25), "{quick:?}");
        assert!(quick.weight <= MEMORY);
    }

    #[test]
    fn statistics_stay_finite_on_bad_input() {
        let stored: Statistics =
            serde_json::from_str(r#"{"count":99,"weight":1e300,"mean":-1e300,"variance":-1.0}"#)
                .unwrap();
        assert!(stored.law().unwrap().hazard(1.0).is_finite());
        assert!(seen(&[0.0, -0.0]).mean.is_finite());
    }
}
