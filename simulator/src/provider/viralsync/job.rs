//! The views of a ViralSync job: in status answers, progress callbacks and final callbacks.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::super::wire::merged;
use super::super::{ProviderApi, iso, reported_status};
use super::{CANCELLED, ViralSync};
use crate::render::{Phase, Render};
use crate::scenario::Percent;

/// The type of every job here.
pub(super) const TYPE: &str = "render";

/// The answer to a status call, and a row of the list.
pub(super) fn view(render: &Render, now: DateTime<Utc>) -> Value {
    let phase = render.phase(now);
    let status = ViralSync.state(render, now);
    let submitted = render.submitted();
    let has_failed = phase == Phase::Failed;
    let is_done = phase == Phase::Completed;
    json!({
        "jobId": render.id,
        "type": TYPE,
        "status": status,
        "phase": if status == CANCELLED { None } else { phase_word(phase) },
        "progress": progress_of(phase),
        "parentJobId": null,
        "outputUrl": is_done.then(|| result_url(render)),
        "error": render.scenario.fail_with.as_deref().filter(|_| has_failed),
        "mediaData": is_done.then(media_data),
        "payload": {"projectId": submitted.get("projectId"), "movie": submitted.get("movie")},
        "children": children(render, phase),
        "createdAt": iso(render.submitted_at),
        "updatedAt": iso(render.updated_at(now)),
    })
}

/// The callback about the progress of `render` at a time.
pub(super) fn progress(render: &Render, at: DateTime<Utc>) -> Value {
    let phase = render.phase(at);
    json!({
        "jobId": render.id,
        "status": ViralSync.status_name(phase),
        "phase": phase_word(phase),
        "progress": progress_of(phase),
        "children": children(render, phase),
        "outputUrl": null,
        "timestamp": iso(at),
    })
}

/// The callback about the end of `render`.
pub(super) fn end(render: &Render) -> Value {
    let status = reported_status(&ViralSync, render);
    let phase = render.phase(render.finished_at());
    let always = json!({
        "jobId": render.id,
        "status": status,
        "progress": progress_of(phase),
        "outputUrl": null,
        "timestamp": iso(render.finished_at()),
    });
    let more = if status == ViralSync.status_name(Phase::Completed) {
        json!({"outputUrl": result_url(render), "mediaData": media_data()})
    } else if status == ViralSync.status_name(Phase::Failed) {
        let text = render.scenario.fail_with.as_deref();
        json!({"error": text.unwrap_or("RENDER_FAILED: the render failed")})
    } else {
        Value::Null
    };
    merged([always, more])
}

/// Whether the job waits for its scenes, which is a status of its own.
pub(super) fn is_waiting(percent: Percent) -> bool {
    working_word(percent) == "waiting"
}

fn phase_word(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Working(percent) => Some(working_word(percent)),
        Phase::Queued | Phase::Completed | Phase::Failed => None,
    }
}

fn working_word(percent: Percent) -> &'static str {
    match percent.get() {
        0..10 => "planning",
        10..20 => "dispatching",
        20..40 => "waiting",
        40..80 => "rendering",
        80..90 => "assembling",
        _ => "uploading",
    }
}

/// From 0 to 1. A failed render keeps the progress of its failure.
fn progress_of(phase: Phase) -> f64 {
    match phase {
        Phase::Queued => 0.0,
        Phase::Working(percent) => f64::from(percent.get()) / 100.0,
        Phase::Completed => 1.0,
        Phase::Failed => 0.33,
    }
}

/// One child job for each scene. They are rendered one after another.
fn children(render: &Render, phase: Phase) -> Value {
    let submitted = render.submitted();
    let scenes = submitted.pointer("/movie/scenes").and_then(Value::as_array);
    let total = scenes.map_or(0, Vec::len);
    let (succeeded, running, failed) = match phase {
        Phase::Queued => (0, 0, 0),
        Phase::Working(percent) => {
            let succeeded = total * usize::from(percent.get()) / 100;
            (succeeded, 1.min(total - succeeded), 0)
        }
        Phase::Completed => (total, 0, 0),
        Phase::Failed => (total.saturating_sub(1), 0, 1.min(total)),
    };
    json!({
        "total": total,
        "succeeded": succeeded,
        "running": running,
        "queued": total - succeeded - running - failed,
        "failed": failed,
    })
}

fn media_data() -> Value {
    json!({"duration": 10.0, "width": 1_920, "height": 1_080, "fileSize": 8_432_156})
}

fn result_url(render: &Render) -> String {
    let own = || format!("https://r2.viralsync.io/outputs/{}/output.mp4", render.id);
    render.scenario.result_url.clone().unwrap_or_else(own)
}
