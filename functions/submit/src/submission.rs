//! From a request to a job at its provider.
//!
//! The order matters: a request is refused before anything is stored; the job is stored before
//! the provider is asked; and the provider is asked once, by the request whose job was new. If
//! anything is lost after that, the poller finds the job in the `active` index.
//!
//! A job's id follows from the idempotency key, so a repeated request finds the job of the first
//! one; a fingerprint of the body shows whether it is a repeat.

use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::failure::{Failure, FailureCode};
use domain::id::{IdempotencyKey, JobId, ProviderName};
use domain::job::{Job, Report, State, StoredRequest};
use domain::polling::Tracking;
use domain::provider::catalogue::Provider;
use domain::provider::request::{SubmitError, SubmitParts};
use domain::provider::{HttpRequest, Rejection, SubmitAnswer};
use domain::request::{JobRequest, MAX_BODY_BYTES};
use shared::api::{self, Problem, Route};
use shared::api_key_cache::ApiKeyCache;
use shared::callback_secret;
use shared::entropy::Entropy;
use shared::providers::{KeyError, Submitted};
use shared::queue::{WakeQueue, WakeUp};
use shared::secrets::Secrets;
use shared::shards::Shards;
use shared::store::{Inserted, StoreError, StoredPayload};
use shared::telemetry::chain;
use shared::tracker::{ApplyOutcome, ReportSource, Tracker, age};
use shared::view;
use tokio::time::Instant;
use tracing::warn;

/// How long the function may run: its `Timeout` in `template.yaml`.
const MAX_RUN: Duration = Duration::from_secs(29);
/// The time that is kept for storing what the provider answers.
const KEPT_FOR_ANSWER: Duration = Duration::from_secs(3);

/// Secrets or the table took so long that the function might end while the provider is asked. Then
/// it would be unknown whether there is a render.
#[derive(Debug, thiserror::Error)]
#[error("too little time is left to ask {provider}, after {} ms", spent.as_millis())]
struct TooLittleTime {
    provider: ProviderName,
    spent: Duration,
}

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

/// A valid job, and the request to its provider.
struct Prepared {
    job: Job,
    payload: StoredPayload,
    provider: Arc<Provider>,
    request: HttpRequest,
}

impl Prepared {
    /// Whether the function runs for long enough to hear the provider out.
    fn fits(&self, spent: Duration) -> Result<(), TooLittleTime> {
        let timeout = self.provider.spec.limits.submit_timeout_ms.get();
        let submit = Duration::from_millis(timeout.into());
        match spent + submit + KEPT_FOR_ANSWER <= MAX_RUN {
            true => Ok(()),
            false => Err(TooLittleTime { provider: self.provider.spec.name.clone(), spent }),
        }
    }
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
        let prepared = self.prepare(job_request, key.as_ref(), &body, now).await?;
        prepared.fits(began.elapsed()).map_err(|cause| Problem::unavailable(&cause))?;

