//! `submit` as Lambda runs it: settings and clients are built once, then events are handled one
//! by one.

// The compiler computes the size of the nested futures of a request recursively.
#![recursion_limit = "256"]

use chrono::Utc;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use shared::http_event::HttpEvent;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a job.
    let submitter = submit::config::submitter().await?;
    run(service_fn(|event: LambdaEvent<HttpEvent>| {
        submit::handle(&submitter, event.payload, Utc::now)
    }))
    .await
}
