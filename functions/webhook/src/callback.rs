//! From a provider's callback to a stored change, in this order: size, token, signature, body,
//! the write, and only then 2xx.
//!
//! A body with a valid signature is believed, unless it leaves open how the render ended. Any
//! other callback proves only that its sender knows the URL, so it is a hint ([`crate::hint`]): the
//! provider is asked with our own key, and its response decides. A URL or key is never taken from
//! a body. After a failure of our own the response is not 2xx, so that the provider calls again;
//! if it does not, the poller polls.

use std::error::Error;
use std::sync::Arc;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::id::{JobId, ProviderName};
use domain::job::Job;
use domain::provider::catalogue::Provider;
use domain::provider::spec::webhook::{Unsigned, WebhookKind, WebhookSpec};
use domain::provider::{Callback, EchoMask};
use domain::verifier::{Incoming, Reason, Verification};
use serde_json::json;
use shared::api::{self, Problem};
use shared::callback_secret::{self, CallbackSecretError};
use shared::entropy::Entropy;
use shared::provider_specs::ProviderSpecsError;
use shared::queue::WakeQueue;
use shared::secrets::{SecretError, SecretName, Secrets};
use shared::store::StoreError;
use shared::telemetry::chain;
use shared::tracker::{ReportSource, TrackError, Tracker};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::address::{CallbackAddress, Place};
use crate::hint::ASK_WITHIN;

/// The largest callback body, in bytes.
const MAX_CALLBACK_BYTES: usize = 256 * 1024;

/// The use case and what it needs.
pub struct Callbacks {
    /// Reads and changes jobs.
    pub tracker: Tracker,
    pub secrets: Arc<Secrets>,
    /// The queue of the poller's wake-up calls.
    pub wakes: WakeQueue,
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
    /// The stored secrets are malformed, so no signature can be verified.
    Unverifiable,
}

impl Callbacks {
    /// Answers a provider's POST to a job's own URL or to an account's.
    ///
    /// # Errors
    /// The reason for a response other than 2xx. The provider should call again after a 5xx.
    pub(crate) async fn receive(
        &self,
        request: &ApiGatewayV2httpRequest,
        address: CallbackAddress<'_>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        let ask_until = Instant::now() + ASK_WITHIN;
        let body = api::body(request, MAX_CALLBACK_BYTES)?;
        self.tracker.providers.specs().refresh().await?;
        let name = ProviderName::parse(address.provider).ok();
        let Verified { provider, job, callback, proof } = match address.place {
            Place::Job { id, token } => {
                self.expect_secrets(name.as_ref());
                let (name, job) = self.authenticate(name, id, token, now).await?;
                self.verify_for_job(request, &body, &name, &job, now).await?
            }
            Place::Account => self.verify_for_account(request, &body, name, now).await?,
        };
        match job {
            Some(job) => self.apply(job, &provider, callback, proof, ask_until, now).await,
            None => Ok(acknowledge("ignored")),
        }
    }

