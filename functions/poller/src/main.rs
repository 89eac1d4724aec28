//! The Lambda binary: it builds the settings and clients once, then handles one event at a time.

use chrono::{DateTime, TimeDelta, Utc};
use lambda_runtime::{Context, Error, LambdaEvent, run, service_fn};
use poller::PollerInput;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // This runs once per cold start, so a bad setting fails the rollout and not a poll.
    let poller = poller::config::poller().await?;
    run(service_fn(|event: LambdaEvent<PollerInput>| {
        let until = deadline(&event.context);
        poller::handle(&poller, event.payload, until, Utc::now)
    }))
    .await
}

/// When Lambda ends this invocation. Without a deadline in the context it is taken to have one
/// minute, which is less than it has.
fn deadline(context: &Context) -> DateTime<Utc> {
    let deadline = i64::try_from(context.deadline).ok().and_then(DateTime::from_timestamp_millis);
    deadline.unwrap_or_else(|| Utc::now() + TimeDelta::minutes(1))
}
