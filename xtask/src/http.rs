//! JSON over HTTP to the API, the simulator and the emulator of the local stack.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

/// A client with a timeout of a minute, for which no status is an error.
#[derive(Clone)]
pub(crate) struct Http {
    agent: Agent,
}

impl Http {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build();
        Self { agent: config.into() }
    }

    /// Whether a URL answers 200.
    pub(crate) fn answers(&self, url: &str) -> bool {
        self.agent.get(url).call().is_ok_and(|response| response.status() == 200)
    }

    /// Gets JSON.
    pub(crate) fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        read(self.agent.get(url).call(), "GET", url)
    }

    /// Puts JSON; the answer's body is ignored.
    pub(crate) fn put(&self, url: &str, body: &Value) -> Result<()> {
        accept(self.agent.put(url).send_json(body), "PUT", url).map(drop)
    }

    /// Posts without a body; the answer's body is ignored.
    pub(crate) fn post(&self, url: &str) -> Result<()> {
        accept(self.agent.post(url).send_empty(), "POST", url).map(drop)
    }

    /// The bodies of up to ten messages in a queue of the emulator. They return to the queue after
    /// its visibility timeout.
    pub(crate) fn peek_queue(&self, endpoint: &str, queue_url: &str) -> Result<Vec<String>> {
        let request = json!({"QueueUrl": queue_url, "MaxNumberOfMessages": 10});
        let response = self
            .agent
            .post(endpoint)
            .header("x-amz-target", "AmazonSQS.ReceiveMessage")
            .content_type("application/x-amz-json-1.0")
            // The emulator reads the service from this header and does not verify it.
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, \
                 SignedHeaders=host, Signature=0",
            )
            .send(request.to_string());
        let received: Received = read(response, "POST", endpoint)?;
        Ok(received.messages.into_iter().map(|message| message.body).collect())
    }
}

/// The client of Render Relay's API.
pub(crate) struct Api<'a> {
    pub(crate) http: &'a Http,
    pub(crate) url: &'a str,
    pub(crate) key: &'a str,
}

impl Api<'_> {
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = format!("{}{path}", self.url);
        let request = self.http.agent.get(&url).header("authorization", self.bearer());
        read(request.call(), "GET", path)
    }

    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let url = format!("{}{path}", self.url);
        let request = self.http.agent.put(&url).header("authorization", self.bearer());
        read(request.send_json(body), "PUT", path)
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let url = format!("{}{path}", self.url);
        let request = self.http.agent.post(&url).header("authorization", self.bearer());
        read(request.send_json(body), "POST", path)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.key)
    }
}

/// SQS omits `Messages` when there are none.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    body: String,
}

type Answer = Result<Response<ureq::Body>, ureq::Error>;

fn read<T: DeserializeOwned>(answer: Answer, method: &str, target: &str) -> Result<T> {
    let body = accept(answer, method, target)?;
    serde_json::from_str(&body).with_context(|| format!("{method} {target} answered {body}"))
}

/// The body of a 2xx answer; any other status is an error with the body.
fn accept(answer: Answer, method: &str, target: &str) -> Result<String> {
    let mut response = answer.with_context(|| format!("{method} {target} got no answer"))?;
    let status = response.status();
    let body = response.body_mut().read_to_string()?;
    if status.is_success() {
        return Ok(body);
    }
    bail!("{method} {target} answered {status}: {body}")
}
