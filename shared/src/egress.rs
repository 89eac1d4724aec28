//! HTTP to receivers, which are untrusted servers, and to providers.
//!
//! The limits here keep a hostile or failing receiver from harming the others: the address
//! is checked when it is dialled (the `guard` module), redirects are not followed, and an
//! attempt ends in time and in constant memory for any response. A failed attempt is data
//! ([`AttemptError`]), never an `Err`.
//!
//! [`provider`] sends to providers through the same guard, under a policy of its own.

mod client;
mod dial;
mod guard;
pub mod provider;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::address::{ReceiverUrl, TargetPolicy};
use domain::attempt::AttemptError;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use client::{find, has_too_large_head};
use dial::Carried;
use guard::{DialError, GuardedConnector};

use crate::telemetry::chain;

pub use client::{TlsSetupError, web_tls};
pub use dial::{Dial, Dialling, Stream};
pub use guard::{Resolve, SystemResolver};

/// The limits of an attempt. Deployed stacks use [`EgressLimits::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressLimits {
    /// The whole attempt: resolving, connecting, sending, reading.
    pub attempt: Duration,
    /// Resolving the name.
    pub dns: Duration,
    /// Connecting by TCP, all addresses together.
    pub connect: Duration,
    /// How long an unused connection is kept for the next attempt.
    pub idle: Duration,
    /// The most bytes of a response's body that are read; then the connection is closed.
    pub body: usize,
    /// The most bytes of a response's body that are stored.
    pub excerpt: usize,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(15),
            dns: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            // More than is stored: a connection can be reused only when the body was read to its
            // end.
            body: 64 * 1024,
            excerpt: 1024,
        }
    }
}

/// The HTTP client for receivers. Built once per process; clones share its
/// connections.
#[derive(Clone)]
pub struct Receivers {
    client: Client<HttpsConnector<GuardedConnector>, Full<Bytes>>,
    policy: Arc<TargetPolicy>,
    limits: EgressLimits,
}

/// A POST request. Its `Debug` form shows neither headers nor body.
#[derive(Clone)]
pub struct Outgoing<'a> {
    pub url: &'a ReceiverUrl,
    /// Headers beside `user-agent`, `host` and `content-length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The exact bytes to send.
    pub body: Bytes,
}

/// The outcome of a POST, and its duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The response, or the failure.
    pub outcome: PostOutcome,
    /// From before the name's resolution to the last byte read.
    pub duration: Duration,
}

/// The outcome of a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostOutcome {
    /// The receiver answered, with any status.
    Answer(ReceiverAnswer),
    /// The receiver did not answer.
    Failure(AttemptError),
}

/// A receiver's response. Its status decides: a body that breaks off or never ends only shortens
/// the excerpt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverAnswer {
    /// 200 to 999; redirects are not followed.
    pub status: StatusCode,
    /// The `retry-after` header as sent: seconds or a date.
    pub retry_after: Option<String>,
    /// The `webhook-delivery` header as sent.
    pub webhook_delivery: Option<String>,
    /// The start of the body as text, at most [`EgressLimits::excerpt`] bytes.
    pub excerpt: String,
}

const WEBHOOK_DELIVERY: HeaderName = HeaderName::from_static("webhook-delivery");

const OUR_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("render-relay/", env!("CARGO_PKG_VERSION")));

/// The longest header value that is read, in bytes.
const MAX_HINT_BYTES: usize = 256;

impl Receivers {
    /// A client that trusts the web's certificate authorities and uses the system's resolver.
    pub fn new(policy: TargetPolicy) -> Result<Self, TlsSetupError> {
        let resolver = Arc::new(SystemResolver);
        Ok(Self::with_parts(resolver, web_tls()?, policy, EgressLimits::default()))
    }

    /// A client with this resolver, TLS configuration, policy and limits.
    pub fn with_parts(
        resolver: Arc<dyn Resolve>,
        tls: rustls::ClientConfig,
        policy: TargetPolicy,
        limits: EgressLimits,
    ) -> Self {
        let policy = Arc::new(policy);
        let tcp = GuardedConnector::new(resolver, Arc::clone(&policy), &limits);
        Self::connected_by(tcp, tls, policy, limits)
    }

    /// A client on another network than the machine's, which resolves names itself.
    pub fn through(
        network: Arc<dyn Dial>,
        policy: TargetPolicy,
        limits: EgressLimits,
    ) -> Result<Self, TlsSetupError> {
        let policy = Arc::new(policy);
        let connector = GuardedConnector::through(network, Arc::clone(&policy));
        Ok(Self::connected_by(connector, web_tls()?, policy, limits))
    }

