//! One task of one job: repair it or poll its provider, and store and publish what changed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::job::{Job, Report, State};
use domain::polling::{PauseReason, PollResult, PollSchedule, Trouble};
use domain::provider::{ErrorClass, StatusAnswer};
use shared::store::Committed;
use shared::telemetry::chain;
use shared::tracker::{ApplyOutcome, Patience, ReportSource, TrackError, polls_due};
use tracing::error;

use crate::Poller;
use crate::plan::{PUBLISH_GRACE, PollTarget, SUBMIT_TIMEOUT_GRACE, deadline};

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
                (self.apply_report(job, &report, ReportSource::Poll, now()).await?, None)
            }
            (Some(RepairAction::PublishOnly), _) => (Some(job), None),
            (None, PollTarget::Provider) => {
                let (job, reply) = self.fetch_status(job, now).await?;
                (job, Some(reply))
            }
            (None, PollTarget::NoProvider) => (Some(job), Some(StatusReply::provider_paused())),
            // Another function has done it meanwhile.
            (None, PollTarget::Repair) => (Some(job), None),
        };
        let result = reply.map_or(PollResult::NotAsked, |reply| reply.result);
        // A render of which its provider could not tell is asked about after its deadline too.
        let (source, patience) = match reply {
            Some(StatusReply { is_conclusive: true, .. }) => {
                (ReportSource::LastPoll, Patience::Deadline)
            }
            Some(StatusReply { is_conclusive: false, .. }) | None => {
                (ReportSource::Poll, Patience::Outage)
            }
        };
        let job = match (job, reply) {
            // The reply comes first, because the render may have ended since the last poll.
            (Some(job), Some(_)) if times_out(&job, &schedule, now()) => {
                let report = Report::DeadlinePassed;
                self.apply_and_publish(job, &report, source, patience, now()).await?
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
        let job = self.tracker.publish_with(job, patience, now()).await?;
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
            // Without our own key for this host no status can be had.
            Err(TrackError::Key(cause)) => {
                error!(
                    job.id = %job.id, provider.name = %job.request.provider, error = chain(&cause),
                    "provider key unavailable; job status not fetched"
                );
                let reason = PauseReason::RefusedKey;
                return Ok((Some(job), StatusReply::trouble(reason, None, None)));
            }
            Err(cause) => return Err(cause),
        };
        Ok(match answer {
            Some(StatusAnswer::Observed(observation)) => {
                let (report, source) = (Report::Observed(observation), ReportSource::Poll);
                let job = self.apply_report(job, &report, source, now()).await?;
                (job, StatusReply { is_conclusive: true, result: PollResult::Told })
            }
            Some(StatusAnswer::Unavailable { class, status, retry_after }) => {
                (Some(job), status_reply(class, status, retry_after))
            }
            Some(StatusAnswer::NotFound) => {
                (Some(job), StatusReply { is_conclusive: true, result: PollResult::Told })
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
        source: ReportSource,
        now: DateTime<Utc>,
    ) -> Result<Option<Job>, TrackError> {
        self.apply_and_publish(job, report, source, Patience::Outage, now).await
    }

    async fn apply_and_publish(
        &self,
        job: Job,
        report: &Report,
        source: ReportSource,
        patience: Patience,
        now: DateTime<Utc>,
    ) -> Result<Option<Job>, TrackError> {
        let polls = polls_due(&self.tracker.poll_schedule(&job), &job, now);
        match self.tracker.apply_report(job, report, source, polls, now).await? {
            ApplyOutcome::Changed(job) => {
                Ok(Some(self.tracker.publish_with(job, patience, now).await?))
            }
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
        Self { is_conclusive: false, result: PollResult::NotAsked }
    }

    fn trouble(reason: PauseReason, status: Option<u16>, retry_after: Option<Duration>) -> Self {
        let trouble = Trouble { reason, status, retry_after };
        Self { is_conclusive: false, result: PollResult::NotTold(trouble) }
    }
}

fn status_reply(
    class: ErrorClass,
    status: Option<u16>,
    retry_after: Option<Duration>,
) -> StatusReply {
    let reason = match (class, status) {
        (ErrorClass::Rate | ErrorClass::Busy, _) => PauseReason::RateLimited,
        (ErrorClass::Auth | ErrorClass::Quota, _) => PauseReason::RefusedKey,
        // The provider works: the error is about this render, and says nothing of its status.
        (ErrorClass::Invalid | ErrorClass::NotFound, _) => {
            return StatusReply { is_conclusive: false, result: PollResult::Told };
        }
        (ErrorClass::Transient, None) => PauseReason::Unreachable,
        (ErrorClass::Transient, Some(200..=299)) => PauseReason::UnreadableAnswer,
        (ErrorClass::Transient, Some(_)) => PauseReason::ServerError,
    };
    StatusReply::trouble(reason, status, retry_after)
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
        // Its render may be found all the same.
        State::Failed if !job.is_final() && target != PollTarget::Repair => None,
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

/// Whether a job that has not ended times out: what its provider answered last is no reason to
/// keep its customer waiting.
fn times_out(job: &Job, schedule: &PollSchedule, now: DateTime<Utc>) -> bool {
    !job.state.has_ended() && now - job.created_at >= deadline(schedule)
}

#[cfg(test)]
mod tests;
