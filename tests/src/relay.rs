//! Jobs and deliveries as our HTTP API shows them.

use serde::Deserialize;
use serde_json::Value;

/// A job, with every member.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "the names are those of the API, whose document explains them")]
pub struct JobView {
    pub job_id: String,
    pub state: String,
    #[serde(rename = "final")]
    pub is_final: bool,
    pub provider: String,
    pub submitted_to: Option<String>,
    pub render_job_id: Option<String>,
    pub provider_status: Option<String>,
    pub source_record_id: String,
    pub payload_version: Option<String>,
    pub metadata: Value,
    pub progress: Option<f64>,
    pub result_url: Option<String>,
    pub result_expires_at: Option<String>,
    pub failure: Option<Value>,
    pub created_at: String,
    pub ended_at: Option<String>,
    pub settled_at: Option<String>,
    pub last_checked_at: Option<String>,
    pub attempt_count: u32,
    pub timeline: Vec<MilestoneView>,
    pub delivery: Option<DeliverySummary>,
    pub callback_url: Option<String>,
}

impl JobView {
    /// The states of the job's timeline, oldest first.
    #[must_use]
    pub fn states(&self) -> Vec<&str> {
        self.timeline.iter().map(|line| line.state.as_str()).collect()
    }
}

/// One line of a job's history.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct MilestoneView {
    pub state: String,
    pub at: String,
}

/// The summary of a job's newest delivery.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct DeliverySummary {
    pub event_id: String,
    pub state: String,
    pub reason: Option<String>,
    pub attempts: usize,
    pub next_attempt_at: Option<String>,
}

/// A delivery, with every member.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct DeliveryView {
    pub event_id: String,
    pub event: String,
    pub url: String,
    pub endpoint_id: String,
    pub state: String,
    pub reason: Option<String>,
    pub created_at: String,
    pub next_attempt_at: Option<String>,
    pub body: String,
    pub attempts: Vec<AttemptView>,
}

impl DeliveryView {
    /// The receiver's status at each attempt; none where it did not answer.
    #[must_use]
    pub fn statuses(&self) -> Vec<Option<u16>> {
        self.attempts.iter().map(|attempt| attempt.status).collect()
    }
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct AttemptView {
    pub at: String,
    pub duration_ms: u64,
    pub status: Option<u16>,
    pub error: Option<String>,
    pub excerpt: String,
}
