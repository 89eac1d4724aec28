//! Secrets in SSM Parameter Store, below one prefix per stack. Each is read once and kept
//! for ten minutes, so that a rotation reaches warm functions without a deployment; what is
//! changed through the API is kept for one.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use domain::id::ProviderName;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;
use tracing::warn;

use crate::telemetry::chain;

/// How long a value that was read is good for.
const KEPT: Duration = Duration::from_secs(600);

/// How long one is that the API changes: that soon the change has reached everybody.
const KEPT_SHORT: Duration = Duration::from_secs(60);

/// How long a parameter that may be absent counts as absent.
const MISSING_KEPT: Duration = Duration::from_secs(30);

/// A secret's place below the stack's prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretName {
    /// SHA-256 of every API key in force, in hexadecimal, separated by commas.
    ApiKeyHashes,
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
            Self::ApiKeyHashes => "api-key-hashes".into(),
            Self::CallbackSecret => "callback-secret".into(),
            Self::WebhookSecrets => "webhook-secrets".into(),
            Self::WebhookHeaders => "webhook-headers".into(),
            Self::ProviderKey(provider) => format!("providers/{provider}/api-key"),
            Self::ProviderWebhookSecrets(provider) => {
                format!("providers/{provider}/webhook-secrets")
            }
        }
    }

    /// How long a value of it is good for.
    fn kept(&self) -> Duration {
        match self {
            Self::WebhookSecrets | Self::WebhookHeaders => KEPT_SHORT,
            Self::ApiKeyHashes
            | Self::CallbackSecret
            | Self::ProviderKey(_)
            | Self::ProviderWebhookSecrets(_) => KEPT,
        }
    }
}

/// Why a secret could not be had. Never carries its value.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody has stored it.
    #[error("the parameter {0} does not exist; store it with `aws ssm put-parameter`")]
    Missing(String),
    /// The store did not answer.
    #[error("the parameter {name} could not be read or written")]
    Unavailable {
        /// The parameter.
        name: String,
        /// What the SDK says.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// What is read is older than what was written.
    #[error("the parameter {0} is read as it was before it was last written")]
    Stale(String),
    /// What is stored is not what it should be.
    #[error("the parameter {name} is malformed: {problem}")]
    Malformed {
        /// The parameter.
        name: String,
        /// What is wrong, without the value.
        problem: String,
    },
}

/// The stack's secrets.
pub struct Secrets {
    client: Client,
    prefix: String,
    cache: Mutex<HashMap<SecretName, Read>>,
    questions: Mutex<HashMap<SecretName, Arc<Question>>>,
}

/// What SSM is asked about one secret.
#[derive(Default)]
struct Question {
    /// One asks at a time. Why the last one got nothing.
    turn: Turn<Option<SecretError>>,
    /// How often it was answered, or was not.
    answers: AtomicU64,
}

/// Shows which secrets are kept, and none of them.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Secrets")
            .field("prefix", &self.prefix)
            .field("kept", &cache.keys())
            .finish()
    }
}

/// What was read, and when. By two clocks: while a function is frozen, the monotonic one may
/// stand still, and the other may be set.
#[derive(Clone)]
struct Read {
    at: Instant,
    at_wall: SystemTime,
    /// None when nobody had stored it.
    text: Option<String>,
}

impl Read {
    fn now(text: Option<&str>) -> Self {
        let text = text.map(str::to_owned);
        Self { at: Instant::now(), at_wall: SystemTime::now(), text }
    }

    fn age(&self) -> Duration {
        self.at.elapsed().max(self.at_wall.elapsed().unwrap_or_default())
    }
}

impl Secrets {
    /// Secrets below `prefix`, such as `/render-relay/production`.
    #[must_use]
    pub fn new(client: Client, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { client, prefix, cache: Mutex::default(), questions: Mutex::default() }
    }

