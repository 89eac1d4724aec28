//! The core: from a delivery that was read to one that is ready to be written down.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use chrono::Utc;
use domain::address::{ReceiverPorts, ReceiverUrl, TargetPolicy};
use domain::attempt::{Attempt, Outcome};
use domain::delivery::{Consequence, Delivery};
use domain::endpoint::{Endpoint, Said};
use domain::retry::DeliverySchedule;
use domain::signature::SigningSecrets;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use ipnet::IpNet;
use rustls::ClientConfig;
use shared::egress::{Limits, Outgoing, PostOutcome, Receivers, Resolve};

use crate::tls::DOMAIN;

/// Delivers as `deliver` does, without reading or writing any table.
pub(super) struct Core {
    secrets: SigningSecrets,
    policy: TargetPolicy,
    receivers: Receivers,
    schedule: DeliverySchedule,
    /// What is known of the receiver: read once a second, and then remembered.
    endpoint: Endpoint,
}

/// What a deployed stack allows, and the receivers of this run beside it.
pub(super) fn policy(port: u16) -> Result<TargetPolicy> {
    let here = IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let port = ReceiverPorts::parse(&port.to_string())?;
    Ok(TargetPolicy::public().with_ports(port).with_networks([here]))
}

/// The product's client for receivers, with every name on this machine.
pub(super) fn receivers(tls: ClientConfig, policy: TargetPolicy) -> Receivers {
    Receivers::with_parts(Arc::new(AllHere), tls, policy, Limits::default())
}

/// Every name is this machine's.
struct AllHere;

impl Resolve for AllHere {
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

    /// Makes these deliveries at once and waits for all of them.
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
        let outcome = Outcome::Answered(answer.status.as_u16());
        let attempt = Attempt { at, duration_ms, outcome, excerpt: answer.excerpt };
        let (said, luck) = (Said::default(), shared::luck());
        let (_, consequence) =
            delivery.record(attempt, said, &self.endpoint, &self.schedule, luck, Utc::now());
        ensure!(consequence == Consequence::Delivered, "not delivered: {consequence:?}");
        Ok(())
    }
}
