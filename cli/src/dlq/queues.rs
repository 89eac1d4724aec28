//! The delivery queue and its dead-letter queue, as an operator uses them.
//!
//! A message is sent back first and deleted afterwards. An interruption leaves a second copy
//! and loses nothing: a ticket that arrives twice makes one attempt. SQS's own
//! `StartMessageMoveTask` can only move all messages.

use std::collections::HashSet;

use anyhow::{Context, Result};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use chrono::{DateTime, Utc};
use domain::time;

/// The wait of a receive call. Without it SQS asks only some of its servers, and may return
/// nothing from a queue with few messages.
const RECEIVE_WAIT_SECONDS: i32 = 1;

/// The most messages that SQS returns in one call.
const MAX_BATCH: i32 = 10;

/// The visibility timeout of received messages. It is longer than it takes to receive the 120,000
/// messages that SQS allows in flight. After an interruption they are visible again in this time.
const VISIBILITY_SECONDS: i32 = 900;

/// A stack's delivery queue and its dead-letter queue.
pub(super) struct Queues {
    client: Client,
    deliveries: String,
    dead_deliveries: String,
}

/// A message in the dead-letter queue.
pub(super) struct DeadLetter {
    pub(super) id: String,
    pub(super) body: String,
    /// When it was first sent; the move to the dead-letter queue does not change that.
    pub(super) sent_at: DateTime<Utc>,
    pub(super) receipt: String,
}

/// The received messages, each of them once, and those that have to be released.
#[derive(Default)]
pub(super) struct DeadLetters {
    seen: HashSet<String>,
    left: Vec<DeadLetter>,
}

impl Queues {
    /// The queues of a stack, by the template's names.
    pub(super) async fn of_stack(stack: &str) -> Result<Self> {
        let config = shared::aws::config().context("cannot find AWS credentials and a region")?;
        let client = Client::new(&config);
        let deliveries = url(&client, &format!("{stack}-deliveries")).await?;
        let dead_deliveries = url(&client, &format!("{stack}-dead-deliveries")).await?;
        Ok(Self { client, deliveries, dead_deliveries })
    }

    /// The queues of a test.
    #[cfg(test)]
    pub(super) fn of(aws: &aws_in_memory::InMemoryAws) -> Self {
        let client = Client::new(&aws.config());
        let [deliveries, dead_deliveries] =
            ["deliveries", "dead-deliveries"].map(|it| format!("https://sqs/{it}"));
        Self { client, deliveries, dead_deliveries }
    }

    /// Sends a message back with this body, and then deletes it from the dead-letter queue.
    pub(super) async fn redrive(&self, letter: &DeadLetter, body: &str) -> Result<()> {
        let send = self.client.send_message().queue_url(&self.deliveries).message_body(body);
        send.send()
            .await
            .map_err(SdkError::into_service_error)
            .context("cannot send a ticket to the delivery queue")?;
        let delete = self.client.delete_message().queue_url(&self.dead_deliveries);
        delete
            .receipt_handle(&letter.receipt)
            .send()
            .await
            .map_err(SdkError::into_service_error)
            .context("a ticket was sent back, and cannot be deleted from the dead letters")?;
        Ok(())
    }
}

impl DeadLetters {
    /// Up to ten messages that were not received before; none when there are no more.
    pub(super) async fn more(&mut self, queues: &Queues) -> Result<Option<Vec<DeadLetter>>> {
        let received = queues
            .client
            .receive_message()
            .queue_url(&queues.dead_deliveries)
            .max_number_of_messages(MAX_BATCH)
            .wait_time_seconds(RECEIVE_WAIT_SECONDS)
            .visibility_timeout(VISIBILITY_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(SdkError::into_service_error)
            .context("cannot receive from the dead-letter queue")?;
        let letters = received.messages.unwrap_or_default().into_iter().filter_map(letter);
        let (new, again): (Vec<_>, Vec<_>) =
            letters.partition(|letter| self.seen.insert(letter.id.clone()));
        // Messages that were received again have newer receipts.
        self.left.extend(again);
        Ok((!new.is_empty()).then_some(new))
    }

    /// Leaves these messages in the dead-letter queue.
    pub(super) fn leave(&mut self, letters: Vec<DeadLetter>) {
        self.left.extend(letters);
    }

    /// Makes the messages that were left visible again. A failure only delays that to the end of
    /// their visibility timeout.
    pub(super) async fn release(&self, queues: &Queues) {
        for letter in &self.left {
            let visible =
                queues.client.change_message_visibility().queue_url(&queues.dead_deliveries);
            let visible = visible.receipt_handle(&letter.receipt).visibility_timeout(0);
            drop(visible.send().await);
        }
    }
}

async fn url(client: &Client, name: &str) -> Result<String> {
    let found = client.get_queue_url().queue_name(name).send().await;
    let found = found.map_err(SdkError::into_service_error).with_context(|| {
        format!("cannot find the queue {name}; are stack, region and credentials right?")
    })?;
    found.queue_url.with_context(|| format!("the queue {name} has no URL"))
}

/// None for a message without a receipt, which SQS does not send.
fn letter(message: Message) -> Option<DeadLetter> {
    let sent_at = message.attributes.as_ref();
    let sent_at = sent_at.and_then(|all| all.get(&MessageSystemAttributeName::SentTimestamp));
    let sent_at = sent_at.and_then(|text| text.parse().ok()).and_then(time::from_millis);
    Some(DeadLetter {
        id: message.message_id?,
        body: message.body.unwrap_or_default(),
        sent_at: sent_at.unwrap_or_default(),
        receipt: message.receipt_handle?,
    })
}
