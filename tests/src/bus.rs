//! A subscriber of the event bus: a queue and a rule, like those of a downstream application.

use anyhow::{Context, Result};
use aws_sdk_eventbridge::types::Target;
use aws_sdk_sqs::types::QueueAttributeName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// An event as a subscriber gets it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BusEvent {
    /// The application that published the event.
    pub source: String,
    /// The event's name, such as `video.render.completed`.
    #[serde(rename = "detail-type")]
    pub detail_type: String,
    /// The event's body.
    pub detail: Value,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    sqs: aws_sdk_sqs::Client,
    queue_url: String,
    received: Mutex<Vec<BusEvent>>,
}

impl Subscription {
    /// Subscribes to the renders whose source record begins with `tag`. The rule and the
    /// queue are never deleted: they disappear with the local stack.
    pub(crate) async fn start(
        sqs: aws_sdk_sqs::Client,
        events: &aws_sdk_eventbridge::Client,
        bus: &str,
        tag: &str,
    ) -> Result<Self> {
        let queue_url = sqs.create_queue().queue_name(tag).send().await?;
        let queue_url = queue_url.queue_url.context("a queue has a URL")?;
        let arn = QueueAttributeName::QueueArn;
        let attributes =
            sqs.get_queue_attributes().queue_url(&queue_url).attribute_names(arn.clone());
        let attributes = attributes.send().await?.attributes.unwrap_or_default();
        let arn = attributes.get(&arn).context("a queue has an ARN")?;

        // A delivery's own events name no source record, only the job, so the rule takes
        // them from all tests.
        let pattern = json!({
            "source": ["render-relay"],
            "detail": {"$or": [
                {"sourceRecordId": [{"prefix": tag}]},
                {"event": [{"prefix": "webhook."}]},
            ]},
        });
        let rule = events.put_rule().name(tag).event_bus_name(bus);
        rule.event_pattern(pattern.to_string()).send().await?;
        let target = Target::builder().id("queue").arn(arn).build()?;
        events.put_targets().rule(tag).event_bus_name(bus).targets(target).send().await?;
        Ok(Self { sqs, queue_url, received: Mutex::default() })
    }

    /// All events so far whose `member` has this value, oldest first.
    pub(crate) async fn events_of(&self, member: &str, value: &str) -> Result<Vec<BusEvent>> {
        let mut events = self.events().await?;
        events.retain(|event| event.detail.get(member).is_some_and(|it| it == value));
        Ok(events)
    }

    /// All events so far, oldest first; events of deliveries come from all tests.
    pub(crate) async fn events(&self) -> Result<Vec<BusEvent>> {
        let mut received = self.received.lock().await;
        loop {
            let receive = self.sqs.receive_message().queue_url(&self.queue_url);
            let batch = receive.max_number_of_messages(10).send().await?;
            if batch.messages().is_empty() {
                break;
            }
            for message in batch.messages() {
                received.push(serde_json::from_str(message.body().unwrap_or_default())?);
                let delete = self.sqs.delete_message().queue_url(&self.queue_url);
                delete.set_receipt_handle(message.receipt_handle.clone()).send().await?;
            }
        }
        Ok(received.clone())
    }
}
