//! The circuit breaker of an endpoint: after failures in a row, and for a while, nothing is
//! sent to it but one probe at a time, ever more rarely.

use chrono::{DateTime, TimeDelta, Utc};

use super::failing::Failing;

/// How many failures in a row open the breaker. A receiver that is being deployed, or loses
/// a database for a second, fails a few times and is left in peace.
const FAILURES_TO_OPEN: u32 = 5;

/// How old the first of them must be. A success ends the row only where it is known that
/// there is one, and a process may go by what it read a second ago: failures of one moment
/// are in a row even while most attempts succeed. After two seconds everybody has read of
/// them, and the next success would have ended it.
const OLD_ENOUGH: TimeDelta = TimeDelta::seconds(2);

/// How long the breaker is open at first. A restart is over by then.
const FIRST: TimeDelta = TimeDelta::minutes(1);

/// How long it is open at most. With the [spread](SPREAD) a quarter of an hour, which is what
/// a queue message can be delayed, and the most that a delivery alone at a dead endpoint is
/// late.
const LONGEST: TimeDelta = TimeDelta::minutes(10);

/// Over which share of the open time those that are held come back afterwards: the first is
/// the probe, and the others learn from it instead of queueing up behind it.
const SPREAD: f64 = 0.5;

/// Whether anything is sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Everything.
    Closed,
    /// Nothing; afterwards one probe.
    Open {
        /// Until when.
        until: DateTime<Utc>,
        /// How many probes failed since it opened.
        round: u8,
    },
    /// Nothing but the probe that is under way.
    HalfOpen {
        /// When the probe must be over, or have crashed.
        until: DateTime<Utc>,
        /// How many probes failed before.
        round: u8,
    },
}

impl Breaker {
    /// Until when an attempt that arrives now is held; none when it may be made, as the probe
    /// if the breaker is not closed. Spread over time by `luck`.
    pub(super) fn held_until(self, luck: f64, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Closed => None,
            Self::Open { until, round } | Self::HalfOpen { until, round } => {
                (until > now).then(|| until + share(period(round), SPREAD * luck))
            }
        }
    }

    /// The breaker after one more failure than those before, and whether the failure counts.
    /// Those of attempts that began before the breaker opened do not; nor do those that would
    /// open it but for their age: a crowd of them is not written one by one. `probe` is the
    /// end of the lease that the attempt was made under.
    pub(super) fn after_failure(
        self,
        before: Failing,
        probe: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> (Self, bool) {
        let enough = before.failures.saturating_add(1) >= FAILURES_TO_OPEN;
        // A first failure in the future is one by another clock. Clocks that disagree by more
        // than the age that is asked for make the breaker open early, never late.
        let old = (now - before.since).abs() >= OLD_ENOUGH;
        match self {
            Self::Closed if enough && old => {
                (Self::Open { until: now + period(0), round: 0 }, true)
            }
            Self::Closed => (self, !enough),
            Self::HalfOpen { until, round } if probe == Some(until) => {
                let round = round.saturating_add(1);
                (Self::Open { until: now + period(round), round }, true)
            }
            Self::Open { .. } | Self::HalfOpen { .. } => (self, false),
        }
    }
}

/// How long the breaker is open after so many failed probes: twice as long each time.
fn period(round: u8) -> TimeDelta {
    let factor = 1_i32.checked_shl(round.into()).filter(|factor| *factor > 0).unwrap_or(i32::MAX);
    FIRST.checked_mul(factor).unwrap_or(LONGEST).min(LONGEST)
}

fn share(of: TimeDelta, part: f64) -> TimeDelta {
    let whole = of.to_std().unwrap_or_default();
    TimeDelta::from_std(whole.mul_f64(part.clamp(0.0, 1.0))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::noon;

    #[test]
    fn breaker_open_time_doubles_to_ten_minutes() {
        let minutes: Vec<i64> = (0..6).map(|round| period(round).num_minutes()).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 10, 10]);
        assert_eq!(period(u8::MAX), LONGEST);
        for luck in [0.0, 0.5, 1.0] {
            let until = noon() + LONGEST;
            let held = Breaker::Open { until, round: 200 }.held_until(luck, noon()).unwrap();
            assert!(held >= until && held - noon() <= TimeDelta::minutes(15), "{luck}");
        }
    }
}
