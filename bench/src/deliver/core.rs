//! The core: from a loaded delivery to one that can be stored.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use chrono::Utc;
use domain::address::{ReceiverPorts, ReceiverUrl, TargetPolicy};
use domain::attempt::{Attempt, AttemptOutcome};
use domain::delivery::{Consequence, Delivery};
use domain::endpoint::{Endpoint, ResponseHints};
use domain::retry::DeliverySchedule;
use domain::signature::SigningSecrets;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use ipnet::IpNet;
use rustls::ClientConfig;
use shared::egress::{EgressLimits, Outgoing, PostOutcome, Receivers, Resolve};
use shared::entropy::Entropy;

use crate::tls::DOMAIN;

/// Delivers like `deliver`, without reads and writes.
pub(super) struct Core {
    secrets: SigningSecrets,
    policy: TargetPolicy,
    receivers: Receivers,
    schedule: DeliverySchedule,
    /// The endpoint's state, which `deliver` caches for a second.
    endpoint: Endpoint,
}

/// The policy of a deployed stack, with the receivers of this run allowed.
pub(super) fn policy(port: u16) -> Result<TargetPolicy> {
    let here = IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let port = ReceiverPorts::parse(&port.to_string())?;
    Ok(TargetPolicy::public().with_ports(port).with_networks([here]))
}

/// The product's client for receivers, with every name on loopback.
pub(super) fn receivers(tls: ClientConfig, policy: TargetPolicy) -> Receivers {
    Receivers::with_parts(Arc::new(LoopbackAddresses), tls, policy, EgressLimits::default())
}

struct LoopbackAddresses;

impl Resolve for LoopbackAddresses {
    fn resolve(&self, _name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        std::future::ready(Ok(vec![Ipv4Addr::LOCALHOST.into()])).boxed()
    }
}

impl Core {
    pub(super) fn new(port: u16, tls: ClientConfig, secrets: SigningSecrets) -> Result<Self> {
        let policy = policy(port)?;
        let receivers = receivers(tls, policy.clone());
        let endpoint = Endpoint::unknown(&format!("https://{DOMAIN}:{port}"));
        Ok(Self { secrets, policy, receivers, schedule: DeliverySchedule::default(), endpoint })
    }

    /// Makes these deliveries concurrently.
    pub(super) async fn deliver(&self, deliveries: Vec<Delivery>) -> Result<()> {
        try_join_all(deliveries.into_iter().map(|delivery| self.one(delivery))).await?;
        Ok(())
    }

    async fn one(&self, delivery: Delivery) -> Result<()> {
        let at = Utc::now();
        let (id, timestamp) = (delivery.event_id.as_str(), at.timestamp());
        let signature = self.secrets.sign(id, at, delivery.body.as_bytes());
        let url = ReceiverUrl::parse(&delivery.url, &self.policy)?;
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("webhook-id"), HeaderValue::from_str(id)?),
            (HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp)),
            (HeaderName::from_static("webhook-signature"), HeaderValue::from_str(&signature)?),
        ];
        let body = Bytes::from(delivery.body.clone());
        let answered = self.receivers.post(Outgoing { url: &url, headers, body }).await;
        let duration_ms = u64::try_from(answered.duration.as_millis())?;
        let PostOutcome::Answer(answer) = answered.outcome else {
            anyhow::bail!("the receiver gave no answer: {:?}", answered.outcome);
        };
        let outcome = AttemptOutcome::Answered(answer.status.as_u16());
        let attempt = Attempt { at, duration_ms, outcome, excerpt: answer.excerpt };
        let (hints, jitter_sample) = (ResponseHints::default(), Entropy::os().jitter_sample());
        let (_, consequence) = delivery.record(
            attempt,
            hints,
            &self.endpoint,
            &self.schedule,
            jitter_sample,
            Utc::now(),
        );
        ensure!(consequence == Consequence::Delivered, "not delivered: {consequence:?}");
        Ok(())
    }
}
