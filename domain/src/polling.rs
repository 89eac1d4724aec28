//! When to ask a provider next. A pure function of the job's age, so nothing is stored
//! between polls and a restart forgets nothing.
//!
//! A poll is worth [`DELAY_PRICE`] seconds of delay. For durations with hazard `h` the
//! schedule that costs least has the density `√(h / 2R)` (Keller's square-root law), so a
//! render is asked about most when it is most likely to end. How long a provider's renders
//! take is learnt ([`Statistics`]) and kept in the job when it is made ([`Durations`]): a law
//! that moved under a job would make its polls come twice or not at all.
//!
//! Without renders to learn from, the law is the closed form for a broad prior (a lognormal
//! with median 30 s and sigma 1.2): 2, 4 and 7.5 s, then intervals of
//! `max(6 s, 1.9 × ∛age)`.

mod durations;
mod pace;
mod statistics;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use durations::Durations;
pub use pace::{Admission, Heard, Pace, Pause};
pub use statistics::Statistics;

/// Who brings the news of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracking {
    /// Only we ask.
    PollOnly,
    /// The provider calls us; polls are the safety net for a lost call.
    WebhookFirst,
}

/// When one job's provider is asked about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PollingLaw {
    /// Never ask more often than this.
    pub floor: Duration,
    /// The age at which the first safety poll of a webhook-first job is due, as long as
    /// nothing better is known.
    pub safety: Duration,
    /// The age at which we stop asking.
    pub deadline: Duration,
    /// How long such renders take, where enough of them were seen.
    pub durations: Option<Durations>,
    /// How much longer every interval is than the law says.
    pub slowdown: Slowdown,
}

/// How much polls are thinned out to keep within a provider's budget: every interval is longer
/// by the same factor, which spends what there is where an end is likely (each job's share
/// goes with the square root of its hazard). In steps of √2, so that small changes of the
/// demand do not move schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slowdown(u8);

/// Seconds of delay that saving one poll is worth.
const DELAY_PRICE: f64 = 0.5;

/// The first intervals without a learnt law, then the bounds of the others.
const FIRST_S: [f64; 3] = [2.0, 2.0, 3.5];
const SHORTEST_S: f64 = 6.0;
const CUBE_ROOT_FACTOR: f64 = 1.9;
const LONGEST_S: f64 = 60.0;

/// A learnt law may be wrong. It is believed only within this: no first poll before a second
/// has passed, and then no interval longer than the age, so that a wrong law costs a bounded
/// part of the duration.
const FIRST_LEARNT_S: f64 = 1.0;

/// Safety polls thin out by this factor of the age, up to five minutes.
const SAFETY_GROWTH: f64 = 1.5;
const LONGEST_SAFETY_S: f64 = 300.0;
/// No learnt safety poll comes sooner, unless the provider's own figure is smaller: a callback
/// may need a few attempts, and few are lost.
const SHORTEST_SAFETY_S: f64 = 60.0;

/// How far ages are stretched, both ways: jobs submitted together are not asked about
/// together. Floors and caps hold after it.
const JITTER: f64 = 0.1;

