//! The world around Render Relay, on loopback: the providers' APIs, a customer's
//! webhook receiver, and a ledger of what the functions ask of AWS.
//!
//! One listener serves
//! - `/{provider}/…`: the provider's API as its documentation has it, below the
//!   base URL `<url>/<provider>`; the key is [`API_KEY`];
//! - `/receiver/{name}`: takes webhooks and verifies their signatures;
//! - `/_control/…`: sets faults and tells what happened.
//!
//! A second listener, when wanted, passes everything on to an AWS endpoint and
//! keeps the ledger.
//!
//! A render moves by the clock alone: state is a function of submit time,
//! scenario and now. Everything that is kept is bounded; the oldest goes first.

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

/// Larger than any provider takes, small enough to keep many.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For providers, receivers and control; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `None`: no ledger.
    pub aws: Option<AwsLedger>,
}

/// The AWS side.
#[derive(Clone, Debug)]
pub struct AwsLedger {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The endpoint that answers, such as `http://127.0.0.1:4566`. Only its host
    /// and port count; TLS is not spoken.
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
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
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

    /// `http://127.0.0.1:<port>`: base of providers, receivers and control.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoint to give to AWS clients, if there is a ledger.
    #[must_use]
    pub fn aws_url(&self) -> Option<String> {
        self.aws_address.map(|address| format!("http://{address}"))
    }
}

/// A simulator without listeners: providers, receivers and control as one service, for a test
/// that has a network and a clock of its own.
pub fn router_in(environment: Arc<dyn Environment>) -> Router {
    router(Arc::new(Simulation::new(environment)))
}

/// The same on this machine's network and clock, for whoever listens for it (by TLS, say).
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
    // Small answers in two packets would wait for each other; failing to ask for
    // that costs time and nothing else.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    servers.spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
