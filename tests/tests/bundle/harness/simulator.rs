//! The control of the simulated providers, and their environment.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use aws_in_memory::clock;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use simulator::{Environment, PostFuture};
use tests::SimulatedProvider;
use tower_service::Service;

use crate::harness::bundle::{Bundle, PROVIDER_SECRET};
use crate::harness::provider_hosts::video_url;
use aws_in_memory::random::Random;

impl Bundle {
    /// Calls the simulator's control API.
    pub(crate) async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("/_control{path}"))
            .header("content-type", "application/json")
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let response = self.call_simulator(request).await;
        assert!(response.status().is_success(), "{path}: {:?}", response.body());
        serde_json::from_slice(response.body()).unwrap_or_default()
    }

    /// Sets the options of a provider's renders with a tag; the simulator's README lists them. The
    /// video's URL is [`video_url`].
    pub(crate) async fn set_render_options(
        &self,
        provider: SimulatedProvider,
        tag: &str,
        options: &Value,
    ) {
        let mut options = options.clone();
        options["resultUrl"] = Value::from(video_url(tag));
        let path = format!("/scenarios/{}/{tag}", provider.name());
        self.control(Method::PUT, &path, &options).await;
        self.configured_tags.lock().unwrap().insert((provider.name(), tag.to_owned()));
    }

    /// Sets default options for a tag that has none.
    pub(crate) async fn ensure_render_options(&self, provider: SimulatedProvider, tag: &str) {
        let configured = (provider.name(), tag.to_owned());
        if !self.configured_tags.lock().unwrap().contains(&configured) {
            self.set_render_options(provider, tag, &serde_json::json!({})).await;
        }
    }

    /// Registers an account webhook for renders with this tag.
    pub(crate) async fn register(&self, provider: SimulatedProvider, tag: &str, url: &str) {
        let webhook = serde_json::json!({"url": url, "secret": PROVIDER_SECRET, "tag": tag});
        let path = format!("/account-webhooks/{}", provider.name());
        self.control(Method::PUT, &path, &webhook).await;
    }

    /// Sends a request to the simulator.
    pub(crate) async fn call_simulator(&self, request: Request<Bytes>) -> Response<Bytes> {
        let answer = self.simulator.lock().unwrap().call(request.map(Full::new));
        let Ok(answer) = answer.await;
        let (head, body) = answer.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }
}

/// The environment of the simulator within a bundle.
pub(crate) struct BundleEnvironment {
    pub(crate) bundle: Weak<Bundle>,
    pub(crate) random: Mutex<Random>,
}

impl fmt::Debug for BundleEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundleEnvironment")
    }
}

impl Environment for BundleEnvironment {
    fn now(&self) -> DateTime<Utc> {
        clock::true_now()
    }

    fn random(&self) -> Option<[u8; 16]> {
        Some(self.random.lock().unwrap().bytes())
    }

    fn post(&self, request: Request<Bytes>) -> PostFuture {
        let bundle = self.bundle.upgrade();
        Box::pin(async move {
            let bundle = bundle.ok_or_else(|| "it is over".to_owned())?;
            let bundle = bundle.stack_at(request.uri());
            if bundle.duplicates_everything() {
                let (bundle, request) = (Arc::clone(&bundle), request.clone());
                tokio::spawn(async move { bundle.called_back(request).await });
            }
            if bundle.random_faults.roll("callback is lost", 15) {
                return Err("lost".to_owned());
            }
            if bundle.random_faults.roll("callback is late", 15) {
                tokio::time::sleep(bundle.random_duration(Duration::from_secs(240))).await;
            }
            if bundle.random_faults.roll("callback comes twice", 15) {
                let (bundle, request) = (Arc::clone(&bundle), request.clone());
                tokio::spawn(async move { bundle.called_back(request).await });
            }
            let seen = bundle.called_back(request).await;
            StatusCode::from_u16(seen).map_err(|error| error.to_string())
        })
    }
}
