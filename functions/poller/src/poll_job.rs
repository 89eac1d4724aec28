//! One task of one job: repair it or poll its provider, and store and publish what changed.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::job::{Job, Report, State};
use domain::polling::{PollResult, PollSchedule};
use domain::provider::{ErrorClass, StatusAnswer};
use shared::store::Committed;
use shared::telemetry::chain;
use shared::tracker::{ApplyOutcome, ReportSource, TrackError, polls_due};
use tracing::error;

use crate::Poller;
use crate::plan::{MAX_OUTAGE, PUBLISH_GRACE, PollTarget, SUBMIT_TIMEOUT_GRACE, deadline};

/// How long past its deadline a job waits for a provider that answers for other jobs.
const MAX_SILENCE: TimeDelta = TimeDelta::minutes(15);

#[derive(Debug)]
pub(crate) struct PollOutcome {
    /// The job as stored now; none when it has settled or is gone.
    pub(crate) job: Option<Box<Job>>,
    /// What the poll means for the provider's throttle.
    pub(crate) result: PollResult,
}

impl Poller {
    /// Polls a job. Any number of polls at once are harmless: each change is one conditional
    /// write.
    ///
    /// # Errors
    /// When the table, bus or queue fails. The next poll tries again.
    pub(crate) async fn poll_job(
        &self,
        job: Job,
        target: PollTarget,
        now: fn() -> DateTime<Utc>,
    ) -> Result<PollOutcome, TrackError> {
        let schedule = self.tracker.poll_schedule(&job);
        let action = repair_action(&job, target, now());
        let is_repair = action.is_some();
        // A repaired job is not given up before the next poll has asked its provider.
        let (job, reply) = match (action, target) {
            (Some(RepairAction::Report(report)), _) => {
                (self.apply_report(job, &report, now()).await?, None)
            }
            (Some(RepairAction::PublishOnly), _) => (Some(job), None),
            (None, PollTarget::Provider { .. }) => {
                let (job, reply) = self.fetch_status(job, now).await?;
                (job, Some(reply))
            }
            (None, PollTarget::NoProvider) => (Some(job), Some(StatusReply::provider_paused())),
            // Another function has done it meanwhile.
            (None, PollTarget::Repair) => (Some(job), None),
        };
        let is_down = match target {
            PollTarget::Provider { is_down } => is_down,
            PollTarget::NoProvider | PollTarget::Repair => true,
        };
        let result = reply.map_or(PollResult::NotAsked, |reply| reply.result);
        let job = match (job, reply) {
            (Some(job), Some(reply))
                if !job.state.has_ended()
                    && is_given_up(&job, &schedule, reply, is_down, now()) =>
            {
                self.apply_report(job, &Report::DeadlinePassed, now()).await?
            }
            (job, _) => job,
        };
        let Some(job) = job else { return Ok(PollOutcome { job: None, result }) };
        // The function that stored a fresh outbox is publishing it just now. Publishing it here
        // would put the event on the bus twice. The next poll repairs it after a crash.
        if job.outbox.iter().any(|entry| now() - entry.at < PUBLISH_GRACE) {
            return Ok(PollOutcome { job: Some(Box::new(job)), result });
        }
        // An outbox that could not be published waits for its repair, whose waits grow. A poll
        // that publishes it would try at the pace of polls.
        if !job.outbox.is_empty() && !is_repair {
            return Ok(PollOutcome { job: Some(Box::new(job)), result });
        }
        let job = self.tracker.publish_outbox(job, now()).await?;
        let is_left = job.settled_at.is_none();
        Ok(PollOutcome { job: is_left.then(|| Box::new(job)), result })
    }

    /// Asks the provider and applies its answer. The job is none when it is gone.
    async fn fetch_status(
        &self,
        job: Job,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Option<Job>, StatusReply), TrackError> {
        let answer = match self.tracker.fetch_status(&job, None, now()).await {
            Ok(answer) => answer,
            // Without our own key for this host no status can be had, and the job waits as in an
            // outage.
            Err(TrackError::Key(cause)) => {
                error!(
                    job.id = %job.id, provider.name = %job.request.provider, error = chain(&cause),
                    "provider key unavailable; job status not fetched"
                );
                return Ok((
                    Some(job),
                    StatusReply { is_conclusive: false, result: PollResult::Failed(None) },
                ));
            }
            Err(cause) => return Err(cause),
        };
        Ok(match answer {
            Some(StatusAnswer::Observed(observation)) => {
                let job = self.apply_report(job, &Report::Observed(observation), now()).await?;
                (job, StatusReply { is_conclusive: true, result: PollResult::Answered })
            }
            Some(StatusAnswer::Unavailable { class, retry_after }) => (
                Some(job),
                StatusReply { is_conclusive: false, result: poll_result(class, retry_after) },
            ),
            Some(StatusAnswer::NotFound) => {
                (Some(job), StatusReply { is_conclusive: true, result: PollResult::Answered })
            }
            None => (Some(job), StatusReply::not_asked()),
        })
    }

