//! HTTP to render providers, at the hosts that their specs name. Specs are changed through the
//! API, so addresses are checked where they are dialled, as those of receivers are.
//!
//! When a request to a provider fails, it matters whether it may have arrived: a submit that was not sent fails its job, and
//! the caller may submit another; after one that may have arrived it is unknown whether there is
//! a render. [`ProviderHttpError`] distinguishes the two. A request to a blocked address was not
//! sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::address::{BaseUrlError, TargetPolicy, check_base_url};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Client, Error as ClientError};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::client::{self, TlsSetupError, find, has_too_large_head, web_tls};
use super::dial::Dial;
use super::guard::{GuardedConnector, Resolve, SystemResolver};
use super::{EgressLimits, OUR_USER_AGENT};

/// The longest body of a provider's response, in bytes.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

type HttpsClient = Client<HttpsConnector<GuardedConnector>, Full<Bytes>>;

/// The HTTP client for providers. Built once per process; clones share its
/// connections.
#[derive(Clone)]
pub struct ProviderHttp {
    /// For safe requests, which may be repeated.
    reading: HttpsClient,
    /// For all others. It reuses no connection: when a request is written into one that died
    /// while Lambda was frozen, it is unknown whether it arrived.
    changing: HttpsClient,
    policy: Arc<TargetPolicy>,
}

/// A provider's response, with any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderResponse {
    /// 200 to 999; redirects are not followed.
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The whole body. One longer than 2 MiB is [`Trouble::TooLarge`].
    pub body: Bytes,
}

