//! HTTP on loopback: to our API, as a customer's backend or a provider would
//! call it, and to the simulator.

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
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// As sent.
    pub headers: HeaderMap,
    /// As sent; every body here is text.
    pub text: String,
}

impl Answer {
    /// The body as JSON of some shape.
    ///
    /// # Errors
    /// When it is not that; the error shows the answer.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.text).with_context(|| format!("answered {self}"))
    }

    /// A header's value; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer, if it has this status.
    ///
    /// # Errors
    /// When it has another one; the error shows the answer.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "answered {self}, not {status}");
        Ok(self)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.text)
    }
}

/// A client that takes no status for an error.
#[derive(Clone, Debug)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        // No connection is kept: one that the server has just closed would fail
        // a request, and it is not ours to send a request twice.
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(&method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let text = String::from_utf8(body.into())?;
            anyhow::Ok(Answer { status: head.status.as_u16(), headers: head.headers, text })
        };
        timeout(PATIENCE, exchange)
            .await
            .context("no answer in time")
            .flatten()
            .with_context(|| format!("{method} {url}"))
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Answer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    pub(crate) async fn put(&self, url: &str, document: &Value) -> Result<Answer> {
        let json = [("content-type", "application/json")];
        self.send(Method::PUT, url, &json, document.to_string()).await
    }
}
