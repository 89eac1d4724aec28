//! `poller`: asks providers about active jobs and repairs what a crash left unfinished.
//!
//! It is called in two ways: by the `wake` queue, one message per job and due
//! poll, and by the schedule, once a minute and shard. [`visit`] looks at one job;
//! [`sweep`] finds those that nobody else looks after.

pub mod config;
mod sweep;
mod visit;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{DateTime, Utc};
use lambda_runtime::Error;
use serde::Deserialize;
use serde_json::Value;
use shared::batch::{self, Handled};
use shared::queue::WakeUp;
use shared::telemetry::chain;
use tracing::{error, warn};

pub use crate::visit::Poller;

/// Why the poller was called.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Call {
    /// From the `wake` queue.
    WakeUps(SqsEvent),
    /// From the schedule.
    Tick(Tick),
}

/// The schedule's constant input.
#[derive(Deserialize)]
pub struct Tick {
    /// Which share of the active jobs it is for.
    pub shard: u32,
}

/// Does what it was called for, and answers which wake-up calls have to come back; `now` is
/// the clock.
///
/// # Errors
/// When the table cannot be listed, or the queue sent a message without an id.
pub async fn handle(
    poller: &Poller,
    call: Call,
    now: fn() -> DateTime<Utc>,
) -> Result<Value, Error> {
    let answer = match call {
        Call::WakeUps(batch) => {
            let answer = batch::answer(batch, async |message| wake_up(poller, message, now).await);
            serde_json::to_value(answer.await?)?
        }
        Call::Tick(Tick { shard }) => {
            poller.sweep(shard, now).await?;
            Value::Null
        }
    };
    poller.tracker.laws.write_down().await;
    Ok(answer)
}

/// Looks at the job. A message that cannot be read would never be read: it is dropped, and
/// the tick looks after its job.
async fn wake_up(poller: &Poller, message: &SqsMessage, now: fn() -> DateTime<Utc>) -> Handled {
    let body = message.body.as_deref().unwrap_or_default();
    let call: WakeUp = match serde_json::from_str(body) {
        Ok(call) => call,
        Err(cause) => {
            warn!(error = chain(&cause), "a wake-up call is malformed and was dropped");
            return Handled::Done;
        }
    };
    match poller.wake_up(&call.job_id, now).await {
        Ok(()) => Handled::Done,
        Err(cause) => {
            error!(job.id = %call.job_id, error = chain(&cause), "looking at job {} failed", call.job_id);
            Handled::ComesBack
        }
    }
}

#[cfg(test)]
mod tests;
