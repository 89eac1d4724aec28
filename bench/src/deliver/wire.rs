//! The wire: hyper on rustls with explicit connections and a given signature. It is the least work
//! of any sender.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::DOMAIN;

use super::request::PreparedPost;

/// Sends prepared requests. Each lane keeps its connection if the last answer allows it.
pub(super) struct Wire {
    address: SocketAddr,
    tls: TlsConnector,
    lanes: Vec<Option<SendRequest<Full<Bytes>>>>,
}

impl Wire {
    pub(super) fn new(port: u16, tls: ClientConfig, lanes: usize) -> Self {
        let lanes = std::iter::repeat_with(|| None).take(lanes).collect();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self { address, tls: TlsConnector::from(Arc::new(tls)), lanes }
    }

    /// Makes these posts concurrently, one on each lane.
    pub(super) async fn post(&mut self, posts: &[PreparedPost]) -> Result<()> {
        let (address, tls) = (self.address, &self.tls);
        let lanes = self.lanes.iter_mut().zip(posts);
        try_join_all(lanes.map(|(lane, post)| one(lane, address, tls, post))).await?;
        Ok(())
    }
}

async fn one(
    lane: &mut Option<SendRequest<Full<Bytes>>>,
    address: SocketAddr,
    tls: &TlsConnector,
    post: &PreparedPost,
) -> Result<()> {
    let is_open = match lane.as_mut() {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    let sender = match lane {
        Some(sender) if is_open => sender,
        Some(_) | None => lane.insert(connect(address, tls).await?),
    };
    let response = sender.send_request(request(&post.path, &post.headers, &post.body)).await?;
    ensure!(response.status().is_success(), "the receiver answered {}", response.status());
    response.into_body().collect().await?;
    Ok(())
}

async fn connect(address: SocketAddr, tls: &TlsConnector) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = tls.connect(ServerName::try_from(DOMAIN)?, stream).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn request(path: &Uri, headers: &HeaderMap, body: &Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.clone();
    *request.headers_mut() = headers.clone();
    request
}
