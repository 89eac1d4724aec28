#![doc = include_str!("../README.md")]

mod account;
mod api;
mod bounded_log;
mod callback;
mod callback_sender;
mod control;
mod environment;
mod ledger;
mod provider;
mod proxy;
mod receiver;
mod receiver_api;
mod render;
mod render_id;
mod scenario;
mod signature;
mod simulation;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, post};
use axum::serve::ListenerExt;
use http::Uri;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use crate::api::API_KEY;
pub use crate::environment::{Environment, PostFuture};
use crate::environment::{HostEnvironment, http_client};
use crate::proxy::Proxy;
use crate::simulation::Simulation;

/// A limit above that of any provider, and small enough to keep many bodies.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// The addresses of a simulator.
#[derive(Clone, Debug)]
pub struct SimulatorSettings {
    /// The address for providers, receivers and control; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `None`: no proxy to AWS.
    pub aws: Option<AwsLedger>,
}

/// The proxy to AWS.
#[derive(Clone, Debug)]
pub struct AwsLedger {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The endpoint behind the proxy, such as `http://127.0.0.1:4566`. Only its host and port
    /// count; TLS is not supported.
    pub upstream: Uri,
}

/// A running simulator. It stops when it is dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    aws_address: Option<SocketAddr>,
    _servers: JoinSet<io::Result<()>>,
}

impl Simulator {
    /// Listens, and serves on the current tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the upstream names no host.
    pub async fn start(settings: SimulatorSettings) -> anyhow::Result<Self> {
        let client = http_client();
        let simulation = Arc::new(Simulation::new(Arc::new(HostEnvironment::new(client.clone()))));
        let mut servers = JoinSet::new();

        let address = serve(&mut servers, settings.listen, router(Arc::clone(&simulation))).await?;
        let aws_address =
            match settings.aws {
                None => None,
                Some(AwsLedger { listen, upstream }) => {
                    let upstream =
                        upstream.authority().cloned().context("the AWS upstream names no host")?;
                    let proxy = Router::new()
                        .fallback(proxy::forward)
                        .with_state(Arc::new(Proxy { simulation, client, upstream }));
                    Some(serve(&mut servers, listen, proxy).await?)
                }
            };
        Ok(Self { address, aws_address, _servers: servers })
    }

    /// The base URL of providers, receivers and control: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoint for AWS clients, if there is a proxy.
    #[must_use]
    pub fn aws_url(&self) -> Option<String> {
        self.aws_address.map(|address| format!("http://{address}"))
    }
}

/// The simulator without listeners, for a test that has a network and a clock of its own.
pub fn router_in(environment: Arc<dyn Environment>) -> Router {
    router(Arc::new(Simulation::new(environment)))
}

/// The simulator without listeners, on this host's network and clock.
pub fn router_on_host() -> Router {
    router_in(Arc::new(HostEnvironment::new(http_client())))
}

fn router(simulation: Arc<Simulation>) -> Router {
    Router::new()
        .nest("/_control", control::router())
        .route("/receiver/{name}", post(receiver_api::receive))
        .route("/{provider}/{*path}", any(api::call))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(simulation)
}

async fn serve(
    servers: &mut JoinSet<io::Result<()>>,
    listen: SocketAddr,
    router: Router,
) -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    // Without this, small answers in two packets would wait for each other. A failure costs only
    // time.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    servers.spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
