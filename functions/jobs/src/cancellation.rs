//! Cancelling a render, if its provider supports that.

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use domain::id::JobId;
use domain::job::{Job, Report};
use domain::provider::{CancelAnswer, ErrorClass, StatusAnswer};
use shared::api::{self, Problem};
use shared::telemetry::chain;
use shared::tracker::{ApplyOutcome, ReportSource, TrackError, polls_due};
use shared::view;
use tracing::{error, warn};

use crate::Jobs;

impl Jobs {
    /// POST /v1/jobs/{jobId}/cancel. The response is 202 and the job: the provider may take a
    /// while to cancel, and may finish the render all the same.
    pub(crate) async fn cancel(
        &self,
        id: &JobId,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let job = self.tracker.store.job(id).await?;
        let job = job.ok_or_else(|| Problem::not_found("job"))?;
        if job.state.has_ended() {
            let detail = format!("The job is {} already.", job.state.name());
            return Err(Problem::new(409, "job_ended", "Job ended", detail));
        }
        self.tracker.providers.specs().refresh().await?;
        let Some(provider) = self.tracker.providers.of_job(&job) else {
            return Err(unknown_provider(&job));
        };
        let Some(cancel) = &provider.spec.cancel else {
            let detail = format!("{} has no way to cancel a render.", job.request.provider);
            return Err(Problem::new(409, "cancel_not_supported", "Cannot be cancelled", detail));
        };
        let Some(render) = &job.render_job_id else {
            return Err(Problem::new(
                409,
                "not_accepted_yet",
                "Not accepted yet",
                "The provider has not confirmed this job, so there is nothing to cancel yet.",
            ));
        };
        let answer = self.tracker.providers.cancel(&provider, cancel, render, now()).await;
        match answer.map_err(|cause| Problem::no_key(&cause))? {
            CancelAnswer::Accepted => {}
            CancelAnswer::Refused { message } => return Err(refused(&message)),
            CancelAnswer::Unavailable { class, retry_after } => {
                return Err(unavailable(class, retry_after.map(|wait| wait.as_secs())));
            }
        }
        // Often the provider's status shows it at once; if not, a poll or a callback will.
        let job = match self.refresh(job.clone(), now).await {
            Ok(job) => job,
            Err(cause) => {
                warn!(
                    job.id = %id,
                    error = chain(&cause),
                    "job not updated after cancel; poller will update it"
                );
                job
            }
        };
        Ok(api::json(202, &view::job(&job, None)))
    }

    /// Fetches the render's status and applies it.
    async fn refresh(&self, job: Job, now: fn() -> DateTime<Utc>) -> Result<Job, TrackError> {
        let Some(StatusAnswer::Observed(observation)) =
            self.tracker.fetch_status(&job, None, now()).await?
        else {
            return Ok(job);
        };
        let polls = polls_due(&self.tracker.poll_schedule(&job), &job, now());
        let report = Report::Observed(observation);
        match self
            .tracker
            .apply_report(job.clone(), &report, ReportSource::Other, polls, now())
            .await?
        {
            ApplyOutcome::Changed(job) => Ok(self.tracker.publish_or_leave(job, now()).await),
            ApplyOutcome::Unchanged(job) => Ok(job),
            ApplyOutcome::Gone => Ok(job),
        }
    }
}

/// The spec of the job's provider is invalid or was removed since the job was created.
fn unknown_provider(job: &Job) -> Problem {
    error!(
        job.id = %job.id,
        provider.name = %job.request.provider,
        "cancel not possible: provider spec missing; answered 503"
    );
    Problem::new(
        503,
        "provider_not_configured",
        "Provider not configured",
        "The specification of this job's provider is missing; ask the operator to restore it.",
    )
    .about("provider")
}

/// The provider's message may end with a full stop.
fn refused(message: &str) -> Problem {
    let stop = if message.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    let detail = format!("The provider refused: {message}{stop}");
    Problem::new(409, "cancel_refused", "Cancel refused", detail)
}

fn unavailable(class: ErrorClass, retry_after: Option<u64>) -> Problem {
    let problem = match class {
        ErrorClass::Auth => Problem::new(
            502,
            "provider_auth",
            "The provider refused our API key",
            "Ask the operator to store a valid key for this provider.",
        ),
        ErrorClass::Invalid
        | ErrorClass::Quota
        | ErrorClass::Rate
        | ErrorClass::Busy
        | ErrorClass::NotFound
        | ErrorClass::Transient => Problem::new(
            503,
            "provider_busy",
            "The provider did not answer",
            "Whether the render was cancelled is unknown. Try again.",
        ),
    };
    problem.retry_after(retry_after.unwrap_or(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_message_ends_with_one_stop() {
        for (message, detail) in [
            ("It is over", "The provider refused: It is over."),
            ("It is over.", "The provider refused: It is over."),
            ("Too late!", "The provider refused: Too late!"),
        ] {
            let problem = Problem::new(409, "cancel_refused", "Cancel refused", detail);
            assert_eq!(refused(message), problem);
        }
    }
}
