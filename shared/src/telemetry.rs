//! Logs: one JSON object per line on stdout, which Lambda sends to CloudWatch.
//!
//! docs/logging.md has the rules and the list of messages. No secret, payload or callback
//! URL is logged at any level. Our own lines follow that rule. Other crates do not:
//! at `DEBUG` and `TRACE` the AWS SDK, hyper and the Lambda runtime print requests and
//! responses with their bodies. So the chosen level is for our crates, and the level of all
//! others is capped.

use std::error::Error;
use std::io;
use std::str::FromStr;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::env;

/// The crates that log at the chosen level.
const OWN_CRATES: [&str; 7] =
    ["deliver", "domain", "jobs", "poller", "shared", "submit", "webhook"];

/// The most that any other crate logs.
const FOREIGN_CAP: Level = Level::WARN;

/// Its spans carry the request id of every line, and are of this level. It prints payloads at
/// `TRACE` only.
const LAMBDA_RUNTIME: (&str, Level) = ("lambda_runtime", Level::INFO);

/// Sets the logs up; once, first thing in `main`. The level comes from
/// `AWS_LAMBDA_LOG_LEVEL`, which Lambda sets from the function's logging configuration.
pub fn init() {
    let level = env::optional("AWS_LAMBDA_LOG_LEVEL")
        .and_then(|level| Level::from_str(&level).ok())
        .unwrap_or(Level::INFO);
    // A second call fails, and the logs of the first stay in place.
    let _ = subscriber(level, io::stdout).try_init();
}

/// What writes the logs to `writer`: our own crates at `level`, all others at no more than
/// their cap.
pub fn subscriber<W>(level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(false)
        .with_max_level(level)
        .with_writer(writer)
        .finish()
        .with(caps(level))
}

fn caps(level: Level) -> Targets {
    let (lambda_runtime, cap) = LAMBDA_RUNTIME;
    Targets::new()
        .with_default(level.min(FOREIGN_CAP))
        .with_target(lambda_runtime, level.min(cap))
        .with_targets(OWN_CRATES.map(|own| (own, level)))
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, error, info, trace, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    macro_rules! every_level {
        ($($target:literal)*) => {
            $(
                trace!(target: $target, concat!($target, " TRACE"));
                debug!(target: $target, concat!($target, " DEBUG"));
                info!(target: $target, concat!($target, " INFO"));
                warn!(target: $target, concat!($target, " WARN"));
                error!(target: $target, concat!($target, " ERROR"));
            )*
        };
    }

    /// What is logged of a line of every level by our own crates and others.
    fn logged_at(level: Level) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = subscriber(level, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            every_level!("shared::tracker" "aws_smithy_runtime::client" "aws_config" "hyper::proto"
                "hyper_util::client" "rustls::client" "tower::buffer" "lambda_runtime::layers");
        });
        let log = log.0.lock().unwrap();
        let lines = String::from_utf8_lossy(&log);
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.map(|line: serde_json::Value| line["message"].as_str().unwrap().into()).collect()
    }

    #[test]
    fn foreign_crates_are_capped() {
        let mut expected: Vec<String> = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"]
            .map(|level| format!("shared::tracker {level}"))
            .into();
        for target in ["aws_smithy_runtime::client", "aws_config", "hyper::proto"]
            .into_iter()
            .chain(["hyper_util::client", "rustls::client", "tower::buffer"])
        {
            expected.extend(["WARN", "ERROR"].map(|level| format!("{target} {level}")));
        }
        let runtime = ["INFO", "WARN", "ERROR"];
        expected.extend(runtime.map(|level| format!("lambda_runtime::layers {level}")));
        assert_eq!(logged_at(Level::TRACE), expected);
    }

    #[test]
    fn cap_does_not_raise_the_level() {
        let logged = logged_at(Level::ERROR);
        assert_eq!(logged.len(), 8);
        assert!(logged.iter().all(|message| message.ends_with("ERROR")), "{logged:?}");
    }
}
