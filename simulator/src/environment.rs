//! The environment of the simulator: time, random bytes and a client for callbacks.

use std::fmt::Debug;
use std::pin::Pin;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// The status of the answer, or the reason why there is none.
pub type PostFuture = Pin<Box<dyn Future<Output = Result<StatusCode, String>> + Send>>;

/// The environment of the simulator. Tests may replace that of the host.
pub trait Environment: Debug + Send + Sync {
    /// The current time.
    fn now(&self) -> DateTime<Utc>;

    /// Random bytes, or `None` when there are none.
    fn random(&self) -> Option<[u8; 16]>;

    /// Posts a callback once. The caller may drop the future.
    fn post(&self, request: Request<Bytes>) -> PostFuture;
}

/// A plain HTTP client that follows no redirects.
pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn http_client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // No connection is kept: one that the other side is closing would look like a failed request.
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
}

/// The clock, random source and network of the host.
#[derive(Debug)]
pub(crate) struct HostEnvironment {
    client: HttpClient,
}

impl HostEnvironment {
    pub(crate) fn new(client: HttpClient) -> Self {
        Self { client }
    }
}

impl Environment for HostEnvironment {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn random(&self) -> Option<[u8; 16]> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok().map(|()| random)
    }

    fn post(&self, request: Request<Bytes>) -> PostFuture {
        let answer = self.client.request(request.map(Full::new));
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(response.status()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}
