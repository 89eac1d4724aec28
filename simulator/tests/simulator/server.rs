//! A simulator for one test, and an HTTP client for it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use simulator::{API_KEY, AwsLedger, Simulator, SimulatorSettings};
use tokio::net::TcpSocket;

/// The time after which a test fails.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct TestServer {
    simulator: Simulator,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl HttpAnswer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_before(None).await
    }

    /// A simulator with a proxy in front of `upstream`.
    pub(crate) async fn start_before(upstream: Option<String>) -> Self {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let aws = upstream
            .map(|upstream| AwsLedger { listen: loopback, upstream: upstream.parse().unwrap() });
        Self {
            simulator: Simulator::start(SimulatorSettings { listen: loopback, aws }).await.unwrap(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// A URL of the simulator.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.simulator.url())
    }

    pub(crate) fn aws_url(&self) -> String {
        self.simulator.aws_url().unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> HttpAnswer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let response = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        let (head, body) = response.unwrap().unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        HttpAnswer { status: head.status.as_u16(), headers: head.headers, text }
    }

    /// Calls a provider with the good key.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &str) -> HttpAnswer {
        let headers = [("x-api-key", API_KEY), ("content-type", "application/json")];
        self.send(method, &self.url(path), &headers, body).await
    }

    /// Gets something from the control API.
    pub(crate) async fn look(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, &self.url(path), &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    /// Puts something to the control API.
    pub(crate) async fn set(&self, path: &str, body: &str) -> u16 {
        let json = [("content-type", "application/json")];
        self.send(Method::PUT, &self.url(path), &json, body).await.status
    }

    /// Posts to the control API.
    pub(crate) async fn post(&self, path: &str) -> u16 {
        self.send(Method::POST, &self.url(path), &[], "").await.status
    }

    /// Waits until the answer at `path` of the control API is right, and returns it.
    pub(crate) async fn wait_for(&self, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        until(path, async || Some(self.look(path).await).filter(&is_right)).await
    }
}

/// A URL without a server, as long as the socket lives: its port is taken.
pub(crate) fn unserved_url() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

/// Repeats `attempt` until it returns something; `what` names it when it never does.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, wait).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
