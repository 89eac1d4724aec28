//! AWS in memory as a process of its own, with a shard of active jobs in its table. So its memory
//! and its processor time are not those of the measured process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_in_memory::InMemoryAws;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use clap::Args;
use domain::lease::Lease;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::Server;
use super::fleet::{Fleet, PROVIDER};
use super::poll_client::stored_key;
use crate::child;

/// The path of the consumed capacity ([`ConsumedCapacity`]).
pub(super) const CONSUMED: &str = "/consumed";

/// The prefix of the resource names in memory, and of those in the poller's configuration.
pub(super) const ENVIRONMENT: [(&str, &str); 8] = [
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "bench"),
    ("AWS_SECRET_ACCESS_KEY", "bench"),
    ("PARAMETER_PREFIX", "/render-relay/test"),
    ("TABLE_NAME", "table"),
    ("BUS_NAME", "bus"),
    ("DELIVERY_QUEUE_URL", "https://sqs/deliveries"),
    ("WAKE_QUEUE_URL", "https://sqs/wakes"),
];

const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// The content of the table.
#[derive(Args)]
pub(crate) struct CloudOptions {
    #[command(flatten)]
    fleet: Fleet,
    /// The delay of an answer.
    #[arg(long)]
    latency_ms: u64,
    /// The provider's port, which the stored key is for.
    #[arg(long)]
    provider_port: u16,
}

/// The address, and the time since which polls are due.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CloudAddress {
    pub(super) port: u16,
    pub(super) epoch: u64,
    pub(super) seen: DateTime<Utc>,
}

impl CloudAddress {
    /// The poller's environment variables for it.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let url = format!("http://127.0.0.1:{}", self.port);
        let names = ENVIRONMENT.into_iter().map(|(name, value)| (name, value.to_owned()));
        names.chain([("AWS_ENDPOINT_URL", url)]).collect()
    }

    /// The wake-up call, as arguments.
    pub(super) fn wake_up_arguments(&self) -> [String; 4] {
        let (epoch, seen) = (self.epoch.to_string(), self.seen.timestamp_millis().to_string());
        ["--epoch".to_owned(), epoch, "--seen-ms".to_owned(), seen]
    }

    /// What was consumed so far.
    pub(super) async fn consumed(&self) -> Result<ConsumedCapacity> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let url = format!("http://127.0.0.1:{}{CONSUMED}", self.port).parse()?;
        let body = client.get(url).await?.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }
}

impl fmt::Display for ConsumedCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} read units, {:.1} write units", self.read_units, self.write_units)?;
        self.requests.iter().try_for_each(|(name, count)| write!(f, ", {count} {name}"))
    }
}

/// Starts AWS with this fleet, this delay and a key for the provider at this port.
pub(super) fn start(
    fleet: &Fleet,
    latency_ms: u64,
    provider_port: u16,
) -> Result<Server<CloudAddress>> {
    let mut arguments = fleet.arguments();
    arguments.extend(["--latency-ms".to_owned(), latency_ms.to_string()]);
    arguments.extend(["--provider-port".to_owned(), provider_port.to_string()]);
    Server::start("cloud", &arguments)
}

/// What was consumed so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ConsumedCapacity {
    pub(super) read_units: f64,
    pub(super) write_units: f64,
    /// The number of requests by name.
    pub(super) requests: BTreeMap<String, u32>,
}

/// Fills the table, sends its address to the parent, and serves until the parent ends.
pub(crate) async fn serve(options: &CloudOptions) -> Result<()> {
    child::exit_with_parent();
    let key = format!("providers/{PROVIDER}/api-key");
    let stored = stored_key(options.provider_port);
    let aws = InMemoryAws::new(&[(key.as_str(), stored.as_str())]);
    let store = aws.store();
    for job in options.fleet.all(options.provider_port) {
        store.insert_job(&job?).await?;
    }
    // Filling took a while, for which no polls are due.
    let seen = Utc::now();
    let lease = Lease::taken_over(None, 0, seen);
    let lease = Lease { seen, ..lease };
    store.commit_lease(&lease).await?;

    let before = consumed(&aws);
    let latency = Duration::from_millis(options.latency_ms);
    let of_run = aws.clone();
    let router = Router::new()
        .route(CONSUMED, get(async move || axum::Json(since(&before, consumed(&of_run)))))
        .fallback(answer)
        .with_state(Cloud { aws, latency });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    child::send(&CloudAddress { port, epoch: lease.epoch, seen })?;
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

#[derive(Clone)]
struct Cloud {
    aws: InMemoryAws,
    latency: Duration,
}

async fn answer(State(cloud): State<Cloud>, request: Request) -> Response {
    if !cloud.latency.is_zero() {
        tokio::time::sleep(cloud.latency).await;
    }
    match call(&cloud.aws, request).await {
        Ok(answer) => answer,
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem:#}")).into_response(),
    }
}

async fn call(aws: &InMemoryAws, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let target = head.headers.get("x-amz-target").context("no x-amz-target")?.to_str()?.to_owned();
    let body = to_bytes(body, MAX_BODY_BYTES).await?;
    let mut request = HttpRequest::new(body.into());
    request.headers_mut().insert("x-amz-target", target);
    let answer = HttpConnector::call(aws, request).await?;
    let status = answer.status().as_u16();
    let body = answer.body().bytes().context("a body in parts")?.to_vec();
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Body::from(body))?)
}

fn consumed(aws: &InMemoryAws) -> ConsumedCapacity {
    let units = aws.table().consumed();
    let mut requests = BTreeMap::<String, u32>::new();
    for name in aws.calls() {
        *requests.entry(name).or_default() += 1;
    }
    ConsumedCapacity { read_units: units.read_units, write_units: units.write_units, requests }
}

fn since(before: &ConsumedCapacity, now: ConsumedCapacity) -> ConsumedCapacity {
    let made = |(name, count): (String, u32)| {
        let made = count - before.requests.get(&name).copied().unwrap_or_default();
        (made > 0).then_some((name, made))
    };
    ConsumedCapacity {
        read_units: now.read_units - before.read_units,
        write_units: now.write_units - before.write_units,
        requests: now.requests.into_iter().filter_map(made).collect(),
    }
}
