//! Batches of queue messages, answered message by message: one job's or receiver's trouble
//! neither delays nor repeats its neighbours. Relies on `ReportBatchItemFailures` in the
//! template.

use std::future::Future;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use futures_util::future::join_all;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The queue forgets it.
    Done,
    /// It comes back, until the queue moves it to the dead letters.
    ComesBack,
}

/// SQS sent a message that cannot be named in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SQS sent a message without an id")]
pub struct NoMessageId;

/// Handles all messages at once and says which come back.
///
/// # Errors
/// When one that comes back has no id: Lambda reads an empty id as "the whole batch failed",
/// so it is never invented.
pub async fn answer<'b, F: Future<Output = Handled>>(
    batch: &'b SqsEvent,
    // Not an `AsyncFn`: of that the compiler cannot say yet that its futures are `Send`.
    handle: impl Fn(&'b SqsMessage) -> F,
) -> Result<SqsBatchResponse, NoMessageId> {
    let handled = join_all(batch.records.iter().map(handle)).await;
    let mut response = SqsBatchResponse::default();
    for (message, handled) in batch.records.iter().zip(handled) {
        if handled == Handled::ComesBack {
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
    async fn only_the_broken_message_comes_back() {
        let response = answer(&batch(&[Some("m-1"), Some("m-2")]), async |message| {
            match message.message_id.as_deref() {
                Some("m-2") => Handled::ComesBack,
                _ => Handled::Done,
            }
        })
        .await
        .unwrap();
        let response = serde_json::to_string(&response).unwrap();
        assert_eq!(response, r#"{"batchItemFailures":[{"itemIdentifier":"m-2"}]}"#);
    }

    #[tokio::test]
    async fn a_message_without_an_id_is_not_given_one() {
        let done = answer(&batch(&[None]), async |_| Handled::Done).await.unwrap();
        assert!(done.batch_item_failures.is_empty());
        let lost = answer(&batch(&[None]), async |_| Handled::ComesBack).await;
        assert_eq!(lost.unwrap_err(), NoMessageId);
    }
}
