//! What an operator does with a delivery: sends it again, here or elsewhere, or drops it.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Delivery, DeliveryState, GiveUpReason};
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
    /// An attempt at its present receiver has begun, which cannot be taken back. It is over then.
    UnderWay {
        /// When it is over at the latest.
        until: DateTime<Utc>,
    },
    /// It has had [`MAX_ATTEMPTS`] attempts.
    TooOften,
}

/// Why a delivery cannot be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropError {
    /// It is over: it arrived, or was given up.
    Over,
    /// An attempt has begun, which cannot be taken back.
    UnderWay {
        /// When it is over at the latest.
        until: DateTime<Utc>,
    },
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

    /// The same, to the receiver at `url`: also while attempts at another receiver are still due.
    /// A ticket for one of them then finds another version of the delivery, and makes none.
    ///
    /// # Errors
    /// When an attempt at the other receiver has begun, or it has had too many. To the receiver
    /// that it has already, as [`Delivery::redeliver`].
    pub fn redirect(&self, url: &str, now: DateTime<Utc>) -> Result<Self, RedeliverError> {
        if url == self.url {
            return self.redeliver(now);
        }
        if let Some(until) = self.leased_until.filter(|_| self.is_leased(now)) {
            return Err(RedeliverError::UnderWay { until });
        }
        if self.attempts.len() >= MAX_ATTEMPTS {
            return Err(RedeliverError::TooOften);
        }
        Ok(Self { manual: true, ..self.restarted(now) }.sent_to(url))
    }

    /// The delivery, to the receiver at `url`.
    #[must_use]
    pub fn sent_to(self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self }
    }

    /// The delivery, given up because nothing is to be sent any more.
    ///
    /// # Errors
    /// When it is over, or an attempt has begun.
    pub fn dropped(&self, now: DateTime<Utc>) -> Result<Self, DropError> {
        match (self.state, self.leased_until.filter(|_| self.is_leased(now))) {
            (DeliveryState::Pending { .. }, None) => {
                Ok(self.clone().given_up(GiveUpReason::Dropped, now).0)
            }
            (DeliveryState::Pending { .. }, Some(until)) => Err(DropError::UnderWay { until }),
            (
                DeliveryState::Delivered | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_),
                _,
            ) => Err(DropError::Over),
        }
    }

    /// The delivery with its schedule restarted, as one of many that were given up; its attempts
    /// are not manual. None when it was not given up, was dropped, or has had too many attempts.
    #[must_use]
    pub fn recover(&self, now: DateTime<Utc>) -> Option<Self> {
        let given_up = match self.state {
            DeliveryState::GivenUp(given_up) | DeliveryState::Exhausted(given_up) => {
                given_up.reason.is_recovered()
            }
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
