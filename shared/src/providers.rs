//! Requests to providers: built by the specs in `domain`, sent over HTTP with the stored key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::id::{ProviderName, RenderJobId};
use domain::job::Job;
use domain::provider::answer::ProviderAnswer;
use domain::provider::catalogue::{Adjustments, CatalogueError, Provider};
use domain::provider::request::ListPage;
use domain::provider::spec::{CancelSpec, ListSpec};
use domain::provider::{
    CancelAnswer, EchoMask, ErrorClass, HttpMethod, HttpRequest, KeyNotForHost, ListAnswer,
    ProviderKey, StatusAnswer, SubmitAnswer,
};
use domain::retry::retry_after;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};
use tracing::warn;
use url::Url;

use crate::egress::TlsSetupError;
use crate::egress::provider::{ProviderHttp, ProviderHttpError, ProviderResponse, Trouble};
use crate::env::{self, EnvError};
use crate::provider_specs::{ProviderSpecs, ProviderSpecsError, SpecsInForce};
use crate::secrets::{SecretError, SecretName, Secrets};
use crate::telemetry::chain;

/// How many pages of a list are read for one job. Lists are newest first, and the job is young.
const MAX_LIST_PAGES: usize = 5;

/// The providers of this installation.
#[derive(Clone)]
pub struct Providers {
    specs: Arc<ProviderSpecs>,
    http: ProviderHttp,
    secrets: Arc<Secrets>,
}

/// Why the providers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There are no specs.
    #[error(transparent)]
    Specs(#[from] ProviderSpecsError),
    /// A shipped spec or an adjustment is wrong.
    #[error("the provider catalogue is wrong")]
    Catalogue(#[from] CatalogueError),
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
}

/// Why a provider's key cannot be sent. No request was made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is stored for other hosts than that of the request.
    #[error(
        "{refusal}; `relay provider set-key {provider} --host HOST` stores it for a host, or for \
         several"
    )]
    NotForHost {
        /// The provider.
        provider: ProviderName,
        /// The host of the request.
        refusal: KeyNotForHost,
    },
}

/// The outcome of a submit.
#[derive(Debug)]
pub enum Submitted {
    /// The provider answered, or may have received the request.
    PossiblySent(SubmitAnswer),
    /// The request was certainly not sent.
    NotSent(ProviderHttpError),
}

/// The outcome of looking for a render in its provider's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenderSearch {
    /// The provider's id of the render.
    Found(RenderJobId),
    /// The render is not on the pages that were read.
    Absent,
    /// The provider did not return the list.
    Unavailable {
        /// The kind of error.
        class: ErrorClass,
        /// The HTTP status, if there was an answer.
        status: Option<u16>,
        /// The wait that the provider asks for, if it does.
        retry_after: Option<Duration>,
    },
}

impl Providers {
    /// The providers of these specs.
    #[must_use]
    pub fn new(specs: ProviderSpecs, http: ProviderHttp, secrets: Arc<Secrets>) -> Self {
        Self { specs: Arc::new(specs), http, secrets }
    }

    /// The specs and how they are kept.
    #[must_use]
    pub fn specs(&self) -> &ProviderSpecs {
        &self.specs
    }

    /// The specs as they were read last.
    #[must_use]
    pub fn in_force(&self) -> Arc<SpecsInForce> {
        self.specs.in_force()
    }

    /// The provider of this name, by the specs as they were read last.
    #[must_use]
    pub fn get(&self, name: &ProviderName) -> Option<Arc<Provider>> {
        self.in_force().get(name)
    }

    /// The provider of a job, by the specs as they were read last, at the base URL that the job
    /// was submitted to.
    #[must_use]
    pub fn of_job(&self, job: &Job) -> Option<Arc<Provider>> {
        let provider = self.get(&job.request.provider)?;
        Some(provider.at(&job.request.submitted_to))
    }

    /// The API key of a provider, with the hosts that it is for.
    ///
    /// # Errors
    /// When the key is not stored or malformed, or SSM does not answer.
    pub async fn key(&self, provider: &ProviderName) -> Result<ProviderKey, SecretError> {
        self.secrets.get(&SecretName::ProviderKey(provider.clone()), ProviderKey::parse).await
    }

