//! The views of a RenderIO command: in status answers, in lists and in callbacks.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::wire::merged;
use crate::render::{Phase, Render};
use crate::render_id::RenderId;

/// The command as it is `now`, with this status.
pub(super) fn view(render: &Render, status: &str, now: DateTime<Utc>) -> Value {
    let too_early = render.scenario.stored_after_polls;
    let is_stored = too_early == 0 || render.polls > too_early;
    described(render, status, now, is_stored)
}

/// The command in a callback, which does not depend on the count of polls.
pub(super) fn callback_view(render: &Render, status: &str) -> Value {
    let is_stored = render.scenario.stored_after_polls == 0;
    described(render, status, render.finished_at(), is_stored)
}

fn described(render: &Render, status: &str, now: DateTime<Utc>, is_stored: bool) -> Value {
    let phase = render.phase(now);
    let submitted = render.submitted();
    let seconds = f64::from(render.scenario.duration_ms) / 1_000.0;
    let seconds = matches!(phase, Phase::Completed | Phase::Failed).then_some(seconds);
    let failure = render.scenario.fail_with.as_deref().filter(|_| phase == Phase::Failed);
    let always = json!({
        "command_id": render.id,
        "status": status,
        "command_type": "FFMPEG_COMMAND",
        "total_processing_seconds": seconds,
        "ffmpeg_command_run_seconds": seconds,
        "error_status": failure.map(|_| "FFMPEG_COMMAND_FAILED"),
        "error_message": failure,
        "original_request": {
            "input_files": submitted.get("input_files"),
            "output_files": submitted.get("output_files"),
            "ffmpeg_command": submitted.get("ffmpeg_command"),
        },
        "output_files": output_files(render, &submitted, now, is_stored),
    });
    let metadata = submitted.get("metadata").map(|metadata| json!({"metadata": metadata}));
    merged([always, metadata.unwrap_or_default()])
}

/// The output files by alias. The option `resultUrl` is the URL of each.
fn output_files(render: &Render, submitted: &Value, now: DateTime<Utc>, is_stored: bool) -> Value {
    let status = match render.phase(now) {
        Phase::Failed => "FAILED",
        Phase::Completed if is_stored => "STORED",
        Phase::Completed | Phase::Queued | Phase::Working(_) => "PROCESSING",
    };
    let is_stored = status == "STORED";
    let names = submitted.get("output_files").and_then(Value::as_object);
    let files = names.into_iter().flatten().map(|(alias, name)| {
        let id = file_id(render, alias);
        let url = || match &render.scenario.result_url {
            Some(url) => url.clone(),
            None => format!("https://storage.renderio.dev/files/{id}"),
        };
        let file = json!({
            "file_id": id,
            "storage_url": is_stored.then(url),
            "status": status,
            "filename": name,
            "size_mbytes": is_stored.then_some(1.24),
        });
        (alias.clone(), file)
    });
    Value::Object(files.collect::<Map<_, _>>())
}

/// The id of a file, which is stable.
fn file_id(render: &Render, alias: &str) -> RenderId {
    let digest = Sha256::digest(format!("{}/{alias}", render.id));
    RenderId::uuid(std::array::from_fn(|index| digest.get(index).copied().unwrap_or_default()))
}
