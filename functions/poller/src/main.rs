//! `poller` as Lambda runs it: settings and clients once, then one event at a time.

use chrono::Utc;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use poller::Call;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a poll.
    let poller = poller::config::poller().await?;
    run(service_fn(|event: LambdaEvent<Call>| poller::handle(&poller, event.payload, Utc::now)))
        .await
}
