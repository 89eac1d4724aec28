//! Secrets in SSM Parameter Store, below one prefix per stack, behind a cache.
//!
//! A secret is cached for ten minutes, so that a rotation reaches warm functions without a
//! deployment. Secrets that the API changes are cached for one minute. That an optional
//! parameter does not exist ([`Secrets::find`]) is cached for half a minute (negative caching); an
//! absent one that is required ([`Secrets::get`]) is fetched at each call. Concurrent fetches of one secret
//! are coalesced into one (single flight).
//!
//! This is not a cache library such as `moka`, because a library's entries are gone when their
//! TTL is over: here an entry of one minute is still served, up to ten minutes, while SSM does
//! not answer. An entry's
//! age is read from two clocks, because a frozen function's monotonic clock may stand still. And
//! for five names a library would only add to the size of each function.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use domain::id::ProviderName;
use tokio::time::Instant;
use tracing::warn;

use crate::telemetry::chain;

/// How long a cached value is served, and how long it may be served while SSM does not answer.
const TTL: Duration = Duration::from_secs(600);

/// The TTL of the secrets that the API changes. A change reaches all functions within it.
const SHORT_TTL: Duration = Duration::from_secs(60);

/// How long an absent parameter counts as absent.
const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// A secret's place below the stack's prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretName {
    /// The key of the tokens in callback URLs.
    CallbackSecret,
    /// The secrets that outgoing webhooks are signed with, newest first.
    WebhookSecrets,
    /// The headers that the default receiver's owner wants on every webhook.
    WebhookHeaders,
    /// A provider's API key.
    ProviderKey(ProviderName),
    /// The secrets that a provider signs its callbacks with, separated by commas.
    ProviderWebhookSecrets(ProviderName),
}

impl SecretName {
    fn path(&self) -> String {
        match self {
            Self::CallbackSecret => "callback-secret".into(),
            Self::WebhookSecrets => "webhook-secrets".into(),
            Self::WebhookHeaders => "webhook-headers".into(),
            Self::ProviderKey(provider) => format!("providers/{provider}/api-key"),
            Self::ProviderWebhookSecrets(provider) => {
                format!("providers/{provider}/webhook-secrets")
            }
        }
    }

    fn ttl(&self) -> Duration {
        match self {
            Self::WebhookSecrets | Self::WebhookHeaders => SHORT_TTL,
            Self::CallbackSecret | Self::ProviderKey(_) | Self::ProviderWebhookSecrets(_) => TTL,
        }
    }
}

/// Why a secret cannot be read or written. Never carries its value.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SecretError {
    /// The parameter does not exist.
    #[error("the parameter {0} does not exist; store it with `aws ssm put-parameter`")]
    Missing(String),
    /// SSM did not answer, or refused.
    #[error("the parameter {name} could not be read or written")]
    Unavailable {
        /// The parameter's full name.
        name: String,
        /// The SDK's error.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// SSM answered with a version that is older than the last one written.
    #[error("the parameter {0} is read as it was before it was last written")]
    Stale(String),
    /// The stored text has another form than this secret.
    #[error("the parameter {name} is malformed: {problem}")]
    Malformed {
        /// The parameter's full name.
        name: String,
        /// What is wrong, without the value.
        problem: String,
    },
}

/// The stack's secrets.
pub struct Secrets {
    client: Client,
    prefix: String,
    cache: Mutex<HashMap<SecretName, CachedSecret>>,
    fetches: Mutex<HashMap<SecretName, Arc<InFlightFetch>>>,
}

/// Coalesces the fetches of one secret.
#[derive(Default)]
struct InFlightFetch {
    /// Held while the secret is fetched. The error of the last fetch, if it failed.
    last_error: tokio::sync::Mutex<Option<SecretError>>,
    /// How many fetches are over.
    completed: AtomicU64,
}

/// Shows the names of the cached secrets, and no value.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Secrets")
            .field("prefix", &self.prefix)
            .field("cached", &cache.keys())
            .finish()
    }
}

/// A text that was fetched, and when. Its age is the larger one of two clocks: the monotonic
/// clock may stand still while a function is frozen, and the wall clock may be set back.
#[derive(Clone)]
struct CachedSecret {
    fetched_at: Instant,
    fetched_at_wall: SystemTime,
    /// None when the parameter did not exist.
    text: Option<String>,
}

