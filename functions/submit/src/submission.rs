//! From a request to a job at its provider.
//!
//! The order matters: a request is refused before anything is stored; the job is stored before
//! the provider is asked; and the provider is asked once, by the request whose job was new. If
//! anything is lost after that, the poller finds the job in the `active` index.
//!
//! A job's id is random. The request record, which is stored first, keeps it under the idempotency
//! key, so a repeated request goes on with the job of the first one; a fingerprint of the body
//! shows whether it is a repeat.

use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::failure::{Failure, FailureCode};
use domain::id::{IdempotencyKey, JobId};
use domain::job::{Job, Report, State};
use domain::polling::Tracking;
use domain::provider::{Rejection, SubmitAnswer};
use domain::request::{Claim, JobRequest, MAX_BODY_BYTES};
use shared::api::{self, Problem, Route};
use shared::api_key_cache::ApiKeyCache;
use shared::entropy::Entropy;
use shared::providers::Submitted;
use shared::queue::{WakeQueue, WakeUp};
use shared::secrets::Secrets;
use shared::shards::Shards;
use shared::store::{FoundRecord, Inserted};
use shared::telemetry::chain;
use shared::tracker::{ApplyOutcome, ReportSource, Tracker, age};
use shared::view;
use tokio::time::Instant;
use tracing::warn;

use crate::draft::{Draft, Prepared};

/// How often a request record is looked at again because another request changed it meanwhile.
const MAX_CONFLICTS: usize = 4;

/// Other requests with the same key change its record again and again.
#[derive(Debug, thiserror::Error)]
#[error("the request record changes faster than it can be written")]
struct TooManyConflicts;

/// The use case and what it needs.
pub struct Submitter {
    /// Reads and changes jobs.
    pub tracker: Tracker,
    pub secrets: Arc<Secrets>,
    /// Whom requests are from, and what they may do.
    pub keys: ApiKeyCache,
    /// Where the first wake-up call of a poll-only job goes.
    pub wakes: WakeQueue,
    /// The API's own URL, without a trailing slash: where providers call back.
    pub public_url: String,
    /// The shards that new jobs are spread over.
    pub shards: Shards,
    /// Which receivers a request may name.
    pub policy: TargetPolicy,
    /// Where ids of jobs and the callback secret come from.
    pub entropy: Entropy,
}

impl Submitter {
    /// Answers POST /v1/jobs.
    ///
    /// # Errors
    /// The problem document. It means that the provider was not asked.
    pub(crate) async fn submit(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let began = Instant::now();
        api::authorize(request, Route::SubmitJob, &self.keys, now()).await?;
        let key = idempotency_key(request)?;
        let body = api::body(request, MAX_BODY_BYTES)?;
        let job_request = JobRequest::parse(&body, &self.policy)?;
        let draft = self.draft(job_request, key.as_ref(), &body, now).await?;
        let prepared = match self.store(&draft, began, now).await? {
            Stored::New(prepared) => *prepared,
            Stored::Repeated(job) => return Ok(answer(&job, None)),
            Stored::Mismatch => return Err(mismatch()),
        };
        let (job, wait) = self.submit_to_provider(prepared, now).await;
        self.wake_poller(&job, now()).await;
        Ok(answer(&job, wait))
    }

