//! One render, and the shelf of all of them.
//!
//! Nothing moves a render along: where it is follows from when it was
//! submitted, its scenario and the time ([`Scenario::phase_after`]). So it
//! cannot get stuck, and every question about the same instant has one answer.
//! For a cancelled render the time stands still. One whose progress is frozen
//! ends when it is told to: by the control API, or by being asked often enough.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use uuid::Builder;
use uuid::fmt::Hyphenated;

use crate::provider::{Departure, Destination, Occasion};
use crate::recent::{Limit, Recent};
use crate::scenario::{Percent, Scenario};

/// The provider's name for a render.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct RenderId(String);

impl RenderId {
    /// A version 4 UUID made of `random`.
    pub(crate) fn uuid(random: [u8; 16]) -> Self {
        Self(Builder::from_random_bytes(random).into_uuid().hyphenated().to_string())
    }

    /// The id in lower case, when `text` is a hyphenated UUID of any version.
    pub(crate) fn parse_uuid(text: &str) -> Option<Self> {
        text.parse().ok().map(|uuid: Hyphenated| Self(uuid.to_string()))
    }

    /// `prefix` and the first 12 hex digits of `random`.
    pub(crate) fn prefixed(prefix: &str, random: [u8; 16]) -> Self {
        Self(format!("{prefix}{:012x}", u128::from_be_bytes(random) >> 80))
    }

    /// One letter or digit for every byte of `random`.
    pub(crate) fn alphanumeric(random: [u8; 16]) -> Self {
        const ALPHABET: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let letter = |byte: u8| ALPHABET.get(usize::from(byte) % ALPHABET.len());
        Self(random.into_iter().filter_map(letter).copied().map(char::from).collect())
    }

    /// Whatever a caller names in a status call; perhaps no render has it.
    pub(crate) fn asked_for(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for RenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a render is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Working(Percent),
    Completed,
    Failed,
}

impl Scenario {
    /// Where a render is, `elapsed` after its submit.
    pub(crate) fn phase_after(&self, elapsed: TimeDelta) -> Phase {
        let elapsed = u64::try_from(elapsed.num_milliseconds()).unwrap_or(0);
        let (queued, end) = (u64::from(self.queued_ms), u64::from(self.duration_ms));

        if elapsed >= end && self.freeze_progress.is_none() {
            return self.last_phase();
        }
        if elapsed < queued {
            return Phase::Queued;
        }
        let done = Percent::of(elapsed - queued, end.saturating_sub(queued));
        Phase::Working(self.freeze_progress.map_or(done, |frozen| done.min(frozen)))
    }

    fn last_phase(&self) -> Phase {
        if self.fail_with.is_some() { Phase::Failed } else { Phase::Completed }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Render {
    pub(crate) provider: &'static str,
    pub(crate) id: RenderId,
    /// What was submitted, byte for byte; a JSON document.
    pub(crate) body: Arc<str>,
    pub(crate) submitted_at: DateTime<Utc>,
    pub(crate) cancelled_at: Option<DateTime<Utc>>,
    /// When one that stood still was told to end.
    pub(crate) told_to_end_at: Option<DateTime<Utc>>,
    /// When its result was deleted.
    pub(crate) deleted_at: Option<DateTime<Utc>>,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) scenario: Arc<Scenario>,
    /// Status calls so far.
    pub(crate) polls: u32,
    pub(crate) callbacks: Vec<CallbackAttempt>,
}

impl Render {
    /// Of a cancelled render: the one it was in when that happened.
    pub(crate) fn phase(&self, now: DateTime<Utc>) -> Phase {
        let now = self.clock(now);
        match self.told_to_end_at {
            Some(end) if now >= end => self.scenario.last_phase(),
            Some(_) | None => self.scenario.phase_after(now - self.submitted_at),
        }
    }

    /// When work begins, or began.
    pub(crate) fn started_at(&self) -> DateTime<Utc> {
        self.submitted_at + TimeDelta::milliseconds(self.scenario.queued_ms.into())
    }

    /// When it ends, or ended; meaningless while progress is frozen.
    pub(crate) fn finished_at(&self) -> DateTime<Utc> {
        let end = self.submitted_at + TimeDelta::milliseconds(self.scenario.duration_ms.into());
        self.cancelled_at.or(self.told_to_end_at).unwrap_or(end)
    }

    /// Ends a render that stands still, and answers which callbacks leave now. None when
    /// it does not stand still.
    pub(crate) fn end(&mut self, now: DateTime<Utc>) -> Option<Vec<Departure>> {
        let stands_still = self.scenario.freeze_progress.is_some()
            && self.cancelled_at.is_none()
            && self.told_to_end_at.is_none();
        if !stands_still {
            return None;
        }
        self.told_to_end_at = Some(now);
        Some(self.departures_about(Occasion::Ended))
    }

    /// The copies of a callback that tells how far it is, or was last before its end,
    /// counted from now.
    pub(crate) fn departures_at_work(&self, now: DateTime<Utc>) -> Vec<Departure> {
        let last = self.told_to_end_at.map(|end| end - TimeDelta::milliseconds(1));
        let at = last.map_or(now, |last| last.min(now));
        self.departures_about(Occasion::Progress(at))
    }

    /// The last time anything changed.
    pub(crate) fn updated_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self.phase(now) {
            Phase::Queued => self.submitted_at,
            Phase::Working(_) => self.clock(now).max(self.started_at()),
            Phase::Completed | Phase::Failed => self.finished_at(),
        }
    }