impl CachedSecret {
    fn now(text: Option<&str>) -> Self {
        let text = text.map(str::to_owned);
        Self { fetched_at: Instant::now(), fetched_at_wall: SystemTime::now(), text }
    }

    fn age(&self) -> Duration {
        self.fetched_at.elapsed().max(self.fetched_at_wall.elapsed().unwrap_or_default())
    }
}

impl Secrets {
    /// Secrets below `prefix`, such as `/render-relay/production`.
    #[must_use]
    pub fn new(client: Client, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { client, prefix, cache: Mutex::default(), fetches: Mutex::default() }
    }

    /// The secret, parsed by `parse`. While SSM does not answer, a value that was fetched
    /// within the last ten minutes is served: to deliver nothing would be worse.
    ///
    /// # Errors
    /// When the secret is missing, cannot be read, or `parse` refuses it.
    pub async fn get<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        // That it is missing is not served from the cache here: see `find`.
        let cached = self.cached(name).and_then(|cached| Some((cached.age(), cached.text?)));
        let text = match cached {
            Some((age, text)) if age < name.ttl() => text,
            Some(_) | None => match (self.fetch_coalesced(name).await, cached) {
                (Ok(text), _) => text,
                (Err(cause @ SecretError::Unavailable { .. }), Some((age, text))) if age < TTL => {
                    warn!(
                        secret.name = self.full(name),
                        secret.age_s = age.as_secs(),
                        error = chain(&cause),
                        "serving stale secret"
                    );
                    text
                }
                (Err(error), _) => return Err(error),
            },
        };
        self.parsed(name, &text, parse)
    }

    /// Fetches a secret once for all concurrent callers: a poller begins a hundred polls at
    /// once, and SSM takes forty calls a second. A caller that had to wait for another's fetch
    /// takes its result.
    async fn fetch_coalesced(&self, name: &SecretName) -> Result<String, SecretError> {
        let in_flight = self.in_flight(name);
        let completed = in_flight.completed.load(Ordering::SeqCst);
        let mut last_error = in_flight.last_error.lock().await;
        if in_flight.completed.load(Ordering::SeqCst) > completed {
            match (last_error.as_ref(), self.cached(name).and_then(|cached| cached.text)) {
                (Some(error), _) => return Err(error.clone()),
                (None, Some(text)) => return Ok(text),
                // `forget` was called meanwhile.
                (None, None) => {}
            }
        }
        let fetched = self.fetch(name).await;
        in_flight.completed.fetch_add(1, Ordering::SeqCst);
        match fetched {
            Ok((text, _)) => {
                *last_error = None;
                self.cache(name, Some(&text));
                Ok(text)
            }
            Err(error) => {
                *last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    fn in_flight(&self, name: &SecretName) -> Arc<InFlightFetch> {
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.entry(name.clone()).or_default().clone()
    }

    /// Removes the secret from the cache.
    pub fn forget(&self, name: &SecretName) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.remove(name);
    }

    /// The secret, or none when the parameter does not exist. That is cached too: a fetch at
    /// every callback would use up the account's calls.
    ///
    /// # Errors
    /// When the secret cannot be read, or `parse` refuses it.
    pub async fn find<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SecretError> {
        let is_absent =
            |cached: &CachedSecret| cached.text.is_none() && cached.age() < NEGATIVE_TTL;
        if self.cached(name).as_ref().is_some_and(is_absent) {
            return Ok(None);
        }
        match self.get(name, parse).await {
            Ok(value) => Ok(Some(value)),
            Err(SecretError::Missing(_)) => {
                self.cache(name, None);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The secret, made by `create` if it does not exist. Of several concurrent callers one
    /// stores its secret, and all of them get that one.
    ///
    /// # Errors
    /// When the secret can be neither read nor written, or `parse` refuses it.
    pub async fn get_or_create<T, E: ToString>(
        &self,
        name: &SecretName,
        create: impl FnOnce() -> String,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<(T, Origin), SecretError> {
        match self.get(name, &parse).await {
            Ok(value) => return Ok((value, Origin::Stored)),
            Err(SecretError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        let made = create();
        let put = self.client.put_parameter().name(self.full(name)).value(&made);
        let put = put.r#type(ParameterType::SecureString).overwrite(false).send().await;
        let text = match put {
            Ok(_) => made.clone(),
            Err(error) => {
                let error = error.into_service_error();
                if !error.is_parameter_already_exists() {
                    return Err(self.unavailable(name, error));
                }
                // Stored by another caller, or by this call: the client repeats a request
                // whose response was lost.
                self.fetch(name).await?.0
            }
        };
        let origin = if text == made { Origin::Created } else { Origin::Stored };
        self.cache(name, Some(&text));
        Ok((self.parsed(name, &text, parse)?, origin))
    }

    /// The secret as it is stored, of version `least` or later: for a caller that is going to
    /// replace it.
    ///
    /// # Errors
    /// When the secret is missing, cannot be read, is of an older version, or `parse` refuses
    /// it.
    pub async fn read_since<T, E: ToString>(
        &self,
        name: &SecretName,
        least: i64,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        let (text, version) = self.fetch(name).await?;
        if version < least {
            return Err(SecretError::Stale(self.full(name)));
        }
        self.cache(name, Some(&text));
        self.parsed(name, &text, parse)
    }

    /// Replaces the stored value, if any, and returns the new version. SSM has no conditional
    /// write, so the caller has to hold a lock.
    ///
    /// # Errors
    /// When SSM does not confirm the write; the value may be stored all the same.
    pub async fn replace(&self, name: &SecretName, text: &str) -> Result<i64, SecretError> {
        self.forget(name);
        let put = self.client.put_parameter().name(self.full(name)).value(text);
        let put = put.r#type(ParameterType::SecureString).overwrite(true).send().await;
        let version = match put {
            Ok(output) => output.version,
            // The write may have succeeded, and its response may be lost.
            Err(error) => match self.fetch(name).await {
                Ok((stored, version)) if stored == text => version,
                Ok(_) | Err(_) => return Err(self.unavailable(name, error.into_service_error())),
            },
        };
        self.cache(name, Some(text));
        Ok(version)
    }

    /// Deletes the parameter, if it exists.
    ///
    /// # Errors
    /// When SSM does not confirm it; the parameter may be deleted all the same.
    pub async fn remove(&self, name: &SecretName) -> Result<(), SecretError> {
        let answer = self.client.delete_parameter().name(self.full(name)).send().await;
        if let Err(error) = answer {
            let error = error.into_service_error();
            if !error.is_parameter_not_found() {
                self.forget(name);
                return Err(self.unavailable(name, error));
            }
        }
        self.cache(name, None);
        Ok(())
    }

    fn parsed<T, E: ToString>(
        &self,
        name: &SecretName,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        parse(text).map_err(|error| SecretError::Malformed {
            name: self.full(name),
            problem: error.to_string(),
        })
    }

    /// The stored text, and its version.
    async fn fetch(&self, name: &SecretName) -> Result<(String, i64), SecretError> {
        let answer =
            self.client.get_parameter().name(self.full(name)).with_decryption(true).send().await;
        match answer {
            Ok(output) => output
                .parameter
                .and_then(|parameter| Some((parameter.value?, parameter.version)))
                .ok_or_else(|| SecretError::Missing(self.full(name))),
            Err(error) => {
                let error = error.into_service_error();
                Err(if error.is_parameter_not_found() {
                    SecretError::Missing(self.full(name))
                } else {
                    self.unavailable(name, error)
                })
            }
        }
    }

    fn unavailable(
        &self,
        name: &SecretName,
        error: impl Error + Send + Sync + 'static,
    ) -> SecretError {
        SecretError::Unavailable { name: self.full(name), source: Arc::new(error) }
    }

    fn full(&self, name: &SecretName) -> String {
        format!("{}/{}", self.prefix, name.path())
    }

    fn cached(&self, name: &SecretName) -> Option<CachedSecret> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(name).cloned()
    }

    fn cache(&self, name: &SecretName, text: Option<&str>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(name.clone(), CachedSecret::now(text));
    }
}

/// Where the secret of [`Secrets::get_or_create`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was stored before.
    Stored,
    /// This call created it.
    Created,
}
