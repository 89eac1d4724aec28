//! What the clients for receivers and for providers have in common.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::ConfigBuilderExt;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Most headers of an answer.
const MAX_HEADERS: usize = 100;

/// Longest head of an answer, and the most hyper buffers of its body, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// TLS cannot work in this build at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsSetupError(#[source] rustls::Error);

/// TLS 1.2 and 1.3, trusting the web's certificate authorities.
pub fn web_tls() -> Result<rustls::ClientConfig, TlsSetupError> {
    // The provider is named because rustls would panic when it had to guess.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError)?
        .with_webpki_roots()
        .with_no_client_auth();
    Ok(config)
}

/// HTTP/1.1 with bounded heads. hyper follows no redirect, reads no proxy from
/// the environment and asks for no compression, so nothing has to be turned off.
pub(super) fn builder(idle: Duration) -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .http1_max_headers(MAX_HEADERS)
        .http1_max_buf_size(MAX_HEAD_BYTES)
        .pool_idle_timeout(idle)
        .pool_timer(TokioTimer::new())
        // Only a request of which no byte was written.
        .retry_canceled_requests(true);
    builder
}

/// The first of `error` and its causes that is a `T`.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.find_map(|error| error.downcast_ref())
}