/// Panels of the integration, as a part of the age and at least so many seconds.
const PANEL: f64 = 0.02;
const SHORTEST_PANEL_S: f64 = 0.02;

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

    /// How long a poll-only render took that a poll found ended at `age`. It ended some time
    /// between the last two polls: the middle.
    #[must_use]
    pub fn duration_of_polled(&self, age: Duration, spread: f64) -> Duration {
        // The poll that found it came at its time or a little later.
        let due = self.due_ages(Tracking::PollOnly, spread).take_while(|due| *due <= age);
        let (mut before, mut last) = (Duration::ZERO, Duration::ZERO);
        for due in due {
            (before, last) = (last, due);
        }
        (before + age.max(before)) / 2
    }

    /// How many polls a second a job of this age asks for, before any slowdown.
    #[must_use]
    pub fn wanted_rate(&self, tracking: Tracking, age: Duration) -> f64 {
        let unslowed = Self { slowdown: Slowdown::NONE, ..*self };
        let age = age.as_secs_f64();
        match tracking {
            Tracking::WebhookFirst if age < unslowed.first_safety_s() => 0.0,
            Tracking::PollOnly | Tracking::WebhookFirst if age >= self.deadline.as_secs_f64() => {
                0.0
            }
            Tracking::PollOnly | Tracking::WebhookFirst => {
                1.0 / unslowed.interval_s(tracking, age, usize::MAX, 1.0)
            }
        }
    }

    fn due_ages(&self, tracking: Tracking, spread: f64) -> impl Iterator<Item = Duration> {
        let stretch = 1.0 + JITTER * (2.0 * spread.clamp(0.0, 1.0) - 1.0);
        let law = *self;
        let step = move |(count, age): (usize, f64)| {
            Some((count + 1, age + law.interval_s(tracking, age, count, stretch)))
        };
        let deadline = self.deadline;
        std::iter::successors(step((0, 0.0)), move |state| step(*state))
            .map(move |(_, age)| Duration::from_secs_f64(age * stretch))
            .take_while(move |age| *age < deadline)
    }

    /// From the poll at `age`, the `count`th, to the next, before everything is stretched.
    fn interval_s(&self, tracking: Tracking, age: f64, count: usize, stretch: f64) -> f64 {
        let slow = self.slowdown.factor();
        let floor = self.floor.as_secs_f64() / stretch;
        let interval = match tracking {
            Tracking::PollOnly => match (self.durations, FIRST_S.get(count)) {
                (Some(durations), _) => {
                    return learnt_interval_s(durations, age, slow, floor, LONGEST_S / stretch);
                }
                (None, Some(early)) => slow * early,
                (None, None) => {
                    // Jitter makes the shortest interval shorter, never longer: it is how late
                    // the end of a short render may be found.
                    let (shortest, longest) = (SHORTEST_S / stretch.max(1.0), LONGEST_S / stretch);
                    slow * (CUBE_ROOT_FACTOR * age.cbrt()).clamp(shortest, longest)
                }
            },
            Tracking::WebhookFirst if count == 0 => slow * self.first_safety_s(),
            Tracking::WebhookFirst => {
                slow * (age * (SAFETY_GROWTH - 1.0)).min(LONGEST_SAFETY_S / stretch)
            }
        };
        // The very first poll may come before the floor: nothing preceded it.
        if count == 0 { interval } else { interval.max(floor) }
    }

    fn first_safety_s(&self) -> f64 {
        match self.durations {
            Some(durations) => {
                let learnt = durations.percentile_95().as_secs_f64();
                let shortest = SHORTEST_SAFETY_S.min(self.safety.as_secs_f64());
                learnt.max(shortest).min(self.deadline.as_secs_f64())
            }
            None => self.safety.as_secs_f64(),
        }
    }
}

/// From a poll at `age` until the hazard has piled up to one poll more; not before `floor`,
/// and within the guard and `longest`.
fn learnt_interval_s(durations: Durations, age: f64, slow: f64, floor: f64, longest: f64) -> f64 {
    let first = age <= 0.0;
    let floor = if first { FIRST_LEARNT_S } else { floor };
    let guard = if first { durations.percentile_1().as_secs_f64() } else { age };
    let limit = slow * longest.min(guard.max(floor)).max(floor);
    let density = |age: f64| (durations.hazard(age) / (2.0 * DELAY_PRICE)).sqrt() / slow;
    let (mut at, end) = (age, age + limit);
    let mut polls = 0.0;
    while at < end {
        let panel = (PANEL * at).max(SHORTEST_PANEL_S).min(end - at);
        let here = density(at + panel / 2.0);
        if polls + here * panel >= 1.0 {
            return (at + (1.0 - polls) / here - age).max(floor);
        }
        polls += here * panel;
        at += panel;
    }
    limit
}

impl Slowdown {
    /// As the law says.
    pub const NONE: Self = Self(0);

    /// The least slowdown under which `wanted` polls a second become at most `budget`.
    #[must_use]
    pub fn to_fit(wanted: f64, budget: f64) -> Self {
        let steps = (2.0 * (wanted / budget).log2()).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let steps = if steps.is_nan() { 0 } else { steps.clamp(0.0, 60.0) as u8 };
        Self(steps)
    }

    /// What every interval is multiplied by.
    #[must_use]
    pub fn factor(self) -> f64 {
        (f64::from(self.0) / 2.0).exp2()
    }
}

#[cfg(test)]
mod tests;
