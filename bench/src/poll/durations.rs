//! How long the renders of a law take, and what a schedule of polls makes of them.
//!
//! Nothing is drawn by lot: a law is cut into so many slices of its logarithm, each with the
//! share of the renders that it has, so that a figure is the expected one.

use domain::polling::Durations;

/// Slices of one hump, over so many standard deviations both ways.
const SLICES: u32 = 4_000;
const REACH: f64 = 6.0;

/// One hump: median in seconds, and the standard deviation of the logarithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hump {
    /// Of all renders.
    pub(crate) share: f64,
    pub(crate) median: f64,
    pub(crate) sigma: f64,
}

/// A law of durations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Law {
    pub(crate) name: &'static str,
    pub(crate) humps: &'static [Hump],
}

/// What a schedule costs a job, on average.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Price {
    pub(crate) polls: f64,
    /// Seconds from a render's end to the poll that finds it.
    pub(crate) delay: f64,
}

impl Price {
    /// This and another's, by its share.
    pub(crate) fn add(&mut self, other: Self, share: f64) {
        self.polls += share * other.polls;
        self.delay += share * other.delay;
    }
}

impl Law {
    /// The mean duration in seconds.
    pub(crate) fn mean(&self) -> f64 {
        self.humps.iter().map(|it| it.share * it.median * (it.sigma * it.sigma / 2.0).exp()).sum()
    }

    /// How far schedules have to reach.
    pub(crate) fn horizon(&self) -> f64 {
        (12.0 * self.mean()).max(1_800.0)
    }

    /// The lognormal law with the same mean and variance of the logarithm: what is learnt of
    /// very many renders.
    pub(crate) fn learnt_in_the_end(&self) -> Durations {
        let mean: f64 = self.humps.iter().map(|it| it.share * it.median.ln()).sum();
        let spread = |it: &Hump| it.sigma * it.sigma + (it.median.ln() - mean).powi(2);
        let variance: f64 = self.humps.iter().map(|it| it.share * spread(it)).sum();
        Durations::lognormal(mean, variance.sqrt())
    }

    /// Durations, each with the share of all renders that take about so long.
    fn renders(&self) -> impl Iterator<Item = (f64, f64)> {
        let slice = 2.0 * REACH / f64::from(SLICES);
        self.humps.iter().flat_map(move |hump| {
            (0..SLICES).map(move |number| {
                let z = (f64::from(number) + 0.5) * slice - REACH;
                let share = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * slice;
                (hump.median * (hump.sigma * z).exp(), hump.share * share)
            })
        })
    }

    /// What polls at these ages cost. A render that outlives them all is found by the last.
    pub(crate) fn price(&self, ages: &[f64]) -> Price {
        let mut price = Price::default();
        for (duration, share) in self.renders() {
            let before = ages.partition_point(|age| *age < duration);
            let found = before.min(ages.len().saturating_sub(1));
            let Some(age) = ages.get(found) else { continue };
            let polls = u32::try_from(found + 1).unwrap_or(u32::MAX);
            let delay = (age - duration).max(0.0);
            price.add(Price { polls: polls.into(), delay }, share);
        }
        price
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: Law = Law { name: "one", humps: &[Hump { share: 1.0, median: 77.4, sigma: 0.55 }] };

    #[test]
    fn fixed_intervals_have_known_cost() {
        let ages: Vec<f64> = (1..1_000).map(|number| f64::from(number) * 5.0).collect();
        let Price { polls, delay } = LAW.price(&ages);
        // Half an interval late, and the mean over the interval in polls, and that half.
        assert!((delay - 2.5).abs() < 0.01, "{delay}");
        assert!((polls - (LAW.mean() / 5.0 + 0.5)).abs() < 0.01, "{polls}");
    }

    #[test]
    fn all_renders_are_present() {
        let all: f64 = LAW.renders().map(|(_, share)| share).sum();
        assert!((all - 1.0).abs() < 1e-6, "{all}");
        let mean: f64 = LAW.renders().map(|(duration, share)| duration * share).sum();
        assert!((mean - LAW.mean()).abs() < 0.01, "{mean}");
    }
}
