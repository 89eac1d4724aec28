//! Hints: what a callback announces without proof. The provider is asked while the sender waits,
//! for a moment only; what is not confirmed by then is left to the poller. A hint is answered 2xx
//! once it is certain that it is looked at.

use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use domain::hint::{ASKING, Hint, HintDecision};
use domain::id::{JobId, RenderJobId};
use domain::job::Job;
use domain::provider::Callback;
use shared::api::Problem;
use shared::looks::LookAnswer;
use shared::queue::LookCall;
use shared::store::Committed;
use shared::tracker::{ReportSource, TrackError};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::callback::{CallbackError, Callbacks, acknowledge};

/// How long after a callback's arrival the provider may answer. The sender is to have its answer
/// within three seconds, and what is learned has to be stored.
pub(crate) const ASK_WITHIN: Duration = Duration::from_secs(2);

/// How often a hint is decided about again after a conflict.
const MAX_CONFLICTS: usize = 8;

impl Callbacks {
    /// Takes a hint about a job that is not final. `ask_until` is when the provider's answer is
    /// no longer waited for.
    pub(crate) async fn take_hint(
        &self,
        job: Job,
        callback: &Callback,
        ask_until: Instant,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let render = callback.render_job_id.as_ref().filter(|_| job.render_job_id.is_none());
        match self.decide_hint(&job.id, render, now).await? {
            HintDecision::Ask(hint) => self.ask(job, hint, ask_until, now).await,
            HintDecision::Guard(hint) => {
                let left = (hint.at + ASKING - now()).to_std().unwrap_or_default();
                let call = LookCall::first(&job.id, &hint).guard();
                self.wakes.send_look(&call, left).await.map_err(TrackError::from)?;
                Ok(acknowledge("hint_stored"))
            }
            HintDecision::Join => Ok(acknowledge("hint_stored")),
        }
    }

    /// Decides about a hint, and stores it unless it joins another.
    async fn decide_hint(
        &self,
        job: &JobId,
        render: Option<&RenderJobId>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<HintDecision, TrackError> {
        let mut stored = None;
        for _ in 0..MAX_CONFLICTS {
            let decision = HintDecision::of(stored.as_ref(), render, now());
            let hint = match &decision {
                HintDecision::Ask(hint) | HintDecision::Guard(hint) => hint,
                HintDecision::Join => return Ok(decision),
            };
            match self.tracker.store.commit_hint(job, hint).await? {
                Committed::Stored => return Ok(decision),
                Committed::Conflict(latest) => stored = latest,
            }
        }
        Err(TrackError::TooManyConflicts)
    }

    /// Asks the provider about a hint that is stored.
    async fn ask(
        &self,
        job: Job,
        hint: Hint,
        ask_until: Instant,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let id = job.id.clone();
        let look = self.tracker.look(&job, hint.render_job_id.as_ref(), now());
        let answer = match timeout_at(ask_until, look).await {
            Ok(Ok(answer)) => answer,
            // The poller tries the same, and says in its log why it cannot.
            Ok(Err(_)) | Err(_) => LookAnswer::Unanswered { asked_for: None },
        };
        if let Some(observation) = answer.clone().observation() {
            // A job that is gone was deleted meanwhile.
            let job = self.tracker.observe(job, observation, ReportSource::Callback, now).await?;
            let job = job.ok_or_else(|| Problem::not_found("job"))?;
            if matches!(answer, LookAnswer::Ended(_)) || job.is_final() {
                return Ok(acknowledge("stored"));
            }
        }
        let wait = match answer {
            LookAnswer::Ended(_) | LookAnswer::NotEnded(_) => hint.wait_after_answer(),
            LookAnswer::Unanswered { asked_for } => hint.wait_without_answer(asked_for),
        };
        let call = LookCall::first(&id, &hint);
        self.wakes.send_look(&call, wait).await.map_err(TrackError::from)?;
        self.record_call(&id, hint).await?;
        info!(job.id = %id, "hint not confirmed yet; poller looks again");
        Ok(acknowledge("hint_stored"))
    }

    /// Records that a wake-up call is sent for a hint, so that others join it.
    async fn record_call(&self, job: &JobId, mut hint: Hint) -> Result<(), TrackError> {
        for _ in 0..MAX_CONFLICTS {
            match self.tracker.store.commit_hint(job, &hint.queued()).await? {
                Committed::Stored => return Ok(()),
                // A callback that guards this hint was stored meanwhile.
                Committed::Conflict(Some(latest)) if latest.at == hint.at => hint = latest,
                Committed::Conflict(_) => return Ok(()),
            }
        }
        Ok(())
    }
}
