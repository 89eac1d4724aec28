//! Mean and variance of the durations of a provider's finished renders.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LognormalModel;

/// The prior for a provider before its first render: median 30 s, sigma 1.2, and the number of
/// renders that it weighs.
const PRIOR_LOG_MEDIAN: f64 = 3.401_197_4;
const PRIOR_SIGMA: f64 = 1.2;
const PRIOR_WEIGHT: f64 = 5.0;

/// The number of finished renders that a model needs.
const MIN_RENDERS: u64 = 20;

/// The weight of all renders together, at most: older ones count less, as providers change.
const MAX_WEIGHT: f64 = 200.0;

/// Weighted mean and variance of the logarithms of durations; the latest ones weigh most. Values
/// of several processes can be merged in any order and grouping, with nearly the same result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// The number of all renders ever seen.
    count: u64,
    /// The weight of the renders, at most [`MAX_WEIGHT`].
    weight: f64,
    mean: f64,
    variance: f64,
}

impl Statistics {
    /// The statistics of a single render.
    #[must_use]
    pub fn single(duration: Duration) -> Self {
        // With a clock that goes backwards the logarithm would be minus infinity.
        let mean = duration.as_secs_f64().max(0.1).ln();
        Self { count: 1, weight: 1.0, mean, variance: 0.0 }
    }

    /// These statistics merged with newer ones.
    #[must_use]
    pub fn merge(self, newer: Self) -> Self {
        let older_weight = self.weight.min((MAX_WEIGHT - newer.weight).max(0.0));
        let weight = older_weight + newer.weight;
        if weight <= 0.0 {
            return self;
        }
        let share = newer.weight / weight;
        let difference = newer.mean - self.mean;
        Self {
            count: self.count.saturating_add(newer.count),
            weight: weight.min(MAX_WEIGHT),
            mean: self.mean + share * difference,
            variance: (1.0 - share) * self.variance
                + share * newer.variance
                + share * (1.0 - share) * difference * difference,
        }
    }

    /// The number of renders ever seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The model of durations; none before [`MIN_RENDERS`] renders were seen.
    #[must_use]
    pub fn model(&self) -> Option<LognormalModel> {
        if self.count < MIN_RENDERS {
            return None;
        }
        let weight = self.weight + PRIOR_WEIGHT;
        let mean = (self.weight * self.mean + PRIOR_WEIGHT * PRIOR_LOG_MEDIAN) / weight;
        let off = self.mean - mean;
        let seen = self.weight * (self.variance + off * off);
        let variance = (seen + PRIOR_WEIGHT * PRIOR_SIGMA * PRIOR_SIGMA) / weight;
        Some(LognormalModel::new(mean, variance.sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: &[f64]) -> Statistics {
        let one = |seconds: &f64| Statistics::single(Duration::from_secs_f64(*seconds));
        seconds.iter().map(one).fold(Statistics::default(), Statistics::merge)
    }

    #[test]
    fn statistics_need_twenty_renders() {
        assert_eq!(Statistics::default().model(), None);
        assert_eq!(seen(&[10.0; 19]).model(), None);
        // (20 ln 10 + 5 ln 30) / 25 and the prior's spread, by hand.
        let expected = LognormalModel::new(2.522_31, 0.571_5);
        assert_eq!(seen(&[10.0; 20]).model(), Some(expected));
    }

    #[test]
    fn statistics_merge_like_one_process() {
        let all: Vec<f64> = (1..=60).map(|n| 5.0 + f64::from(n * n % 37)).collect();
        let (left, right) = all.split_at(23);
        let merged = seen(left).merge(seen(right));
        let alone = seen(&all);
        assert_eq!(merged.count(), 60);
        assert!((merged.mean - alone.mean).abs() < 1e-9);
        assert!((merged.variance - alone.variance).abs() < 1e-9);
        assert_eq!(merged.model(), alone.model());
    }

    #[test]
    fn statistics_follow_a_faster_provider() {
        let slow = seen(&[300.0; 1_000]);
        let quick = seen(&[300.0; 1_000]).merge(seen(&[10.0; 1_000]));
        assert!(slow.model().unwrap().percentile_95() > Duration::from_secs(300));
        assert!(quick.model().unwrap().percentile_95() < Duration::from_secs(25), "{quick:?}");
        assert!(quick.weight <= MAX_WEIGHT);
    }

    #[test]
    fn statistics_stay_finite_on_bad_input() {
        let stored: Statistics =
            serde_json::from_str(r#"{"count":99,"weight":1e300,"mean":-1e300,"variance":-1.0}"#)
                .unwrap();
        assert!(stored.model().unwrap().hazard(1.0).is_finite());
        assert!(seen(&[0.0, -0.0]).mean.is_finite());
    }
}
