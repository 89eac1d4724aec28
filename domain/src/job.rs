//! A render job, and the only ways it may change.
//!
//! Providers repeat webhooks, reorder them, and disagree with their own status endpoint;
//! pollers and webhooks race. So [`Job::apply`] treats "nothing new" as an ordinary
//! answer, never lets a finished job become unfinished, and puts the [`Notice`] of a
//! change into the same value as the change, so that the two can only be stored together.
//!
//! The table that decides is [`next`]. It is total: every state and every report is
//! spelled, and a new one of either does not compile until each pair was decided.
//!
//! No clock here: callers pass `now`, stores keep `version` honest.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{EventName, EventSet};
use crate::failure::{Failure, FailureCode};
use crate::id::{JobId, PayloadVersion, ProviderName, RenderJobId, SourceRecordId};
use crate::polling::{Durations, Tracking};

/// Where a job stands. The wire names are the snake-case ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The job is stored; the provider has not answered yet.
    Submitting,
    /// The provider may or may not have accepted; it is never asked to render again.
    SubmitUnknown,
    /// The provider accepted and has not started.
    Queued,
    /// The provider is at work.
    Processing,
    /// The render is done. Nothing changes any more.
    Completed,
    /// The render will not be done. Nothing changes any more.
    Failed,
    /// The render was called off. Nothing changes any more.
    Cancelled,
    /// Nobody said how it ended in time. It may still turn out to be completed.
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

    /// The wire name.
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

    /// Reads a wire name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the job has ended, for good or (`TimedOut`) as far as we know.
    #[must_use]
    pub fn has_ended(self) -> bool {
        match self {
            Self::Submitting | Self::SubmitUnknown | Self::Queued | Self::Processing => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut => true,
        }
    }

    /// The event that tells of entering this state, if one does.
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

/// What somebody said about a job, out of the provider's vocabulary already.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The provider answered our submit with its id of the render.
    Accepted(RenderJobId),
    /// The provider certainly did not accept.
    Rejected(Failure),
    /// Nobody can say whether the provider accepted: a time-out, a 5xx, or our own crash.
    SubmitUnclear,
    /// The provider told how the render stands.
    Observed(Observation),
    /// The provider's deadline passed without an end.
    DeadlinePassed,
}

/// How a render stands, as its provider told.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The provider's id, where the answer carried one.
    pub render_job_id: Option<RenderJobId>,
    /// What the provider's status means.
    pub status: RenderStatus,
    /// The provider's own word for it, shown beside ours.
    pub provider_status: String,
    /// `0.0..=1.0`, where the provider tells.
    pub progress: Option<f64>,
}

/// What a provider's status means.
#[derive(Clone, Debug, PartialEq)]
pub enum RenderStatus {
    /// Waiting at the provider.
    Queued,
    /// At work, or a word we do not know.
    Processing,
    /// Done.
    Completed(RenderResult),
    /// Broken.
    Failed(Failure),
    /// Called off.
    Cancelled,
    /// The provider gave up waiting; it may still finish.
    TimedOut,
}

/// Where the rendered video is. A provider may complete without saying where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderResult {
    /// The provider's URL of the video, as it gave it.
    pub url: Option<String>,
    /// When the provider deletes it, where that is known.
    pub expires_at: Option<DateTime<Utc>>,
}

/// One line of a job's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// The state that was entered.
    pub state: State,
    /// When.
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
    pub wanted: EventSet,
    /// SHA-256 of the request's canonical body: tells a repeat from a different request.
    pub fingerprint: [u8; 32],
    /// Whether the provider calls back or only polls bring news.
    pub tracking: Tracking,
    /// How long the provider's renders took, as known when the job was made. Kept, because
    /// the times of its polls follow from it.
    pub durations: Option<Durations>,
    /// The shard whose poller polls it. Kept, because the number of shards may change.
    pub shard: u32,
}

/// An entry of the outbox: a change whose event is not published yet. The event's other
/// fields follow from the job, so an entry is small and its event always has the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The event to send.
    pub event: EventName,
    /// The state that was entered.
    pub status: State,
    /// When it was entered.
    pub at: DateTime<Utc>,
}

/// A render job. Built by [`Job::new`], changed by [`Job::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Our id.
    pub id: JobId,
    /// What its client asked for, and what was decided when it was made.
    pub request: StoredRequest,
    /// When the job was first stored. The job's age counts from here.
    pub created_at: DateTime<Utc>,
    /// Where it stands.
    pub state: State,
    /// The provider's id, once known.
    pub render_job_id: Option<RenderJobId>,
    /// The provider's own word for how it stands.
    pub provider_status: Option<String>,
    /// `0.0..=1.0`, rounded down to steps of [`PROGRESS_STEP`].
    pub progress: Option<f64>,
    /// Where the video is, when completed.
    pub result: RenderResult,
    /// Why it failed, when failed or timed out.
    pub failure: Option<Failure>,
    /// The states it went through, oldest first.
    pub timeline: Vec<Milestone>,
    /// When the provider was last asked, as of the last change.
    pub last_checked_at: Option<DateTime<Utc>>,
    /// How often the provider was asked, as of the last change.
    pub attempt_count: u32,
    /// Changes that nobody has been told of yet. Stored with the change itself.
    pub outbox: Vec<Notice>,
    /// When it left the active jobs: it is over, and whoever wanted to was told.
    pub settled_at: Option<DateTime<Utc>>,
    /// Counts changes; a store writes only over the version it read.
    pub version: u64,
}

