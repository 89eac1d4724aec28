//! What an operator does with a delivery: sends it again.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Delivery, DeliveryState};
use crate::endpoint::HoldReason;

/// An attempt this late has lost its ticket to the dead-letter queue: the queue retries a ticket
/// for less time.
const OVERDUE: TimeDelta = TimeDelta::minutes(20);

/// A delivery with this many attempts is not sent again. Every attempt is stored in the
/// delivery's item, for which DynamoDB has a limit of 400 KiB and a price by the KiB.
pub const MAX_ATTEMPTS: usize = 1_000;

/// Why a delivery cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedeliverError {
    /// Attempts of its schedule are still due.
    Pending,
    /// It has had [`MAX_ATTEMPTS`] attempts.
    TooOften,
}

impl Delivery {
    /// The delivery with its schedule restarted, due at once, with the same id and bytes. Its
    /// first attempt is manual: neither the circuit breaker nor a disabled endpoint stops it.
    ///
    /// # Errors
    /// When it has had too many attempts, or attempts of its schedule are still due. There are
    /// two exceptions: a delivery that is held because its endpoint fails may be sent at once,
    /// and one that is long overdue has lost its ticket, so its attempt would never be made.
    pub fn redeliver(&self, now: DateTime<Utc>) -> Result<Self, RedeliverError> {
        let is_allowed = match self.state {
            DeliveryState::Pending { held: Some(HoldReason::Failing), .. } => !self.is_leased(now),
            DeliveryState::Pending { next_at, .. } => now - next_at > OVERDUE,
            DeliveryState::GivenUp(_) | DeliveryState::Delivered | DeliveryState::Exhausted(_) => {
                true
            }
        };
        if !is_allowed {
            return Err(RedeliverError::Pending);
        }
        if self.attempts.len() >= MAX_ATTEMPTS {
            return Err(RedeliverError::TooOften);
        }
        Ok(Self { manual: true, ..self.restarted(now) })
    }

    /// The delivery with its schedule restarted, as one of many that were given up; its attempts
    /// are not manual. None when it was not given up, or has had too many attempts.
    #[must_use]
    pub fn recover(&self, now: DateTime<Utc>) -> Option<Self> {
        let given_up = match self.state {
            DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => true,
            DeliveryState::Pending { .. } | DeliveryState::Delivered => false,
        };
        let is_allowed = given_up && self.attempts.len() < MAX_ATTEMPTS;
        is_allowed.then(|| self.restarted(now))
    }

    fn restarted(&self, now: DateTime<Utc>) -> Self {
        let round_start = self.attempts.len();
        let state = DeliveryState::Pending { next_at: now, held: None };
        Self { round_start, round_at: now, manual: false, ..self.clone().moved(state) }
    }
}