/// Why there is no response, by what that says about the request.
#[derive(Debug, thiserror::Error)]
pub enum ProviderHttpError {
    /// The request certainly did not reach the provider.
    #[error("the request was not sent to the provider")]
    NotSent(#[source] Trouble),
    /// The provider may have received the request, and may have acted on it.
    #[error("the provider may have received the request, but its answer did not arrive")]
    Unclear(#[source] Trouble),
}

/// The failure of a request.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The URL is not valid for HTTP.
    #[error("the URL is not one for HTTP")]
    Url(#[from] http::uri::InvalidUri),
    /// The URL is not one for a provider.
    #[error("the URL {0}")]
    Blocked(#[from] BaseUrlError),
    /// A header's name or value is not valid.
    #[error("a header is not valid in HTTP")]
    Headers,
    /// The caller's timeout passed.
    #[error("no answer in time")]
    Timeout,
    /// There was no connection, or it ended before the response's head.
    #[error("no answer")]
    Http(#[from] ClientError),
    /// The connection ended within the response's body.
    #[error("the answer broke off")]
    Body(#[from] hyper::Error),
    /// The response's body is longer than 2 MiB.
    #[error("the answer is longer than {MAX_BODY_BYTES} bytes")]
    TooLarge,
}

impl ProviderHttp {
    /// A client that trusts the web's certificate authorities and uses the system's resolver.
    pub fn new(policy: TargetPolicy) -> Result<Self, TlsSetupError> {
        Ok(Self::resolving(Arc::new(SystemResolver), web_tls()?, policy))
    }

    /// The same with another resolver and TLS configuration.
    #[must_use]
    pub fn resolving(resolver: Arc<dyn Resolve>, tls: ClientConfig, policy: TargetPolicy) -> Self {
        let policy = Arc::new(policy);
        let limits = EgressLimits::default();
        let connector = GuardedConnector::new(resolver, Arc::clone(&policy), &limits);
        Self::connected_by(connector, tls, policy)
    }

    /// A client on another network than the machine's, which resolves names itself.
    pub fn through(network: Arc<dyn Dial>, policy: TargetPolicy) -> Result<Self, TlsSetupError> {
        Ok(Self::with_parts(network, web_tls()?, policy))
    }

    /// The same with another TLS configuration.
    #[must_use]
    pub fn with_parts(network: Arc<dyn Dial>, tls: ClientConfig, policy: TargetPolicy) -> Self {
        let policy = Arc::new(policy);
        Self::connected_by(GuardedConnector::through(network, Arc::clone(&policy)), tls, policy)
    }

    fn connected_by(
        connector: GuardedConnector,
        tls: ClientConfig,
        policy: Arc<TargetPolicy>,
    ) -> Self {
        let connector = HttpsConnector::from((connector, tls));
        let idle = EgressLimits::default().idle;
        Self {
            reading: client::builder(idle).build(connector.clone()),
            changing: client::builder(idle).pool_max_idle_per_host(0).build(connector),
            policy,
        }
    }

    /// Sends one request and reads the whole response within `timeout`.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<ProviderResponse, ProviderHttpError> {
        let deadline = Instant::now() + timeout;
        check_base_url(url, &self.policy)
            .map_err(|error| ProviderHttpError::NotSent(error.into()))?;
        let uri = Uri::try_from(url.as_str())
            .map_err(|error| ProviderHttpError::NotSent(error.into()))?;
        let client = if method.is_safe() { &self.reading } else { &self.changing };
        let mut request = Request::new(Full::new(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(USER_AGENT, OUR_USER_AGENT);
        request.headers_mut().extend(headers);

        // Set when a connection with its TLS session was given the request.
        let connection = capture_connection(&mut request);
        let response = match timeout_at(deadline, client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if was_not_sent(&error) => {
                return Err(ProviderHttpError::NotSent(error.into()));
            }
            Ok(Err(error)) => return Err(ProviderHttpError::Unclear(error.into())),
            Err(_) if connection.connection_metadata().is_none() => {
                return Err(ProviderHttpError::NotSent(Trouble::Timeout));
            }
            Err(_) => return Err(ProviderHttpError::Unclear(Trouble::Timeout)),
        };
        if has_too_large_head(&response) {
            return Err(ProviderHttpError::Unclear(Trouble::TooLarge));
        }
        let (head, body) = response.into_parts();
        let body = timeout_at(deadline, read(body))
            .await
            .unwrap_or(Err(Trouble::Timeout))
            .map_err(ProviderHttpError::Unclear)?;
        Ok(ProviderResponse { status: head.status, headers: head.headers, body })
    }
}

/// A failed connection, or a request that hyper cancelled, which it does only before the first
/// byte is written.
fn was_not_sent(error: &ClientError) -> bool {
    error.is_connect() || find::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled)
}

async fn read(mut body: Incoming) -> Result<Bytes, Trouble> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            if bytes.len() + data.len() > MAX_BODY_BYTES {
                return Err(Trouble::TooLarge);
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::test_server::{
        Answers, Reply, ScriptedResolver, TestCertificate, TestServer, no_tls, settle,
        unused_address,
    };
    use super::*;

    /// More than the busiest machine's loopback takes.
    const PATIENT: Duration = Duration::from_secs(120);

    /// For what would take for ever.
    const IMPATIENT: Duration = Duration::from_millis(300);

    async fn ask(
        method: Method,
        url: &str,
        timeout: Duration,
    ) -> Result<ProviderResponse, ProviderHttpError> {
        let http = ProviderHttp::new(TargetPolicy::local_use()).unwrap();
        send(&http, method, url, timeout).await
    }

    async fn send(
        http: &ProviderHttp,
        method: Method,
        url: &str,
        timeout: Duration,
    ) -> Result<ProviderResponse, ProviderHttpError> {
        let key = (HeaderName::from_static("x-api-key"), HeaderValue::from_static("k"));
        let body = (method == Method::POST).then(|| Bytes::from_static(b"{}"));
        let url = url.parse().unwrap();
        http.send(method, &url, [key], body, timeout).await
    }

    #[tokio::test]
    async fn response_is_whole_for_any_status() {
        let server = TestServer::plain(vec![Reply::text(
            "HTTP/1.1 302 Found\r\nlocation: /second\r\nretry-after: 3\r\ncontent-length: 4\r\n\r\nbody",
        )])
        .await;
        let response = ask(Method::POST, &server.url("/render?a=1"), PATIENT).await.unwrap();

        assert_eq!(response.status, StatusCode::FOUND);
        assert_eq!(response.headers["retry-after"], "3");
        assert_eq!(response.body, "body");
        let seen = server.seen().requests;
        assert_eq!(seen.len(), 1, "redirects are not followed");
        assert!(seen[0].starts_with("POST /render?a=1 HTTP/1.1\r\n"), "{}", seen[0]);
        assert!(seen[0].contains("x-api-key: k\r\n") && seen[0].ends_with("\r\n\r\n{}"));
    }

    #[tokio::test]
    async fn unsent_request_is_not_sent() {
        let (_port, refused) = unused_address();
        let no_tls = no_tls().await;
        // Accepted by the kernel, and never answered: the TLS handshake never ends.
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mute_address = mute.local_addr().unwrap();
        for (url, timeout) in [
            (format!("http://{refused}/"), PATIENT),
            (format!("https://{no_tls}/"), PATIENT),
            (format!("https://{mute_address}/"), IMPATIENT),
        ] {
            let error = ask(Method::POST, &url, timeout).await.unwrap_err();
            assert!(matches!(error, ProviderHttpError::NotSent(_)), "{url}: {error:?}");
        }
    }

    #[tokio::test]
    async fn lost_response_is_unclear() {
        let half = b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{".to_vec();
        let endless = Reply::Endless {
            first: "HTTP/1.1 200 OK\r\n\r\n",
            then: "y".repeat(64 * 1024),
            pause: Duration::ZERO,
        };
        for (reply, trouble) in [
            (Reply::HangUp, "no answer"),
            (Reply::Last(half), "the answer broke off"),
            (endless, "the answer is longer than 2097152 bytes"),
        ] {
            let server = TestServer::plain(vec![reply, Reply::ok()]).await;
            match ask(Method::POST, &server.url("/"), PATIENT).await {
                Err(ProviderHttpError::Unclear(found)) => assert_eq!(found.to_string(), trouble),
                other => panic!("{trouble}: {other:?}"),
            }
            assert_eq!(server.seen().requests.len(), 1, "{trouble}: never twice");
        }
    }

    #[tokio::test]
    async fn timeout_after_sending_is_unclear() {
        // A busy machine may need longer to get it there.
        for timeout in [IMPATIENT, IMPATIENT * 10, IMPATIENT * 100] {
            let server = TestServer::plain(vec![Reply::Silence]).await;
            let outcome = ask(Method::POST, &server.url("/"), timeout).await;
            if server.seen().requests.is_empty() {
                continue;
            }
            match outcome {
                Err(ProviderHttpError::Unclear(Trouble::Timeout)) => return,
                other => panic!("{other:?}"),
            }
        }
        panic!("no request arrived");
    }

    #[tokio::test]
    async fn only_reads_reuse_connections() {
        let server = TestServer::plain(vec![Reply::ok()]).await;
        let http = ProviderHttp::new(TargetPolicy::local_use()).unwrap();
        for (method, connections) in
            [(Method::GET, 1), (Method::GET, 1), (Method::POST, 2), (Method::POST, 3)]
        {
            send(&http, method, &server.url("/"), PATIENT).await.unwrap();
            assert_eq!(server.seen().connections, connections);
            settle().await;
        }
    }

    /// A client with this resolver, and a TLS server at 127.0.0.1 that it trusts.
    async fn guarded(
        answers: impl IntoIterator<Item = Answers>,
        policy: TargetPolicy,
        replies: Vec<Reply>,
    ) -> (ProviderHttp, ScriptedResolver, TestServer) {
        let certificate = TestCertificate::new();
        let server = TestServer::tls(replies, &certificate).await;
        let resolver = ScriptedResolver::new(answers);
        let client = certificate.client.clone();
        (ProviderHttp::resolving(Arc::new(resolver.clone()), client, policy), resolver, server)
    }

    fn refused(outcome: Result<ProviderResponse, ProviderHttpError>) -> String {
        match outcome {
            Err(error @ ProviderHttpError::NotSent(_)) => crate::telemetry::chain(&error),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn private_provider_addresses_are_not_dialled() {
        for addresses in [
            &["127.0.0.1"][..],
            &["10.0.0.1"],
            &["169.254.169.254"],
            &["fd00:ec2::254"],
            &["::ffff:127.0.0.1"],
            &["64:ff9b::7f00:1"],
            // One private address refuses the name.
            &["203.0.114.7", "127.0.0.1"],
        ] {
            let answers = [Answers::of(addresses)];
            let (http, resolver, server) =
                guarded(answers, TargetPolicy::public(), vec![Reply::ok()]).await;
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let sent = send(&http, method, &server.named_url("/render"), PATIENT).await;
                let error = refused(sent);
                assert!(error.contains("the address is refused"), "{addresses:?}: {error}");
            }
            assert_eq!(resolver.asked().len(), 3);
            assert_eq!(server.seen().connections, 0);
        }
    }

    #[tokio::test]
    async fn provider_url_is_judged_before_it_is_dialled() {
        let (http, resolver, server) =
            guarded([Answers::of(&["127.0.0.1"])], TargetPolicy::public(), vec![Reply::ok()]).await;
        let port = server.address.port();
        for (url, why) in [
            (format!("http://receiver.example:{port}/"), "is not https"),
            (format!("https://127.0.0.1:{port}/"), "a loopback address"),
            (format!("https://[::ffff:7f00:1]:{port}/"), "a loopback address"),
            (format!("https://2130706433:{port}/"), "a loopback address"),
            (format!("https://user@receiver.example:{port}/"), "a user name or password"),
            (format!("https://localhost:{port}/"), "not a public, fully qualified DNS name"),
        ] {
            let error = refused(send(&http, Method::POST, &url, PATIENT).await);
            assert!(error.contains(why), "{url}: {error}");
        }
        assert!(resolver.asked().is_empty());
        assert_eq!(server.seen().connections, 0);
    }

    /// A name that was public when it was checked. Each connection is checked anew.
    #[tokio::test]
    async fn rebinding_provider_name_is_not_followed() {
        let policy = TargetPolicy::public().with_networks(["127.0.0.1/32".parse().unwrap()]);
        let answers = [Answers::of(&["127.0.0.1"]), Answers::of(&["127.0.0.2"])];
        let (http, resolver, server) = guarded(answers, policy, vec![Reply::ok(); 2]).await;
        let url = server.named_url("/render");
        assert!(send(&http, Method::POST, &url, PATIENT).await.is_ok());
        assert_eq!(resolver.asked().len(), 1, "what was checked is what was dialled");
        let error = refused(send(&http, Method::POST, &url, PATIENT).await);
        assert!(error.contains("the address is refused"), "{error}");
        assert_eq!(server.seen().connections, 1);
    }
}