/// How much customer metadata a job carries: every change of a job pays for its size.
pub const MAX_METADATA_BYTES: usize = 2048;

/// Progress is news only when it passed another quarter: each step costs one write.
pub const PROGRESS_STEP: f64 = 0.25;

/// The age at which a job that brings no news is first written all the same.
const FIRST_CHECKPOINT: TimeDelta = TimeDelta::seconds(120);

/// What came of a [`Report`].
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing new: a repeat, late news, or a poll that found what was known.
    Unchanged,
    /// The job as it should be stored, over the version it was read at.
    Changed(Box<Job>),
}

/// What the table says of one state and one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Stay; the report is a repeat or came late.
    Stay,
    /// Enter the state.
    To(State),
}

/// The kind of a [`Report`], all that the table looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// [`Report::Accepted`]
    Accepted,
    /// [`Report::Rejected`]
    Rejected,
    /// [`Report::SubmitUnclear`]
    SubmitUnclear,
    /// [`RenderStatus::Queued`]
    Queued,
    /// [`RenderStatus::Processing`]
    Processing,
    /// [`RenderStatus::Completed`]
    Completed,
    /// [`RenderStatus::Failed`]
    Failed,
    /// [`RenderStatus::Cancelled`]
    Cancelled,
    /// [`RenderStatus::TimedOut`]
    TimedOut,
    /// [`Report::DeadlinePassed`]
    DeadlinePassed,
}

impl ReportKind {
    /// All kinds, in the order of the table's columns.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::Rejected,
        Self::SubmitUnclear,
        Self::Queued,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::DeadlinePassed,
    ];
}

/// The whole transition table.
#[must_use]
pub fn next(state: State, report: ReportKind) -> Move {
    use Move::{Stay, To};
    use ReportKind as R;
    use State as S;
    match (state, report) {
        (S::Submitting | S::SubmitUnknown, R::Accepted | R::Queued) => To(S::Queued),
        (S::Submitting, R::SubmitUnclear) => To(S::SubmitUnknown),
        // A rejection that arrives after we gave up on the answer still settles the doubt.
        (S::Submitting | S::SubmitUnknown, R::Rejected) => To(S::Failed),
        // Nobody can say whether a render exists, and nobody will: `submit_unknown` fails.
        (S::Submitting | S::SubmitUnknown, R::DeadlinePassed) => To(S::Failed),
        (S::SubmitUnknown, R::SubmitUnclear) => Stay,

        // A callback has proved acceptance, so a late answer to our submit adds nothing.
        (S::Queued | S::Processing, R::Accepted | R::Rejected | R::SubmitUnclear) => Stay,
        (S::Queued | S::Processing, R::DeadlinePassed) => To(S::TimedOut),
        (S::Queued | S::Processing, R::Queued) => Stay,
        (S::Processing, R::Processing) => Stay,
        (S::Submitting | S::SubmitUnknown | S::Queued, R::Processing) => To(S::Processing),

        // A webhook can beat our own write of the acceptance: any live state can end.
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::Completed) => {
            To(S::Completed)
        }
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::Failed) => To(S::Failed),
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::Cancelled) => {
            To(S::Cancelled)
        }
        (S::Submitting | S::SubmitUnknown | S::Queued | S::Processing, R::TimedOut) => {
            To(S::TimedOut)
        }

        // Giving up cancels nothing at the provider, so the render may still be done.
        (S::TimedOut, R::Completed) => To(S::Completed),
        (
            S::TimedOut,
            R::Accepted
            | R::Rejected
            | R::SubmitUnclear
            | R::Queued
            | R::Processing
            | R::Failed
            | R::Cancelled
            | R::TimedOut
            | R::DeadlinePassed,
        ) => Stay,

        // The end is the end, whatever arrives late.
        (
            S::Completed | S::Failed | S::Cancelled,
            R::Accepted
            | R::Rejected
            | R::SubmitUnclear
            | R::Queued
            | R::Processing
            | R::Completed
            | R::Failed
            | R::Cancelled
            | R::TimedOut
            | R::DeadlinePassed,
        ) => Stay,
    }
}

