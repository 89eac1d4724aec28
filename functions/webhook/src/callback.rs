//! From a provider's callback to a stored fact, in this order: size, token, signature,
//! meaning, the write, and only then 2xx.
//!
//! A body whose signature holds is believed. Every other callback proves no more than that
//! its sender knows the URL, so it is a hint: the provider is asked with our own key, and
//! that answer decides. A URL or key is never taken from a body. Whatever goes wrong on the
//! way is not 2xx, so the provider calls again; and if it does not, the poller asks.

use std::error::Error;
use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::credential::CallbackSecret;
use domain::id::{JobId, ProviderName};
use domain::job::{Job, Observation, RenderStatus, Report, State};
use domain::provider::catalogue::Provider;
use domain::provider::spec::webhook::{Unsigned, WebhookKind, WebhookSpec};
use domain::provider::{Callback, StatusAnswer};
use domain::verifier::{Incoming, Verdict};
use serde_json::json;
use shared::api::{self, Problem};
use shared::secrets::{SecretError, SecretName, Secrets};
use shared::store::StoreError;
use shared::telemetry::chain;
use shared::tracker::{Bearer, Told, TrackError, Tracker, checks_due};
use tracing::{error, info, warn};

/// The largest callback body, in bytes.
const MAX_CALLBACK_BYTES: usize = 256 * 1024;