    /// The secrets that the providers' keys are among.
    #[must_use]
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// Announces that this provider's key is going to be needed.
    pub fn expect_key(&self, provider: &ProviderName) {
        self.secrets.expect([SecretName::ProviderKey(provider.clone())]);
    }

    /// Sends a submit once, and reads the response by the spec.
    pub async fn submit(
        &self,
        provider: &Provider,
        request: HttpRequest,
        now: DateTime<Utc>,
    ) -> Submitted {
        let timeout = Duration::from_millis(provider.spec.limits.submit_timeout_ms.get().into());
        match self.send(provider, request, timeout, now).await {
            Ok(answer) => Submitted::PossiblySent(provider.spec.read_submit(&answer)),
            Err(error @ ProviderHttpError::NotSent(_)) => Submitted::NotSent(error),
            Err(error @ ProviderHttpError::Unclear(_)) => {
                warn!(
                    provider.name = %provider.spec.name,
                    error = chain(&error),
                    "provider submit outcome unknown"
                );
                Submitted::PossiblySent(SubmitAnswer::Unclear)
            }
        }
    }

    /// Fetches a render's status. A failed request is an answer too: no status.
    ///
    /// # Errors
    /// When the provider's API key cannot be read, or is not for the host.
    pub async fn status(
        &self,
        provider: &Provider,
        id: &RenderJobId,
        now: DateTime<Utc>,
    ) -> Result<StatusAnswer, KeyError> {
        let key = self.key(&provider.spec.name).await?;
        let timeout = Duration::from_millis(provider.spec.limits.status_timeout_ms.get().into());
        let request = provider.status_request(id, &key).map_err(not_for_host(provider))?;
        let status = match self.send(provider, request, timeout, now).await {
            Ok(answer) => provider.spec.read_status(id, &answer, now),
            Err(error) => {
                warn!(
                    provider.name = %provider.spec.name,
                    render.id = %id,
                    error = chain(&error),
                    "provider status request failed"
                );
                return Ok(StatusAnswer::Unavailable {
                    class: ErrorClass::Transient,
                    status: None,
                    retry_after: None,
                });
            }
        };
        if let StatusAnswer::Unavailable { class, .. } = &status {
            warn!(
                provider.name = %provider.spec.name,
                render.id = %id,
                error.class = ?class,
                "provider returned no render status"
            );
        }
        Ok(status)
    }

    /// Looks for a job in the provider's list of renders, newest first.
    ///
    /// # Errors
    /// When the provider's API key cannot be read, or is not for the host.
    pub async fn find(
        &self,
        provider: &Provider,
        list: &ListSpec,
        job: &Job,
        now: DateTime<Utc>,
    ) -> Result<RenderSearch, KeyError> {
        let key = self.key(&provider.spec.name).await?;
        let timeout = Duration::from_millis(provider.spec.limits.status_timeout_ms.get().into());
        let mut page = ListPage::First;
        for _ in 0..MAX_LIST_PAGES {
            let request = provider
                .list_request(list, &page, job.created_at, &key)
                .map_err(not_for_host(provider))?;
            let answer = match self.send(provider, request, timeout, now).await {
                Ok(answer) => answer,
                Err(error) => {
                    warn!(
                        provider.name = %provider.spec.name,
                        job.id = %job.id,
                        error = chain(&error),
                        "provider list request failed"
                    );
                    let (class, status) = (ErrorClass::Transient, None);
                    return Ok(RenderSearch::Unavailable { class, status, retry_after: None });
                }
            };
            let seen = match page {
                ListPage::Offset(rows) => rows,
                ListPage::First | ListPage::Token(_) => 0,
            };
            match provider.spec.read_list(list, &job.id, seen, &answer) {
                ListAnswer::Found(id) => return Ok(RenderSearch::Found(id)),
                ListAnswer::Next(next) => page = next,
                ListAnswer::Absent => return Ok(RenderSearch::Absent),
                ListAnswer::Unavailable { class, status, retry_after } => {
                    warn!(
                        provider.name = %provider.spec.name,
                        job.id = %job.id,
                        error.class = ?class,
                        "provider returned no render list"
                    );
                    return Ok(RenderSearch::Unavailable { class, status, retry_after });
                }
            }
        }
        Ok(RenderSearch::Absent)
    }

