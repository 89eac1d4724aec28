//! From a provider's callback to a stored change, in this order: size, token, signature, body,
//! the write, and only then 2xx.
//!
//! A body with a valid signature is believed. Any other callback proves only that its sender
//! knows the URL, so it is a hint: the provider is asked with our own key, and its response
//! decides. A URL or key is never taken from a body. After a failure the response is not 2xx,
//! so that the provider calls again; if it does not, the poller polls.

use std::error::Error;
use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::id::{JobId, ProviderName};
use domain::job::{Job, Observation, RenderStatus, Report, State};
use domain::provider::catalogue::Provider;
use domain::provider::spec::webhook::{Unsigned, WebhookKind, WebhookSpec};
use domain::provider::{Callback, StatusAnswer};
use domain::verifier::{Incoming, Reason, Verification};
use serde_json::json;
use shared::api::{self, Problem};
use shared::callback_secret::{self, CallbackSecretError};
use shared::entropy::Entropy;
use shared::provider_specs::ProviderSpecsError;
use shared::secrets::{SecretError, SecretName, Secrets};
use shared::store::StoreError;
use shared::telemetry::chain;
use shared::tracker::{ApplyOutcome, ReportSource, TrackError, Tracker, polls_due};
use tracing::{error, info, warn};

/// The largest callback body, in bytes.
const MAX_CALLBACK_BYTES: usize = 256 * 1024;

/// The use case and what it needs.
pub struct Callbacks {
    /// Reads and changes jobs.
    pub tracker: Tracker,
    pub secrets: Arc<Secrets>,
    /// Where jitter comes from.
    pub entropy: Entropy,
}

/// Why a callback is not answered with 2xx.
#[derive(Debug)]
pub(crate) enum CallbackError {
    /// The callback is at fault, or has to wait for something that it names.
    Refused(Problem),
    /// We cannot read or store it. The cause is logged where this is made, once.
    NotStored,
}

impl From<CallbackError> for Problem {
    fn from(error: CallbackError) -> Self {
        match error {
            CallbackError::Refused(problem) => problem,
            // 500, not 503: some providers repeat a callback only after a 500.
            CallbackError::NotStored => Problem::new(
                500,
                "not_stored",
                "Not stored",
                "The callback could not be stored. Call again.",
            ),
        }
    }
}

impl From<Problem> for CallbackError {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<StoreError> for CallbackError {
    fn from(cause: StoreError) -> Self {
        Self::not_stored(&cause)
    }
}

impl From<CallbackSecretError> for CallbackError {
    fn from(cause: CallbackSecretError) -> Self {
        Self::not_stored(&cause)
    }
}

impl From<SecretError> for CallbackError {
    fn from(cause: SecretError) -> Self {
        Self::not_stored(&cause)
    }
}

impl From<ProviderSpecsError> for CallbackError {
    fn from(cause: ProviderSpecsError) -> Self {
        Self::not_stored(&cause)
    }
}

impl From<TrackError> for CallbackError {
    fn from(cause: TrackError) -> Self {
        Self::not_stored(&cause)
    }
}

impl CallbackError {
    fn not_stored(cause: &dyn Error) -> Self {
        error!(error = chain(cause), "callback not stored; answered 500");
        Self::NotStored
    }
}

/// Whether a callback's body is authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallbackProof {
    /// The provider signed it.
    Signed,
    /// Its author is unknown.
    Unsigned,
}

impl Callbacks {
    /// Answers a provider's POST: to a job's own URL, `/v1/webhooks/{provider}/{jobId}/{token}`,
    /// or to an account's, `/v1/webhooks/{provider}`.
    ///
    /// # Errors
    /// The reason for a response other than 2xx. The provider should call again after a 5xx.
    pub(crate) async fn receive(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let body = api::body(request, MAX_CALLBACK_BYTES)?;
        self.tracker.providers.specs().refresh().await?;
        if api::path_parameter(request, "token").is_empty() {
            self.receive_for_account(request, &body, now).await
        } else {
            self.receive_for_job(request, &body, now).await
        }
    }

