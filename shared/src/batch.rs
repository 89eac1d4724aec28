//! Batches of queue messages, answered message by message: the failure of one neither delays
//! nor repeats the others. Relies on `ReportBatchItemFailures` in the template. SQS delivers at
//! least once. A message that keeps failing goes to the dead-letter queue of its queue; from that
//! of the deliveries it comes back once an hour (`DeadLetterRedrive` in the template).

use std::future::Future;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use futures_util::future::join_all;

/// The outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The queue deletes the message.
    Done,
    /// The queue delivers the message again, until it moves it to the dead-letter queue.
    Retry,
}

/// A failed message cannot be named in the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SQS sent a message without an id")]
pub struct NoMessageId;

/// Handles all messages concurrently, and returns which ones failed.
///
/// # Errors
/// When a failed message has no id. An id is never invented: Lambda reads an empty id as a
/// failure of the whole batch.
pub async fn answer<'b, F: Future<Output = Handled>>(
    batch: &'b SqsEvent,
    // Not an `AsyncFn`: its futures cannot be required to be `Send` yet.
    handle: impl Fn(&'b SqsMessage) -> F,
) -> Result<SqsBatchResponse, NoMessageId> {
    let handled = join_all(batch.records.iter().map(handle)).await;
    let mut response = SqsBatchResponse::default();
    for (message, handled) in batch.records.iter().zip(handled) {
        if handled == Handled::Retry {
            response.add_failure(message.message_id.clone().ok_or(NoMessageId)?);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ids: &[Option<&str>]) -> SqsEvent {
        let mut batch = SqsEvent::default();
        batch.records = ids
            .iter()
            .map(|id| {
                let mut message = SqsMessage::default();
                message.message_id = id.map(str::to_owned);
                message
            })
            .collect();
        batch
    }

    #[tokio::test]
    async fn failed_message_returns_alone() {
        let response = answer(&batch(&[Some("m-1"), Some("m-2")]), async |message| {
            match message.message_id.as_deref() {
                Some("m-2") => Handled::Retry,
                _ => Handled::Done,
            }
        })
        .await
        .unwrap();
        let response = serde_json::to_string(&response).unwrap();
        assert_eq!(response, r#"{"batchItemFailures":[{"itemIdentifier":"m-2"}]}"#);
    }

    #[tokio::test]
    async fn message_without_id_is_an_error() {
        let done = answer(&batch(&[None]), async |_| Handled::Done).await.unwrap();
        assert!(done.batch_item_failures.is_empty());
        let lost = answer(&batch(&[None]), async |_| Handled::Retry).await;
        assert_eq!(lost.unwrap_err(), NoMessageId);
    }
}