    /// Stores the request record, then the job, so that every job has its payload. Of all
    /// requests of one key, one finds that its job is new.
    async fn store(
        &self,
        draft: &Draft,
        began: Instant,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Stored, Problem> {
        let store = &self.tracker.store;
        let Draft { payload, job_id: ours, .. } = draft;
        let fingerprint = draft.request.fingerprint;
        let record = |job: &JobId| store.new_record(job.clone(), fingerprint, now());
        for _ in 0..MAX_CONFLICTS {
            draft.fits(began.elapsed()).map_err(|cause| Problem::unavailable(&cause))?;
            let found = match store.insert_record(&draft.record, &record(ours), payload).await? {
                Inserted::New => return self.store_job(draft, ours, now).await,
                Inserted::Exists(found) => found,
            };
            let FoundRecord { record: before, .. } = &found;
            if before.is_being_stored(now()) {
                return match before.fingerprint == fingerprint {
                    true => self.store_job(draft, &before.job_id, now).await,
                    false => Ok(Stored::Mismatch),
                };
            }
            let job = store.job(&before.job_id).await?;
            let id = match before.claim(job, &fingerprint, now()) {
                Claim::Repeat(job) => return Ok(Stored::Repeated(job)),
                Claim::Mismatch => return Ok(Stored::Mismatch),
                Claim::Renew => &before.job_id,
                Claim::Replace => ours,
            };
            draft.fits(began.elapsed()).map_err(|cause| Problem::unavailable(&cause))?;
            if store.replace_record(&draft.record, &found, &record(id), payload).await? {
                return self.store_job(draft, id, now).await;
            }
            // Another request was first, and its record is young.
        }
        Err(Problem::unavailable(&TooManyConflicts))
    }

    async fn store_job(
        &self,
        draft: &Draft,
        id: &JobId,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Stored, Problem> {
        let prepared = self.prepare(draft, id, now)?;
        Ok(match self.tracker.store.insert_job(&prepared.job).await? {
            Inserted::New => Stored::New(Box::new(prepared)),
            Inserted::Exists(before) if before.request.fingerprint == draft.request.fingerprint => {
                Stored::Repeated(Box::new(before))
            }
            Inserted::Exists(_) => Stored::Mismatch,
        })
    }

    /// Asks the provider to render, and stores the outcome. From here on the caller gets no
    /// error: the job exists, and the poller repairs what was not stored. Returns the job, and
    /// the wait that the provider asks for.
    async fn submit_to_provider(
        &self,
        prepared: Prepared,
        now: fn() -> DateTime<Utc>,
    ) -> (Job, Option<Duration>) {
        let Prepared { job, provider, request, .. } = prepared;
        let mut wait = None;
        let report = match self.tracker.providers.submit(&provider, request, now()).await {
            Submitted::PossiblySent(SubmitAnswer::Accepted(id)) => Report::Accepted(id),
            Submitted::PossiblySent(SubmitAnswer::Rejected(Rejection {
                failure,
                retry_after,
                ..
            })) => {
                wait = retry_after;
                Report::Rejected(failure)
            }
            Submitted::PossiblySent(SubmitAnswer::Unclear) => Report::SubmitUnclear,
            Submitted::NotSent(cause) => {
                warn!(
                    job.id = %job.id,
                    provider.name = %provider.spec.name,
                    error = chain(&cause),
                    "provider unreachable; job fails"
                );
                let text = "the provider could not be reached; it was not asked to render";
                Report::Rejected(Failure::new(FailureCode::ProviderUnreachable, text))
            }
        };
        let changed = match self
            .tracker
            .apply_report(job.clone(), &report, ReportSource::Other, 0, now())
            .await
        {
            Ok(ApplyOutcome::Changed(job)) => job,
            // A callback was stored before the provider's response, and its events are published.
            Ok(ApplyOutcome::Unchanged(job)) => return (job, wait),
            Ok(ApplyOutcome::Gone) => return (job, wait),
            Err(cause) => {
                warn!(
                    job.id = %job.id,
                    error = chain(&cause),
                    "submit outcome not stored; poller will recover it"
                );
                return (job, wait);
            }
        };
        (self.tracker.publish_or_leave(changed, now()).await, wait)
    }

    /// Sends the poller a wake-up call for a job for which no callback is expected.
    async fn wake_poller(&self, job: &Job, now: DateTime<Utc>) {
        let only_we_ask =
            job.request.tracking == Tracking::PollOnly || job.state == State::SubmitUnknown;
        if !only_we_ask || job.state.has_ended() {
            return;
        }
        let age = age(job, now);
        let due =
            self.tracker.poll_schedule(job).next_after(Tracking::PollOnly, age, job.id.spread());
        let call = WakeUp::NewJob { shard: job.request.shard, created_at: job.created_at };
        if let Err(cause) = self.wakes.send(&call, due.saturating_sub(age)).await {
            warn!(
                job.id = %job.id,
                error = chain(&cause),
                "wake-up call not sent; first poll waits for the tick"
            );
        }
    }
}

/// The outcome of storing a job.
enum Stored {
    /// The job is new, and its provider is to be asked.
    New(Box<Prepared>),
    /// The same request was made before; its job.
    Repeated(Box<Job>),
    /// Another request was made before with the same idempotency key.
    Mismatch,
}

fn idempotency_key(request: &ApiGatewayV2httpRequest) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = request.headers.get("idempotency-key") else { return Ok(None) };
    let problem = |text: &str| {
        Problem::new(
            422,
            "invalid_idempotency_key",
            "Invalid idempotency key",
            format!("The header Idempotency-Key {text}."),
        )
        .about("Idempotency-Key")
    };
    let text = value.to_str().map_err(|_| problem("must be visible ASCII without spaces"))?;
    IdempotencyKey::parse(text).map(Some).map_err(|error| problem(&error.to_string()))
}

fn mismatch() -> Problem {
    Problem::new(
        422,
        "idempotency_mismatch",
        "Idempotency key used before",
        "Another request was made with this Idempotency-Key. Repeat it unchanged, or use a new \
         key.",
    )
    .about("Idempotency-Key")
}

/// The job, or the problem if its provider refused it. A repeated request gets the same response,
/// but without the provider's `Retry-After`.
fn answer(job: &Job, wait: Option<Duration>) -> ApiGatewayV2httpResponse {
    let shown = view::job(job, None);
    let refusal = job.failure.as_ref().and_then(|failure| {
        let (status, title) = match failure.code {
            FailureCode::ProviderRejected => (422, "The provider refused the payload"),
            FailureCode::ProviderAuth => (502, "The provider refused our API key"),
            FailureCode::ProviderQuota => (402, "The provider's quota is used up"),
            FailureCode::ProviderBusy => (503, "The provider takes no more requests now"),
            FailureCode::ProviderUnreachable => (503, "The provider could not be reached"),
            FailureCode::RenderFailed | FailureCode::SubmitUnknown | FailureCode::TimedOut => {
                return None;
            }
        };
        let problem = Problem::new(status, failure.code.name(), title, failure.message.clone());
        Some(problem.with("job", shown.clone()))
    });
    match refusal {
        Some(problem) => match wait {
            Some(wait) => problem.retry_after(wait.as_secs()).into_response(),
            None => problem.into_response(),
        },
        None => api::json(202, &shown),
    }
}
