//! The model of how long renders of one provider take: a lognormal distribution. Its parameters
//! are rounded so that a job keeps them in a few bytes and no schedule changes noticeably.

use std::f64::consts::{PI, SQRT_2};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The steps per unit of the median's logarithm: a step is 2 % of the median.
const MEDIAN_STEPS: f64 = 50.0;
/// The steps per unit of sigma.
const SIGMA_STEPS: f64 = 100.0;
/// The range of sigma. Below it all polls would be at one instant; above it the distribution
/// says nothing.
const SIGMA: (f64, f64) = (0.05, 3.0);
/// The range of the median: a tenth of a second to 28 hours, as logarithms.
const LOG_MEDIAN: (f64, f64) = (-2.3, 11.5);

/// The 95 % quantile of the standard normal distribution.
const Z_95: f64 = 1.644_853_6;
/// The 1 % quantile of the standard normal distribution.
const Z_1: f64 = -2.326_347_9;
/// Beyond this many sigmas the leading term of the tail is exact to a quarter of a percent, and
/// `erfc` soon underflows.
const FAR_TAIL: f64 = 20.0;

/// A lognormal distribution of render durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(i16, u16)", into = "(i16, u16)")]
pub struct LognormalModel {
    log_median: i16,
    sigma: u16,
}

impl LognormalModel {
    /// The distribution with this mean and standard deviation of the natural logarithm of the
    /// duration in seconds, each clamped to its range.
    #[must_use]
    pub fn new(log_median: f64, sigma: f64) -> Self {
        Self {
            log_median: steps(log_median, LOG_MEDIAN, MEDIAN_STEPS),
            sigma: steps(sigma, SIGMA, SIGMA_STEPS).unsigned_abs(),
        }
    }

    /// The duration that 1 % of all renders are shorter than.
    #[must_use]
    pub fn percentile_1(self) -> Duration {
        self.quantile(Z_1)
    }

    /// The duration that 95 % of all renders are shorter than.
    #[must_use]
    pub fn percentile_95(self) -> Duration {
        self.quantile(Z_95)
    }

    /// How likely a render of this age is to end in the next second, given that it has not
    /// ended yet: the hazard, per second.
    #[must_use]
    pub fn hazard(self, age_s: f64) -> f64 {
        if age_s <= 0.0 {
            return 0.0;
        }
        let sigma = self.sigma();
        let z = (age_s.ln() - self.log_median()) / sigma;
        if z > FAR_TAIL {
            return z / (sigma * age_s);
        }
        let density = (-z * z / 2.0).exp() / (2.0 * PI).sqrt();
        let survival = 0.5 * libm::erfc(z / SQRT_2);
        density / (sigma * age_s * survival)
    }

    fn quantile(self, z: f64) -> Duration {
        Duration::from_secs_f64((self.log_median() + z * self.sigma()).exp())
    }

    fn log_median(self) -> f64 {
        f64::from(self.log_median) / MEDIAN_STEPS
    }

    fn sigma(self) -> f64 {
        f64::from(self.sigma) / SIGMA_STEPS
    }
}

/// Reads the two rounded parameters as a job keeps them, clamped to their ranges.
impl From<(i16, u16)> for LognormalModel {
    fn from((log_median, sigma): (i16, u16)) -> Self {
        Self::new(f64::from(log_median) / MEDIAN_STEPS, f64::from(sigma) / SIGMA_STEPS)
    }
}

impl From<LognormalModel> for (i16, u16) {
    fn from(model: LognormalModel) -> Self {
        (model.log_median, model.sigma)
    }
}

/// The nearest whole step within the range; the middle of the range for NaN.
fn steps(value: f64, (min, max): (f64, f64), steps: f64) -> i16 {
    let value = if value.is_nan() { f64::midpoint(min, max) } else { value };
    #[expect(clippy::cast_possible_truncation, reason = "the ranges are far inside of i16's")]
    let whole = (value.clamp(min, max) * steps).round() as i16;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) -> bool {
        (value / expected - 1.0).abs() < 0.01
    }

    /// Against numbers of an independent implementation (Python's `math.erfc`).
    #[test]
    fn durations_hazard_matches_reference() {
        let model = LognormalModel::new(77.4_f64.ln(), 0.55);
        let median = model.quantile(0.0).as_secs_f64();
        assert!(near(median, 77.4), "{median}");
        for (age, hazard) in
            [(20.0, 0.001_769_9), (77.4, 0.018_743), (200.0, 0.019_390), (2_000.0, 0.005_521_1)]
        {
            let found = model.hazard(age);
            assert!((found / hazard - 1.0).abs() < 0.05, "{age}: {found}");
        }
        assert_eq!(model.hazard(0.0), 0.0);
    }

    #[test]
    fn durations_hazard_is_continuous_in_tail() {
        let narrow = LognormalModel::new(0.0, 0.05);
        let [before, after] = [19.9, 20.1].map(|z: f64| narrow.hazard((0.05 * z).exp()));
        assert!((after / before - 1.0).abs() < 0.02, "{before} {after}");
        assert!(narrow.hazard(1e9).is_finite());
    }

    #[test]
    fn durations_quantiles_match_reference() {
        let model = LognormalModel::new(0.0, 1.0);
        assert!(near(model.percentile_95().as_secs_f64(), 5.180));
        assert!(near(model.percentile_1().as_secs_f64(), 0.0977));
    }

    #[test]
    fn durations_clamp_bad_parameters() {
        for (log_median, sigma) in [(f64::NAN, f64::NAN), (f64::INFINITY, -1.0), (-1e9, 1e9)] {
            let model = LognormalModel::new(log_median, sigma);
            assert!(model.hazard(10.0).is_finite());
            let kept = serde_json::to_string(&model).unwrap();
            assert_eq!(serde_json::from_str::<LognormalModel>(&kept).unwrap(), model, "{kept}");
        }
        let wild: LognormalModel = serde_json::from_str("[32767, 65535]").unwrap();
        assert_eq!(wild, LognormalModel::new(11.5, 3.0));
    }
}
