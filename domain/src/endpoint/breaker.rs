//! The circuit breaker of an endpoint. After failures in a row it opens: attempts are held, and
//! one probe at a time is made (half-open), at intervals that double (exponential backoff).

use chrono::{DateTime, TimeDelta, Utc};

use super::failing::Failing;

/// The number of failures in a row that opens the breaker. A receiver that is being deployed, or
/// loses its database for a second, fails less often.
const FAILURES_TO_OPEN: u32 = 5;

/// The least age of the first of these failures. Processes cache the endpoint for a second, and
/// a process that does not know of the failures does not record its successes. So failures of
/// one moment can be in a row although most attempts succeed. After two seconds every process
/// knows of them, and a success would have been recorded.
const MIN_FAILING_TIME: TimeDelta = TimeDelta::seconds(2);

/// The first open time. A restart of the receiver takes less.
const FIRST_OPEN_TIME: TimeDelta = TimeDelta::minutes(1);

/// The longest open time. With the [spread](SPREAD) it is a quarter of an hour, the longest delay
/// of a queue message.
const MAX_OPEN_TIME: TimeDelta = TimeDelta::minutes(10);

/// The jitter of held attempts, as a share of the open time. The first that comes back is the
/// probe, and the others mostly come after its outcome.
const SPREAD: f64 = 0.5;

/// Whether anything is sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// All attempts are made.
    Closed,
    /// All attempts are held until `until`; then one probe is made.
    Open {
        /// The end of the open time.
        until: DateTime<Utc>,
        /// The number of probes that failed since the breaker opened.
        round: u8,
    },
    /// All attempts are held except the probe, which is in flight.
    HalfOpen {
        /// The end of the probe's lease. A probe that is not over by then has crashed.
        until: DateTime<Utc>,
        /// The number of probes that failed before this one.
        round: u8,
    },
}

impl Breaker {
    /// Until when an attempt is held, with jitter by `jitter_sample`; none when it may be made,
    /// as the probe if the breaker is not closed.
    pub(super) fn held_until(
        self,
        jitter_sample: f64,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        match self {
            Self::Closed => None,
            Self::Open { until, round } | Self::HalfOpen { until, round } => {
                (until > now).then(|| until + part_of(open_time(round), SPREAD * jitter_sample))
            }
        }
    }

    /// The breaker after one more failure than those in `before`, and whether that failure
    /// counts. It does not count when its attempt began before the breaker opened. It does not
    /// count either when only the age of the first failure keeps the breaker closed, so that a
    /// burst of failures does not cost a write each. `probe` is the end of the attempt's lease
    /// when the attempt was the probe.
    pub(super) fn after_failure(
        self,
        before: Failing,
        probe: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> (Self, bool) {
        let enough = before.failures.saturating_add(1) >= FAILURES_TO_OPEN;
        // A first failure in the future was recorded with another clock. Clocks that disagree by
        // more than the minimum can open the breaker early, never late.
        let old = (now - before.since).abs() >= MIN_FAILING_TIME;
        match self {
            Self::Closed if enough && old => {
                (Self::Open { until: now + open_time(0), round: 0 }, true)
            }
            Self::Closed => (self, !enough),
            Self::HalfOpen { until, round } if probe == Some(until) => {
                let round = round.saturating_add(1);
                (Self::Open { until: now + open_time(round), round }, true)
            }
            Self::Open { .. } | Self::HalfOpen { .. } => (self, false),
        }
    }
}

/// The open time after `round` failed probes, which doubles with each.
fn open_time(round: u8) -> TimeDelta {
    let factor = 1_i32.checked_shl(round.into()).filter(|factor| *factor > 0).unwrap_or(i32::MAX);
    FIRST_OPEN_TIME.checked_mul(factor).unwrap_or(MAX_OPEN_TIME).min(MAX_OPEN_TIME)
}

fn part_of(of: TimeDelta, part: f64) -> TimeDelta {
    let whole = of.to_std().unwrap_or_default();
    TimeDelta::from_std(whole.mul_f64(part.clamp(0.0, 1.0))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::noon;

    #[test]
    fn breaker_open_time_doubles_to_ten_minutes() {
        let minutes: Vec<i64> = (0..6).map(|round| open_time(round).num_minutes()).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 10, 10]);
        assert_eq!(open_time(u8::MAX), MAX_OPEN_TIME);
        for jitter_sample in [0.0, 0.5, 1.0] {
            let until = noon() + MAX_OPEN_TIME;
            let held =
                Breaker::Open { until, round: 200 }.held_until(jitter_sample, noon()).unwrap();
            assert!(held >= until && held - noon() <= TimeDelta::minutes(15), "{jitter_sample}");
        }
    }
}