    async fn receive_for_job(
        &self,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        self.expect_secrets(request);
        let (name, job_id) = self.authenticate(request, now).await?;
        // The token proves that the job is ours, even if its provider's spec is missing now.
        let provider = self.tracker.providers.get(&name);
        let provider = provider.ok_or_else(|| missing_spec(&name))?;
        let proof = match &provider.spec.webhook {
            Some(webhook) => {
                self.verify_signature(&provider, webhook, request, body, now()).await?
            }
            None => CallbackProof::Unsigned,
        };
        let callback = read(&provider, body, now())?;
        if callback.kind == WebhookKind::Ignore {
            return Ok(acknowledge("ignored"));
        }
        let job = self.tracker.store.job(&job_id).await?;
        let job = job
            .filter(|job| job.request.provider == provider.spec.name)
            .ok_or_else(|| Problem::not_found("job"))?;
        self.apply(job, callback, proof, now).await
    }

    /// An account's URL is not secret, so a signature is required. Callbacks about other renders
    /// of the account are answered 200 and ignored: vendors disable an endpoint that refuses.
    async fn receive_for_account(
        &self,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let name = ProviderName::parse(api::path_parameter(request, "provider"));
        let name = name.map_err(|_| Problem::not_found("provider"))?;
        let specs = self.tracker.providers.in_force();
        let provider = specs.get(&name).ok_or_else(|| {
            if specs.is_left_out(&name) {
                missing_spec(&name)
            } else {
                Problem::not_found("provider").into()
            }
        })?;
        let webhook = provider.spec.webhook.as_ref().filter(|webhook| webhook.account.is_some());
        let webhook = webhook.ok_or_else(|| Problem::not_found("provider"))?;
        let proof = self.verify_signature(&provider, webhook, request, body, now()).await?;
        if proof == CallbackProof::Unsigned {
            return Err(wrong_signature().into());
        }
        let callback = read(&provider, body, now())?;
        let Some(job_id) =
            callback.job_id.as_ref().filter(|_| callback.kind != WebhookKind::Ignore)
        else {
            return Ok(acknowledge("ignored"));
        };
        let job = self.tracker.store.job(job_id).await?;
        match job.filter(|job| job.request.provider == provider.spec.name) {
            Some(job) => self.apply(job, callback, proof, now).await,
            None => Ok(acknowledge("ignored")),
        }
    }

