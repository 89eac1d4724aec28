//! The parts of callbacks that all providers share.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde_json::Value;

use crate::render_id::RenderId;
use crate::signature::SigningSecret;

/// A URL that gets callbacks about a render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) url: String,
    /// The secret of the signature; `None` for unsigned callbacks.
    pub(crate) secret: Option<SigningSecret>,
}

impl Destination {
    pub(crate) fn unsigned(url: String) -> Self {
        Self { url, secret: None }
    }
}

/// The event that a callback reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackEvent {
    /// The progress at that time, which may be long ago.
    Progress(DateTime<Utc>),
    /// The render completed or failed.
    Ended,
    /// The render was cancelled.
    Cancelled,
}

/// A copy of a callback that is due later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScheduledCallback {
    /// The delay from the cause: a submit or a cancel.
    pub(crate) after: Duration,
    pub(crate) event: CallbackEvent,
}

/// The context of one attempt of a copy.
#[derive(Debug)]
pub(crate) struct CallbackContext<'a> {
    pub(crate) event: CallbackEvent,
    pub(crate) secret: Option<&'a SigningSecret>,
    /// Equal for all attempts of a copy, different for every copy.
    pub(crate) delivery_id: RenderId,
    /// Starts at 1.
    pub(crate) attempt: usize,
    pub(crate) at: DateTime<Utc>,
}

/// The content of a callback.
#[derive(Debug)]
pub(crate) struct CallbackContent {
    /// The headers other than the content type.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl CallbackContent {
    pub(crate) fn json(headers: Vec<(&'static str, String)>, body: &Value) -> Self {
        Self { headers, content_type: "application/json", body: body.to_string() }
    }
}

/// A provider's rules for sending callbacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallbackPolicy {
    /// The waits between the attempts in seconds; empty for a single attempt.
    pub(crate) retry_waits_s: &'static [u32],
    pub(crate) answer_timeout: Duration,
    /// Whether a redirect counts as accepted. Redirects are never followed.
    pub(crate) accepts_redirects: bool,
}

impl CallbackPolicy {
    pub(crate) fn accepts(&self, status: StatusCode) -> bool {
        status.is_success() || (self.accepts_redirects && status.is_redirection())
    }
}
