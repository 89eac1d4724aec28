//! A render job, and the only ways in which it may change.
//!
//! Providers repeat callbacks, reorder them, and disagree with their own status endpoint; polls
//! and callbacks race. So [`Job::apply`] returns [`Transition::Unchanged`] for a report without
//! news, never lets an ended job become live again, and puts the outbox entry ([`OutboxEntry`])
//! of a change into the same value as the change, so that both are stored in one write.
//!
//! The transition table is [`next`], in `job/transition.rs`. It is total: it spells out every
//! state and every report, so a new one does not compile until each of its pairs is decided.
//!
//! To add a state, add it to [`State`] and [`State::ALL`]; CONTRIBUTING.md lists what follows.
//!
//! This module has no clock: callers pass `now`. A store checks `version` (optimistic
//! concurrency): after a conflict the report is applied again to the job that is stored.

mod transition;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::event::{EventName, EventSet};
use crate::failure::Failure;
use crate::id::{JobId, PayloadVersion, ProviderName, RenderJobId, RequestId, SourceRecordId};
use crate::polling::{LognormalModel, Tracking};

pub use transition::{Move, ReportKind, is_final, next};

/// The state of a job. The wire names are the variants in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The job is stored; the provider has not answered yet.
    Submitting,
    /// The provider may or may not have accepted. The submit is never repeated.
    SubmitUnknown,
    /// The provider accepted and has not started.
    Queued,
    /// The provider renders.
    Processing,
    /// The render is done. The state is final.
    Completed,
    /// The render failed. The state is final, unless the failure is
    /// [`SubmitUnknown`](crate::failure::FailureCode::SubmitUnknown): then a late completion
    /// still counts.
    Failed,
    /// The render was cancelled. The state is final.
    Cancelled,
    /// The provider reported no end before the deadline. A late completion still counts.
    TimedOut,
}

impl State {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Submitting,
        Self::SubmitUnknown,
        Self::Queued,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
    ];

    /// The wire name, such as `timed_out`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitting => "submitting",
            Self::SubmitUnknown => "submit_unknown",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }

    /// The state with this wire name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the job has ended, possibly (`TimedOut`) until a late completion.
    #[must_use]
    pub fn has_ended(self) -> bool {
        match self {
            Self::Submitting | Self::SubmitUnknown | Self::Queued | Self::Processing => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut => true,
        }
    }

    /// The event of entering this state; none for the states before acceptance.
    #[must_use]
    pub fn event(self) -> Option<EventName> {
        match self {
            Self::Submitting | Self::SubmitUnknown => None,
            Self::Queued => Some(EventName::Queued),
            Self::Processing => Some(EventName::Processing),
            Self::Completed => Some(EventName::Completed),
            Self::Failed | Self::TimedOut => Some(EventName::Failed),
            Self::Cancelled => Some(EventName::Cancelled),
        }
    }
}

/// A report about a job, already translated from the provider's vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The provider answered our submit with its id of the render.
    Accepted(RenderJobId),
    /// The provider certainly did not accept.
    Rejected(Failure),
    /// Whether the provider accepted is unknown, after a time-out, a 5xx or our own crash.
    SubmitUnclear,
    /// The provider reported the status of the render.
    Observed(Observation),
    /// The deadline passed before the provider reported an end.
    DeadlinePassed,
}

/// The status of a render, as its provider reported it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The provider's id, where the answer carried one.
    pub render_job_id: Option<RenderJobId>,
    /// The meaning of the provider's status.
    pub status: RenderStatus,
    /// The provider's own word for the status, shown beside ours.
    pub provider_status: String,
    /// `0.0..=1.0`; none when the provider does not report it.
    pub progress: Option<f64>,
}

/// The meaning of a provider's status.
#[derive(Clone, Debug, PartialEq)]
pub enum RenderStatus {
    /// The render waits at the provider.
    Queued,
    /// The provider renders, or its word for the status is unknown to us.
    Processing,
    /// The video is done.
    Completed(RenderResult),
    /// The provider could not render.
    Failed(Failure),
    /// The render was cancelled.
    Cancelled,
    /// The provider reported a time-out; the render may still finish.
    TimedOut,
}

impl RenderStatus {
    /// Whether the provider does no more for the render.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            Self::Completed(_) | Self::Failed(_) | Self::Cancelled | Self::TimedOut => true,
            Self::Queued | Self::Processing => false,
        }
    }
}

