//! The signed time of a request.

use std::num::NonZeroU32;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::carrier::CarriedSignatures;
use super::incoming::{HeaderName, Incoming};
use super::{Reason, Refusal};

/// The source of the signed time, and its largest distance from now.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimestampSource {
    /// The place of the timestamp.
    pub place: TimestampPlace,
    /// Its unit; it counts since the Unix epoch.
    pub unit: Unit,
    /// The largest age in seconds; none means any.
    #[serde(default)]
    pub max_age_seconds: Option<NonZeroU32>,
    /// The largest distance into the future in seconds; none means any.
    #[serde(default)]
    pub max_ahead_seconds: Option<NonZeroU32>,
}

/// The place of a timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum TimestampPlace {
    /// The value of a header.
    Header {
        /// The name of the header.
        header: HeaderName,
    },
    /// The value of a key beside the signatures; only with
    /// [`Carrier::Pairs`](super::carrier::Carrier::Pairs).
    Key {
        /// The key, which must occur once.
        key: String,
    },
}

/// The unit of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// Whole seconds.
    Seconds,
    /// Whole milliseconds.
    Milliseconds,
}

/// A signed time, as text and as an instant.
#[derive(Clone, Copy)]
pub(super) struct Timestamp<'a> {
    /// The bytes that were signed.
    pub(super) written: &'a [u8],
    pub(super) at: DateTime<Utc>,
}

impl TimestampSource {
    pub(super) fn read<'a>(
        &self,
        incoming: &Incoming<'a>,
        carried: &CarriedSignatures<'a>,
    ) -> Result<Timestamp<'a>, Refusal> {
        let written = match &self.place {
            TimestampPlace::Header { header } => incoming.header(header)?,
            TimestampPlace::Key { key } => carried.only(key)?,
        };
        let number = canonical(written).ok_or(Refusal::MALFORMED)?;
        let at = match self.unit {
            Unit::Seconds => DateTime::from_timestamp(number, 0),
            Unit::Milliseconds => DateTime::from_timestamp_millis(number),
        };
        Ok(Timestamp { written, at: at.ok_or(Refusal::MALFORMED)? })
    }

    /// Compares whole units, as the reference libraries do: an age of 300.9 seconds is 300.
    pub(super) fn judge(
        &self,
        timestamp: &Timestamp<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let (age, second) = match self.unit {
            Unit::Seconds => (now.timestamp() - timestamp.at.timestamp(), 1),
            Unit::Milliseconds => (now.timestamp_millis() - timestamp.at.timestamp_millis(), 1000),
        };
        let beyond = |limit: Option<NonZeroU32>, distance: i64| {
            limit.is_some_and(|limit| distance > i64::from(limit.get()) * second)
        };
        if beyond(self.max_age_seconds, age) {
            return Err(Refusal::Invalid(Reason::TooOld));
        }
        if beyond(self.max_ahead_seconds, -age) {
            return Err(Refusal::Invalid(Reason::TooNew));
        }
        Ok(())
    }
}

/// Reads `0` or `[1-9][0-9]*`. Libraries disagree about every other spelling of a number, so one of
/// them could accept a spelling that was not signed.
fn canonical(written: &[u8]) -> Option<i64> {
    let one_spelling = match written {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    one_spelling.then(|| std::str::from_utf8(written).ok()?.parse().ok()).flatten()
}
