//! One configuration, and one TLS connector, for all AWS clients of a process.
//!
//! The SDK would build a connector per client and one more for a hidden STS client, and
//! parsing the root certificates for each was most of a cold start.

use std::sync::OnceLock;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpConnector, http_client_fn,
};

/// A healthy call takes milliseconds. Without a limit, one hung connection would hold a
/// function until Lambda ends it, and its whole batch with it.
const ATTEMPT: Duration = Duration::from_secs(3);
const OPERATION: Duration = Duration::from_secs(9);

/// Reads region, credentials and endpoint the way every AWS SDK does; `AWS_ENDPOINT_URL`
/// points all clients at an emulator.
pub async fn config() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client_fn(|settings, _| connector(settings)))
        .timeout_config(timeouts())
        .load()
        .await
}

/// How long a call may take.
pub(crate) fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).operation_timeout(OPERATION).build()
}

/// The first caller's settings win, which is fine while all clients share one config.
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