/// The rendered video. A provider may report completion without a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderResult {
    /// The URL of the video, unchanged from the provider's answer.
    pub url: Option<String>,
    /// The time at which the provider deletes the video; none when unknown.
    pub expires_at: Option<DateTime<Utc>>,
}

/// One entry of a job's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// The state that was entered.
    pub state: State,
    /// When it was entered.
    pub at: DateTime<Utc>,
}

/// The part of a client's request that its job keeps, and what was decided when the job was
/// made. It never changes. [`crate::request::JobRequest`] checks it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRequest {
    /// The provider that renders.
    pub provider: ProviderName,
    /// The customer's id of what is rendered.
    pub source_record_id: SourceRecordId,
    /// The customer's name for the shape of the payload.
    pub payload_version: Option<PayloadVersion>,
    /// The customer's own data, echoed in events. At most [`MAX_METADATA_BYTES`] as JSON.
    pub metadata: Map<String, Value>,
    /// Where this job's webhooks go instead of the default receiver.
    pub callback_url: Option<String>,
    /// The events that the client subscribed to.
    pub subscribed_events: EventSet,
    /// The base URL that it was submitted to, and is asked about at.
    pub submitted_to: Url,
    /// SHA-256 of the request's canonical body, which is the same for a repeat only.
    pub fingerprint: [u8; 32],
    /// The record of the request, which has its payload.
    pub record: RequestId,
    /// Whether the provider calls back, or only polls show changes.
    pub tracking: Tracking,
    /// How long the provider's renders took, as known when the job was made. Kept, because
    /// the times of its polls follow from it.
    pub duration_model: Option<LognormalModel>,
    /// The shard whose poller polls it. Kept, because the number of shards may change.
    pub shard: u32,
}

/// An entry of the outbox: a change whose event is not published yet. The event's other
/// fields follow from the job, so an entry is small and its event always has the same bytes.
///
/// An event goes two ways, which do not wait for each other: on the bus, and to its receiver.
/// The entry is there until both are done, and remembers the one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The event to send.
    pub event: EventName,
    /// The state that was entered.
    pub status: State,
    /// When it was entered.
    pub at: DateTime<Utc>,
    /// Whether the event is on the bus.
    pub on_bus: bool,
    /// Whether its delivery is stored and its first ticket sent, or no receiver is to get it.
    pub delivery_queued: bool,
}

impl OutboxEntry {
    /// The entry of a change that was just made.
    #[must_use]
    pub fn new(event: EventName, status: State, at: DateTime<Utc>) -> Self {
        Self { event, status, at, on_bus: false, delivery_queued: false }
    }

    /// Whether both ways are done.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.on_bus && self.delivery_queued
    }

    /// The entry with what `other` knows to be done, if that is of the same change.
    fn merged(self, other: &Self) -> Self {
        if (self.event, self.status, self.at) != (other.event, other.status, other.at) {
            return self;
        }
        Self {
            on_bus: self.on_bus || other.on_bus,
            delivery_queued: self.delivery_queued || other.delivery_queued,
            ..self
        }
    }
}

/// A render job. Built by [`Job::new`], changed by [`Job::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Our id.
    pub id: JobId,
    /// What the client asked for, and what was decided when the job was made.
    pub request: StoredRequest,
    /// When the job was first stored. The job's age counts from here.
    pub created_at: DateTime<Utc>,
    /// The current state.
    pub state: State,
    /// The provider's id, once known.
    pub render_job_id: Option<RenderJobId>,
    /// The provider's own word for the status.
    pub provider_status: Option<String>,
    /// `0.0..=1.0`, rounded down to steps of [`PROGRESS_STEP`].
    pub progress: Option<f64>,
    /// The video, when completed.
    pub result: RenderResult,
    /// The failure, when failed or timed out.
    pub failure: Option<Failure>,
    /// The states it went through, oldest first.
    pub timeline: Vec<Milestone>,
    /// The time of the last poll before the last write.
    pub last_checked_at: Option<DateTime<Utc>>,
    /// The number of polls before the last write.
    pub attempt_count: u32,
    /// The changes whose events are not published yet, stored in the same write as the change.
    pub outbox: Vec<OutboxEntry>,
    /// The events that had no receiver when they were published, and have no delivery since.
    pub without_receiver: EventSet,
    /// When it settled: it has ended, its outbox is empty, and it left the `active` index.
    pub settled_at: Option<DateTime<Utc>>,
    /// The number of writes; a store replaces only the version that was read.
    pub version: u64,
}

