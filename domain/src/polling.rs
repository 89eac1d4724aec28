//! When to ask a provider next. A pure function of the job's age, so nothing is stored
//! between polls and a restart forgets nothing.
//!
//! Without renders to learn from, the law is the closed form for a broad prior (a
//! lognormal with median 30 s and sigma 1.2): the square root of the hazard sets the
//! density of polls. That gives 2, 4 and 7.5 s, then intervals of
//! `max(6 s, 1.9 × ∛age)`, clamped between the provider's floor and a minute.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Who brings the news of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracking {
    /// Only we ask.
    PollOnly,
    /// The provider calls us; polls are the safety net for a lost call.
    WebhookFirst,
}

/// What a provider's spec says about being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollingLaw {
    /// Never ask more often than this.
    pub floor: Duration,
    /// The age at which the first safety poll of a webhook-first job is due.
    pub safety: Duration,
    /// The age at which we stop asking.
    pub deadline: Duration,
}

const FIRST: [f64; 3] = [2.0, 4.0, 7.5];
const SHORTEST_S: f64 = 6.0;
const LONGEST_S: f64 = 60.0;
const CUBE_ROOT_FACTOR: f64 = 1.9;
/// Safety polls thin out by this factor, up to [`LONGEST_S`] × 5.
const SAFETY_GROWTH: f64 = 1.5;
/// Spread of jobs over time, only ever later, so that no floor is undercut.
const JITTER: f64 = 0.1;

impl PollingLaw {
    /// The first age after `age` at which the job is due. `spread` in `0.0..1.0` comes from
    /// the job's id and keeps jobs submitted together from being asked about together.
    #[must_use]
    pub fn next_after(&self, tracking: Tracking, age: Duration, spread: f64) -> Duration {
        self.due_ages(tracking, spread).find(|due| *due > age).unwrap_or(self.deadline)
    }

    /// How many polls were due up to and including `age`.
    #[must_use]
    pub fn count_until(&self, tracking: Tracking, age: Duration, spread: f64) -> u32 {
        let count = self.due_ages(tracking, spread).take_while(|due| *due <= age).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn due_ages(&self, tracking: Tracking, spread: f64) -> impl Iterator<Item = Duration> {
        let stretch = 1.0 + JITTER * spread.clamp(0.0, 1.0);
        let floor = self.floor.as_secs_f64();
        let safety = self.safety.as_secs_f64();
        let step = move |(count, age): (usize, f64)| {
            let interval = match tracking {
                Tracking::PollOnly => match FIRST.get(count) {
                    Some(early) => early - age,
                    None => (CUBE_ROOT_FACTOR * age.cbrt()).clamp(SHORTEST_S, LONGEST_S),
                },
                Tracking::WebhookFirst if count == 0 => safety,
                Tracking::WebhookFirst => (age * (SAFETY_GROWTH - 1.0)).min(LONGEST_S * 5.0),
            };
            // The very first poll may come before the floor: nothing preceded it.
            let interval = if count == 0 { interval } else { interval.max(floor) };
            Some((count + 1, age + interval))
        };
        let deadline = self.deadline;
        std::iter::successors(step((0, 0.0)), move |state| step(*state))
            .map(move |(_, age)| Duration::from_secs_f64(age * stretch))
            .take_while(move |age| *age < deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: PollingLaw = PollingLaw {
        floor: Duration::from_secs(1),
        safety: Duration::from_secs(120),
        deadline: Duration::from_secs(1800),
    };

    fn ages(law: PollingLaw, tracking: Tracking, spread: f64, count: usize) -> Vec<f64> {
        let mut age = Duration::ZERO;
        let mut all = Vec::new();
        for _ in 0..count {
            age = law.next_after(tracking, age, spread);
            all.push((age.as_secs_f64() * 10.0).round() / 10.0);
        }
        all
    }

    #[test]
    fn a_poll_only_job_is_first_asked_about_two_seconds_after_submit() {
        assert_eq!(
            ages(LAW, Tracking::PollOnly, 0.0, 8),
            [2.0, 4.0, 7.5, 13.5, 19.5, 25.5, 31.5, 37.5]
        );
    }

    #[test]
    fn intervals_grow_with_the_cube_root_of_age() {
        let long = PollingLaw { deadline: Duration::from_secs(100_000), ..LAW };
        let age = Duration::from_secs(1000);
        let first = long.next_after(Tracking::PollOnly, age, 0.0);
        let second = long.next_after(Tracking::PollOnly, first, 0.0);
        let interval = (second - first).as_secs_f64();
        assert!((interval - 1.9 * first.as_secs_f64().cbrt()).abs() < 0.01, "{interval}");
    }

    #[test]
    fn no_floor_is_undercut_and_jitter_only_adds() {
        let slow = PollingLaw { floor: Duration::from_secs(5), ..LAW };
        for spread in [0.0, 0.5, 0.99] {
            let ages = ages(slow, Tracking::PollOnly, spread, 20);
            assert!(ages.windows(2).all(|w| w[1] - w[0] >= 4.9), "{ages:?}");
            assert!(ages[0] >= 2.0);
        }
    }

    #[test]
    fn a_webhook_first_job_is_asked_about_late_and_rarely() {
        assert_eq!(ages(LAW, Tracking::WebhookFirst, 0.0, 4), [120.0, 180.0, 270.0, 405.0]);
    }

    #[test]
    fn the_deadline_ends_it() {
        let last = LAW.next_after(Tracking::PollOnly, Duration::from_secs(1799), 0.0);
        assert_eq!(last, LAW.deadline);
    }

    #[test]
    fn the_count_is_that_of_the_due_polls() {
        let count =
            |seconds| LAW.count_until(Tracking::PollOnly, Duration::from_secs(seconds), 0.0);
        assert_eq!([count(0), count(2), count(5), count(20)], [0, 1, 2, 5]);
    }
}
