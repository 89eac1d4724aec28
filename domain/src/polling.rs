//! When to poll a provider next: a pure function of the job's age, so nothing is stored between
//! polls and a restart loses nothing.
//!
//! One poll is worth [`POLL_PRICE_S`] seconds of delay. For render durations with hazard `h` the
//! cheapest schedule has the poll density `√(h / 2R)` (Keller's square-root law), so a render is
//! polled most when it is most likely to end. How long a provider's renders take is estimated
//! from finished renders ([`Statistics`]). A job keeps the model of its creation
//! ([`LognormalModel`]): if the model changed during a job's life, some polls would be made twice
//! and others not at all.
//!
//! Without finished renders the schedule is the closed form for a broad prior (a lognormal with
//! median 30 s and sigma 1.2): polls at 2, 4 and 7.5 s, then at intervals of
//! `max(6 s, 1.9 × ∛age)`, which is a backoff. Jitter keeps jobs that were submitted together
//! from being polled together.

mod lognormal;
mod pause;
mod statistics;
mod suspicion;
mod throttle;

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

pub use lognormal::LognormalModel;
pub use pause::{Pause, PauseReason, PollResult, Trouble};
pub use statistics::Statistics;
pub use suspicion::Suspicion;
pub use throttle::{
    Asked, Errand, Evidence, Pardon, ProviderThrottle, SUSPECTS_SHARE, ThrottleDecision,
};

/// How long past its deadline a job that timed out is still asked about, if its provider could
/// not tell of it at the deadline: the render may have completed all the same.
pub const LONGEST_OUTAGE: TimeDelta = TimeDelta::hours(6);

/// How we learn about changes of a render.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracking {
    /// Only polls show changes.
    PollOnly,
    /// The provider calls back; safety polls find the renders whose callback was lost.
    WebhookFirst,
}

/// The times at which one job is polled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PollSchedule {
    /// The shortest interval between two polls.
    pub floor: Duration,
    /// The age at which the first safety poll of a webhook-first job is due, when there is
    /// no model.
    pub safety: Duration,
    /// The age at which polling stops.
    pub deadline: Duration,
    /// The model of how long renders take; none until enough of them were seen.
    pub duration_model: Option<LognormalModel>,
    /// The factor that stretches every interval.
    pub slowdown: Slowdown,
}

/// The factor by which every interval is stretched to keep within a provider's rate limit.
/// Stretching all alike spends the budget where an end is likely, because each job's share
/// follows the square root of its hazard. The factor has steps of √2, so that small changes of
/// demand do not move schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slowdown(u8);

/// The price of one poll, in seconds of delay.
const POLL_PRICE_S: f64 = 0.5;

/// The first intervals without a model, then the bounds of the others, in seconds.
const FIRST_INTERVALS_S: [f64; 3] = [2.0, 2.0, 3.5];
const MIN_INTERVAL_S: f64 = 6.0;
const CUBE_ROOT_FACTOR: f64 = 1.9;
const MAX_INTERVAL_S: f64 = 60.0;

/// The earliest first poll with a model. A model may be wrong, so no later interval is longer
/// than the age either: a wrong model costs a bounded part of the duration.
const MIN_FIRST_POLL_S: f64 = 1.0;

/// The age at a safety poll is this factor of the age at the one before, up to an interval of
/// five minutes.
const SAFETY_GROWTH: f64 = 1.5;
const MAX_SAFETY_INTERVAL_S: f64 = 300.0;
/// The earliest first safety poll with a model, unless the provider's own figure is smaller: a
/// callback may need a few attempts, and few are lost.
const MIN_FIRST_SAFETY_S: f64 = 60.0;

/// The jitter: ages are stretched or shortened by up to this part, so that jobs submitted
/// together are polled apart. Floors and caps hold after it.
const JITTER: f64 = 0.1;

/// The panels of the integration: a part of the age, and a minimum in seconds.
const PANEL: f64 = 0.02;
const MIN_PANEL_S: f64 = 0.02;

impl PollSchedule {
    /// The first age after `age` at which a poll is due. `spread` in `0.0..1.0` comes from the
    /// job's id and keeps jobs submitted together from being polled together.
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

