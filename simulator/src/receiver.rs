//! A customer's webhook receiver. It verifies webhooks with the `standardwebhooks` crate, which is
//! not ours, and answers as configured.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use standardwebhooks::{Webhook, WebhookError};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::bounded_log::{BoundedLog, LogLimit};
use crate::scenario::Status;

/// The most receivers; the oldest is dropped first.
const MAX_RECEIVERS: usize = 1_000;
const RECEIVER_LOG_LIMIT: LogLimit = LogLimit { entries: 20_000, bytes: 16 * 1024 * 1024 };

/// The behavior of a receiver.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ReceiverBehavior {
    /// `whsec_…`. `None`: no verification.
    pub(crate) secret: Option<String>,
    /// The next answers in order. Afterwards the receiver answers 200.
    pub(crate) answers: VecDeque<PlannedAnswer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PlannedAnswer {
    pub(crate) status: Status,
    pub(crate) delay_ms: u32,
    /// The answer waits until the receiver is configured again.
    held: bool,
    pub(crate) headers: HeaderLines,
    pub(crate) body: String,
}

impl Default for PlannedAnswer {
    fn default() -> Self {
        Self {
            status: Status::OK,
            delay_ms: 0,
            held: false,
            headers: HeaderLines::default(),
            body: String::new(),
        }
    }
}

/// Valid headers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub(crate) struct HeaderLines(pub(crate) HeaderMap);

impl TryFrom<BTreeMap<String, String>> for HeaderLines {
    type Error = http::Error;

    fn try_from(lines: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(Self(headers))
    }
}

/// A webhook that arrived.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredWebhook {
    /// The time in Unix milliseconds.
    at: i64,
    /// Repeated headers are joined with a comma.
    headers: BTreeMap<String, String>,
    body: String,
    /// `None` when the receiver has no secret.
    verified: Option<bool>,
    verify_error: Option<String>,
    /// The status of the answer.
    answered: u16,
}

struct Receiver {
    name: String,
    webhook: Option<Webhook>,
    answers: VecDeque<PlannedAnswer>,
    received: BoundedLog<StoredWebhook>,
    /// Notified when the receiver is configured.
    reconfigured: Arc<Notify>,
}

/// All receivers. An unconfigured one exists from its first webhook on.
#[derive(Default)]
pub(crate) struct WebhookReceivers {
    named: VecDeque<Receiver>,
}

impl std::fmt::Debug for WebhookReceivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.named.iter().map(|receiver| &receiver.name)).finish()
    }
}

impl WebhookReceivers {
    /// Configures a receiver; its records stay.
    ///
    /// # Errors
    /// When the secret is invalid.
    pub(crate) fn put(
        &mut self,
        name: &str,
        behavior: ReceiverBehavior,
    ) -> Result<(), WebhookError> {
        let webhook = behavior.secret.as_deref().map(Webhook::new).transpose()?;
        if let Some(receiver) = self.named(name) {
            receiver.webhook = webhook;
            receiver.answers = behavior.answers;
            receiver.reconfigured.notify_waiters();
        }
        Ok(())
    }

    /// The webhooks of a receiver, the oldest first; empty for an unknown one.
    pub(crate) fn received(&self, name: &str) -> Vec<StoredWebhook> {
        let receiver = self.named.iter().find(|receiver| receiver.name == name);
        receiver.map(|found| found.received.iter().cloned().collect()).unwrap_or_default()
    }

    /// Records the webhook; answers what to answer, and what a held answer waits for.
    pub(crate) fn receive(
        &mut self,
        name: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> (PlannedAnswer, Option<OwnedNotified>) {
        let Some(receiver) = self.named(name) else { return (PlannedAnswer::default(), None) };
        let answer = receiver.answers.pop_front().unwrap_or_default();
        let verification = receiver.webhook.as_ref().map(|webhook| webhook.verify(body, headers));
        let received = StoredWebhook {
            at: now.timestamp_millis(),
            headers: joined(headers),
            body: String::from_utf8_lossy(body).into_owned(),
            verified: verification.as_ref().map(Result::is_ok),
            verify_error: verification.and_then(Result::err).map(|error| error.to_string()),
            answered: answer.status.get().as_u16(),
        };
        receiver.received.push(received, body.len());
        let release = answer.held.then(|| Arc::clone(&receiver.reconfigured).notified_owned());
        (answer, release)
    }

    /// Finds or makes; always `Some`.
    fn named(&mut self, name: &str) -> Option<&mut Receiver> {
        if !self.named.iter().any(|receiver| receiver.name == name) {
            if self.named.len() >= MAX_RECEIVERS {
                self.named.pop_front();
            }
            self.named.push_back(Receiver {
                name: name.to_owned(),
                webhook: None,
                answers: VecDeque::new(),
                received: BoundedLog::new(RECEIVER_LOG_LIMIT),
                reconfigured: Arc::default(),
            });
        }
        self.named.iter_mut().rev().find(|receiver| receiver.name == name)
    }
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        lines
            .entry(name.to_string())
            .and_modify(|line| {
                line.push_str(", ");
                line.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    lines
}
