//! `poller`: asks providers about active jobs and repairs what a crash left unfinished.
//!
//! Wiring only. It is called in two ways: by the `wake` queue, one message per job and due
//! poll, and by the schedule, once a minute and shard. [`visit`] looks at one job;
//! [`sweep`] finds those that nobody else looks after.

mod config;
mod sweep;
mod visit;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::Utc;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::Deserialize;
use serde_json::Value;
use shared::batch::{self, Handled};
use shared::queue::WakeUp;
use shared::telemetry::chain;
use tracing::{error, warn};

use crate::visit::Poller;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a poll.
    let poller = config::poller().await?;
    run(service_fn(|event: LambdaEvent<Call>| handle(&poller, event.payload))).await
}

/// Why the poller was called.
#[derive(Deserialize)]
#[serde(untagged)]
enum Call {
    WakeUps(SqsEvent),
    Tick(Tick),
}

/// The schedule's constant input.
#[derive(Deserialize)]
struct Tick {
    shard: u32,
}

async fn handle(poller: &Poller, call: Call) -> Result<Value, Error> {
    match call {
        Call::WakeUps(batch) => {
            let answer = batch::answer(batch, async |message| wake_up(poller, message).await);
            Ok(serde_json::to_value(answer.await?)?)
        }
        Call::Tick(Tick { shard }) => {
            poller.sweep(shard, Utc::now).await?;
            Ok(Value::Null)
        }
    }
}

/// Looks at the job. A message that cannot be read would never be read: it is dropped, and
/// the tick looks after its job.
async fn wake_up(poller: &Poller, message: &SqsMessage) -> Handled {
    let body = message.body.as_deref().unwrap_or_default();
    let call: WakeUp = match serde_json::from_str(body) {
        Ok(call) => call,
        Err(cause) => {
            warn!(error = chain(&cause), "a wake-up call is malformed and was dropped");
            return Handled::Done;
        }
    };
    match poller.wake_up(&call.job_id, Utc::now).await {
        Ok(()) => Handled::Done,
        Err(cause) => {
            error!(job.id = %call.job_id, error = chain(&cause), "looking at job {} failed", call.job_id);
            Handled::ComesBack
        }
    }
}

#[cfg(test)]
mod tests;
