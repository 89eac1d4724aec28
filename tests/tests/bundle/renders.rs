//! The renders at the simulator: what the providers know.

use http::Method;
use serde_json::Value;

use crate::bundle::Bundle;

/// A render at the simulator.
#[derive(Clone, Debug)]
pub(crate) struct Render {
    /// What was submitted, as text.
    pub(crate) body: String,
    /// The provider's own word for how it stands.
    pub(crate) state: String,
}

impl Render {
    /// Whether it is done.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.state.as_str(), "completed" | "done" | "SUCCESS")
    }
}

impl Bundle {
    /// Every render at every provider.
    pub(crate) async fn renders(&self) -> Vec<Render> {
        let renders = self.control(Method::GET, "/renders", &Value::Null).await;
        let renders = renders.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        renders
            .iter()
            .map(|render| Render {
                body: render["body"].to_string(),
                state: text(&render["state"]),
            })
            .collect()
    }
}
