//! `poller` as Lambda runs it: settings and clients once, then one event at a time.

use chrono::{DateTime, TimeDelta, Utc};
use lambda_runtime::{Context, Error, LambdaEvent, run, service_fn};
use poller::Call;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a poll.
    let poller = poller::config::poller().await?;
    run(service_fn(|event: LambdaEvent<Call>| {
        let until = deadline(&event.context);
        poller::handle(&poller, event.payload, until, Utc::now)
    }))
    .await
}

/// When Lambda ends this invocation. A minute is less than it has when nothing is told.
fn deadline(context: &Context) -> DateTime<Utc> {
    let told = i64::try_from(context.deadline).ok().and_then(DateTime::from_timestamp_millis);
    told.unwrap_or_else(|| Utc::now() + TimeDelta::minutes(1))
}
