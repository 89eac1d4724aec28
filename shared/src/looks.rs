//! A look at a hint: the provider is asked how the render stands, and an end is stored and
//! published. `webhook` takes the first look, and the poller the others.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::id::RenderJobId;
use domain::job::{Job, Observation, Report};
use domain::provider::{ErrorClass, StatusAnswer};

use crate::tracker::{ApplyOutcome, ReportSource, TrackError, Tracker, polls_due};

/// The least wait before a provider is asked again that was asked too often.
const MIN_BUSY_WAIT: Duration = Duration::from_secs(5);

/// What a provider says about a hint.
#[derive(Clone, Debug, PartialEq)]
pub enum LookAnswer {
    /// The render has ended.
    Ended(Observation),
    /// The render has not ended, or the provider does not know it, or there is no id to ask by.
    NotEnded(Option<Observation>),
    /// The provider does not say.
    Unanswered {
        /// The wait that the provider asks for, if it does.
        asked_for: Option<Duration>,
    },
}

impl LookAnswer {
    /// What it reports of the render.
    #[must_use]
    pub fn observation(self) -> Option<Observation> {
        match self {
            Self::Ended(observation) => Some(observation),
            Self::NotEnded(observation) => observation,
            Self::Unanswered { .. } => None,
        }
    }
}

impl Tracker {
    /// Asks the provider about a hint. `render` is the render that the hint names.
    ///
    /// # Errors
    /// When the provider's API key cannot be read, or is not for the provider's host.
    pub async fn look(
        &self,
        job: &Job,
        render: Option<&RenderJobId>,
        now: DateTime<Utc>,
    ) -> Result<LookAnswer, TrackError> {
        Ok(match self.fetch_status(job, render, now).await? {
            Some(StatusAnswer::Observed(observation)) if observation.status.is_end() => {
                LookAnswer::Ended(observation)
            }
            Some(StatusAnswer::Observed(observation)) => LookAnswer::NotEnded(Some(observation)),
            Some(StatusAnswer::NotFound) | None => LookAnswer::NotEnded(None),
            Some(StatusAnswer::Unavailable { class, retry_after, .. }) => {
                let least = match class {
                    ErrorClass::Rate | ErrorClass::Busy => Some(MIN_BUSY_WAIT),
                    ErrorClass::Auth
                    | ErrorClass::Quota
                    | ErrorClass::Invalid
                    | ErrorClass::NotFound
                    | ErrorClass::Transient => None,
                };
                LookAnswer::Unanswered { asked_for: retry_after.max(least) }
            }
        })
    }

    /// Stores what was observed of a render outside its polls, and publishes the job's events.
    /// None when the job is gone.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the change may be stored all the same.
    pub async fn observe(
        &self,
        job: Job,
        observation: Observation,
        source: ReportSource,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Option<Job>, TrackError> {
        let polls = polls_due(&self.poll_schedule(&job), &job, now());
        let report = Report::Observed(observation);
        Ok(match self.apply_report(job, &report, source, polls, now()).await? {
            ApplyOutcome::Changed(job) => Some(self.publish_or_leave(job, now()).await),
            ApplyOutcome::Unchanged(job) => Some(job),
            ApplyOutcome::Gone => None,
        })
    }
}