        match self.store(&prepared).await? {
            Stored::New => {}
            Stored::Repeated(job) => return Ok(answer(&job, None)),
            Stored::Mismatch => return Err(mismatch()),
        }
        let (job, wait) = self.submit_to_provider(prepared, now).await;
        self.wake_poller(&job, now()).await;
        Ok(answer(&job, wait))
    }

    async fn prepare(
        &self,
        job_request: JobRequest,
        key: Option<&IdempotencyKey>,
        body: &[u8],
        now: fn() -> DateTime<Utc>,
    ) -> Result<Prepared, Problem> {
        self.tracker.providers.specs().refresh().await?;
        let specs = self.tracker.providers.in_force();
        let provider = specs.get(&job_request.provider).ok_or_else(|| {
            let known: Vec<&str> = specs.catalogue.names().map(|name| name.as_str()).collect();
            Problem::new(
                422,
                "unknown_provider",
                "Unknown provider",
                format!("There is no provider of this name. Known: {}.", known.join(", ")),
            )
            .about("provider")
        })?;
        let wants_callback = provider
            .spec
            .wants_callback(&job_request.payload, job_request.provider_webhook)
            .map_err(|error| invalid("providerWebhook", &error.to_string()))?;
        let payload = StoredPayload::compress(body, job_request.fingerprint).map_err(|error| {
            Problem::new(413, "payload_too_large", "Payload too large", format!("{error}."))
                .about("payload")
        })?;
        if job_request.callback_url.is_some() {
            self.require_webhook_secret(now).await?;
        }

        let job_id = match key {
            Some(key) => JobId::from_key(key),
            None => JobId::from_bytes(self.random()?),
        };
        self.tracker.providers.expect_key(&job_request.provider);
        let callback_url = match wants_callback {
            true => Some(self.callback_url(&provider, &job_id, now).await?),
            false => None,
        };
        let api_key = self
            .tracker
            .providers
            .key(&job_request.provider)
            .await
            .map_err(|cause| Problem::no_key(&cause.into()))?;
        let request = provider
            .submit_request(&SubmitParts {
                payload: &job_request.payload,
                job_id: &job_id,
                callback_url: callback_url.as_deref(),
                api_key: &api_key,
            })
            .map_err(|error| match error {
                SubmitError::Payload(error) => invalid("payload", &error.to_string()),
                SubmitError::Key(refusal) => Problem::no_key(&KeyError::NotForHost {
                    provider: provider.spec.name.clone(),
                    refusal,
                }),
            })?;
        let tracking = match wants_callback {
            true => Tracking::WebhookFirst,
            false => Tracking::PollOnly,
        };
        // The number is stored before a job is: no later process may know fewer shards.
        self.shards.most(&self.tracker.store).await?;
        let duration_model = self.tracker.duration_models.model(&job_request.provider).await;
        let stored = StoredRequest {
            shard: job_id.shard(self.shards.current()),
            provider: job_request.provider,
            source_record_id: job_request.source_record_id,
            payload_version: job_request.payload_version,
            metadata: job_request.metadata,
            callback_url: job_request.callback_url.map(|url| url.as_str().to_owned()),
            subscribed_events: job_request.subscribed_events,
            fingerprint: job_request.fingerprint,
            tracking,
            duration_model,
        };
        Ok(Prepared { job: Job::new(job_id, stored, now()), payload, provider, request })
    }

    /// Without a signing secret a receiver cannot verify webhooks.
    async fn require_webhook_secret(&self, now: fn() -> DateTime<Utc>) -> Result<(), Problem> {
        match self.tracker.store.recent_webhook_config(now()).await? {
            Some(_) => Ok(()),
            None => Err(Problem::new(
                409,
                "webhook_not_configured",
                "Webhooks are not configured",
                "Call PUT /v1/webhook-config once: it makes the secret that webhooks are signed \
                 with.",
            )
            .about("callbackUrl")),
        }
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], Problem> {
        self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))
    }

    async fn callback_url(
        &self,
        provider: &Provider,
        job: &JobId,
        now: fn() -> DateTime<Utc>,
    ) -> Result<String, Problem> {
        let store = &self.tracker.store;
        let secret = callback_secret::get_or_make(&self.secrets, store, self.entropy, now).await?;
        let name = &provider.spec.name;
        let token = secret.token(name, job);
        Ok(format!("{}/v1/webhooks/{name}/{job}/{token}", self.public_url))
    }

    /// Stores the payload, then the job, so that every job has its payload.
    async fn store(&self, prepared: &Prepared) -> Result<Stored, StoreError> {
        let job = &prepared.job;
        let store = &self.tracker.store;
        let payload = store.insert_payload(&job.id, &prepared.payload, job.created_at).await?;
        if let Inserted::Exists(payload) = payload
            && payload.fingerprint != job.request.fingerprint
        {
            return Ok(Stored::Mismatch);
        }
        Ok(match store.insert_job(job).await? {
            Inserted::New => Stored::New,
            Inserted::Exists(before) if before.request.fingerprint == job.request.fingerprint => {
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
    /// The job is new.
    New,
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

fn invalid(field: &str, problem: &str) -> Problem {
    Problem::new(422, "invalid_field", "Invalid field", format!("`{field}` {problem}."))
        .about(field)
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
