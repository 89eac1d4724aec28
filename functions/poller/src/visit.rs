//! One look at one job: repair it, ask its provider, say when to look again.
//!
//! A job that only we ask about has a chain of wake-up calls, one in the `wake` queue at any
//! time. A call is taken from the queue only after the next one is in it, so a crash repeats
//! a look and never ends the chain. Nothing is written to keep the time: when the next poll
//! is due follows from the job's age.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::JobId;
use domain::job::{Job, Report, State};
use domain::polling::Tracking;
use domain::provider::StatusAnswer;
use shared::queue::{WakeQueue, WakeUp};
use shared::telemetry::chain;
use shared::tracker::{Told, TrackError, Tracker, age, checks_due};
use tracing::{error, warn};

/// How old an unanswered submit is before nobody can still be waiting for the answer: the
/// submit function is gone after 29 s.
pub(crate) const SUBMIT_IS_OVER: Duration = Duration::from_secs(45);

/// How long past its deadline a job waits for a provider that does not answer.
const LONGEST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// How often a job past its deadline is looked at.
const LATE_LOOK: Duration = Duration::from_secs(60);

/// How long whoever stored a change may take to tell of it, before it must have crashed.
const TELLING: TimeDelta = TimeDelta::seconds(15);

/// Looks after active jobs.
pub struct Poller {
    /// Jobs, providers, and what changes jobs.
    pub tracker: Tracker,
    /// Where the next wake-up calls go.
    pub wakes: WakeQueue,
}

/// What a look found about the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextLook {
    /// None: the job is over.
    Never,
    /// Not before this age of the job.
    AtAge(Duration),
}

impl Poller {
    /// Follows a wake-up call, and leaves the next one if there is to be one.
    ///
    /// # Errors
    /// When the call should come back, because the look or the next call failed.
    pub(crate) async fn wake_up(
        &self,
        id: &JobId,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), TrackError> {
        let Some(job) = self.tracker.store.job(id).await? else {
            warn!(job.id = %id, "a wake-up call names job {id}, which is not there");
            return Ok(());
        };
        let created_at = job.created_at;
        if let NextLook::AtAge(due) = self.visit(job, now).await? {
            let age = (now() - created_at).to_std().unwrap_or_default();
            let call = WakeUp { job_id: id.clone() };
            self.wakes.send(&call, due.saturating_sub(age)).await?;
        }
        Ok(())
    }

    /// Looks at a job that was just read.
    ///
    /// # Errors
    /// When the table, bus or queue does not answer. Looking again is harmless.
    pub(crate) async fn visit(
        &self,
        job: Job,
        now: fn() -> DateTime<Utc>,
    ) -> Result<NextLook, TrackError> {
        let law = self.tracker.law(&job);
        let age = age(&job, now());
        let next_due = law.next_after(job.tracking, age, job.id.spread());
        let (job, heard) = match repair(&job, age) {
            Some(Repair::Report(report)) => (self.tell(job, &report, now()).await?, Heard::Answer),
            Some(Repair::SettleOnly) => (Some(job), Heard::Answer),
            None => self.ask(job, now).await?,
        };
        let job = match job {
            Some(job) if !job.state.has_ended() && is_given_up(age, law.deadline, heard) => {
                self.tell(job, &Report::DeadlinePassed, now()).await?
            }
            job => job,
        };
        let Some(job) = job else { return Ok(NextLook::Never) };
        // A callback was faster, and whoever took it is telling just now: a second teller
        // would put the event on the bus once more. The next look is for a teller's crash.
        if job.outbox.iter().any(|notice| now() - notice.at < TELLING) {
            return Ok(NextLook::AtAge(age + TELLING.to_std().unwrap_or_default()));
        }
        let job = self.tracker.settle(job, now()).await?;
        let late = age >= law.deadline;
        if job.state.has_ended() && (late || !job.may_still_complete()) {
            return Ok(NextLook::Never);
        }
        // What a provider asks for beats the law, and past the deadline there is no law.
        let asked = match heard {
            Heard::Silence(Some(wait)) => age.saturating_add(wait),
            Heard::Silence(None) | Heard::Answer => Duration::ZERO,
        };
        let soonest = age + if late { LATE_LOOK } else { Duration::from_secs(1) };
        Ok(NextLook::AtAge(next_due.max(asked).max(soonest)))
    }

