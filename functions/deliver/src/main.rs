//! `deliver`: posts signed webhooks to receivers, one queue message per attempt.
//!
//! Wiring only. `domain::delivery` decides what to send, when to try again and when to give
//! up; [`deliverer`] makes the attempt and writes it down.

mod config;
mod deliverer;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use chrono::Utc;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use shared::batch::{self, Handled};
use shared::queue::Ticket;
use shared::telemetry::chain;
use tracing::error;

use crate::deliverer::Deliverer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    shared::telemetry::init();
    // Once per cold start: a bad setting fails the rollout, not a delivery.
    let deliverer = config::deliverer().await?;
    run(service_fn(|event: LambdaEvent<SqsEvent>| handle(&deliverer, event.payload))).await
}

async fn handle(deliverer: &Deliverer, batch: SqsEvent) -> Result<SqsBatchResponse, Error> {
    Ok(batch::answer(batch, async |message| attempt(deliverer, message).await).await?)
}

/// Follows a ticket. One that cannot be read comes back like one that we failed, until the
/// queue moves it to the dead letters, where somebody looks.
async fn attempt(deliverer: &Deliverer, message: &SqsMessage) -> Handled {
    let body = message.body.as_deref().unwrap_or_default();
    let ticket: Ticket = match serde_json::from_str(body) {
        Ok(ticket) => ticket,
        Err(cause) => {
            error!(error = chain(&cause), "a ticket is malformed");
            return Handled::ComesBack;
        }
    };
    match deliverer.follow(&ticket, Utc::now).await {
        Ok(()) => Handled::Done,
        Err(cause) => {
            error!(job.id = %ticket.job_id, event.id = ticket.event_id.as_str(), error = chain(&cause), "a ticket of job {} goes back to the queue", ticket.job_id);
            Handled::ComesBack
        }
    }
}

#[cfg(test)]
mod tests;
