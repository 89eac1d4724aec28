//! Callbacks in no provider's words: where they go, what about, and how
//! stubbornly.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde_json::Value;

use crate::render_id::RenderId;
use crate::signature::Secret;

/// Somewhere that is told about a render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) url: String,
    /// Signs what goes there; `None`: it goes unsigned.
    pub(crate) secret: Option<Secret>,
}

impl Destination {
    pub(crate) fn unsigned(url: String) -> Self {
        Self { url, secret: None }
    }
}

/// What a callback is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackEvent {
    /// How far the render was at that time, which may be long ago.
    Progress(DateTime<Utc>),
    /// The render completed or failed.
    Ended,
    /// The render was cancelled.
    Cancelled,
}

/// One copy of a callback that is to set out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScheduledCallback {
    /// From whatever made the callback due: a submit or a cancel.
    pub(crate) after: Duration,
    pub(crate) event: CallbackEvent,
}

/// One attempt of one copy of a callback.
#[derive(Debug)]
pub(crate) struct CallbackContext<'a> {
    pub(crate) event: CallbackEvent,
    pub(crate) secret: Option<&'a Secret>,
    /// The same for every attempt of a copy, another for every copy.
    pub(crate) delivery_id: RenderId,
    /// Starts at 1.
    pub(crate) attempt: usize,
    pub(crate) at: DateTime<Utc>,
}

/// What a callback puts on the wire.
#[derive(Debug)]
pub(crate) struct Callback {
    /// Beside the content type.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Callback {
    pub(crate) fn json(headers: Vec<(&'static str, String)>, body: &Value) -> Self {
        Self { headers, content_type: "application/json", body: body.to_string() }
    }
}

/// How a vendor hands over its callbacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallbackPolicy {
    /// Between the attempts, in seconds; empty: there is one attempt.
    pub(crate) retry_waits_s: &'static [u32],
    pub(crate) answer_timeout: Duration,
    /// Whether a redirect counts as taken. Nobody follows one.
    pub(crate) accepts_redirects: bool,
}

impl CallbackPolicy {
    pub(crate) fn accepts(&self, status: StatusCode) -> bool {
        status.is_success() || (self.accepts_redirects && status.is_redirection())
    }
}
