//! The floor: hyper's client with its pool of connections, and a signature. It is a sender that
//! checks no URL and stores no result.

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::Utc;
use futures_util::future::try_join_all;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use sha2::Sha256;

use crate::loopback::{self, LoopbackResolver};
use crate::tls::DOMAIN;

use super::request::PreparedPost;

/// Signs and sends.
pub(super) struct Floor {
    client: Client<HttpsConnector<HttpConnector<LoopbackResolver>>, Full<Bytes>>,
    port: u16,
    key: Vec<u8>,
}

impl Floor {
    pub(super) fn new(port: u16, tls: ClientConfig, key: &[u8]) -> Self {
        let connector = HttpsConnector::from((loopback::connector(), tls));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, port, key: key.to_vec() }
    }

    /// Makes these posts concurrently.
    pub(super) async fn post(&self, posts: &[PreparedPost]) -> Result<()> {
        try_join_all(posts.iter().map(|post| self.one(post))).await?;
        Ok(())
    }

    async fn one(&self, post: &PreparedPost) -> Result<()> {
        let timestamp = Utc::now().timestamp();
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key)?;
        mac.update(format!("{}.{timestamp}.", post.id).as_bytes());
        mac.update(&post.body);
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));

        let mut request = Request::new(Full::new(post.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(format!("https://{DOMAIN}:{}{}", self.port, post.path))?;
        let headers = request.headers_mut();
        headers.clone_from(&post.headers);
        headers.insert(HeaderName::from_static("webhook-timestamp"), timestamp.into());
        headers.insert(
            HeaderName::from_static("webhook-signature"),
            HeaderValue::try_from(signature)?,
        );
        let response = self.client.request(request).await?;
        ensure!(response.status().is_success(), "the receiver answered {}", response.status());
        response.into_body().collect().await?;
        Ok(())
    }
}
