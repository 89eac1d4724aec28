//! `deliver`: posts signed webhooks to receivers, one queue message per attempt.
//!
//! `domain::delivery` decides what to send, when to retry and when to give up; [`deliverer`]
//! makes the attempt and stores it.

pub mod config;
mod deliverer;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use chrono::{DateTime, Utc};
use domain::id::JobId;
use lambda_runtime::Error;
use shared::batch::{self, Handled};
use shared::queue::Ticket;
use shared::telemetry::chain;
use tracing::{error, warn};

pub use crate::deliverer::Deliverer;

/// Handles a batch of tickets, and returns which of them the queue has to deliver again; `now` is
/// the clock.
///
/// # Errors
/// When a failed message has no id.
pub async fn handle(
    deliverer: &Deliverer,
    batch: SqsEvent,
    now: fn() -> DateTime<Utc>,
) -> Result<SqsBatchResponse, Error> {
    Ok(batch::answer(&batch, |message| handle_message(deliverer, message, now)).await?)
}

/// Handles a ticket. A malformed one is returned like a failed one, until the queue moves it to
/// the dead-letter queue, which has an alarm.
async fn handle_message(
    deliverer: &Deliverer,
    message: &SqsMessage,
    now: fn() -> DateTime<Utc>,
) -> Handled {
    let body = message.body.as_deref().unwrap_or_default();
    let ticket: Ticket = match serde_json::from_str(body) {
        Ok(ticket) => ticket,
        Err(cause) => {
            error!(error = chain(&cause), "malformed ticket returned to the queue");
            return Handled::Retry;
        }
    };
    match deliverer.handle_ticket(&ticket, now).await {
        Ok(()) => Handled::Done,
        Err(cause) => {
            warn!(
                job.id = ticket.job_id.as_ref().map(JobId::as_str),
                event.id = ticket.event_id.as_str(),
                attempt.number = ticket.attempt.saturating_add(1),
                error = chain(&cause),
                "ticket returned to the queue"
            );
            Handled::Retry
        }
    }
}

#[cfg(test)]
mod tests;
