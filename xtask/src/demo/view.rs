//! The parts of the answers of the API, the bus and the simulator that the demo reads.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub(super) struct WebhookConfig {
    pub(super) secret: String,
}

/// A job of `GET /v1/jobs/{jobId}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job {
    pub(super) job_id: String,
    pub(super) state: String,
    pub(super) render_job_id: Option<String>,
    pub(super) progress: Option<f64>,
    pub(super) result_url: Option<String>,
    pub(super) failure: Option<Value>,
    pub(super) timeline: Vec<TimelineEntry>,
}

#[derive(Deserialize)]
pub(super) struct TimelineEntry {
    pub(super) state: String,
}

#[derive(Deserialize)]
pub(super) struct BusEvent {
    #[serde(rename = "detail-type")]
    pub(super) detail_type: String,
    pub(super) detail: Event,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) event_id: String,
    pub(super) job_id: String,
}

#[derive(Deserialize)]
pub(super) struct ReceiverLog {
    pub(super) received: Vec<ReceivedPost>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReceivedPost {
    pub(super) body: String,
    pub(super) verified: Option<bool>,
    pub(super) verify_error: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct SimulatedRender {
    pub(super) polls: u64,
    pub(super) callbacks: Vec<SimulatedCallback>,
}

#[derive(Deserialize)]
pub(super) struct SimulatedCallback {
    pub(super) status: Option<u16>,
}
