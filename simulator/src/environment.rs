//! What the simulator needs of the world around it: the time, chance, and a way to post.

use std::fmt::Debug;
use std::pin::Pin;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// What comes of posting: the status of the answer, or why there is none.
pub type PostFuture = Pin<Box<dyn Future<Output = Result<StatusCode, String>> + Send>>;

/// What the simulator needs of the world around it. The machine has it; a test may bring its
/// own.
pub trait Environment: Debug + Send + Sync {
    /// The time.
    fn now(&self) -> DateTime<Utc>;

    /// Bytes that nobody can guess; none when there are none to be had.
    fn random(&self) -> Option<[u8; 16]>;

    /// Posts a callback, once. Whoever asked may stop waiting.
    fn post(&self, request: Request<Bytes>) -> PostFuture;
}

/// Speaks plain HTTP, and follows no redirects.
pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn http_client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // No connection is kept: one that the other side is just closing would look
    // like a failure of the request.
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
}

/// The machine that the simulator runs on.
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