    fn connected_by(
        connector: GuardedConnector,
        tls: rustls::ClientConfig,
        policy: Arc<TargetPolicy>,
        limits: EgressLimits,
    ) -> Self {
        let client = client::builder(limits.idle).build(HttpsConnector::from((connector, tls)));
        Self { client, policy, limits }
    }

    /// Posts once and reads the response.
    pub async fn post(&self, request: Outgoing<'_>) -> Answered {
        let started = Instant::now();
        let deadline = started + self.limits.attempt;
        let outcome = match timeout_at(deadline, self.exchange(&request)).await {
            Ok(Ok(response)) => PostOutcome::Answer(self.read(response, deadline).await),
            Ok(Err(class)) => PostOutcome::Failure(class),
            Err(_) => PostOutcome::Failure(AttemptError::Timeout),
        };
        Answered { outcome, duration: started.elapsed() }
    }

    /// Sends the request and waits for the response's head.
    ///
    /// A frozen Lambda does not notice that an idle connection was closed, so the next request
    /// may be written into a dead one. That is no failure of the receiver, so the request is
    /// sent again on another connection. If the first one did arrive, the receiver recognises
    /// the webhook id. A request on a new connection is not sent again.
    async fn exchange(&self, request: &Outgoing<'_>) -> Result<Response<Incoming>, AttemptError> {
        // The URL may have been parsed under another policy.
        if let Err(refusal) = request.url.satisfies(&self.policy) {
            debug!(error = chain(&refusal), "receiver blocked by the target policy");
            return Err(AttemptError::Blocked);
        }
        let Ok(uri) = Uri::try_from(request.url.as_str()) else {
            debug!("receiver blocked: its URL is not valid for HTTP");
            return Err(AttemptError::Blocked);
        };
        loop {
            match self.client.request(request.to_http(uri.clone())).await {
                Ok(response) => {
                    if let Some(carried) = response.extensions().get::<Carried>() {
                        carried.note_answer();
                    }
                    if has_too_large_head(&response) {
                        debug!(
                            endpoint.host = uri.host(),
                            "receiver's answer has too large a head"
                        );
                        return Err(AttemptError::TooLarge);
                    }
                    return Ok(response);
                }
                Err(error) => {
                    let class = classify(&error);
                    let kept = Carried::by(&error).is_some_and(|carried| carried.has_answered());
                    // Not the whole URL: its path may hold a secret.
                    debug!(
                        endpoint.host = uri.host(),
                        connection.reused = kept,
                        error.class = ?class,
                        error = chain(&error),
                        "receiver did not respond"
                    );
                    if !(kept && class == AttemptError::Reset) {
                        return Err(class);
                    }
                }
            }
        }
    }

    /// Reads the response's body within the limits, and keeps its start.
    async fn read(&self, response: Response<Incoming>, deadline: Instant) -> ReceiverAnswer {
        let (head, mut body) = response.into_parts();
        // Three bytes more, so that a character at the limit is complete.
        let most = self.limits.excerpt + 3;
        let (mut start, mut length) = (Vec::new(), 0);
        let reading = async {
            while length < self.limits.body
                && let Some(Ok(frame)) = body.frame().await
            {
                let Some(data) = frame.data_ref() else { continue };
                length += data.len();
                start.extend_from_slice(data.get(..most - start.len()).unwrap_or(data));
            }
        };
        // At the timeout, the part that was read is used.
        let _ = timeout_at(deadline, reading).await;
        ReceiverAnswer {
            status: head.status,
            retry_after: hint(&head.headers, &RETRY_AFTER),
            webhook_delivery: hint(&head.headers, &WEBHOOK_DELIVERY),
            excerpt: excerpt(&start, self.limits.excerpt),
        }
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Outgoing({} headers and {} bytes, redacted)",
            self.headers.len(),
            self.body.len()
        )
    }
}

impl Outgoing<'_> {
    fn to_http(&self, uri: Uri) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.extend(self.headers.iter().cloned());
        headers.insert(USER_AGENT, OUR_USER_AGENT);
        request
    }
}

fn classify(error: &ClientError) -> AttemptError {
    if error.is_connect() {
        // The TCP connector has an error type of its own, so any other error is from TLS.
        return find::<DialError>(error).map_or(AttemptError::Tls, DialError::class);
    }
    match find::<hyper::Error>(error) {
        Some(error) if error.is_parse_too_large() => AttemptError::TooLarge,
        Some(_) | None => AttemptError::Reset,
    }
}

fn hint(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    (text.len() <= MAX_HINT_BYTES).then(|| text.to_owned())
}

/// The first `limit` bytes as text, cut between characters.
fn excerpt(bytes: &[u8], limit: usize) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.truncate(text.floor_char_boundary(limit));
    text
}