    /// Asks the provider; answers the job as it is then, none when it is gone.
    async fn ask(
        &self,
        job: Job,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Option<Job>, Heard), TrackError> {
        let answer = match self.tracker.ask(&job, None, now()).await {
            Ok(answer) => answer,
            // Our own key is missing: nobody can tell, and the job waits like any other.
            Err(TrackError::Secret(cause)) => {
                error!(job.id = %job.id, error = chain(&cause), "job {} cannot be asked about", job.id);
                return Ok((Some(job), Heard::Silence(None)));
            }
            Err(cause) => return Err(cause),
        };
        match answer {
            Some(StatusAnswer::Observed(observation)) => {
                let job = self.tell(job, &Report::Observed(observation), now()).await?;
                Ok((job, Heard::Answer))
            }
            Some(StatusAnswer::NotTold { retry_after, .. }) => {
                Ok((Some(job), Heard::Silence(retry_after)))
            }
            Some(StatusAnswer::NotFound) | None => Ok((Some(job), Heard::Answer)),
        }
    }

    /// Tells a job of a report, and whoever wants to hear of what came of it.
    async fn tell(
        &self,
        job: Job,
        report: &Report,
        now: DateTime<Utc>,
    ) -> Result<Option<Job>, TrackError> {
        let checks = checks_due(&self.tracker.law(&job), &job, now);
        match self.tracker.tell(job, report, checks, now).await? {
            Told::Changed(job) => Ok(Some(self.tracker.settle(job, now).await?)),
            Told::Unchanged(job) => match job.checkpoint(checks, now) {
                Some(checked) => {
                    // Whoever was faster wrote something newer than a checkpoint.
                    self.tracker.store.commit_job(&checked).await?;
                    Ok(Some(checked))
                }
                None => Ok(Some(job)),
            },
            Told::Gone => Ok(None),
        }
    }
}

/// What was heard of a job's provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// An answer, or there was nobody to ask.
    Answer,
    /// None; and how long the provider asks us to wait, where it does.
    Silence(Option<Duration>),
}

/// What a look does instead of asking the provider.
#[derive(Debug, PartialEq)]
enum Repair {
    /// Tell the job this.
    Report(Report),
    /// Only finish telling of it.
    SettleOnly,
}

fn repair(job: &Job, age: Duration) -> Option<Repair> {
    match job.state {
        State::Completed | State::Failed | State::Cancelled => Some(Repair::SettleOnly),
        State::Submitting if age >= SUBMIT_IS_OVER => Some(Repair::Report(Report::SubmitUnclear)),
        State::Submitting
        | State::SubmitUnknown
        | State::Queued
        | State::Processing
        | State::TimedOut => None,
    }
}

/// Whether a job that has not ended by this age is given up. Only after the provider was
/// asked once more: a render that ended while nobody looked is not to be called a failure.
fn is_given_up(age: Duration, deadline: Duration, heard: Heard) -> bool {
    match heard {
        Heard::Answer => age >= deadline,
        Heard::Silence(_) => age >= deadline + LONGEST_SILENCE,
    }
}

/// Whether the schedule's tick has to look at a job. The chain of wake-up calls looks after
/// a poll-only job; the tick is its floor, in case the chain never began.
pub(crate) fn needs_tick(job: &Job, law: &domain::polling::PollingLaw, now: DateTime<Utc>) -> bool {
    const TICK: Duration = Duration::from_secs(60);
    let age = age(job, now);
    if let Some(oldest) = job.outbox.iter().map(|notice| notice.at).min() {
        // Whoever stored the change tells of it; a second teller would only repeat it.
        return now - oldest >= TELLING;
    }
    if age >= law.deadline || repair(job, age).is_some() {
        return true;
    }
    // Whether it was accepted is worth a question a minute, where there is one to ask.
    if job.state == State::SubmitUnknown {
        return true;
    }
    let due_until = |age| law.count_until(job.tracking, age, job.id.spread());
    let due_lately = due_until(age) > due_until(age.saturating_sub(TICK));
    match job.tracking {
        Tracking::WebhookFirst => due_lately,
        Tracking::PollOnly => due_lately && age >= TICK,
    }
}

#[cfg(test)]
#[path = "visit_tests.rs"]
mod tests;
