//! Distributions of render durations, and the cost of poll schedules for them.
//!
//! Nothing is random: a distribution is cut into slices of its logarithm, each weighted with its
//! share of the renders, so the figures are expected values.

use domain::polling::LognormalModel;

/// The number of slices of one mode, over this many standard deviations on both sides.
const SLICES: u32 = 4_000;
const REACH: f64 = 6.0;

/// One mode: the median in seconds, and the standard deviation of the logarithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// The share of all renders.
    pub(crate) share: f64,
    pub(crate) median: f64,
    pub(crate) sigma: f64,
}

/// A distribution of durations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DurationDistribution {
    pub(crate) name: &'static str,
    pub(crate) modes: &'static [Mode],
}

/// The average cost of a schedule for a job.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScheduleCost {
    pub(crate) polls: f64,
    /// The seconds from the end of a render to the poll that finds it.
    pub(crate) delay: f64,
}

impl ScheduleCost {
    /// The sum with another cost, weighted by its share.
    pub(crate) fn add(&mut self, other: Self, share: f64) {
        self.polls += share * other.polls;
        self.delay += share * other.delay;
    }
}

impl DurationDistribution {
    /// The mean duration in seconds.
    pub(crate) fn mean(&self) -> f64 {
        self.modes.iter().map(|it| it.share * it.median * (it.sigma * it.sigma / 2.0).exp()).sum()
    }

    /// The age that schedules have to reach.
    pub(crate) fn horizon(&self) -> f64 {
        (12.0 * self.mean()).max(1_800.0)
    }

    /// The lognormal distribution with the same mean and variance of the logarithm, which a model
    /// approaches with many renders.
    pub(crate) fn limit_model(&self) -> LognormalModel {
        let mean: f64 = self.modes.iter().map(|it| it.share * it.median.ln()).sum();
        let spread = |it: &Mode| it.sigma * it.sigma + (it.median.ln() - mean).powi(2);
        let variance: f64 = self.modes.iter().map(|it| it.share * spread(it)).sum();
        LognormalModel::new(mean, variance.sqrt())
    }

    /// Render durations, each with its share of all renders.
    fn renders(&self) -> impl Iterator<Item = (f64, f64)> {
        let slice = 2.0 * REACH / f64::from(SLICES);
        self.modes.iter().flat_map(move |mode| {
            (0..SLICES).map(move |number| {
                let z = (f64::from(number) + 0.5) * slice - REACH;
                let share = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * slice;
                (mode.median * (mode.sigma * z).exp(), mode.share * share)
            })
        })
    }

    /// The cost of polls at these ages. The last poll finds a render that takes longer than all of
    /// them.
    pub(crate) fn cost(&self, ages: &[f64]) -> ScheduleCost {
        let mut cost = ScheduleCost::default();
        for (duration, share) in self.renders() {
            let before = ages.partition_point(|age| *age < duration);
            let found = before.min(ages.len().saturating_sub(1));
            let Some(age) = ages.get(found) else { continue };
            let polls = u32::try_from(found + 1).unwrap_or(u32::MAX);
            let delay = (age - duration).max(0.0);
            cost.add(ScheduleCost { polls: polls.into(), delay }, share);
        }
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISTRIBUTION: DurationDistribution = DurationDistribution {
        name: "one",
        modes: &[Mode { share: 1.0, median: 77.4, sigma: 0.55 }],
    };

    #[test]
    fn fixed_intervals_have_known_cost() {
        let ages: Vec<f64> = (1..1_000).map(|number| f64::from(number) * 5.0).collect();
        let ScheduleCost { polls, delay } = DISTRIBUTION.cost(&ages);
        // The mean delay is half an interval.
        assert!((delay - 2.5).abs() < 0.01, "{delay}");
        assert!((polls - (DISTRIBUTION.mean() / 5.0 + 0.5)).abs() < 0.01, "{polls}");
    }

    #[test]
    fn all_renders_are_present() {
        let all: f64 = DISTRIBUTION.renders().map(|(_, share)| share).sum();
        assert!((all - 1.0).abs() < 1e-6, "{all}");
        let mean: f64 = DISTRIBUTION.renders().map(|(duration, share)| duration * share).sum();
        assert!((mean - DISTRIBUTION.mean()).abs() < 0.01, "{mean}");
    }
}
