//! The HTTP and TLS configuration that the clients of receivers and providers share.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use hyper::ext::ReasonPhrase;
use hyper_rustls::ConfigBuilderExt;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// The most headers of a response.
const MAX_HEADERS: usize = 100;

/// The longest head of a response, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most that hyper buffers. Its own limit depends on how the bytes arrive, and on what of the
/// body arrives with them, so every head that is allowed has to fit with room to spare.
const MAX_BUFFER_BYTES: usize = 2 * MAX_HEAD_BYTES;

/// TLS is not available in this build.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsSetupError(#[source] rustls::Error);

/// TLS 1.2 and 1.3, trusting the web's certificate authorities.
pub fn web_tls() -> Result<rustls::ClientConfig, TlsSetupError> {
    // The crypto provider is named because rustls panics when it cannot choose one.
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
        .http1_max_buf_size(MAX_BUFFER_BYTES)
        .pool_idle_timeout(idle)
        .pool_timer(TokioTimer::new())
        // This repeats only requests of which no byte was written.
        .retry_canceled_requests(true);
    builder
}

/// Whether the head of a response is longer than is allowed, counted as a sender writes it: a
/// status line, and a line for each header with one blank behind the colon.
pub(super) fn has_too_large_head<B>(response: &Response<B>) -> bool {
    let phrase = response.extensions().get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
    let phrase = phrase.or(response.status().canonical_reason().map(str::as_bytes));
    let status_line = "HTTP/1.1 200 \r\n".len() + phrase.map_or(0, <[u8]>::len);
    let headers = response.headers().iter();
    let lines = headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    status_line + lines.sum::<usize>() + "\r\n".len() > MAX_HEAD_BYTES
}

/// The first of `error` and its causes that is a `T`.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.find_map(|error| error.downcast_ref())
}
