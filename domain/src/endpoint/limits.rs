//! The limits that an endpoint's owner sets: attempts per second, by the generic cell rate
//! algorithm (GCRA, a leaky bucket), and attempts in flight, by counting them.

use std::num::NonZeroU16;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::admission::{AttemptRequest, HoldReason};
use crate::attempt::ATTEMPT_LEASE;
use crate::retry::later;

/// The shortest wait of an attempt when the limit of attempts in flight is reached.
const FULL_BACKOFF: Duration = Duration::from_secs(1);
/// The jitter of that wait.
const FULL_JITTER: Duration = Duration::from_secs(9);

/// The limits of an endpoint. By default there are none, and nothing is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointLimits {
    /// The most attempts in flight.
    pub max_in_flight: Option<NonZeroU16>,
    /// The most attempts per second: on average, and as a burst after a pause.
    pub per_second: Option<NonZeroU16>,
}

/// A number that cannot be a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 1 to {most}")]
pub struct LimitError {
    /// The largest number that can.
    pub most: u16,
}

impl EndpointLimits {
    /// The largest limit of attempts in flight: each takes space in one item.
    pub const MAX_IN_FLIGHT: u16 = 50;
    /// The largest rate limit: each attempt is a write to one item.
    pub const MAX_PER_SECOND: u16 = 100;

    /// The limits with these numbers; none means no limit.
    ///
    /// # Errors
    /// When a number is zero or too large.
    pub fn new(max_in_flight: Option<u64>, per_second: Option<u64>) -> Result<Self, LimitError> {
        Ok(Self {
            max_in_flight: limit(max_in_flight, Self::MAX_IN_FLIGHT)?,
            per_second: limit(per_second, Self::MAX_PER_SECOND)?,
        })
    }
}

fn limit(number: Option<u64>, most: u16) -> Result<Option<NonZeroU16>, LimitError> {
    let Some(number) = number else { return Ok(None) };
    let number = u16::try_from(number).ok().filter(|number| *number <= most);
    number.and_then(NonZeroU16::new).map(Some).ok_or(LimitError { most })
}

/// An attempt in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The random token of the attempt.
    pub token: u64,
    /// The end of its lease. An attempt that is not over by then has crashed.
    pub until: DateTime<Utc>,
}

impl EndpointLimits {
    /// Reserves a place for an attempt and returns its token, if places are counted. When
    /// there is no room, the error says until when the attempt waits and for what. An attempt
    /// that waits for the rate has its slot reserved from then on.
    pub(super) fn reserve(
        self,
        request: &AttemptRequest,
        in_flight: &mut Vec<InFlight>,
        next_slot: &mut Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<Option<u64>, (DateTime<Utc>, HoldReason)> {
        let mut live = in_flight.clone();
        live.retain(|place| place.until > now);
        if self.max_in_flight.is_some_and(|max| live.len() >= max.get().into()) {
            let wait = FULL_BACKOFF + FULL_JITTER.mul_f64(request.jitter_sample.clamp(0.0, 1.0));
            // An attempt whose slot is reserved keeps it.
            let by = if request.has_slot { HoldReason::Rate } else { HoldReason::InFlight };
            return Err((later(now, wait), by));
        }
        if let Some(rate) = self.per_second.filter(|_| !request.has_slot)
            && let Some(at) = reserve_slot(rate, next_slot, now)
        {
            return Err((at, HoldReason::Rate));
        }
        let token = self.max_in_flight.map(|_| request.token);
        if let Some(token) = token {
            live.push(InFlight { token, until: now + ATTEMPT_LEASE });
            *in_flight = live;
        }
        Ok(token)
    }
}

/// Reserves the next slot of the rate and returns its time, or none when that is now. This is
/// the generic cell rate algorithm in its virtual scheduling form (ITU-T I.371), with a burst of
/// one second.
fn reserve_slot(
    rate: NonZeroU16,
    next_slot: &mut Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let second = TimeDelta::seconds(1);
    let interval = second / i32::from(rate.get());
    let burst = second - interval;
    let slot = next_slot.map_or(now, |slot| slot.max(now));
    *next_slot = Some(slot + interval);
    let at = slot - burst;
    (at > now).then_some(at)
}
