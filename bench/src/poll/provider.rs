//! A provider over TLS: the simulator with renders that never end, and a count of answered polls.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::serve::Listener;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use super::Server;
use super::fleet::{self, PROVIDER};
use crate::child;
use crate::tls::{self, TlsAddress};

/// The path of the count of answered polls, in JSON.
pub(super) const COUNT: &str = "/answered";

/// The tag of the renders' scenario.
const TAG: &str = "endless";

/// The options of the provider.
#[derive(Args)]
pub(crate) struct ProviderOptions {
    /// The number of renders. They belong to the jobs with the first numbers.
    #[arg(long)]
    renders: u32,
    /// The delay of an answer.
    #[arg(long)]
    latency_ms: u64,
}

/// Starts a provider with this many renders and this delay.
pub(super) fn start(renders: u32, latency_ms: u64) -> Result<Server<TlsAddress>> {
    let arguments = [
        "--renders".to_owned(),
        renders.to_string(),
        "--latency-ms".to_owned(),
        latency_ms.to_string(),
    ];
    Server::start("provider", &arguments)
}

/// Makes the renders, sends its address to the parent, and serves until the parent ends.
pub(crate) async fn serve(options: &ProviderOptions) -> Result<()> {
    child::exit_with_parent();
    let mut simulator = simulator::router_on_host();
    let endless = json!({"durationMs": 1, "queuedMs": 0, "freezeProgress": 0.0});
    let scenario = format!("/_control/scenarios/{PROVIDER}/{TAG}");
    call(&mut simulator, Method::PUT, &scenario, &endless).await?;
    for number in 0..options.renders {
        let submit = json!({"jobId": fleet::id(number).as_uuid(), "payload": {
            "name": TAG, "width": 1920, "height": 1080, "duration": 10,
            "visuals": [{"type": "TEXT", "text": "Hello", "x": 960, "y": 540}],
        }});
        call(&mut simulator, Method::POST, &format!("/{PROVIDER}/api/render/api-key"), &submit)
            .await?;
    }

    let answered = Arc::new(AtomicU64::new(0));
    let state = Counter { answered, latency: Duration::from_millis(options.latency_ms) };
    let counted = simulator.layer(middleware::from_fn_with_state(state.clone(), count));
    let router = Router::new()
        .route(COUNT, get(async move || state.answered.load(Ordering::Relaxed).to_string()))
        .fallback_service(counted);

    let (config, certificate) = tls::server()?;
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    child::send(&TlsAddress { port: tcp.local_addr()?.port(), certificate })?;
    let listener = TlsListener { tcp, tls: TlsAcceptor::from(Arc::new(config)) };
    Ok(axum::serve(listener, router).await?)
}

async fn call(simulator: &mut Router, method: Method, path: &str, body: &Value) -> Result<()> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-api-key", simulator::API_KEY)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))?;
    let status = simulator.call(request).await?.status();
    ensure!(status.is_success() || status == StatusCode::ACCEPTED, "{path}: {status}");
    Ok(())
}

#[derive(Clone)]
struct Counter {
    answered: Arc<AtomicU64>,
    latency: Duration,
}

async fn count(State(counter): State<Counter>, request: Request, next: Next) -> Response {
    if !counter.latency.is_zero() {
        tokio::time::sleep(counter.latency).await;
    }
    let answer = next.run(request).await;
    counter.answered.fetch_add(1, Ordering::Relaxed);
    answer
}

/// Accepts connections one after another.
struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let accepted = async {
                let (stream, address) = self.tcp.accept().await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>((self.tls.accept(stream).await?, address))
            };
            // A connection that the client breaks off is no error here.
            if let Ok(accepted) = accepted.await {
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