    /// Verifies the signature over the bytes as they were received.
    async fn verify_signature(
        &self,
        provider: &Provider,
        webhook: &WebhookSpec,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<CallbackProof, CallbackError> {
        let Some(scheme) = &webhook.signature else { return Ok(CallbackProof::Unsigned) };
        let name = SecretName::ProviderWebhookSecrets(provider.spec.name.clone());
        let secrets = self.secrets.find(&name, |text| scheme.parse_secrets(text)).await?;
        // Without a stored secret no signature can be verified. So the callback counts as unsigned.
        let Some(secrets) = secrets else { return Ok(CallbackProof::Unsigned) };
        let headers: Vec<(&str, &[u8])> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let incoming = Incoming { headers: &headers, body };
        let mut verified = scheme.verify(&incoming, &secrets, now);
        // Its secret may have been changed by hand.
        if verified == Verification::Invalid(Reason::Mismatch)
            && self.secrets.look_again(&name, self.signing_providers()).await
            && let Some(changed) =
                self.secrets.find(&name, |text| scheme.parse_secrets(text)).await?
        {
            verified = scheme.verify(&incoming, &changed, now);
        }
        match verified {
            Verification::Verified { .. } => Ok(CallbackProof::Signed),
            Verification::Missing => match webhook.unsigned {
                Unsigned::Hint => Ok(CallbackProof::Unsigned),
                Unsigned::Refuse => {
                    warn!(provider.name = %provider.spec.name, "unsigned callback refused");
                    Err(wrong_signature().into())
                }
            },
            Verification::Invalid(reason) => {
                warn!(
                    provider.name = %provider.spec.name,
                    error = %reason,
                    "callback signature refused"
                );
                Err(wrong_signature().into())
            }
        }
    }

    /// The secrets of all providers that sign.
    fn signing_providers(&self) -> Vec<SecretName> {
        let specs = self.tracker.providers.in_force();
        let all = specs.catalogue.names().filter_map(|name| specs.get(name));
        let signing = all.filter(|provider| {
            provider.spec.webhook.as_ref().is_some_and(|webhook| webhook.signature.is_some())
        });
        let names = signing.map(|provider| provider.spec.name.clone());
        names.map(SecretName::ProviderWebhookSecrets).collect()
    }

    /// Has all that such a callback may need read in one call.
    fn expect_secrets(&self, request: &ApiGatewayV2httpRequest) {
        let name = ProviderName::parse(api::path_parameter(request, "provider")).ok();
        let provider = name.and_then(|name| self.tracker.providers.get(&name));
        let Some(provider) = provider else { return };
        self.tracker.providers.expect_key(&provider.spec.name);
        let webhook = provider.spec.webhook.as_ref();
        if webhook.is_some_and(|webhook| webhook.signature.is_some()) {
            let name = provider.spec.name.clone();
            self.secrets.expect([SecretName::ProviderWebhookSecrets(name)]);
        }
    }

    /// Checks the token first: without a signature it is the only authentication.
    async fn authenticate(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(ProviderName, JobId), CallbackError> {
        let (store, entropy) = (&self.tracker.store, self.entropy);
        // Without a secret no callback URL was ever created, so this one is not ours.
        let Some(secret) = callback_secret::find(&self.secrets, store, entropy, now).await? else {
            return Err(wrong_token().into());
        };
        let provider = ProviderName::parse(api::path_parameter(request, "provider"));
        let job = JobId::parse(api::path_parameter(request, "jobId"));
        if let (Ok(provider), Ok(job)) = (provider, job)
            && secret.accept(api::path_parameter(request, "token"), &provider, &job)
        {
            return Ok((provider, job));
        }
        Err(wrong_token().into())
    }

    /// Applies a callback to its job.
    async fn apply(
        &self,
        job: Job,
        callback: Callback,
        proof: CallbackProof,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        // Copies of a callback arrive together. The call that stored the end publishes its event,
        // or has crashed and leaves that to the poller. A second publisher would only repeat the
        // event.
        if job.is_final() {
            return Ok(acknowledge("known"));
        }
        if let (CallbackProof::Signed, Some(claim)) = (proof, &callback.claim) {
            // A callback about an end whose status is not one: the provider is asked.
            let is_incomplete =
                matches!(claim.status, RenderStatus::Queued | RenderStatus::Processing);
            match subject(&job, &callback) {
                CallbackSubject::ThisJob
                    if is_incomplete && callback.kind == WebhookKind::Ended => {}
                CallbackSubject::ThisJob => {
                    let claim = claim.clone();
                    self.store(job, claim, now).await?;
                    return Ok(acknowledge("stored"));
                }
                CallbackSubject::Another => return Ok(acknowledge("ignored")),
                CallbackSubject::Unknown => {}
            }
        }
        match callback.kind {
            WebhookKind::Ended => self.confirm_with_provider(job, &callback, now).await,
            // Unauthenticated progress is not worth a request to the provider.
            WebhookKind::Progress | WebhookKind::Ignore => Ok(acknowledge("ignored")),
        }
    }

    /// Fetches the render's status from the provider, and stores it.
    async fn confirm_with_provider(
        &self,
        job: Job,
        callback: &Callback,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let job_id = job.id.clone();
        // 503 and not 500: nothing was to be stored yet.
        let answer = self.tracker.fetch_status(&job, callback.render_job_id.as_ref(), now()).await;
        let answer = answer.map_err(Problem::from)?;
        let observation = match answer {
            Some(StatusAnswer::Observed(observation)) => observation,
            Some(StatusAnswer::NotFound | StatusAnswer::Unavailable { .. }) => {
                return Err(unconfirmed(&job_id).into());
            }
            // The callback came before the provider's answer to our submit, or names no render.
            None => return Err(unconfirmed(&job_id).into()),
        };
        // The provider's API may lag behind its callback. The callback is refused, so that the
        // provider repeats it; otherwise the end would be found only by a safety poll.
        match self.store(job, observation, now).await? {
            State::Completed | State::Failed | State::Cancelled | State::TimedOut => {
                Ok(acknowledge("stored"))
            }
            State::Submitting | State::SubmitUnknown | State::Queued | State::Processing => {
                Err(unconfirmed(&job_id).into())
            }
        }
    }

    /// Stores an observation and publishes its events. Returns the job's state after it.
    async fn store(
        &self,
        job: Job,
        observation: Observation,
        now: fn() -> DateTime<Utc>,
    ) -> Result<State, CallbackError> {
        let polls = polls_due(&self.tracker.poll_schedule(&job), &job, now());
        let report = Report::Observed(observation);
        match self.tracker.apply_report(job, &report, ReportSource::Callback, polls, now()).await? {
            ApplyOutcome::Changed(job) => {
                let state = job.state;
                self.tracker.publish_or_leave(job, now()).await;
                Ok(state)
            }
            ApplyOutcome::Unchanged(job) => Ok(job.state),
            ApplyOutcome::Gone => Err(Problem::not_found("job").into()),
        }
    }
}

/// Which render an authentic body is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallbackSubject {
    ThisJob,
    /// Another job, or a part of this job's render.
    Another,
    /// The body does not tell: a signature authenticates the account, not the job.
    Unknown,
}

fn subject(job: &Job, callback: &Callback) -> CallbackSubject {
    let marked = callback.job_id.as_ref().map(|id| *id == job.id);
    match (&job.render_job_id, &callback.render_job_id, marked) {
        (_, _, Some(false)) => CallbackSubject::Another,
        (Some(ours), Some(theirs), _) if ours != theirs => CallbackSubject::Another,
        (Some(_), Some(_), _) | (_, _, Some(true)) => CallbackSubject::ThisJob,
        (Some(_), None, None) | (None, _, None) => CallbackSubject::Unknown,
    }
}

fn read(provider: &Provider, body: &[u8], now: DateTime<Utc>) -> Result<Callback, Problem> {
    provider.spec.read_callback(body, now).map_err(|error| {
        let detail = format!("{error}.");
        Problem::new(400, "malformed_callback", "Malformed callback", detail)
    })
}

/// A callback cannot be read without its provider's spec. The operator can restore the spec, so
/// the callback should come again.
fn missing_spec(provider: &ProviderName) -> CallbackError {
    error!(provider.name = %provider, "callback not read: provider spec missing; answered 500");
    CallbackError::NotStored
}

/// One response for all reasons, so that the sender does not learn the reason.
fn wrong_signature() -> Problem {
    Problem::new(401, "invalid_signature", "Invalid signature", "The signature does not hold.")
}

fn wrong_token() -> Problem {
    warn!("callback token refused");
    Problem::new(401, "invalid_token", "Invalid token", "This callback URL is not ours.")
}

fn acknowledge(what: &str) -> ApiGatewayV2httpResponse {
    api::json(200, &json!({"status": what}))
}

fn unconfirmed(job: &JobId) -> Problem {
    info!(job.id = %job, "callback not confirmed by the provider yet; answered 503");
    Problem::new(
        503,
        "not_confirmed",
        "Not confirmed",
        "The provider's API does not say yet what this callback says. Call again.",
    )
    .retry_after(5)
}
