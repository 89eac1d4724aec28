//! Looks at hints: a callback has said that a render ended, and the provider has not confirmed it
//! yet. They need no shard's lease, because each change is one conditional write, so any
//! invocation takes them at once, beside a shard that it polls.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{DateTime, Utc};
use domain::hint::{FollowUp, Hint, wait_before_look};
use domain::job::Job;
use futures_util::future::join_all;
use shared::batch::Handled;
use shared::looks::LookAnswer;
use shared::queue::LookCall;
use shared::telemetry::chain;
use shared::tracker::{ReportSource, TrackError};
use tracing::{error, warn};

use crate::Poller;

impl Poller {
    /// Takes all looks that a batch asks for, at the same time. The answer says by message id what
    /// becomes of their messages.
    pub(crate) async fn take_looks(
        &self,
        batch: &SqsEvent,
        now: fn() -> DateTime<Utc>,
    ) -> BTreeMap<String, Handled> {
        let calls = batch.records.iter().filter_map(|message| {
            let id = message.message_id.clone().unwrap_or_default();
            parse(message).map(|call| (id, call))
        });
        let looks = calls.map(async |(id, call)| (id, self.take_look(call, now).await));
        join_all(looks).await.into_iter().collect()
    }

    /// Takes a look, and sends the call for the next one unless it is the last.
    async fn take_look(&self, call: LookCall, now: fn() -> DateTime<Utc>) -> Handled {
        let answer = match self.look_at_hint(&call, now).await {
            Ok(answer) => answer,
            Err(cause) => {
                warn!(job.id = %call.job_id, error = chain(&cause), "look failed; will retry");
                Some(LookAnswer::Unanswered { asked_for: None })
            }
        };
        let asked_for = match answer {
            None | Some(LookAnswer::Ended(_)) => return Handled::Done,
            Some(LookAnswer::NotEnded(_)) => None,
            Some(LookAnswer::Unanswered { asked_for }) => asked_for,
        };
        let next = call.next();
        // The safety polls find what is not found by then.
        let Some(wait) = wait_before_look(next.look, asked_for) else { return Handled::Done };
        match self.wakes.send_look(&next, wait).await {
            Ok(()) => Handled::Done,
            Err(cause) => {
                warn!(
                    job.id = %call.job_id,
                    error = chain(&cause),
                    "next look not queued; queue will redeliver the last"
                );
                Handled::Retry
            }
        }
    }

    /// Asks the provider, and stores what it says. None when nothing is left to look for.
    async fn look_at_hint(
        &self,
        call: &LookCall,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Option<LookAnswer>, TrackError> {
        let Some(job) = self.tracker.store.job(&call.job_id).await? else { return Ok(None) };
        if job.is_final() || names_another_render(call, &job) {
            return Ok(None);
        }
        let latest = self.tracker.store.hint(&call.job_id).await?;
        if latest.is_some_and(|latest| is_seen_to(call, &latest)) {
            return Ok(None);
        }
        let answer = match self.tracker.look(&job, call.render_job_id.as_ref(), now()).await {
            Ok(answer) => answer,
            Err(TrackError::Key(cause)) => {
                error!(
                    job.id = %job.id, provider.name = %job.request.provider, error = chain(&cause),
                    "provider key unavailable; job status not fetched"
                );
                return Ok(Some(LookAnswer::Unanswered { asked_for: None }));
            }
            Err(cause) => return Err(cause),
        };
        let Some(observation) = answer.clone().observation() else { return Ok(Some(answer)) };
        // A later look does not tell when the render ended.
        let source = if call.look == 0 { ReportSource::Callback } else { ReportSource::Other };
        let job = self.tracker.observe(job, observation, source, now).await?;
        Ok(job.filter(|job| !job.is_final()).map(|_| answer))
    }
}

/// Whether the call is about a render that has turned out not to be the job's.
fn names_another_render(call: &LookCall, job: &Job) -> bool {
    match (&call.render_job_id, &job.render_job_id) {
        (Some(named), Some(ours)) => named != ours,
        (None, _) | (_, None) => false,
    }
}

/// Whether another call takes this look: for a hint that came later, or, if this one only guards
/// its hint, one of the callback that stored it.
fn is_seen_to(call: &LookCall, latest: &Hint) -> bool {
    let is_same = latest.at == call.hinted_at;
    let is_replaced = !is_same && latest.render_job_id == call.render_job_id;
    is_replaced || (is_same && call.is_guard && latest.follow_up == FollowUp::Queued)
}

/// The call for a look in a message; none when it is a call for a shard.
pub(crate) fn parse(message: &SqsMessage) -> Option<LookCall> {
    serde_json::from_str(message.body.as_deref()?).ok()
}
