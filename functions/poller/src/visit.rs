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
use crate::plan::{Asks, LONGEST_OUTAGE, SUBMIT_IS_OVER, TELLING, deadline};

/// How long past its deadline a job waits for a provider that tells of others and not of it.
const LONGEST_SILENCE: TimeDelta = TimeDelta::minutes(15);

/// What came of a look.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The job as it is now; none when there is nothing left to do for it.
    pub(crate) job: Option<Box<Job>>,
    /// What its provider said, as far as its next question goes.
    pub(crate) heard: Heard,
}

impl Poller {
    /// Looks at a job, and asks whom it may ask.
    ///
    /// # Errors
    /// When the table, bus or queue does not answer. Looking again is harmless.
    pub(crate) async fn visit(
        &self,
        job: Job,
        asks: Asks,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Looked, TrackError> {
        let law = self.tracker.law(&job);
        // What is repaired is asked about at the next look, and not given up before.
        let (job, said) = match (repair(&job, now()), asks) {
            (Some(Repair::Report(report)), _) => (self.tell(job, &report, now()).await?, None),
            (Some(Repair::SettleOnly), _) => (Some(job), None),
            (None, Asks::Provider { .. }) => {
                let (job, said) = self.ask(job, now).await?;
                (job, Some(said))
            }
            (None, Asks::Nobody) => (Some(job), Some(Said::by_nobody())),
        };
        let is_down = match asks {
            Asks::Provider { is_down } => is_down,
            Asks::Nobody => true,
        };
        let heard = said.map_or(Heard::Nothing, |said| said.heard);
        let job = match (job, said) {
            (Some(job), Some(said))
                if !job.state.has_ended() && is_given_up(&job, &law, said, is_down, now()) =>
            {
                self.tell(job, &Report::DeadlinePassed, now()).await?
            }
            (job, _) => job,
        };
        let Some(job) = job else { return Ok(Looked { job: None, heard }) };
        // A callback was faster, and whoever took it is telling just now: a second teller
        // would put the event on the bus once more. The next look is for a teller's crash.
        if job.outbox.iter().any(|notice| now() - notice.at < TELLING) {
            return Ok(Looked { job: Some(Box::new(job)), heard });
        }
        let job = self.tracker.settle(job, now()).await?;
        let is_left = job.settled_at.is_none();
        Ok(Looked { job: is_left.then(|| Box::new(job)), heard })
    }

    /// Asks the provider; answers the job as it is then, none when it is gone.
    async fn ask(
        &self,
        job: Job,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Option<Job>, Said), TrackError> {
        let answer = match self.tracker.ask(&job, None, now()).await {
            Ok(answer) => answer,
            // Our own key is missing: nobody can tell, and the job waits like any other.
            Err(TrackError::Secret(cause)) => {
                error!(job.id = %job.id, error = chain(&cause), "job {} cannot be asked about", job.id);
                return Ok((Some(job), Said { told: false, heard: Heard::Trouble(None) }));
            }
            Err(cause) => return Err(cause),
        };
        Ok(match answer {
            Some(StatusAnswer::Observed(observation)) => {
                let job = self.tell(job, &Report::Observed(observation), now()).await?;
                (job, Said { told: true, heard: Heard::Answer })
            }
            Some(StatusAnswer::NotTold { class, retry_after }) => {
                (Some(job), Said { told: false, heard: heard(class, retry_after) })
            }
            Some(StatusAnswer::NotFound) => (Some(job), Said { told: true, heard: Heard::Answer }),
            None => (Some(job), Said::nothing()),
        })
    }

    /// Tells a job of a report, and whoever wants to hear of what came of it.
    async fn tell(
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
struct Said {
    /// How the render stands, or that there is none.
    told: bool,
    /// What it means for the next question to the provider.
    heard: Heard,
}

impl Said {
    /// There was nothing to ask by.
    fn nothing() -> Self {
        Self { told: true, heard: Heard::Nothing }
    }

    /// The provider was not asked, because it answers nobody.
    fn by_nobody() -> Self {
        Self { told: false, heard: Heard::Trouble(None) }
    }
}

fn heard(class: ErrorClass, retry_after: Option<Duration>) -> Heard {
    match class {
        ErrorClass::Rate | ErrorClass::Busy => Heard::TooMuch(retry_after),
        ErrorClass::Auth | ErrorClass::Quota | ErrorClass::Transient => Heard::Trouble(retry_after),
        // About this render, and so an answer.
        ErrorClass::Invalid | ErrorClass::NotFound => Heard::Answer,
    }
}

/// What a look does instead of asking the provider.
#[derive(Debug, PartialEq)]
enum Repair {
    /// Tell the job this.
    Report(Report),
    /// Only finish telling of it.
    SettleOnly,
}

fn repair(job: &Job, now: DateTime<Utc>) -> Option<Repair> {
    match job.state {
        State::Completed | State::Failed | State::Cancelled => Some(Repair::SettleOnly),
        State::Submitting if now - job.created_at >= SUBMIT_IS_OVER => {
            Some(Repair::Report(Report::SubmitUnclear))
        }
        // Its provider has nothing to do with why it could not be told of.
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::TimedOut
            if !job.outbox.is_empty() =>
        {
            Some(Repair::SettleOnly)
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
fn is_given_up(job: &Job, law: &PollingLaw, said: Said, is_down: bool, now: DateTime<Utc>) -> bool {
    let patience = match said {
        Said { told: true, .. } => TimeDelta::zero(),
        Said { heard: Heard::TooMuch(_), .. } => LONGEST_OUTAGE,
        Said { heard: Heard::Trouble(_), .. } if is_down => LONGEST_OUTAGE,
        Said { heard: Heard::Trouble(_) | Heard::Answer | Heard::Nothing, .. } => LONGEST_SILENCE,
    };
    now - job.created_at >= deadline(law) + patience
}

#[cfg(test)]
#[path = "visit_tests.rs"]
mod tests;
