//! One configuration, and one TLS connector, for all AWS clients of a process.
//!
//! The SDK's default chain would build a connector per client and one more for a hidden STS
//! client; parsing the root certificates for each was most of a cold start. It would also
//! link every credentials provider into every function, although Lambda needs only one: the
//! environment.

use std::sync::OnceLock;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ssm::config::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpConnector, http_client_fn,
};

use crate::env::{self, EnvError};

/// A healthy call takes milliseconds. Without a limit, one hung connection would hold a
/// function until Lambda ends it, and its whole batch with it.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a call is attempted.
const MAX_ATTEMPTS: u32 = 3;

/// Reads region, credentials and endpoint from the environment, by the names that all AWS SDKs
/// use. `AWS_ENDPOINT_URL` points all clients at an emulator, and `AWS_ATTEMPT_SECONDS` gives it
/// more time to respond.
///
/// # Errors
/// When the region is missing or a number is malformed; the error names the variable.
pub fn config() -> Result<SdkConfig, EnvError> {
    let region = env::required("AWS_REGION")?;
    let seconds = |text: &str| text.parse().map(Duration::from_secs);
    let attempt = env::parsed("AWS_ATTEMPT_SECONDS", ATTEMPT_TIMEOUT, seconds)?;
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client_fn(|settings, _| connector(settings)))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts(attempt));
    config.set_endpoint_url(env::optional("AWS_ENDPOINT_URL"));
    Ok(config.build())
}

/// The timeouts of a call whose every attempt may take this long.
#[must_use]
pub fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt.saturating_mul(MAX_ATTEMPTS))
        .build()
}

/// The first caller's settings are used for all clients, which share one configuration.
fn connector(settings: &HttpConnectorSettings) -> SharedHttpConnector {
    static SHARED: OnceLock<SharedHttpConnector> = OnceLock::new();
    let build = || {
        SharedHttpConnector::new(
            Connector::builder()
                .connector_settings(settings.clone())
                .sleep_impl(TokioSleep::new())
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build(),
        )
    };
    SHARED.get_or_init(build).clone()
}