impl Report {
    /// What the table looks at.
    #[must_use]
    pub fn kind(&self) -> ReportKind {
        match self {
            Self::Accepted(_) => ReportKind::Accepted,
            Self::Rejected(_) => ReportKind::Rejected,
            Self::SubmitUnclear => ReportKind::SubmitUnclear,
            Self::DeadlinePassed => ReportKind::DeadlinePassed,
            Self::Observed(observation) => match observation.status {
                RenderStatus::Queued => ReportKind::Queued,
                RenderStatus::Processing => ReportKind::Processing,
                RenderStatus::Completed(_) => ReportKind::Completed,
                RenderStatus::Failed(_) => ReportKind::Failed,
                RenderStatus::Cancelled => ReportKind::Cancelled,
                RenderStatus::TimedOut => ReportKind::TimedOut,
            },
        }
    }
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
            settled_at: None,
            version: 1,
        }
    }

    /// Takes a report. `checks` is how often the provider was asked so far, as far as the
    /// reporter knows; the job keeps the larger count.
    #[must_use]
    pub fn apply(&self, report: &Report, checks: u32, now: DateTime<Utc>) -> Step {
        let mut job = self.clone();
        let moved = match next(self.standing(), report.kind()) {
            Move::Stay => false,
            Move::To(state) => {
                job.enter(state, report, now);
                true
            }
        };
        let learnt = (moved || !self.state.has_ended()) && job.learn(report);
        if !moved && !learnt {
            return Step::Unchanged;
        }
        if let Report::Observed(_) = report {
            job.last_checked_at = Some(now);
            job.attempt_count = checks.max(self.attempt_count.saturating_add(1));
        }
        job.version = self.version.saturating_add(1);
        Step::Changed(Box::new(job))
    }

    /// The job with the time and number of checks brought up to date, when its age has
    /// doubled since they were written (and is past two minutes): what an operator sees is
    /// never much staler than the job is old, and costs a logarithm of writes.
    #[must_use]
    pub fn checkpoint(&self, checks: u32, now: DateTime<Utc>) -> Option<Self> {
        let written = self.last_checked_at.unwrap_or(self.created_at) - self.created_at;
        let due = (written * 2).max(FIRST_CHECKPOINT);
        (!self.state.has_ended() && now - self.created_at >= due).then(|| Self {
            last_checked_at: Some(now),
            attempt_count: checks.max(self.attempt_count),
            version: self.version.saturating_add(1),
            ..self.clone()
        })
    }

    /// The job after those who wanted to hear of `told` were told.
    #[must_use]
    pub fn told(&self, told: &[Notice]) -> Self {
        let mut job = self.clone();
        job.outbox.retain(|notice| !told.contains(notice));
        job
    }

    /// The job as the next version of itself, to be stored over this one.
    #[must_use]
    pub fn bumped(mut self) -> Self {
        self.version = self.version.saturating_add(1);
        self
    }

    /// The job as it leaves the active ones, if it may: everybody who wanted to hear of it
    /// was told, and nothing more can come of asking. `deadline` is the age at which its
    /// provider is no longer asked. None also when it has left already.
    #[must_use]
    pub fn settle(&self, deadline: TimeDelta, now: DateTime<Utc>) -> Option<Self> {
        let over = match self.state {
            State::Completed | State::Failed | State::Cancelled => true,
            State::TimedOut => now - self.created_at >= deadline,
            State::Submitting | State::SubmitUnknown | State::Queued | State::Processing => false,
        };
        let may = over && self.outbox.is_empty() && self.settled_at.is_none();
        may.then(|| Self { settled_at: Some(now), ..self.clone() })
    }

    /// Whether the job is over or may still turn out to be completed.
    #[must_use]
    pub fn may_still_complete(&self) -> bool {
        next(self.standing(), ReportKind::Completed) != Move::Stay
    }

    /// The row of the table that the job stands in. A job whose submission nobody confirmed
    /// in time has failed for its customer, and is a time-out all the same: the provider may
    /// have rendered it, and its callback is the only proof.
    fn standing(&self) -> State {
        let unconfirmed = |failure: &Failure| failure.code == FailureCode::SubmitUnknown;
        match self.state {
            State::Failed if self.failure.as_ref().is_some_and(unconfirmed) => State::TimedOut,
            state => state,
        }
    }

    /// When the job ended, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.timeline.iter().rev().find(|line| line.state.has_ended()).map(|line| line.at)
    }

    fn enter(&mut self, state: State, report: &Report, now: DateTime<Utc>) {
        self.timeline.push(Milestone { state, at: now });
        // A late completion comes back among the active ones until it was told.
        self.settled_at = None;
        self.failure = failure_of(state, report);
        if let Report::Observed(Observation { status: RenderStatus::Completed(result), .. }) =
            report
        {
            self.result = result.clone();
        }
        self.state = state;
        if let Some(event) = state.event().filter(|event| self.request.wanted.contains(*event)) {
            self.outbox.push(Notice { event, status: state, at: now });
        }
    }

    /// Takes what a report tells beside the state; answers whether any of it is news.
    fn learn(&mut self, report: &Report) -> bool {
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
            // The provider's own word rides along with a change; alone it is no news,
            // or every phase of a render would cost a write.
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
