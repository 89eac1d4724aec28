//! The delivery queue and its dead letters, as an operator reaches them.
//!
//! A letter is sent home first and deleted afterwards, so whoever is interrupted leaves a
//! second copy and loses nothing: a ticket that comes twice makes one attempt. SQS's own
//! `StartMessageMoveTask` moves everything or nothing.

use std::collections::HashSet;

use anyhow::{Context, Result};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use chrono::{DateTime, Utc};
use domain::time;

/// How long a look at the queue waits. Without a wait SQS asks only some of its servers, and
/// may show nothing of a queue that holds little.
const LOOK_SECONDS: i32 = 1;

/// The most messages that SQS hands out at once.
const AT_ONCE: i32 = 10;

/// How long a message is kept from others while we are at it, and so from ourselves: longer
/// than it takes to look at the 120,000 that SQS lets anybody hold. Whoever interrupts us finds
/// it again after this time.
const HELD_SECONDS: i32 = 900;

/// A stack's delivery queue and its dead-letter queue.
pub(super) struct Queues {
    client: Client,
    home: String,
    dead: String,
}

/// A message that nobody could follow.
pub(super) struct DeadLetter {
    pub(super) id: String,
    pub(super) body: String,
    /// When it was first sent. Dying does not change that.
    pub(super) sent_at: DateTime<Utc>,
    pub(super) receipt: String,
}

/// The dead letters, each of them once, and those that are ours to let go of.
#[derive(Default)]
pub(super) struct Letters {
    seen: HashSet<String>,
    kept: Vec<DeadLetter>,
}

impl Queues {
    /// Those that the template names after the stack.
    pub(super) async fn of_stack(stack: &str) -> Result<Self> {
        let config = shared::aws::config().context("who are you in AWS, and where?")?;
        let client = Client::new(&config);
        let home = url(&client, &format!("{stack}-deliveries")).await?;
        let dead = url(&client, &format!("{stack}-dead-deliveries")).await?;
        Ok(Self { client, home, dead })
    }

    /// The queues of a test.
    #[cfg(test)]
    pub(super) fn of(aws: &aws_in_memory::InMemoryAws) -> Self {
        let client = Client::new(&aws.config());
        let [home, dead] = ["deliveries", "dead-deliveries"].map(|it| format!("https://sqs/{it}"));
        Self { client, home, dead }
    }

    /// Sends a letter home with this body, and only then takes it out of the dead ones.
    pub(super) async fn send_home(&self, letter: &DeadLetter, body: &str) -> Result<()> {
        let send = self.client.send_message().queue_url(&self.home).message_body(body);
        send.send()
            .await
            .map_err(SdkError::into_service_error)
            .context("cannot send a ticket to the delivery queue")?;
        let delete = self.client.delete_message().queue_url(&self.dead);
        delete
            .receipt_handle(&letter.receipt)
            .send()
            .await
            .map_err(SdkError::into_service_error)
            .context("a ticket was sent back, and cannot be deleted from the dead letters")?;
        Ok(())
    }
}

impl Letters {
    /// Up to ten that were not seen before; none when there are no more.
    pub(super) async fn more(&mut self, queues: &Queues) -> Result<Option<Vec<DeadLetter>>> {
        let received = queues
            .client
            .receive_message()
            .queue_url(&queues.dead)
            .max_number_of_messages(AT_ONCE)
            .wait_time_seconds(LOOK_SECONDS)
            .visibility_timeout(HELD_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(SdkError::into_service_error)
            .context("cannot receive from the dead-letter queue")?;
        let letters = received.messages.unwrap_or_default().into_iter().filter_map(letter);
        let (new, again): (Vec<_>, Vec<_>) =
            letters.partition(|letter| self.seen.insert(letter.id.clone()));
        // Their receipts are newer.
        self.kept.extend(again);
        Ok((!new.is_empty()).then_some(new))
    }

    /// Leaves these where they are.
    pub(super) fn keep(&mut self, letters: Vec<DeadLetter>) {
        self.kept.extend(letters);
    }

    /// Lets others see what was left. What cannot be let go of is seen in time by itself.
    pub(super) async fn let_go(&self, queues: &Queues) {
        for letter in &self.kept {
            let visible = queues.client.change_message_visibility().queue_url(&queues.dead);
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

/// None for a message without a receipt, which SQS does not send: nothing could be done
/// with it.
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
