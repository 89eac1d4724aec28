//! One look at one job: repair it, ask its provider, tell what was learnt.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::job::{Job, Report, State};
use domain::polling::{Heard, PollingLaw};
use domain::provider::{ErrorClass, StatusAnswer};
use shared::store::Committed;
use shared::telemetry::chain;
use shared::tracker::{Bearer, Told, TrackError, checks_due};
use tracing::error;

use crate::Poller;
use crate::plan::{MAX_OUTAGE, PUBLISH_GRACE, PollTarget, SUBMIT_TIMEOUT_GRACE, deadline};

/// How long past its deadline a job waits for a provider that tells of others and not of it.
const MAX_SILENCE: TimeDelta = TimeDelta::minutes(15);

/// What came of a look.
#[derive(Debug)]
pub(crate) struct PollOutcome {
    /// The job as it is now; none when there is nothing left to do for it.
    pub(crate) job: Option<Box<Job>>,
    /// What its provider said, as far as its next question goes.
    pub(crate) result: Heard,
}

impl Poller {
    /// Looks at a job, and asks whom it may ask.
    ///
    /// # Errors
    /// When the table, bus or queue does not answer. Looking again is harmless.
    pub(crate) async fn poll_job(
        &self,
        job: Job,
        target: PollTarget,
        now: fn() -> DateTime<Utc>,
    ) -> Result<PollOutcome, TrackError> {
        let schedule = self.tracker.law(&job);
        // What is repaired is asked about at the next look, and not given up before.
        let (job, reply) = match (repair_action(&job, now()), target) {
            (Some(RepairAction::Report(report)), _) => {
                (self.apply_report(job, &report, now()).await?, None)
            }
            (Some(RepairAction::SettleOnly), _) => (Some(job), None),
            (None, PollTarget::Provider { .. }) => {
                let (job, reply) = self.fetch_status(job, now).await?;
                (job, Some(reply))
            }
            (None, PollTarget::NoProvider) => (Some(job), Some(StatusReply::provider_down())),
        };
        let is_down = match target {
            PollTarget::Provider { is_down } => is_down,
            PollTarget::NoProvider => true,
        };
        let result = reply.map_or(Heard::Nothing, |reply| reply.result);
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
        // A callback was faster, and whoever took it is telling just now: a second teller
        // would put the event on the bus once more. The next look is for a teller's crash.
        if job.outbox.iter().any(|notice| now() - notice.at < PUBLISH_GRACE) {
            return Ok(PollOutcome { job: Some(Box::new(job)), result });
        }
        let job = self.tracker.settle(job, now()).await?;
        let is_left = job.settled_at.is_none();
        Ok(PollOutcome { job: is_left.then(|| Box::new(job)), result })
    }

    /// Asks the provider; answers the job as it is then, none when it is gone.
    async fn fetch_status(
        &self,
        job: Job,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Option<Job>, StatusReply), TrackError> {
        let answer = match self.tracker.ask(&job, None, now()).await {
            Ok(answer) => answer,
            // Our own key is missing: nobody can tell, and the job waits like any other.
            Err(TrackError::Secret(cause)) => {
                error!(job.id = %job.id, error = chain(&cause), "job {} cannot be asked about", job.id);
                return Ok((
                    Some(job),
                    StatusReply { is_conclusive: false, result: Heard::Trouble(None) },
                ));
            }
            Err(cause) => return Err(cause),
        };
        Ok(match answer {
            Some(StatusAnswer::Observed(observation)) => {
                let job = self.apply_report(job, &Report::Observed(observation), now()).await?;
                (job, StatusReply { is_conclusive: true, result: Heard::Answer })
            }
            Some(StatusAnswer::NotTold { class, retry_after }) => (
                Some(job),
                StatusReply { is_conclusive: false, result: poll_result(class, retry_after) },
            ),
            Some(StatusAnswer::NotFound) => {
                (Some(job), StatusReply { is_conclusive: true, result: Heard::Answer })
            }
            None => (Some(job), StatusReply::not_asked()),
        })
    }

    /// Tells a job of a report, and whoever wants to hear of what came of it.
    async fn apply_report(
        &self,
        job: Job,
        report: &Report,
        now: DateTime<Utc>,
    ) -> Result<Option<Job>, TrackError> {
        let checks = checks_due(&self.tracker.law(&job), &job, now);
        match self.tracker.tell(job, report, Bearer::Poll, checks, now).await? {
            Told::Changed(job) => Ok(Some(self.tracker.settle(job, now).await?)),
            Told::Unchanged(job) => match job.checkpoint(checks, now) {
                Some(checked) => match self.tracker.store.commit_job(&checked).await? {
                    Committed::Stored => Ok(Some(checked)),
                    // Something newer than a checkpoint, and perhaps the end.
                    Committed::Overtaken(current) => Ok(current),
                },
                None => Ok(Some(job)),
            },
            Told::Gone => Ok(None),
        }
    }
}

/// What was heard of a job's provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StatusReply {
    /// How the render stands, or that there is none.
    is_conclusive: bool,
    /// What it means for the next question to the provider.
    result: Heard,
}

impl StatusReply {
    /// There was nothing to ask by.
    fn not_asked() -> Self {
        Self { is_conclusive: true, result: Heard::Nothing }
    }

    /// The provider was not asked, because it answers nobody.
    fn provider_down() -> Self {
        Self { is_conclusive: false, result: Heard::Trouble(None) }
    }
}

fn poll_result(class: ErrorClass, retry_after: Option<Duration>) -> Heard {
    match class {
        ErrorClass::Rate | ErrorClass::Busy => Heard::TooMuch(retry_after),
        ErrorClass::Auth | ErrorClass::Quota | ErrorClass::Transient => Heard::Trouble(retry_after),
        // About this render, and so an answer.
        ErrorClass::Invalid | ErrorClass::NotFound => Heard::Answer,
    }
}

/// What a look does instead of asking the provider.
#[derive(Debug, PartialEq)]
enum RepairAction {
    /// Tell the job this.
    Report(Report),
    /// Only finish telling of it.
    SettleOnly,
}

fn repair_action(job: &Job, now: DateTime<Utc>) -> Option<RepairAction> {
    match job.state {
        State::Completed | State::Failed | State::Cancelled => Some(RepairAction::SettleOnly),
        State::Submitting if now - job.created_at >= SUBMIT_TIMEOUT_GRACE => {
            Some(RepairAction::Report(Report::SubmitUnclear))
        }
        // Its provider has nothing to do with why it could not be told of.
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::TimedOut
            if !job.outbox.is_empty() =>
        {
            Some(RepairAction::SettleOnly)
        }
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::TimedOut => None,
    }
}

/// Whether a job that has not ended is given up. Only after the provider was asked once more:
/// a render that ended while nobody looked is not to be called a failure. And not because a
/// provider tells nobody anything.
fn is_given_up(
    job: &Job,
    schedule: &PollingLaw,
    reply: StatusReply,
    is_down: bool,
    now: DateTime<Utc>,
) -> bool {
    let patience = match reply {
        StatusReply { is_conclusive: true, .. } => TimeDelta::zero(),
        StatusReply { result: Heard::TooMuch(_), .. } => MAX_OUTAGE,
        StatusReply { result: Heard::Trouble(_), .. } if is_down => MAX_OUTAGE,
        StatusReply { result: Heard::Trouble(_) | Heard::Answer | Heard::Nothing, .. } => {
            MAX_SILENCE
        }
    };
    now - job.created_at >= deadline(schedule) + patience
}

#[cfg(test)]
mod tests;