    /// Applies a report and publishes the change. When nothing has changed, the poll count may
    /// still be due for a checkpoint.
    async fn apply_report(
        &self,
        job: Job,
        report: &Report,
        now: DateTime<Utc>,
    ) -> Result<Option<Job>, TrackError> {
        let polls = polls_due(&self.tracker.poll_schedule(&job), &job, now);
        match self.tracker.apply_report(job, report, ReportSource::Poll, polls, now).await? {
            ApplyOutcome::Changed(job) => Ok(Some(self.tracker.publish_outbox(job, now).await?)),
            ApplyOutcome::Unchanged(job) => match job.checkpoint(polls, now) {
                Some(updated) => match self.tracker.store.commit_job(&updated).await? {
                    Committed::Stored => Ok(Some(updated)),
                    // The stored change is newer than the checkpoint, and may be the end.
                    Committed::Conflict(current) => Ok(current),
                },
                None => Ok(Some(job)),
            },
            ApplyOutcome::Gone => Ok(None),
        }
    }
}

/// What a poll has found out about a job's render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StatusReply {
    /// The render's status is known, or that there is no render.
    is_conclusive: bool,
    result: PollResult,
}

impl StatusReply {
    /// There was nothing to ask by, and so there is nothing to wait for.
    fn not_asked() -> Self {
        Self { is_conclusive: true, result: PollResult::NotAsked }
    }

    /// The provider was not asked because it is paused.
    fn provider_paused() -> Self {
        Self { is_conclusive: false, result: PollResult::Failed(None) }
    }
}

fn poll_result(class: ErrorClass, retry_after: Option<Duration>) -> PollResult {
    match class {
        ErrorClass::Rate | ErrorClass::Busy => PollResult::RateLimited(retry_after),
        ErrorClass::Auth | ErrorClass::Quota | ErrorClass::Transient => {
            PollResult::Failed(retry_after)
        }
        // The provider works: the error is about this render.
        ErrorClass::Invalid | ErrorClass::NotFound => PollResult::Answered,
    }
}

/// What a poll does instead of asking the provider.
#[derive(Debug, PartialEq)]
enum RepairAction {
    /// Apply this report.
    Report(Report),
    /// Only publish its outbox and settle it.
    PublishOnly,
}

fn repair_action(job: &Job, target: PollTarget, now: DateTime<Utc>) -> Option<RepairAction> {
    match job.state {
        State::Completed | State::Failed | State::Cancelled => Some(RepairAction::PublishOnly),
        State::Submitting if now - job.created_at >= SUBMIT_TIMEOUT_GRACE => {
            Some(RepairAction::Report(Report::SubmitUnclear))
        }
        // The publish has failed, which the provider has nothing to do with.
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::TimedOut
            if !job.outbox.is_empty() && target == PollTarget::Repair =>
        {
            Some(RepairAction::PublishOnly)
        }
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::TimedOut => None,
    }
}

/// Whether a job that has not ended is given up after this reply. The reply comes first because
/// the render may have ended since the last poll; an outage of the provider alone is no reason
/// to give up before [`MAX_OUTAGE`].
fn is_given_up(
    job: &Job,
    schedule: &PollSchedule,
    reply: StatusReply,
    is_down: bool,
    now: DateTime<Utc>,
) -> bool {
    let patience = match reply {
        StatusReply { is_conclusive: true, .. } => TimeDelta::zero(),
        StatusReply { result: PollResult::RateLimited(_), .. } => MAX_OUTAGE,
        StatusReply { result: PollResult::Failed(_), .. } if is_down => MAX_OUTAGE,
        StatusReply {
            result: PollResult::Failed(_) | PollResult::Answered | PollResult::NotAsked,
            ..
        } => MAX_SILENCE,
    };
    now - job.created_at >= deadline(schedule) + patience
}

#[cfg(test)]
mod tests;
