//! Why a render failed, in a form that is safe to show.

use serde::{Deserialize, Serialize};

/// The stable code of a failure, for programs to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The provider accepted and could not render.
    RenderFailed,
    /// The provider refused the payload.
    ProviderRejected,
    /// The provider refused our API key.
    ProviderAuth,
    /// The provider's quota or credits are used up.
    ProviderQuota,
    /// The provider was too busy to accept.
    ProviderBusy,
    /// The provider could not be reached, so it never received the request.
    ProviderUnreachable,
    /// Whether the provider accepted stayed unknown until the deadline.
    SubmitUnknown,
    /// The provider did not say how the render ended before the deadline.
    TimedOut,
}

impl FailureCode {
    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RenderFailed => "render_failed",
            Self::ProviderRejected => "provider_rejected",
            Self::ProviderAuth => "provider_auth",
            Self::ProviderQuota => "provider_quota",
            Self::ProviderBusy => "provider_busy",
            Self::ProviderUnreachable => "provider_unreachable",
            Self::SubmitUnknown => "submit_unknown",
            Self::TimedOut => "timed_out",
        }
    }
}

/// A failure as jobs and events show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code that programs branch on.
    pub code: FailureCode,
    /// The provider's message for people, cut to [`MAX_MESSAGE_CHARS`].
    pub message: String,
    /// The provider's own code, where it has one.
    #[serde(rename = "providerCode", default, skip_serializing_if = "Option::is_none")]
    pub provider_code: Option<String>,
}

/// The most characters of a provider's message that are kept, because every write of a job
/// pays for its size.
pub const MAX_MESSAGE_CHARS: usize = 300;

impl Failure {
    /// A failure with a provider's message, made safe to store and show.
    #[must_use]
    pub fn new(code: FailureCode, message: &str) -> Self {
        Self { code, message: presentable(message), provider_code: None }
    }

    /// The same failure with the provider's own code beside it.
    #[must_use]
    pub fn with_provider_code(mut self, code: &str) -> Self {
        self.provider_code = Some(presentable(code));
        self
    }

    /// The provider never confirmed the submission before the deadline.
    #[must_use]
    pub fn submit_unknown() -> Self {
        Self::new(
            FailureCode::SubmitUnknown,
            "the provider never confirmed the submission; it was not sent a second time",
        )
    }

    /// The provider did not report an end before the deadline.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::new(
            FailureCode::TimedOut,
            "the provider did not finish before the deadline; a late completion still counts",
        )
    }
}

/// The text with control characters replaced by spaces, cut to the limit.
fn presentable(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let cut: String = clean.take(MAX_MESSAGE_CHARS).collect();
    cut.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_message_is_cleaned_and_cut() {
        let failure = Failure::new(FailureCode::RenderFailed, "bad\nclip\0 ");
        assert_eq!(failure.message, "bad clip");
        let long = Failure::new(FailureCode::RenderFailed, &"x".repeat(100_000));
        assert_eq!(long.message.len(), MAX_MESSAGE_CHARS);
    }
}
