//! An HTTP client for our API, which it calls as a customer's backend or a provider does,
//! and for the simulator.

use std::time::Duration;

use ::http::{HeaderMap, Method, Request};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

/// Much longer than API Gateway waits for a function.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers as they were sent.
    pub headers: HeaderMap,
    /// The body as it was sent. Every body in these tests is text.
    pub text: String,
}

impl HttpAnswer {
    /// The body, decoded from JSON.
    ///
    /// # Errors
    /// When the body has another shape; the error shows the answer.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.text).with_context(|| format!("answered {self}"))
    }

    /// A header's value; empty when the header is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer, when it has this status.
    ///
    /// # Errors
    /// When it has another status; the error shows the answer.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "answered {self}, not {status}");
        Ok(self)
    }
}

impl std::fmt::Display for HttpAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.text)
    }
}

/// A client that returns answers of every status and follows no redirect.
#[derive(Clone, Debug)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        // The client keeps no idle connection: a request on a connection that the server
        // has just closed would fail, and a repeated request would disturb the test.
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<HttpAnswer> {
        let mut request = Request::builder().method(&method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let text = String::from_utf8(body.into())?;
            anyhow::Ok(HttpAnswer { status: head.status.as_u16(), headers: head.headers, text })
        };
        timeout(TIMEOUT, exchange)
            .await
            .context("no answer in time")
            .flatten()
            .with_context(|| format!("{method} {url}"))
    }

    pub(crate) async fn get(&self, url: &str) -> Result<HttpAnswer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    pub(crate) async fn put(&self, url: &str, document: &Value) -> Result<HttpAnswer> {
        let json = [("content-type", "application/json")];
        self.send(Method::PUT, url, &json, document.to_string()).await
    }
}
