//! When a provider may be asked at all, whichever job it is about: its budget, its
//! `Retry-After`, and a circuit breaker for when it is down.
//!
//! Kept in memory by whoever holds a shard's lease. Over a sleep the lease keeps the pauses,
//! and the wake-up call how often a provider has failed that is not paused yet.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// How many failures in a row make a provider down, and not merely one render's trouble.
const DOWN_AFTER: u32 = 3;

/// The first pause of a provider that is down, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The least that is made of a `Retry-After`.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// How many seconds of an unused budget may be spent at once.
const BURST_S: f64 = 5.0;

/// What a provider said when it was asked, as far as the next question to it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something about the render.
    Answer,
    /// Nothing was asked.
    Nothing,
    /// That it is asked too much; and how long it wants to be left alone, where it says so.
    TooMuch(Option<Duration>),
    /// Nothing, or nothing but trouble; and how long it wants to be left alone.
    Trouble(Option<Duration>),
}

/// One provider's pace in one shard.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Questions a second, where there is a budget.
    budget: Option<f64>,
    saved: f64,
    saved_at: DateTime<Utc>,
    failures: u32,
    pause: Option<(DateTime<Utc>, DateTime<Utc>)>,
    probing: bool,
}

/// A pause that outlives the holder's sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Polls that were due since then were not made.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub since: DateTime<Utc>,
    /// When the provider may be asked again.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub until: DateTime<Utc>,
    /// How many failures in a row led to it.
    pub failures: u32,
}

/// Whether a provider may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes, once.
    Now,
    /// Not before.
    NotBefore(DateTime<Utc>),
    /// When it is known what came of the question that is under way.
    AfterProbe,
}

impl Pace {
    /// A provider that nothing is known against. `budget` is in questions a second.
    #[must_use]
    pub fn new(budget: Option<f64>, now: DateTime<Utc>) -> Self {
        let saved = most_saved(budget);
        Self { budget, saved, saved_at: now, failures: 0, pause: None, probing: false }
    }

    /// A provider that was being left alone.
    #[must_use]
    pub fn resumed(budget: Option<f64>, pause: Pause, now: DateTime<Utc>) -> Self {
        Self {
            failures: pause.failures,
            pause: Some((pause.since, pause.until)),
            ..Self::new(budget, now)
        }
    }

    /// A provider that has failed so often in a row, and is asked all the same.
    #[must_use]
    pub fn failed(budget: Option<f64>, failures: u32, now: DateTime<Utc>) -> Self {
        Self { failures: failures.min(DOWN_AFTER - 1), ..Self::new(budget, now) }
    }

    /// Whether the provider may be asked, and takes the question from its budget if so. After
    /// a pause one question goes ahead of the others.
    pub fn admit(&mut self, now: DateTime<Utc>) -> Admission {
        match self.pause {
            Some((_, until)) if now < until => return Admission::NotBefore(until),
            Some(_) if self.probing => return Admission::AfterProbe,
            Some(_) | None => {}
        }
        if let Some(budget) = self.budget {
            let passed = (now - self.saved_at).to_std().unwrap_or_default().as_secs_f64();
            self.saved = (self.saved + passed * budget).min(most_saved(self.budget));
            self.saved_at = now;
            if self.saved < 1.0 {
                return Admission::NotBefore(after(now, (1.0 - self.saved) / budget));
            }
            self.saved -= 1.0;
        }
        self.probing = self.pause.is_some();
        Admission::Now
    }

    /// Takes what came of a question.
    pub fn hear(&mut self, heard: Heard, now: DateTime<Utc>) {
        let is_paused = self.pause.is_some_and(|(_, until)| now < until);
        let wait = match heard {
            Heard::Nothing => {
                self.probing = false;
                return;
            }
            // From a question that was asked before the pause; what a provider asked for
            // holds all the same.
            Heard::Answer if is_paused => return,
            Heard::Answer => {
                (self.failures, self.pause, self.probing) = (0, None, false);
                return;
            }
            // Some round down to nothing, and mean a moment.
            Heard::TooMuch(Some(wait)) | Heard::Trouble(Some(wait)) => wait.max(SHORTEST_WAIT),
            // One outage is one, however many questions it met.
            Heard::TooMuch(None) | Heard::Trouble(None) if is_paused => return,
            Heard::TooMuch(None) => doubled(self.failures),
            Heard::Trouble(None) if self.pause.is_none() && self.failures + 1 < DOWN_AFTER => {
                self.failures += 1;
                return;
            }
            Heard::Trouble(None) => doubled((self.failures + 1).saturating_sub(DOWN_AFTER)),
        };
        if !is_paused {
            self.failures = self.failures.saturating_add(1);
        }
        self.probing = false;
        let until = now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::days(1));
        self.pause = Some(match self.pause {
            Some((since, before)) => (since, before.max(until)),
            None => (now, until),
        });
    }

    /// Whether the provider is down, as far as is known, and not only slow about one render.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }

    /// How often in a row it has failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What a successor has to know.
    #[must_use]
    pub fn pause(&self) -> Option<Pause> {
        self.pause.map(|(since, until)| Pause { since, until, failures: self.failures })
    }
}

fn most_saved(budget: Option<f64>) -> f64 {
    budget.map_or(1.0, |budget| (budget * BURST_S).max(1.0))
}

fn doubled(times: u32) -> Duration {
    let factor = 2_u32.checked_pow(times).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// Rounded up to the millisecond, or the wait could end a moment too early.
fn after(now: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    let wait = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_PAUSE);
    now + wait + Duration::from_millis(1)
}

#[cfg(test)]
mod tests;
