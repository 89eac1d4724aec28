//! The renders as the simulated providers know them.

use domain::job::State;
use http::Method;
use serde_json::Value;

use crate::harness::bundle::Bundle;

#[derive(Clone, Debug)]
pub(crate) struct ProviderRender {
    pub(crate) provider: String,
    pub(crate) id: String,
    /// The submitted body as text.
    pub(crate) body: String,
    /// The provider's name of the status.
    pub(crate) state: String,
    /// The statuses that answered its callbacks, as far as the provider saw an answer.
    pub(crate) callbacks: Vec<u64>,
}

impl ProviderRender {
    /// The state in which a job with this render must end, or `None` while it is in progress.
    pub(crate) fn end(&self) -> Option<State> {
        match self.state.as_str() {
            "completed" | "done" | "SUCCESS" => Some(State::Completed),
            "failed" | "error" | "FAILED" => Some(State::Failed),
            "cancelled" => Some(State::Cancelled),
            _ => None,
        }
    }

    /// Whether a callback was answered for good: accepted or refused, and not put off.
    pub(crate) fn callback_was_answered(&self) -> bool {
        self.callbacks.iter().any(|status| matches!(status, 200..=299 | 400..=428 | 430..=499))
    }
}

impl Bundle {
    pub(crate) async fn renders(&self) -> Vec<ProviderRender> {
        let renders = self.control(Method::GET, "/renders", &Value::Null).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let statuses = |callbacks: &Value| {
            let callbacks = callbacks.as_array().into_iter().flatten();
            callbacks.filter_map(|callback| callback["status"].as_u64()).collect()
        };
        let renders = renders.as_array().into_iter().flatten().map(|render| ProviderRender {
            provider: text(&render["provider"]),
            id: text(&render["id"]),
            body: render["body"].to_string(),
            state: text(&render["state"]),
            callbacks: statuses(&render["callbacks"]),
        });
        renders.collect()
    }
}
