//! The hosts of providers and receivers in this process: real HTTP over pipes instead of
//! sockets, because a paused clock would advance while a socket is waited for.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use shared::egress::{Dial, Dialling, Stream};

use super::interceptor::{Call, CallInterceptor, Injected, Interception};

/// The capacity of a connection's pipe, in bytes.
const PIPE: usize = 64 * 1024;

/// Answers the requests to a host.
pub type Host = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// All hosts there are. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<BTreeMap<String, Host>>>);

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.hosts().keys()).finish()
    }
}

impl Network {
    /// Puts a host on the network, in place of another of its name.
    pub fn add(&self, name: &str, host: Host) {
        self.hosts().insert(name.to_owned(), host);
    }

    /// Takes a host off the network: connections to it are refused.
    pub fn remove(&self, name: &str) {
        self.hosts().remove(name);
    }

    /// The network as one process sees it.
    #[must_use]
    pub fn seen_by(&self, interceptor: Arc<dyn CallInterceptor>) -> Arc<dyn Dial> {
        Arc::new(View { network: self.clone(), interceptor })
    }

    fn hosts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Host>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct View {
    network: Network,
    interceptor: Arc<dyn CallInterceptor>,
}

impl Dial for View {
    fn dial(&self, uri: Uri) -> Dialling {
        let name = uri.host().unwrap_or_default().to_owned();
        let host = self.network.hosts().get(&name).cloned();
        let host = host.filter(|_| self.interceptor.connects(&name));
        let interceptor = Arc::clone(&self.interceptor);
        async move {
            let Some(host) = host else {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            };
            let (ours, theirs) = tokio::io::duplex(PIPE);
            tokio::spawn(serve(TokioIo::new(theirs), name, host, interceptor));
            Ok(Box::new(TokioIo::new(ours)) as Box<dyn Stream>)
        }
        .boxed()
    }
}

/// Serves one connection until either side ends it.
async fn serve(
    stream: TokioIo<tokio::io::DuplexStream>,
    name: String,
    host: Host,
    interceptor: Arc<dyn CallInterceptor>,
) {
    let service = service_fn(|request| {
        let (name, host, interceptor) = (name.clone(), Arc::clone(&host), Arc::clone(&interceptor));
        async move { answer(request, &name, host, interceptor).await }
    });
    let mut server = http1::Builder::new();
    // The date would be the machine's.
    server.auto_date_header(false).header_read_timeout(None);
    // A broken connection is no error here: some tests cause it.
    drop(server.serve_connection(stream, service).await);
}

/// The connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks")]
struct Breaks;

async fn answer(
    request: Request<Incoming>,
    name: &str,
    host: Host,
    interceptor: Arc<dyn CallInterceptor>,
) -> Result<Response<Full<Bytes>>, Breaks> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Breaks)?.to_bytes();
    let what = format!("{} {}", head.method, head.uri);
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    let request = Request::from_parts(head, body);
    let call = Call { to: name, what: &what, body: &document };
    let Interception { injected, then } = interceptor.intercept(&call).await;
    let answer = match injected {
        Injected::Answered => made(&host, request).await?,
        Injected::Twice => {
            made(&host, request.clone()).await?;
            made(&host, request).await?
        }
        Injected::Unanswered => {
            made(&host, request).await?;
            return Err(Breaks);
        }
        Injected::Lost => return Err(Breaks),
        Injected::Refused(status, body) => refused(status, &body),
    };
    then.await;
    Ok(answer.map(Full::new))
}

/// What the host answers. The host finishes a request that has arrived even when its caller
/// has gone.
async fn made(host: &Host, request: Request<Bytes>) -> Result<Response<Bytes>, Breaks> {
    tokio::spawn(host(request)).await.map_err(|_| Breaks)
}

fn refused(status: u16, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status.try_into().unwrap_or_default();
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// A host that answers by a plain function.
#[must_use]
pub fn host(answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Host {
    Arc::new(move |request| std::future::ready(answer(request)).boxed())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;
    use domain::address::TargetPolicy;
    use shared::egress::provider::{ProviderHttp, ProviderHttpError};

    /// Injects the same into every call.
    #[derive(Debug)]
    struct Always(Injected);

    impl CallInterceptor for Always {
        fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
            std::future::ready(self.0.clone().into()).boxed()
        }
    }

    /// The result of a POST, and the number of requests that reached the host.
    async fn posted(injected: Injected) -> (Result<StatusCode, ProviderHttpError>, usize) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let network = Network::default();
        let answer = move |_: Request<Bytes>| {
            count.fetch_add(1, Ordering::SeqCst);
            Response::new(Bytes::from_static(b"{}"))
        };
        network.add("provider.test", host(answer));
        let http = ProviderHttp::through(
            network.seen_by(Arc::new(Always(injected))),
            TargetPolicy::local_use(),
        )
        .unwrap();
        let url = "http://provider.test/render".parse().unwrap();
        let body = Some(Bytes::from_static(b"{}"));
        let sent = http.send(Method::POST, &url, [], body, Duration::from_secs(15)).await;
        (sent.map(|response| response.status), asked.load(Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn injected_faults_reach_the_host() {
        let (answer, asked) = posted(Injected::Answered).await;
        assert_eq!((answer.unwrap(), asked), (StatusCode::OK, 1));
        let (answer, asked) = posted(Injected::Refused(503, Value::Null)).await;
        assert_eq!((answer.unwrap(), asked), (StatusCode::SERVICE_UNAVAILABLE, 0));
        let (answer, asked) = posted(Injected::Twice).await;
        assert_eq!((answer.unwrap(), asked), (StatusCode::OK, 2));
        for (injected, expected) in [(Injected::Lost, 0), (Injected::Unanswered, 1)] {
            let (answer, asked) = posted(injected).await;
            assert!(matches!(answer, Err(ProviderHttpError::Unclear(_))), "{answer:?}");
            assert_eq!(asked, expected, "nothing is posted twice");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_host_refuses_connections() {
        let http = ProviderHttp::through(
            Network::default().seen_by(Arc::new(crate::interceptor::NoFaults)),
            TargetPolicy::local_use(),
        );
        let url = "http://unknown.test/".parse().unwrap();
        let sent = http.unwrap().send(Method::POST, &url, [], None, Duration::from_secs(1)).await;
        assert!(matches!(sent, Err(ProviderHttpError::NotSent(_))), "{sent:?}");
    }
}
