//! A valid request with all that its job needs, before it is known which id the job has: a repeat
//! goes on with the id of the request before it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::credential::CallbackSecret;
use domain::id::{IdempotencyKey, JobId, ProviderName, RequestId};
use domain::job::{Job, StoredRequest};
use domain::polling::{LognormalModel, Tracking};
use domain::provider::catalogue::Provider;
use domain::provider::request::{SubmitError, SubmitParts};
use domain::provider::{HttpRequest, ProviderKey};
use domain::request::JobRequest;
use shared::api::Problem;
use shared::callback_secret;
use shared::providers::KeyError;
use shared::store::StoredPayload;

use crate::submission::Submitter;

/// How long the function may run: its `Timeout` in `template.yaml`.
const MAX_RUN: Duration = Duration::from_secs(29);
/// The time that is kept for storing what the provider answers.
const KEPT_FOR_ANSWER: Duration = Duration::from_secs(3);

/// Secrets or the table took so long that the function might end while the provider is asked. Then
/// it would be unknown whether there is a render.
#[derive(Debug, thiserror::Error)]
#[error("too little time is left to ask {provider}, after {} ms", spent.as_millis())]
pub(crate) struct TooLittleTime {
    provider: ProviderName,
    spent: Duration,
}

/// A valid request, and what goes to its provider.
pub(crate) struct Draft {
    pub(crate) request: JobRequest,
    pub(crate) payload: StoredPayload,
    /// The record of the request.
    pub(crate) record: RequestId,
    /// The id of the job, unless the record of an earlier request has another.
    pub(crate) job_id: JobId,
    target: SubmitTarget,
    /// The request to the provider for a job of that id.
    submit: HttpRequest,
    duration_model: Option<LognormalModel>,
}

/// The provider that is asked, and the secrets that this needs.
struct SubmitTarget {
    provider: Arc<Provider>,
    api_key: ProviderKey,
    /// None for a poll-only job.
    callback_secret: Option<CallbackSecret>,
}

/// A valid job, and the request to its provider.
pub(crate) struct Prepared {
    pub(crate) job: Job,
    pub(crate) provider: Arc<Provider>,
    pub(crate) request: HttpRequest,
}

impl Draft {
    /// Whether the function runs for long enough to hear the provider out.
    pub(crate) fn fits(&self, spent: Duration) -> Result<(), TooLittleTime> {
        let timeout = self.target.provider.spec.limits.submit_timeout_ms.get();
        let submit = Duration::from_millis(timeout.into());
        match spent + submit + KEPT_FOR_ANSWER <= MAX_RUN {
            true => Ok(()),
            false => Err(TooLittleTime { provider: self.target.provider.spec.name.clone(), spent }),
        }
    }
}

impl Submitter {
    /// Checks a request as far as that needs no look at the requests before it. Stores nothing of
    /// it.
    pub(crate) async fn draft(
        &self,
        request: JobRequest,
        key: Option<&IdempotencyKey>,
        body: &[u8],
        now: fn() -> DateTime<Utc>,
    ) -> Result<Draft, Problem> {
        self.tracker.providers.specs().refresh().await?;
        let specs = self.tracker.providers.in_force();
        let provider = specs.get(&request.provider).ok_or_else(|| {
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
            .wants_callback(&request.payload, request.provider_webhook)
            .map_err(|error| invalid("providerWebhook", &error.to_string()))?;
        let payload = StoredPayload::compress(body).map_err(|error| {
            Problem::new(413, "payload_too_large", "Payload too large", format!("{error}."))
                .about("payload")
        })?;
        if request.callback_url.is_some() {
            self.require_webhook_secret(now).await?;
        }

        let id = self.entropy.bytes().map_err(|cause| Problem::unavailable(&cause))?;
        let job_id = JobId::from_bytes(id);
        let record = key.map_or_else(|| RequestId::of_job(&job_id), RequestId::of_key);
        self.tracker.providers.expect_key(&request.provider);
        let callback_secret = match wants_callback {
            true => Some(self.callback_secret(now).await?),
            false => None,
        };
        let api_key = self
            .tracker
            .providers
            .key(&request.provider)
            .await
            .map_err(|cause| Problem::no_key(&cause.into()))?;
        let target = SubmitTarget { provider, api_key, callback_secret };
        let submit = self.submit_request(&request, &target, &job_id)?;
        // The number is stored before a job is: no later process may know fewer shards.
        self.shards.most(&self.tracker.store).await?;
        let duration_model = self.tracker.duration_models.model(&request.provider).await;
        Ok(Draft { request, payload, record, job_id, target, submit, duration_model })
    }

    /// The job of this id, and the request to its provider.
    pub(crate) fn prepare(
        &self,
        draft: &Draft,
        job_id: &JobId,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Prepared, Problem> {
        let Draft { request, target, .. } = draft;
        let submit = match *job_id == draft.job_id {
            true => draft.submit.clone(),
            false => self.submit_request(request, target, job_id)?,
        };
        let stored = StoredRequest {
            shard: job_id.shard(self.shards.current()),
            provider: request.provider.clone(),
            submitted_to: target.provider.base_url.clone(),
            source_record_id: request.source_record_id.clone(),
            payload_version: request.payload_version.clone(),
            metadata: request.metadata.clone(),
            callback_url: request.callback_url.as_ref().map(|url| url.as_str().to_owned()),
            subscribed_events: request.subscribed_events,
            fingerprint: request.fingerprint,
            record: draft.record.clone(),
            tracking: match target.callback_secret {
                Some(_) => Tracking::WebhookFirst,
                None => Tracking::PollOnly,
            },
            duration_model: draft.duration_model,
        };
        let job = Job::new(job_id.clone(), stored, now());
        Ok(Prepared { job, provider: Arc::clone(&target.provider), request: submit })
    }

    fn submit_request(
        &self,
        request: &JobRequest,
        target: &SubmitTarget,
        job_id: &JobId,
    ) -> Result<HttpRequest, Problem> {
        let SubmitTarget { provider, api_key, callback_secret } = target;
        let name = &provider.spec.name;
        let callback_url = callback_secret.as_ref().map(|secret| {
            let token = secret.token(name, job_id);
            format!("{}/v1/webhooks/{name}/{job_id}/{token}", self.public_url)
        });
        let parts = SubmitParts {
            payload: &request.payload,
            job_id,
            callback_url: callback_url.as_deref(),
            api_key,
        };
        provider.submit_request(&parts).map_err(|error| match error {
            SubmitError::Payload(error) => invalid("payload", &error.to_string()),
            SubmitError::Key(refusal) => {
                Problem::no_key(&KeyError::NotForHost { provider: name.clone(), refusal })
            }
        })
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

    async fn callback_secret(&self, now: fn() -> DateTime<Utc>) -> Result<CallbackSecret, Problem> {
        let store = &self.tracker.store;
        Ok(callback_secret::get_or_make(&self.secrets, store, self.entropy, now).await?)
    }
}

fn invalid(field: &str, problem: &str) -> Problem {
    Problem::new(422, "invalid_field", "Invalid field", format!("`{field}` {problem}."))
        .about(field)
}