    /// The copies of the callback about its end, counted from its submit.
    pub(crate) fn departures_at_end(&self) -> Vec<Departure> {
        if self.scenario.freeze_progress.is_some() {
            return Vec::new();
        }
        let end = Duration::from_millis(self.scenario.duration_ms.into());
        let copies = self.scenario.callback.copies().into_iter();
        copies.map(|after| Departure { after: end + after, occasion: Occasion::Ended }).collect()
    }

    /// The copies of the callback about its cancellation, counted from that.
    pub(crate) fn departures_at_cancel(&self) -> Vec<Departure> {
        self.departures_about(Occasion::Cancelled)
    }

    fn departures_about(&self, occasion: Occasion) -> Vec<Departure> {
        let copies = self.scenario.callback.copies().into_iter();
        copies.map(|after| Departure { after, occasion }).collect()
    }

    fn clock(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.cancelled_at.map_or(now, |at| now.min(at))
    }

    pub(crate) fn submitted(&self) -> Value {
        // A render only exists because its body parsed.
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// One try to hand over a callback.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CallbackAttempt {
    /// When it set out, in Unix milliseconds.
    pub(crate) at: i64,
    pub(crate) url: String,
    /// `None` when there was no answer; then `error` says why.
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) body: String,
}

/// Ids are only unique within a provider.
pub(crate) type RenderKey = (&'static str, RenderId);

/// Every render that a submit made, the oldest forgotten when there are too many.
#[derive(Debug)]
pub(crate) struct Renders {
    by_key: HashMap<RenderKey, Render>,
    order: Recent<RenderKey>,
}

impl Default for Renders {
    fn default() -> Self {
        let limit = Limit { entries: 20_000, bytes: 256 * 1024 * 1024 };
        Self { by_key: HashMap::new(), order: Recent::new(limit) }
    }
}

impl Renders {
    /// A render with the same key must not be there yet; else it is replaced.
    pub(crate) fn add(&mut self, render: Render) {
        let key = (render.provider, render.id.clone());
        let bytes = render.body.len();
        self.by_key.insert(key.clone(), render);
        for forgotten in self.order.push(key, bytes) {
            self.by_key.remove(&forgotten);
        }
    }

    pub(crate) fn get(&self, key: &RenderKey) -> Option<&Render> {
        self.by_key.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &RenderKey) -> Option<&mut Render> {
        self.by_key.get_mut(key)
    }

    /// In the order of their submits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Render> {
        self.order.iter().filter_map(|key| self.by_key.get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(json: &str, at_ms: &[i64]) -> String {
        let scenario: Scenario = serde_json::from_str(json).unwrap();
        let word = |ms: &i64| match scenario.phase_after(TimeDelta::milliseconds(*ms)) {
            Phase::Queued => "queued".to_owned(),
            Phase::Working(percent) => format!("{}%", percent.get()),
            Phase::Completed => "completed".to_owned(),
            Phase::Failed => "failed".to_owned(),
        };
        at_ms.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_render_walks_through_its_phases() {
        let knobs = r#"{"queuedMs":100,"durationMs":1100}"#;
        assert_eq!(
            phases(knobs, &[-5, 0, 99, 100, 350, 1099, 1100, 9_999_999]),
            "queued queued queued 0% 25% 99% completed completed"
        );
    }

    #[test]
    fn a_failing_render_fails_at_the_end_and_not_before() {
        let knobs = r#"{"queuedMs":0,"durationMs":10,"failWith":"no codec"}"#;
        assert_eq!(phases(knobs, &[0, 9, 10]), "0% 90% failed");
    }

    #[test]
    fn frozen_progress_never_ends() {
        let knobs = r#"{"queuedMs":10,"durationMs":110,"freezeProgress":0.4}"#;
        assert_eq!(phases(knobs, &[0, 30, 60, 110, 9_999_999]), "queued 20% 40% 40% 40%");
    }

    #[test]
    fn a_queue_longer_than_the_render_skips_the_work() {
        let knobs = r#"{"queuedMs":50,"durationMs":20}"#;
        assert_eq!(phases(knobs, &[0, 19, 20, 60]), "queued queued completed completed");
        let frozen = r#"{"queuedMs":50,"durationMs":20,"freezeProgress":1}"#;
        assert_eq!(phases(frozen, &[49, 50]), "queued 100%");
    }

    #[test]
    fn made_ids_are_uuids() {
        assert_eq!(
            RenderId::uuid([0xff; 16]),
            RenderId("ffffffff-ffff-4fff-bfff-ffffffffffff".to_owned())
        );
        assert_eq!(
            RenderId::uuid([0; 16]),
            RenderId("00000000-0000-4000-8000-000000000000".to_owned())
        );
    }

    #[test]
    fn made_ids_have_the_vendors_lengths() {
        assert_eq!(RenderId::prefixed("job_", [0xab; 16]).0, "job_abababababab");
        assert_eq!(RenderId::prefixed("job_", [0; 16]).0, "job_000000000000");
        let bytes = [0, 25, 26, 51, 52, 61, 62, 255, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(RenderId::alphanumeric(bytes).0, "AZaz09AHBCDEFGHI");
    }

    #[test]
    fn only_uuids_are_taken_for_uuids() {
        let good = "550E8400-e29b-41d4-a716-446655440000";
        assert_eq!(RenderId::parse_uuid(good), Some(RenderId(good.to_lowercase())));
        for bad in ["", "550e8400e29b41d4a716446655440000", "550e8400-e29b-41d4-a716-44665544000g"]
        {
            assert_eq!(RenderId::parse_uuid(bad), None, "{bad}");
        }
    }
}