/// The use case and what it needs.
pub struct Callbacks {
    /// Jobs, providers, and what changes jobs.
    pub tracker: Tracker,
    /// The stack's secrets.
    pub secrets: Arc<Secrets>,
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
            CallbackError::NotStored => Self::new(
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

impl From<SecretError> for CallbackError {
    fn from(cause: SecretError) -> Self {
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

/// What is known of a callback's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// The provider signed it.
    Signed,
    /// Nobody knows who wrote it.
    None,
}

impl Callbacks {
    /// Answers a provider's POST: to a job's own URL, `/v1/webhooks/{provider}/{jobId}/{token}`,
    /// or to an account's, `/v1/webhooks/{provider}`.
    ///
    /// # Errors
    /// The problem to show; the provider should call again for a 5xx.
    pub(crate) async fn receive(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let body = api::body(request, MAX_CALLBACK_BYTES)?;
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
        let (name, job_id) = self.authenticate(request).await?;
        // The token says that we know the job, whatever became of its provider's spec.
        let provider = self.tracker.providers.catalogue().get(&name);
        let provider = provider.ok_or_else(|| missing_spec(&name))?;
        let proof = match &provider.spec.webhook {
            Some(webhook) => self.prove(provider, webhook, request, body, now()).await?,
            None => Proof::None,
        };
        let callback = read(provider, body, now())?;
        if callback.kind == WebhookKind::Ignore {
            return Ok(taken("ignored"));
        }
        let job = self.tracker.store.job(&job_id).await?;
        let job = job
            .filter(|job| job.provider == provider.spec.name)
            .ok_or_else(|| Problem::not_found("job"))?;
        self.take(job, callback, proof, now).await
    }

    /// An account's URL is no secret, so only a signature opens it. What it tells of jobs that
    /// are not ours is taken and ignored: vendors switch an endpoint off that refuses.
    async fn receive_for_account(
        &self,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let name = ProviderName::parse(api::path_parameter(request, "provider"));
        let name = name.map_err(|_| Problem::not_found("provider"))?;
        let providers = &self.tracker.providers;
        let provider = providers.catalogue().get(&name).ok_or_else(|| {
            if providers.is_left_out(&name) {
                missing_spec(&name)
            } else {
                Problem::not_found("provider").into()
            }
        })?;
        let webhook = provider.spec.webhook.as_ref().filter(|webhook| webhook.account.is_some());
        let webhook = webhook.ok_or_else(|| Problem::not_found("provider"))?;
        let proof = self.prove(provider, webhook, request, body, now()).await?;
        if proof == Proof::None {
            return Err(wrong_signature().into());
        }
        let callback = read(provider, body, now())?;
        let Some(job_id) =
            callback.job_id.as_ref().filter(|_| callback.kind != WebhookKind::Ignore)
        else {
            return Ok(taken("ignored"));
        };
        let job = self.tracker.store.job(job_id).await?;
        match job.filter(|job| job.provider == provider.spec.name) {
            Some(job) => self.take(job, callback, proof, now).await,
            None => Ok(taken("ignored")),
        }
    }

    /// Judges the signature, over the bytes as they came.
    async fn prove(
        &self,
        provider: &Provider,
        webhook: &WebhookSpec,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Proof, CallbackError> {
        let Some(scheme) = &webhook.signature else { return Ok(Proof::None) };
        let name = SecretName::ProviderWebhookSecrets(provider.spec.name.clone());
        let secrets = self.secrets.find(&name, |text| scheme.parse_secrets(text)).await?;
        // Without a secret nothing can be proved; the URL's token still has to be right.
        let Some(secrets) = secrets else { return Ok(Proof::None) };
        let headers: Vec<(&str, &[u8])> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        match scheme.verify(&Incoming { headers: &headers, body }, &secrets, now) {
            Verdict::Verified { .. } => Ok(Proof::Signed),
            Verdict::Missing => match webhook.unsigned {
                Unsigned::Hint => Ok(Proof::None),
                Unsigned::Refuse => {
                    warn!(provider.name = %provider.spec.name, "unsigned callback refused");
                    Err(wrong_signature().into())
                }
            },
            Verdict::Invalid(reason) => {
                warn!(
                    provider.name = %provider.spec.name,
                    error = %reason,
                    "callback signature refused"
                );
                Err(wrong_signature().into())
            }
        }
    }

    /// The token is the sender's only proof, so nothing else is looked at before it.
    async fn authenticate(
        &self,
        request: &ApiGatewayV2httpRequest,
    ) -> Result<(ProviderName, JobId), Problem> {
        let secret = self.secrets.get(&SecretName::CallbackSecret, CallbackSecret::parse).await;
        let secret = match secret {
            Ok(secret) => secret,
            // Then no job was ever given a callback URL, and this one is not ours.
            Err(SecretError::Missing(_)) => return Err(wrong_token()),
            Err(cause) => return Err(cause.into()),
        };
        let provider = ProviderName::parse(api::path_parameter(request, "provider"));
        let job = JobId::parse(api::path_parameter(request, "jobId"));
        if let (Ok(provider), Ok(job)) = (provider, job)
            && secret.accept(api::path_parameter(request, "token"), &provider, &job)
        {
            return Ok((provider, job));
        }
        Err(wrong_token())
    }

    async fn take(
        &self,
        job: Job,
        callback: Callback,
        proof: Proof,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        // Copies of a callback come together. Whoever stored the end is telling of it just
        // now, or has crashed and leaves that to the poller; a second teller would only put
        // the same event on the bus once more.
        if !job.may_still_complete() {
            return Ok(taken("known"));
        }
        if let (Proof::Signed, Some(claim)) = (proof, &callback.claim) {
            // "It ended", without what it ended with: the provider is asked for that.
            let halfway = matches!(claim.status, RenderStatus::Queued | RenderStatus::Processing);
            match subject(&job, &callback) {
                Subject::ThisJob if halfway && callback.kind == WebhookKind::Ended => {}
                Subject::ThisJob => {
                    let claim = claim.clone();
                    self.store(job, claim, now).await?;
                    return Ok(taken("stored"));
                }
                Subject::Another => return Ok(taken("ignored")),
                Subject::Unknown => {}
            }
        }
        match callback.kind {
            WebhookKind::Ended => self.confirm(job, &callback, now).await,
            // How far a render is, unproved: not worth a question.
            WebhookKind::Progress | WebhookKind::Ignore => Ok(taken("ignored")),
        }
    }

    /// Asks the provider whether a hint is true, and stores its answer.
    async fn confirm(
        &self,
        job: Job,
        callback: &Callback,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let job_id = job.id.clone();
        // 503 and not 500: nothing was to be stored yet.
        let answer = self.tracker.ask(&job, callback.render_job_id.as_ref(), now()).await;
        let answer = answer.map_err(Problem::from)?;
        let observation = match answer {
            Some(StatusAnswer::Observed(observation)) => observation,
            Some(StatusAnswer::NotFound | StatusAnswer::NotTold { .. }) => {
                return Err(unconfirmed(&job_id).into());
            }
            // The callback came before the provider's answer to our submit, or names no render.
            None => return Err(unconfirmed(&job_id).into()),
        };
        // Told that it ended, and not seeing it yet: the provider's own copies lag. Refused,
        // so that it calls again; else the end would wait for a safety poll.
        match self.store(job, observation, now).await? {
            State::Completed | State::Failed | State::Cancelled | State::TimedOut => {
                Ok(taken("stored"))
            }
            State::Submitting | State::SubmitUnknown | State::Queued | State::Processing => {
                Err(unconfirmed(&job_id).into())
            }
        }
    }

    /// Stores what a render's provider told, and tells of it. Answers the job's state then.
    async fn store(
        &self,
        job: Job,
        observation: Observation,
        now: fn() -> DateTime<Utc>,
    ) -> Result<State, CallbackError> {
        let checks = checks_due(&self.tracker.law(&job), &job, now());
        let report = Report::Observed(observation);
        match self.tracker.tell(job, &report, Bearer::Callback, checks, now()).await? {
            Told::Changed(job) => {
                let state = job.state;
                self.settle(job, now()).await;
                Ok(state)
            }
            Told::Unchanged(job) => Ok(job.state),
            Told::Gone => Err(Problem::not_found("job").into()),
        }
    }

    /// The fact is stored, so the provider is done whatever happens here: the poller finds a
    /// job that was not told of.
    async fn settle(&self, job: Job, now: DateTime<Utc>) {
        let id = job.id.clone();
        if let Err(cause) = self.tracker.settle(job, now).await {
            warn!(
                job.id = %id,
                error = chain(&cause),
                "event publish failed; poller will retry"
            );
        }
    }
}

/// Whom an authentic body tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    ThisJob,
    /// Another job, or a part of this one's render.
    Another,
    /// Nobody can say yet: a signature proves the account, and not the job.
    Unknown,
}

fn subject(job: &Job, callback: &Callback) -> Subject {
    let marked = callback.job_id.as_ref().map(|id| *id == job.id);
    match (&job.render_job_id, &callback.render_job_id, marked) {
        (_, _, Some(false)) => Subject::Another,
        (Some(ours), Some(theirs), _) if ours != theirs => Subject::Another,
        (Some(_), Some(_), _) | (_, _, Some(true)) => Subject::ThisJob,
        (Some(_), None, None) | (None, _, None) => Subject::Unknown,
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

/// One answer for every reason: the sender must not learn which it was.
fn wrong_signature() -> Problem {
    Problem::new(401, "invalid_signature", "Invalid signature", "The signature does not hold.")
}

fn wrong_token() -> Problem {
    warn!("callback token refused");
    Problem::new(401, "invalid_token", "Invalid token", "This callback URL is not ours.")
}

fn taken(what: &str) -> ApiGatewayV2httpResponse {
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