    /// The estimated duration of a poll-only render that a poll at `age` found ended: the middle
    /// between the last two polls.
    #[must_use]
    pub fn duration_of_polled(&self, age: Duration, spread: f64) -> Duration {
        // The poll was made when it was due or a little later.
        let due = self.due_ages(Tracking::PollOnly, spread).take_while(|due| *due <= age);
        let (mut before, mut last) = (Duration::ZERO, Duration::ZERO);
        for due in due {
            (before, last) = (last, due);
        }
        (before + age.max(before)) / 2
    }

    /// The polls per second that a job of this age is due, before any slowdown.
    #[must_use]
    pub fn poll_rate(&self, tracking: Tracking, age: Duration) -> f64 {
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
        let schedule = *self;
        let step = move |(count, age): (usize, f64)| {
            Some((count + 1, age + schedule.interval_s(tracking, age, count, stretch)))
        };
        let deadline = self.deadline;
        std::iter::successors(step((0, 0.0)), move |state| step(*state))
            .map(move |(_, age)| Duration::from_secs_f64(age * stretch))
            .take_while(move |age| *age < deadline)
    }

    /// The interval after the poll at `age`, the `count`th, before jitter.
    fn interval_s(&self, tracking: Tracking, age: f64, count: usize, stretch: f64) -> f64 {
        let slow = self.slowdown.factor();
        let floor = self.floor.as_secs_f64() / stretch;
        let interval = match tracking {
            Tracking::PollOnly => match (self.duration_model, FIRST_INTERVALS_S.get(count)) {
                (Some(duration_model), _) => {
                    return model_interval_s(
                        duration_model,
                        age,
                        slow,
                        floor,
                        MAX_INTERVAL_S / stretch,
                    );
                }
                (None, Some(early)) => slow * early,
                (None, None) => {
                    // Jitter may shorten the shortest interval but not lengthen it: the end of
                    // a short render is found this late at most.
                    let (min, max) = (MIN_INTERVAL_S / stretch.max(1.0), MAX_INTERVAL_S / stretch);
                    slow * (CUBE_ROOT_FACTOR * age.cbrt()).clamp(min, max)
                }
            },
            Tracking::WebhookFirst if count == 0 => slow * self.first_safety_s(),
            Tracking::WebhookFirst => {
                slow * (age * (SAFETY_GROWTH - 1.0)).min(MAX_SAFETY_INTERVAL_S / stretch)
            }
        };
        // The floor is between two polls, so it does not apply to the first.
        if count == 0 { interval } else { interval.max(floor) }
    }

    fn first_safety_s(&self) -> f64 {
        match self.duration_model {
            Some(duration_model) => {
                let usual_end = duration_model.percentile_95().as_secs_f64();
                let min = MIN_FIRST_SAFETY_S.min(self.safety.as_secs_f64());
                usual_end.max(min).min(self.deadline.as_secs_f64())
            }
            None => self.safety.as_secs_f64(),
        }
    }
}

/// The interval after a poll at `age` in which the integral of the poll density reaches one; at
/// least `floor`, and at most the guard and `longest`.
fn model_interval_s(
    duration_model: LognormalModel,
    age: f64,
    slow: f64,
    floor: f64,
    longest: f64,
) -> f64 {
    let first = age <= 0.0;
    let floor = if first { MIN_FIRST_POLL_S } else { floor };
    let guard = if first { duration_model.percentile_1().as_secs_f64() } else { age };
    let limit = slow * longest.min(guard.max(floor)).max(floor);
    let density = |age: f64| (duration_model.hazard(age) / (2.0 * POLL_PRICE_S)).sqrt() / slow;
    let (mut at, end) = (age, age + limit);
    let mut polls = 0.0;
    while at < end {
        let panel = (PANEL * at).max(MIN_PANEL_S).min(end - at);
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
    /// No slowdown: the factor 1.
    pub const NONE: Self = Self(0);

    /// The smallest slowdown under which `demand` polls per second become at most `budget`.
    #[must_use]
    pub fn to_fit(demand: f64, budget: f64) -> Self {
        let steps = (2.0 * (demand / budget).log2()).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let steps = if steps.is_nan() { 0 } else { steps.clamp(0.0, 60.0) as u8 };
        Self(steps)
    }

    /// The number that every interval is multiplied by.
    #[must_use]
    pub fn factor(self) -> f64 {
        (f64::from(self.0) / 2.0).exp2()
    }
}

#[cfg(test)]
mod tests;