/// The largest metadata of a job, in bytes of JSON, because every write of the job pays for it.
pub const MAX_METADATA_BYTES: usize = 2048;

/// The step of progress that is stored: each step costs one write.
pub const PROGRESS_STEP: f64 = 0.25;

/// The age at which a job without changes is first written with the count of its polls.
const FIRST_CHECKPOINT: TimeDelta = TimeDelta::seconds(120);

/// The result of a [`Report`].
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The report has no news: it is a repeat, it is late, or a poll found the known status.
    Unchanged,
    /// The changed job, to be stored over the version that was read.
    Changed(Box<Job>),
}

impl Job {
    /// A job before its provider was asked.
    #[must_use]
    pub fn new(id: JobId, request: StoredRequest, now: DateTime<Utc>) -> Self {
        Self {
            id,
            request,
            created_at: now,
            state: State::Submitting,
            render_job_id: None,
            provider_status: None,
            progress: None,
            result: RenderResult::default(),
            failure: None,
            timeline: vec![Milestone { state: State::Submitting, at: now }],
            last_checked_at: None,
            attempt_count: 0,
            outbox: Vec::new(),
            without_receiver: EventSet::none(),
            settled_at: None,
            version: 1,
        }
    }

    /// Applies a report. `polls` is the number of polls so far, as known to the source of the
    /// report; the job keeps the larger count.
    #[must_use]
    pub fn apply(&self, report: &Report, polls: u32, now: DateTime<Utc>) -> Transition {
        let mut job = self.clone();
        let moved = match next(self.effective_state(), report.kind()) {
            Move::Stay => false,
            Move::To(state) => {
                job.enter(state, report, now);
                true
            }
        };
        let merged = (moved || !self.state.has_ended()) && job.merge_observation(report);
        if !moved && !merged {
            return Transition::Unchanged;
        }
        if let Report::Observed(_) = report {
            job.last_checked_at = Some(now);
            job.attempt_count = polls.max(self.attempt_count.saturating_add(1));
        }
        job.version = self.version.saturating_add(1);
        Transition::Changed(Box::new(job))
    }

    /// The job with the current time and number of polls, to be stored; none unless its age has
    /// doubled since the last write and is above two minutes. So what an operator sees is stale
    /// by a part of the job's age at most, for a logarithmic number of writes.
    #[must_use]
    pub fn checkpoint(&self, polls: u32, now: DateTime<Utc>) -> Option<Self> {
        let written = self.last_checked_at.unwrap_or(self.created_at) - self.created_at;
        let due = (written * 2).max(FIRST_CHECKPOINT);
        (!self.state.has_ended() && now - self.created_at >= due).then(|| Self {
            last_checked_at: Some(now),
            attempt_count: polls.max(self.attempt_count),
            version: self.version.saturating_add(1),
            ..self.clone()
        })
    }

    /// The job with what is done of its outbox, as `entries` say. An entry that is published
    /// leaves it. Of those whose delivery was open until now, `without_receiver` had none.
    #[must_use]
    pub fn mark_published(&self, entries: &[OutboxEntry], without_receiver: EventSet) -> Self {
        let mut job = self.clone();
        for entry in &mut job.outbox {
            let before = *entry;
            *entry = entries.iter().fold(before, |entry, known| entry.merged(known));
            let is_new = entry.delivery_queued && !before.delivery_queued;
            if is_new && without_receiver.contains(entry.event) {
                job.without_receiver = job.without_receiver.union(entry.event.into());
            }
        }
        job.outbox.retain(|entry| !entry.is_published());
        job
    }

    /// The job's changes that have an event, oldest first, whether or not its client subscribed to
    /// it, each as an entry of which nothing is done. Each event is there once.
    #[must_use]
    pub fn changes(&self) -> Vec<OutboxEntry> {
        let mut changes: Vec<OutboxEntry> = Vec::new();
        for line in &self.timeline {
            let Some(event) = line.state.event() else { continue };
            if changes.iter().all(|change| change.event != event) {
                changes.push(OutboxEntry::new(event, line.state, line.at));
            }
        }
        changes
    }

    /// Whether the event's delivery is yet to be queued, by itself.
    #[must_use]
    pub fn is_to_queue(&self, event: EventName) -> bool {
        self.outbox.iter().any(|entry| entry.event == event && !entry.delivery_queued)
    }