    async fn verify_for_job(
        &self,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
        name: &ProviderName,
        job_id: &JobId,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Verified, CallbackError> {
        // The token proves that the job is ours, even if its provider's spec is missing now.
        let provider = self.tracker.providers.get(name);
        let provider = provider.ok_or_else(|| missing_spec(name))?;
        let proof = match &provider.spec.webhook {
            Some(webhook) => {
                self.verify_signature(&provider, webhook, request, body, now()).await?
            }
            None => CallbackProof::Unsigned,
        };
        let mask = self.echo_mask(&provider, request, body).await?;
        let callback = read(&provider, body, &mask, now())?;
        if callback.kind == WebhookKind::Ignore {
            return Ok(Verified { provider, job: None, callback, proof });
        }
        let job = self.tracker.store.job(job_id).await?;
        let job = job
            .filter(|job| job.request.provider == provider.spec.name)
            .ok_or_else(|| Problem::not_found("job"))?;
        Ok(Verified { provider, job: Some(job), callback, proof })
    }

    /// An account's URL is not secret, so a signature is required. Callbacks about other renders
    /// of the account are answered 200 and ignored: vendors disable an endpoint that refuses.
    async fn verify_for_account(
        &self,
        request: &ApiGatewayV2httpRequest,
        body: &[u8],
        name: Option<ProviderName>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Verified, CallbackError> {
        let name = name.ok_or_else(|| Problem::not_found("provider"))?;
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
        self.tracker.providers.expect_key(&provider.spec.name);
        let proof = self.verify_signature(&provider, webhook, request, body, now()).await?;
        match proof {
            CallbackProof::Signed => {}
            CallbackProof::Unsigned => return Err(wrong_signature().into()),
            // It is logged where the secrets are read.
            CallbackProof::Unverifiable => return Err(CallbackError::NotStored),
        }
        let mask = self.echo_mask(&provider, request, body).await?;
        let callback = read(&provider, body, &mask, now())?;
        let marked = callback.job_id.as_ref().filter(|_| callback.kind != WebhookKind::Ignore);
        let job = match marked {
            Some(id) => self.tracker.store.job(id).await?,
            None => None,
        };
        let job = job.filter(|job| job.request.provider == provider.spec.name);
        Ok(Verified { provider, job, callback, proof })
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
        let secrets = match self.secrets.find(&name, |text| scheme.parse_secrets(text)).await {
            Err(cause @ SecretError::Malformed { .. }) => {
                error!(
                    provider.name = %provider.spec.name,
                    error = chain(&cause),
                    "provider webhook secrets malformed; signature not verified"
                );
                return Ok(CallbackProof::Unverifiable);
            }
            secrets => secrets?,
        };
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
    fn expect_secrets(&self, name: Option<&ProviderName>) {
        let provider = name.and_then(|name| self.tracker.providers.get(name));
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
        provider: Option<ProviderName>,
        job: &str,
        token: &str,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(ProviderName, JobId), CallbackError> {
        let (store, entropy) = (&self.tracker.store, self.entropy);
        // Without a secret no callback URL was ever created, so this one is not ours.
        let Some(secret) = callback_secret::find(&self.secrets, store, entropy, now).await? else {
            return Err(wrong_token().into());
        };
        if let (Some(provider), Ok(job)) = (provider, JobId::parse(job))
            && secret.accept(token, &provider, &job)
        {
            return Ok((provider, job));
        }
        Err(wrong_token().into())
    }

    /// Applies a callback to its job.
    async fn apply(
        &self,
        job: Job,
        provider: &Provider,
        callback: Callback,
        proof: CallbackProof,
        ask_until: Instant,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, CallbackError> {
        // Copies of a callback arrive together. The call that stored the end publishes its event,
        // or has crashed and leaves that to the poller. A second publisher would only repeat the
        // event.
        if job.is_final() {
            return Ok(acknowledge("known"));
        }
        let subject = subject(&job, &callback);
        if subject == CallbackSubject::Another {
            return Ok(acknowledge("ignored"));
        }
        let is_open = callback.leaves_end_open(&provider.spec);
        if let (CallbackProof::Signed, CallbackSubject::ThisJob, Some(claim), false) =
            (proof, subject, &callback.claim, is_open)
        {
            let claim = claim.clone();
            let stored = self.tracker.observe(job, claim, ReportSource::Callback, now).await?;
            stored.ok_or_else(|| Problem::not_found("job"))?;
            return Ok(acknowledge("stored"));
        }
        // A proved word of an end is one, whatever the rule calls it.
        let is_proved = proof == CallbackProof::Signed && subject == CallbackSubject::ThisJob;
        match callback.kind {
            WebhookKind::Progress if is_proved && is_open => {
                self.take_hint(job, &callback, ask_until, now).await
            }
            WebhookKind::Ended => self.take_hint(job, &callback, ask_until, now).await,
            // Unauthenticated progress is not worth a request to the provider.
            WebhookKind::Progress | WebhookKind::Ignore => Ok(acknowledge("ignored")),
        }
    }
}

/// A callback whose token or signature was checked.
struct Verified {
    provider: Arc<Provider>,
    /// None when it is about something else.
    job: Option<Job>,
    callback: Callback,
    proof: CallbackProof,
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
        (Some(ours), Some(theirs), _) if !ours.is_same(theirs.as_str()) => CallbackSubject::Another,
        (Some(_), Some(_), _) | (_, _, Some(true)) => CallbackSubject::ThisJob,
        (Some(_), None, None) | (None, _, None) => CallbackSubject::Unknown,
    }
}

fn read(
    provider: &Provider,
    body: &[u8],
    mask: &EchoMask,
    now: DateTime<Utc>,
) -> Result<Callback, Problem> {
    let callback = provider.spec.read_callback(body, mask, now).map_err(|error| {
        let detail = format!("{error}.");
        Problem::new(400, "malformed_callback", "Malformed callback", detail)
    })?;
    if callback.had_secret {
        warn!(provider.name = %provider.spec.name, "secret masked in a provider's callback");
    }
    Ok(callback)
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

pub(crate) fn acknowledge(what: &str) -> ApiGatewayV2httpResponse {
    api::json(200, &json!({"status": what}))
}
