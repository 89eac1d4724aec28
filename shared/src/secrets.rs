//! Secrets in SSM Parameter Store, below one prefix per stack. Each is read once and kept
//! for ten minutes, so that a rotation reaches warm functions without a deployment.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use domain::id::ProviderName;
use tokio::time::Instant;

/// How long a value that was read is good for.
const KEPT: Duration = Duration::from_secs(600);

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
            Self::ProviderKey(provider) => format!("providers/{provider}/api-key"),
            Self::ProviderWebhookSecrets(provider) => {
                format!("providers/{provider}/webhook-secrets")
            }
        }
    }
}

/// Why a secret could not be had. Never carries its value.
#[derive(Debug, thiserror::Error)]
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
        source: Box<dyn Error + Send + Sync>,
    },
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
#[derive(Debug)]
pub struct Secrets {
    client: Client,
    prefix: String,
    cache: Mutex<HashMap<SecretName, (Instant, Option<String>)>>,
}

impl Secrets {
    /// Secrets below `prefix`, such as `/render-relay/production`.
    #[must_use]
    pub fn new(client: Client, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { client, prefix, cache: Mutex::default() }
    }

    /// The secret, made into what it is used as by `parse`.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or `parse` refuses it.
    pub async fn get<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        let text = match self.cached(name) {
            Some(Some(text)) => text,
            // Missing a moment ago: whoever needs it would rather look again.
            Some(None) | None => {
                let text = self.fetch(name).await?;
                self.remember(name, Some(&text));
                text
            }
        };
        self.parsed(name, &text, parse)
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
        if self.cached(name) == Some(None) {
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
                self.fetch(name).await?
            }
        };
        let origin = if text == made { Origin::Created } else { Origin::Stored };
        self.remember(name, Some(&text));
        Ok((self.parsed(name, &text, parse)?, origin))
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

    async fn fetch(&self, name: &SecretName) -> Result<String, SecretError> {
        let answer =
            self.client.get_parameter().name(self.full(name)).with_decryption(true).send().await;
        match answer {
            Ok(output) => output
                .parameter
                .and_then(|parameter| parameter.value)
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
        SecretError::Unavailable { name: self.full(name), source: Box::new(error) }
    }

    fn full(&self, name: &SecretName) -> String {
        format!("{}/{}", self.prefix, name.path())
    }

    /// What is remembered: a value, or that there is none.
    fn cached(&self, name: &SecretName) -> Option<Option<String>> {
        let cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fresh = |read: &Instant, text: &Option<String>| {
            read.elapsed() < if text.is_some() { KEPT } else { MISSING_KEPT }
        };
        cache.get(name).filter(|(read, text)| fresh(read, text)).map(|(_, text)| text.clone())
    }

    fn remember(&self, name: &SecretName, text: Option<&str>) {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.insert(name.clone(), (Instant::now(), text.map(str::to_owned)));
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