    /// The job after these events got a delivery, or are found to have one; none when it already
    /// says so.
    #[must_use]
    pub fn mark_delivered_late(&self, events: EventSet) -> Option<Self> {
        let without_receiver = self.without_receiver.without(events);
        let is_news = without_receiver != self.without_receiver;
        is_news.then(|| Self { without_receiver, ..self.clone().next_version() })
    }

    /// The job after all of its outbox was published.
    #[must_use]
    pub fn mark_all_published(&self) -> Self {
        Self { outbox: Vec::new(), ..self.clone() }
    }

    /// The job with the next version number, to be stored over this one.
    #[must_use]
    pub fn next_version(mut self) -> Self {
        self.version = self.version.saturating_add(1);
        self
    }

    /// The settled job; none unless it has ended for good, its outbox is empty and it is not
    /// settled yet. A job that may still complete ends for good at the age `given_up`, at which
    /// polling stops.
    #[must_use]
    pub fn settle(&self, given_up: TimeDelta, now: DateTime<Utc>) -> Option<Self> {
        let over = match self.state {
            State::Completed | State::Cancelled => true,
            State::Failed | State::TimedOut => self.is_final() || now - self.created_at >= given_up,
            State::Submitting | State::SubmitUnknown | State::Queued | State::Processing => false,
        };
        let may = over && self.outbox.is_empty() && self.settled_at.is_none();
        may.then(|| Self { settled_at: Some(now), ..self.clone() })
    }

    /// Whether no report can change the job's state any more. A job that timed out, or whose
    /// submit was never confirmed, has ended and may still complete.
    #[must_use]
    pub fn is_final(&self) -> bool {
        is_final(self.state, self.failure.as_ref())
    }

    fn effective_state(&self) -> State {
        transition::effective_state(self.state, self.failure.as_ref())
    }

    /// When the job last entered an end state; none while it is live.
    #[must_use]
    pub fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.timeline.iter().rev().find(|line| line.state.has_ended()).map(|line| line.at)
    }

    fn enter(&mut self, state: State, report: &Report, now: DateTime<Utc>) {
        self.timeline.push(Milestone { state, at: now });
        // A late completion makes the job active again until its event is published.
        self.settled_at = None;
        self.failure = failure_of(state, report);
        if let Report::Observed(Observation { status: RenderStatus::Completed(result), .. }) =
            report
        {
            self.result = result.clone();
        }
        self.state = state;
        if let Some(event) =
            state.event().filter(|event| self.request.subscribed_events.contains(*event))
        {
            self.outbox.push(OutboxEntry::new(event, state, now));
        }
    }

    /// Merges what a report says beside the state; returns whether any of it is news.
    fn merge_observation(&mut self, report: &Report) -> bool {
        let mut news = false;
        let (render_job_id, observation) = match report {
            Report::Accepted(id) => (Some(id), None),
            Report::Observed(observation) => {
                (observation.render_job_id.as_ref(), Some(observation))
            }
            Report::Rejected(_) | Report::SubmitUnclear | Report::DeadlinePassed => (None, None),
        };
        if self.render_job_id.is_none() && render_job_id.is_some() {
            self.render_job_id = render_job_id.cloned();
            news = true;
        }
        if let Some(observation) = observation {
            let step = observation.progress.map(progress_step);
            if step > self.progress {
                self.progress = step;
                news = true;
            }
            // The provider's own word is stored with the next change; alone it is no news,
            // because every phase of a render would cost a write.
            self.provider_status = Some(observation.provider_status.clone());
        }
        news
    }
}

fn failure_of(state: State, report: &Report) -> Option<Failure> {
    match state {
        State::Failed => match report {
            Report::Rejected(failure) => Some(failure.clone()),
            Report::Observed(Observation { status: RenderStatus::Failed(failure), .. }) => {
                Some(failure.clone())
            }
            Report::DeadlinePassed => Some(Failure::submit_unknown()),
            Report::Accepted(_) | Report::SubmitUnclear | Report::Observed(_) => None,
        },
        State::TimedOut => Some(Failure::timed_out()),
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::Completed
        | State::Cancelled => None,
    }
}

fn progress_step(progress: f64) -> f64 {
    (progress.clamp(0.0, 1.0) / PROGRESS_STEP).floor() * PROGRESS_STEP
}

#[cfg(test)]
mod tests;
