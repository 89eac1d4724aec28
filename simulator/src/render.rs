//! Renders.
//!
//! The state of a render follows from its submit, its scenario and the time
//! ([`Scenario::phase_after`]), so it cannot get stuck, and all questions about one moment have
//! one answer. A cancelled render stays in its phase. A frozen one ends on request of the control
//! API, or after enough polls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::bounded_log::{BoundedLog, LogLimit};
use crate::callback::{CallbackEvent, Destination, ScheduledCallback};
use crate::render_id::RenderId;
use crate::scenario::{Percent, Scenario};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Working(Percent),
    Completed,
    Failed,
}

impl Scenario {
    /// The phase of a render, `elapsed` after its submit.
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
    /// The submitted JSON document.
    pub(crate) body: Arc<str>,
    pub(crate) submitted_at: DateTime<Utc>,
    pub(crate) cancelled_at: Option<DateTime<Utc>>,
    /// When a frozen render was ended.
    pub(crate) end_requested_at: Option<DateTime<Utc>>,
    /// When its result was deleted.
    pub(crate) deleted_at: Option<DateTime<Utc>>,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) scenario: Arc<Scenario>,
    /// The number of status calls.
    pub(crate) polls: u32,
    pub(crate) callbacks: Vec<CallbackAttempt>,
}

impl Render {
    /// The current phase; of a cancelled render, the phase at its cancellation.
    pub(crate) fn phase(&self, now: DateTime<Utc>) -> Phase {
        let now = self.clock(now);
        match self.end_requested_at {
            Some(end) if now >= end => self.scenario.last_phase(),
            Some(_) | None => self.scenario.phase_after(now - self.submitted_at),
        }
    }

    pub(crate) fn started_at(&self) -> DateTime<Utc> {
        self.submitted_at + TimeDelta::milliseconds(self.scenario.queued_ms.into())
    }

    /// The time of the end. It has no meaning while progress is frozen.
    pub(crate) fn finished_at(&self) -> DateTime<Utc> {
        let end = self.submitted_at + TimeDelta::milliseconds(self.scenario.duration_ms.into());
        self.cancelled_at.or(self.end_requested_at).unwrap_or(end)
    }

    /// Ends a frozen render, and returns the callbacks that are due now. `None` when it is not
    /// frozen.
    pub(crate) fn end(&mut self, now: DateTime<Utc>) -> Option<Vec<ScheduledCallback>> {
        let is_frozen = self.scenario.freeze_progress.is_some()
            && self.cancelled_at.is_none()
            && self.end_requested_at.is_none();
        if !is_frozen {
            return None;
        }
        self.end_requested_at = Some(now);
        Some(self.callbacks_about(CallbackEvent::Ended))
    }

    /// The copies of a callback about the current progress, or the last progress before the end.
    /// They are counted from now.
    pub(crate) fn callbacks_about_progress(&self, now: DateTime<Utc>) -> Vec<ScheduledCallback> {
        let last = self.end_requested_at.map(|end| end - TimeDelta::milliseconds(1));
        let at = last.map_or(now, |last| last.min(now));
        self.callbacks_about(CallbackEvent::Progress(at))
    }

    /// The time of the last change.
    pub(crate) fn updated_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self.phase(now) {
            Phase::Queued => self.submitted_at,
            Phase::Working(_) => self.clock(now).max(self.started_at()),
            Phase::Completed | Phase::Failed => self.finished_at(),
        }
    }

    /// The copies of the callback about the end, counted from the submit.
    pub(crate) fn callbacks_at_end(&self) -> Vec<ScheduledCallback> {
        if self.scenario.freeze_progress.is_some() {
            return Vec::new();
        }
        let end = Duration::from_millis(self.scenario.duration_ms.into());
        let copies = self.scenario.callback.copies().into_iter();
        copies
            .map(|after| ScheduledCallback { after: end + after, event: CallbackEvent::Ended })
            .collect()
    }

    /// The copies of the callback about the cancellation, counted from it.
    pub(crate) fn callbacks_at_cancel(&self) -> Vec<ScheduledCallback> {
        self.callbacks_about(CallbackEvent::Cancelled)
    }

    fn callbacks_about(&self, event: CallbackEvent) -> Vec<ScheduledCallback> {
        let copies = self.scenario.callback.copies().into_iter();
        copies.map(|after| ScheduledCallback { after, event }).collect()
    }

    fn clock(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.cancelled_at.map_or(now, |at| now.min(at))
    }

    pub(crate) fn submitted(&self) -> Value {
        // The body parsed when the render was made.
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// An attempt to send a callback.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CallbackAttempt {
    /// When it was sent, in Unix milliseconds.
    pub(crate) at: i64,
    pub(crate) url: String,
    /// `None` when there was no answer; then `error` has the reason.
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) body: String,
}

/// Ids are unique only within a provider.
pub(crate) type RenderKey = (&'static str, RenderId);

/// All renders; the oldest is dropped first.
#[derive(Debug)]
pub(crate) struct Renders {
    by_key: HashMap<RenderKey, Render>,
    order: BoundedLog<RenderKey>,
}

impl Default for Renders {
    fn default() -> Self {
        let limit = LogLimit { entries: 20_000, bytes: 256 * 1024 * 1024 };
        Self { by_key: HashMap::new(), order: BoundedLog::new(limit) }
    }
}

impl Renders {
    /// Adds a render. One with the same key is replaced.
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

    /// The renders in the order of their submits.
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
    fn render_passes_its_phases() {
        let options = r#"{"queuedMs":100,"durationMs":1100}"#;
        assert_eq!(
            phases(options, &[-5, 0, 99, 100, 350, 1099, 1100, 9_999_999]),
            "queued queued queued 0% 25% 99% completed completed"
        );
    }

    #[test]
    fn failing_render_fails_at_end() {
        let options = r#"{"queuedMs":0,"durationMs":10,"failWith":"no codec"}"#;
        assert_eq!(phases(options, &[0, 9, 10]), "0% 90% failed");
    }

    #[test]
    fn frozen_progress_never_ends() {
        let options = r#"{"queuedMs":10,"durationMs":110,"freezeProgress":0.4}"#;
        assert_eq!(phases(options, &[0, 30, 60, 110, 9_999_999]), "queued 20% 40% 40% 40%");
    }

    #[test]
    fn long_queue_skips_work() {
        let options = r#"{"queuedMs":50,"durationMs":20}"#;
        assert_eq!(phases(options, &[0, 19, 20, 60]), "queued queued completed completed");
        let frozen = r#"{"queuedMs":50,"durationMs":20,"freezeProgress":1}"#;
        assert_eq!(phases(frozen, &[49, 50]), "queued 100%");
    }
}