    /// Asks the provider to cancel a render.
    ///
    /// # Errors
    /// When the provider's API key cannot be read, or is not for the host.
    pub async fn cancel(
        &self,
        provider: &Provider,
        cancel: &CancelSpec,
        id: &RenderJobId,
        now: DateTime<Utc>,
    ) -> Result<CancelAnswer, KeyError> {
        let key = self.key(&provider.spec.name).await?;
        let timeout = Duration::from_millis(provider.spec.limits.status_timeout_ms.get().into());
        let request = provider.cancel_request(cancel, id, &key).map_err(not_for_host(provider))?;
        Ok(match self.send(provider, request, timeout, now).await {
            Ok(answer) => provider.spec.read_cancel(cancel, &answer),
            Err(error) => {
                warn!(
                    provider.name = %provider.spec.name,
                    render.id = %id,
                    error = chain(&error),
                    "provider cancel request failed"
                );
                CancelAnswer::Unavailable { class: ErrorClass::Transient, retry_after: None }
            }
        })
    }

    /// What masks the key of a provider where its callbacks have it. A key that is missing or
    /// malformed was never sent to it.
    ///
    /// # Errors
    /// When SSM does not answer.
    pub async fn echo_mask(&self, provider: &ProviderName) -> Result<EchoMask, SecretError> {
        match self.key(provider).await {
            Ok(key) => Ok(key.echo_mask()),
            Err(SecretError::Missing(_) | SecretError::Malformed { .. }) => Ok(EchoMask::default()),
            Err(error @ (SecretError::Unavailable { .. } | SecretError::Stale(_))) => Err(error),
        }
    }

    async fn send(
        &self,
        provider: &Provider,
        request: HttpRequest,
        timeout: Duration,
        now: DateTime<Utc>,
    ) -> Result<ProviderAnswer, ProviderHttpError> {
        let method = match request.method() {
            HttpMethod::Get => http::Method::GET,
            HttpMethod::Post => http::Method::POST,
            HttpMethod::Delete => http::Method::DELETE,
        };
        let headers = request.headers().iter().map(|(name, value)| {
            let name = HeaderName::try_from(name.as_str());
            let mut value = HeaderValue::try_from(value.as_str());
            // One of them is the key. Sensitive values do not appear in a `Debug` form.
            if let Ok(value) = &mut value {
                value.set_sensitive(true);
            }
            Some((name.ok()?, value.ok()?))
        });
        let Some(headers) = headers.collect::<Option<Vec<_>>>() else {
            return Err(ProviderHttpError::NotSent(Trouble::Headers));
        };
        let body = request.body().map(Bytes::copy_from_slice);
        let response = self.http.send(method, request.url(), headers, body, timeout).await?;
        let answer = answer(&response, request.echo_mask(), now);
        if answer.had_secret() {
            warn!(provider.name = %provider.spec.name, "secret masked in a provider's answer");
        }
        Ok(answer)
    }
}

fn not_for_host(provider: &Provider) -> impl FnOnce(KeyNotForHost) -> KeyError + use<> {
    let provider = provider.spec.name.clone();
    move |refusal| KeyError::NotForHost { provider, refusal }
}

/// How this installation reaches its providers, by `PROVIDER_ENVIRONMENTS` and
/// `PROVIDER_BASE_URLS`, and which hosts they may be at, by `policy`.
///
/// # Errors
/// When a setting is malformed; the error names it.
pub fn adjustments(policy: TargetPolicy) -> Result<Adjustments, EnvError> {
    let environments = env::pairs("PROVIDER_ENVIRONMENTS", |value| {
        Ok::<_, std::convert::Infallible>(value.to_owned())
    })?;
    let base_urls = env::pairs("PROVIDER_BASE_URLS", Url::parse)?;
    Ok(Adjustments {
        environments: BTreeMap::from_iter(environments),
        base_urls: BTreeMap::from_iter(base_urls),
        policy,
    })
}

fn answer(response: &ProviderResponse, mask: &EchoMask, now: DateTime<Utc>) -> ProviderAnswer {
    let wait = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = wait.and_then(|text| retry_after(text, now));
    ProviderAnswer::read(response.status.as_u16(), wait, &response.body, mask)
}
