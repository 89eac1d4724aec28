//! Calls of SSM Parameter Store. Each is made once: who repeats it, and when, is decided by
//! [`Secrets`](super::Secrets), because a repeat of the SDK's own would be one more call of the
//! forty that the account has a second.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::http::HttpResponse;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::types::ParameterType;
use aws_smithy_runtime_api::client::result::CreateUnhandledError;

use super::SecretName;

/// How many parameters one call may ask for.
pub(super) const MAX_NAMES: usize = 10;

/// What SSM calls a call that it does not take now.
const THROTTLES: [&str; 5] = [
    "ThrottlingException",
    "Throttling",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "TooManyUpdates",
];

/// The parameters below one prefix.
pub(super) struct Parameters {
    client: Client,
    prefix: String,
}

/// What a parameter holds. It has no `Debug` form, because it is secret.
pub(super) struct StoredText {
    pub(super) text: Arc<str>,
    pub(super) version: i64,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub(super) struct CallError {
    pub(super) source: Arc<dyn Error + Send + Sync>,
    /// Whether the same call may succeed later: SSM is busy, or did not answer.
    pub(super) passes: bool,
}

/// The outcome of storing a parameter that must not exist before.
pub(super) enum Created {
    Stored,
    Existed,
}

impl Parameters {
    pub(super) fn new(client: &Client, prefix: &str) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled());
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { client: Client::from_conf(config.build()), prefix }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn full(&self, name: &SecretName) -> String {
        format!("{}/{}", self.prefix, name.path())
    }

    /// What is stored under these names, [`MAX_NAMES`] at most; absent ones are left out.
    pub(super) async fn read(
        &self,
        names: &[SecretName],
    ) -> Result<HashMap<SecretName, StoredText>, CallError> {
        let full: HashMap<String, &SecretName> =
            names.iter().map(|name| (self.full(name), name)).collect();
        let asked = Some(names.iter().map(|name| self.full(name)).collect());
        let request = self.client.get_parameters().set_names(asked).with_decryption(true);
        let parameters = request.send().await.map_err(CallError::of)?.parameters;
        let stored = parameters.unwrap_or_default().into_iter().filter_map(|parameter| {
            let name = full.get(&parameter.name?)?;
            let text = parameter.value?.into();
            Some(((*name).clone(), StoredText { text, version: parameter.version }))
        });
        Ok(stored.collect())
    }

    /// Stores a parameter unless it exists.
    pub(super) async fn create(&self, name: &SecretName, text: &str) -> Result<Created, CallError> {
        let put = self.client.put_parameter().name(self.full(name)).value(text);
        match put.r#type(ParameterType::SecureString).overwrite(false).send().await {
            Ok(_) => Ok(Created::Stored),
            Err(error) => match error.as_service_error() {
                Some(refusal) if refusal.is_parameter_already_exists() => Ok(Created::Existed),
                Some(_) | None => Err(CallError::of(error)),
            },
        }
    }

    /// Stores a parameter over the one that exists, and returns its version.
    pub(super) async fn replace(&self, name: &SecretName, text: &str) -> Result<i64, CallError> {
        let put = self.client.put_parameter().name(self.full(name)).value(text);
        let put = put.r#type(ParameterType::SecureString).overwrite(true).send().await;
        put.map(|output| output.version).map_err(CallError::of)
    }

    /// Deletes a parameter; whether it existed.
    pub(super) async fn delete(&self, name: &SecretName) -> Result<bool, CallError> {
        match self.client.delete_parameter().name(self.full(name)).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(refusal) if refusal.is_parameter_not_found() => Ok(false),
                Some(_) | None => Err(CallError::of(error)),
            },
        }
    }
}

impl CallError {
    fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + CreateUnhandledError + Send + Sync + 'static,
    {
        let passes = match &error {
            SdkError::ServiceError(refusal) => {
                let status = refusal.raw().status();
                let code = refusal.err().code().unwrap_or_default();
                status.is_server_error() || status.as_u16() == 429 || THROTTLES.contains(&code)
            }
            SdkError::ConstructionFailure(_) => false,
            // No answer, or half of one.
            _ => true,
        };
        Self { source: Arc::new(error.into_service_error()), passes }
    }
}
