//! The renders at the simulator: what the providers know.

use domain::job::State;
use http::Method;
use serde_json::Value;

use crate::harness::bundle::Bundle;

/// A render at the simulator.
#[derive(Clone, Debug)]
pub(crate) struct Render {
    pub(crate) provider: String,
    pub(crate) id: String,
    /// What was submitted, as text.
    pub(crate) body: String,
    /// The provider's own word for how it stands.
    pub(crate) state: String,
    /// What its callbacks were answered with, as far as the provider saw an answer.
    pub(crate) callbacks: Vec<u64>,
}

impl Render {
    /// The state of a job whose render stands like this at last; none when it is under way.
    pub(crate) fn end(&self) -> Option<State> {
        match self.state.as_str() {
            "completed" | "done" | "SUCCESS" => Some(State::Completed),
            "failed" | "error" | "FAILED" => Some(State::Failed),
            "cancelled" => Some(State::Cancelled),
            _ => None,
        }
    }

    /// Whether a callback was taken, or refused for good.
    pub(crate) fn callback_was_answered(&self) -> bool {
        self.callbacks.iter().any(|status| matches!(status, 200..=299 | 400..=499))
    }
}

impl Bundle {
    /// Every render at every provider.
    pub(crate) async fn renders(&self) -> Vec<Render> {
        let renders = self.control(Method::GET, "/renders", &Value::Null).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let statuses = |callbacks: &Value| {
            let callbacks = callbacks.as_array().into_iter().flatten();
            callbacks.filter_map(|callback| callback["status"].as_u64()).collect()
        };
        let renders = renders.as_array().into_iter().flatten().map(|render| Render {
            provider: text(&render["provider"]),
            id: text(&render["id"]),
            body: render["body"].to_string(),
            state: text(&render["state"]),
            callbacks: statuses(&render["callbacks"]),
        });
        renders.collect()
    }
}
