//! The requests of the wire and the floor, which are prepared before the measurement.

use anyhow::{Context, Result};
use bytes::Bytes;
use domain::delivery::Delivery;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Uri};

/// A webhook without its signature.
#[derive(Clone, Debug)]
pub(super) struct PreparedPost {
    pub(super) id: String,
    pub(super) path: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) fn posts(deliveries: &[Delivery], path: &str) -> Result<Vec<PreparedPost>> {
    deliveries.iter().map(|delivery| post(delivery, path)).collect()
}

/// The request of a delivery, with a placeholder as long as a signature.
fn post(delivery: &Delivery, path: &str) -> Result<PreparedPost> {
    let signature = format!("v1,{}=", "s".repeat(43));
    let host = delivery.url.strip_prefix("https://").and_then(|rest| rest.strip_suffix(path));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("webhook-id"), HeaderValue::from_str(delivery.event_id.as_str())?),
        (
            HeaderName::from_static("webhook-timestamp"),
            HeaderValue::from(delivery.created_at.timestamp()),
        ),
        (HeaderName::from_static("webhook-signature"), HeaderValue::from_str(&signature)?),
        (USER_AGENT, HeaderValue::from_static("render-relay/0.0.0")),
        (HOST, HeaderValue::from_str(host.context("no host")?)?),
    ];
    Ok(PreparedPost {
        id: delivery.event_id.as_str().to_owned(),
        path: path.parse()?,
        headers: headers.into_iter().collect(),
        body: Bytes::from(delivery.body.clone()),
    })
}
