//! Logs: one JSON object per line on stdout, which Lambda sends to CloudWatch.
//!
//! A message reads alone and carries identifiers as fields; a failure is logged once, where
//! it is handled. Bodies, payloads and secrets are never logged.

use std::str::FromStr;

use tracing::Level;

use crate::env;

/// Sets the logs up; once, first thing in `main`. The level comes from
/// `AWS_LAMBDA_LOG_LEVEL`, which Lambda sets from the function's logging configuration.
pub fn init() {
    let level = env::optional("AWS_LAMBDA_LOG_LEVEL")
        .and_then(|level| Level::from_str(&level).ok())
        .unwrap_or(Level::INFO);
    // A second call finds the first one's logs in place, which is as good.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(false)
        .with_max_level(level)
        .try_init();
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
