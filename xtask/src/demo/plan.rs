//! The renders of the demo: payloads and scenarios.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::timeline::Step;

/// A provider of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Provider {
    Json2video,
    Renderio,
    Shotstack,
    Viralsync,
    Zvid,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json2video => "JSON2Video",
            Self::Renderio => "RenderIO",
            Self::Shotstack => "Shotstack",
            Self::Viralsync => "ViralSync",
            Self::Zvid => "Zvid",
        })
    }
}

/// The plan of one render.
pub(super) struct RenderPlan {
    pub(super) provider: &'static str,
    /// The tag: a text of the payload by which the simulator finds the scenario.
    pub(super) tag: &'static str,
    /// The scenario of the simulated provider.
    pub(super) scenario: Value,
    /// When the render ends, unless the scenario says so.
    pub(super) ending: Ending,
    /// The body of `POST /v1/jobs`.
    pub(super) submission: Value,
    /// The steps that must be seen.
    pub(super) expected: &'static [Step],
}

/// When a render ends. The demo waits for the steps before the end, so nothing depends on the
/// machine's speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending {
    /// By its scenario.
    Scripted,
    /// At this age, and after this step was seen.
    After(Duration, Step),
    /// After this progress was seen, from 0 to 1.
    AtProgress(f64),
}

/// The time of a render that is not polled.
const RENDER_TIME: Duration = Duration::from_secs(3);

/// A render that is polled more than once, and one whose provider sends callbacks.
pub(super) fn default_renders() -> Vec<RenderPlan> {
    vec![Provider::Zvid.plan(), Provider::Shotstack.plan()]
}

/// The steps after an unsigned callback.
const CONFIRMED: &[Step] = &[
    Step::Submitted,
    Step::Queued,
    Step::Confirmed,
    Step::Completed,
    Step::OnBus,
    Step::Delivered,
];

impl Provider {
    /// A typical render of the provider.
    pub(super) fn plan(self) -> RenderPlan {
        match self {
            Self::Json2video => json2video(),
            Self::Renderio => renderio(),
            Self::Shotstack => shotstack(),
            Self::Viralsync => viralsync(),
            Self::Zvid => zvid(),
        }
    }
}

fn json2video() -> RenderPlan {
    RenderPlan {
        provider: "json2video",
        tag: "JSON2Video",
        scenario: json!({"durationMs": 4_000, "freezeProgress": 0.9}),
        ending: Ending::After(RENDER_TIME, Step::Queued),
        submission: json!({
            "provider": "json2video",
            "sourceRecordId": "order-A-1042",
            "payload": {
                "resolution": "full-hd",
                "quality": "high",
                "scenes": [{
                    "duration": 5,
                    "elements": [{"type": "text", "text": "Hello, JSON2Video!", "style": "001"}],
                }],
                "client-data": {"order_id": "A-1042"},
            },
        }),
        expected: CONFIRMED,
    }
}

fn renderio() -> RenderPlan {
    RenderPlan {
        provider: "renderio",
        tag: "hello-renderio",
        scenario: json!({"durationMs": 4_000, "freezeProgress": 0.9}),
        ending: Ending::After(RENDER_TIME, Step::Queued),
        submission: json!({
            "provider": "renderio",
            "sourceRecordId": "upload-9",
            "payload": {
                "input_files": {"in_video": "https://media.example/hello-renderio.mp4"},
                "output_files": {"out_video": "hello-renderio.webm"},
                "ffmpeg_command": "-i {{in_video}} -c:v libvpx-vp9 {{out_video}}",
                "metadata": {"upload": 9},
            },
        }),
        expected: &[
            Step::Submitted,
            Step::Queued,
            Step::Believed,
            Step::Completed,
            Step::OnBus,
            Step::Delivered,
        ],
    }
}

fn shotstack() -> RenderPlan {
    RenderPlan {
        provider: "shotstack",
        tag: "Hello",
        scenario: json!({"durationMs": 4_000, "freezeProgress": 0.9}),
        ending: Ending::After(RENDER_TIME, Step::Queued),
        submission: json!({
            "provider": "shotstack",
            "sourceRecordId": "listing-77",
            "payload": {
                "timeline": {"tracks": [{"clips": [{
                    "asset": {"type": "rich-text", "text": "Hello"},
                    "start": 0,
                    "length": 4,
                }]}]},
                "output": {"format": "mp4", "size": {"width": 1080, "height": 1920}},
            },
        }),
        expected: CONFIRMED,
    }
}

/// Its callbacks report progress, so it is seen in progress without polls.
fn viralsync() -> RenderPlan {
    RenderPlan {
        provider: "viralsync",
        tag: "ViralSync",
        scenario: json!({"durationMs": 5_000, "progressCallbacks": 4, "freezeProgress": 0.9}),
        ending: Ending::AtProgress(0.75),
        submission: json!({
            "provider": "viralsync",
            "sourceRecordId": "clip-12",
            "payload": {
                "kind": "movie",
                "projectId": "proj_abc123",
                "movie": {
                    "title": "Hello, ViralSync!",
                    "width": 1080,
                    "height": 1920,
                    "fps": 30,
                    "scenes": [{"duration": 5}, {"duration": 3}],
                },
                "renderOptions": {"qualityPreset": "balanced", "requestedConcurrency": 4},
            },
        }),
        expected: &[
            Step::Submitted,
            Step::Queued,
            Step::Processing,
            Step::Believed,
            Step::Completed,
            Step::OnBus,
            Step::Delivered,
        ],
    }
}

fn zvid() -> RenderPlan {
    RenderPlan {
        provider: "zvid",
        tag: "hello-zvid",
        // The polls come after about 2, 4 and 7.5 seconds, so two of them see it in progress.
        scenario: json!({
            "durationMs": 7_500,
            "queuedMs": 1_000,
            "freezeProgress": 0.9,
            "endsAfterPolls": 2,
        }),
        ending: Ending::Scripted,
        submission: json!({
            "provider": "zvid",
            "sourceRecordId": "product-123",
            "payloadVersion": "product-promo-v4",
            "payload": {
                "name": "hello-zvid",
                "width": 1920,
                "height": 1080,
                "duration": 10,
                "frameRate": 30,
                "backgroundColor": "#000000",
                "visuals": [{
                    "type": "TEXT",
                    "text": "Hello, Zvid!",
                    "x": 960,
                    "y": 540,
                    "anchor": "center-center",
                    "style": {"fontSize": 72, "color": "#ffffff", "fontFamily": "Arial"},
                }],
            },
        }),
        expected: &[
            Step::Submitted,
            Step::Queued,
            Step::Processing,
            Step::Completed,
            Step::OnBus,
            Step::Delivered,
        ],
    }
}