    /// The secret, made into what it is used as by `parse`. While SSM does not answer, one
    /// that was read within ten minutes will do: to deliver nothing would be worse.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or `parse` refuses it.
    pub async fn get<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        let before = self.kept(name);
        let before = before.and_then(|read| Some((read.age(), read.text?)));
        let text = match before {
            Some((age, text)) if age < name.kept() => text,
            // Missing a moment ago: whoever needs it would rather look again.
            Some(_) | None => match (self.fetch_once(name).await, before) {
                (Ok(text), _) => text,
                (Err(cause @ SecretError::Unavailable { .. }), Some((age, text))) if age < KEPT => {
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

    /// Reads a secret for all who need it just now: a poller begins a hundred polls at once,
    /// and SSM takes forty calls a second. Whoever has to wait until another's question is
    /// answered takes that answer.
    async fn fetch_once(&self, name: &SecretName) -> Result<String, SecretError> {
        let question = self.question(name);
        let answers = question.answers.load(Ordering::SeqCst);
        let mut failed = question.turn.lock().await;
        if question.answers.load(Ordering::SeqCst) > answers {
            match (failed.as_ref(), self.kept(name).and_then(|read| read.text)) {
                (Some(why), _) => return Err(why.clone()),
                (None, Some(text)) => return Ok(text),
                // Forgotten meanwhile.
                (None, None) => {}
            }
        }
        let fetched = self.fetch(name).await;
        question.answers.fetch_add(1, Ordering::SeqCst);
        match fetched {
            Ok((text, _)) => {
                *failed = None;
                self.remember(name, Some(&text));
                Ok(text)
            }
            Err(why) => {
                *failed = Some(why.clone());
                Err(why)
            }
        }
    }

    fn question(&self, name: &SecretName) -> Arc<Question> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.entry(name.clone()).or_default().clone()
    }

    /// Has the secret read anew when it is asked for next.
    pub fn forget(&self, name: &SecretName) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.remove(name);
    }

    /// The secret, or none when nobody has stored it, which is remembered for a while: a
    /// question at every callback would use up the account's calls.
    ///
    /// # Errors
    /// When it cannot be read, or `parse` refuses it.
    pub async fn find<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SecretError> {
        let missing = |read: &Read| read.text.is_none() && read.age() < MISSING_KEPT;
        if self.kept(name).as_ref().is_some_and(missing) {
            return Ok(None);
        }
        match self.get(name, parse).await {
            Ok(value) => Ok(Some(value)),
            Err(SecretError::Missing(_)) => {
                self.remember(name, None);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The secret, made by `create` if nobody has yet. Of several that race to make it, one
    /// wins and all get the winner's.
    ///
    /// # Errors
    /// When it can be neither read nor written, or `parse` refuses it.
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
                // Whoever won, everybody uses the same. It may be this very call, repeated
                // by the client after its first answer was lost.
                self.fetch(name).await?.0
            }
        };
        let origin = if text == made { Origin::Created } else { Origin::Stored };
        self.remember(name, Some(&text));
        Ok((self.parsed(name, &text, parse)?, origin))
    }

    /// The secret as it is stored, and no older than version `least` of it: for whoever is
    /// going to write over it.
    ///
    /// # Errors
    /// When it is missing, cannot be read, is read as it was before, or `parse` refuses it.
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
        self.remember(name, Some(&text));
        self.parsed(name, &text, parse)
    }

    /// Stores another value over the one that is there, if any, and answers its version. SSM
    /// has no condition for this: whoever calls it sees to it that nobody else does.
    ///
    /// # Errors
    /// When it cannot be written; it may be all the same.
    pub async fn replace(&self, name: &SecretName, text: &str) -> Result<i64, SecretError> {
        self.forget(name);
        let put = self.client.put_parameter().name(self.full(name)).value(text);
        let put = put.r#type(ParameterType::SecureString).overwrite(true).send().await;
        let version = match put {
            Ok(output) => output.version,
            // Its answer may have been lost on the way.
            Err(error) => match self.fetch(name).await {
                Ok((stored, version)) if stored == text => version,
                Ok(_) | Err(_) => return Err(self.unavailable(name, error.into_service_error())),
            },
        };
        self.remember(name, Some(text));
        Ok(version)
    }

    /// Deletes it; that it was not there is fine.
    ///
    /// # Errors
    /// When it cannot be deleted; it may be all the same.
    pub async fn remove(&self, name: &SecretName) -> Result<(), SecretError> {
        let answer = self.client.delete_parameter().name(self.full(name)).send().await;
        if let Err(error) = answer {
            let error = error.into_service_error();
            if !error.is_parameter_not_found() {
                self.forget(name);
                return Err(self.unavailable(name, error));
            }
        }
        self.remember(name, None);
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

    /// What is stored, and its version.
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

    fn kept(&self, name: &SecretName) -> Option<Read> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(name).cloned()
    }

    fn remember(&self, name: &SecretName, text: Option<&str>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(name.clone(), Read::now(text));
    }
}

/// Where a secret that was asked for came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Stored,
    /// This call made it.
    Created,
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
