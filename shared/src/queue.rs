//! The two queues: tickets for delivery attempts, and wake-up calls for single jobs.

use std::error::Error;
use std::time::Duration;

use aws_sdk_sqs::Client;
use domain::delivery::Delivery;
use domain::endpoint::Lane;
use domain::id::{EventId, JobId};
use serde::{Deserialize, Serialize};

/// The longest delay SQS carries.
pub const LONGEST_DELAY: Duration = Duration::from_secs(900);

/// A message could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("a message could not be sent to the {queue} queue")]
pub struct QueueError {
    queue: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

/// Stands for one attempt of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The job; none for a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The event that is delivered.
    pub event_id: EventId,
    /// The attempt's number, from 0.
    pub attempt: usize,
    /// Where the attempt is made.
    #[serde(default)]
    pub lane: Lane,
}

/// Asks the poller to look at one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WakeUp {
    /// The job.
    pub job_id: JobId,
}

/// Where tickets go.
#[derive(Clone, Debug)]
pub struct DeliveryQueue {
    quick: Queue,
    slow: Option<Queue>,
}

/// Where wake-up calls go.
#[derive(Clone, Debug)]
pub struct WakeQueue(Queue);

#[derive(Clone, Debug)]
struct Queue {
    client: Client,
    url: String,
    name: &'static str,
}

impl Ticket {
    /// The ticket of the delivery's next attempt.
    #[must_use]
    pub fn next(delivery: &Delivery) -> Self {
        Self {
            job_id: delivery.subject.job_id().cloned(),
            event_id: delivery.event_id.clone(),
            attempt: delivery.attempts.len(),
            lane: Lane::Quick,
        }
    }

    /// The same ticket for this lane.
    #[must_use]
    pub fn in_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }
}

impl DeliveryQueue {
    /// The queue at `url`, for whoever does not know yet which endpoints are slow.
    #[must_use]
    pub fn new(client: Client, url: String) -> Self {
        Self { quick: Queue { client, url, name: "delivery" }, slow: None }
    }

    /// The same, with the queue of the slow lane at `url`.
    #[must_use]
    pub fn with_slow_lane(self, url: String) -> Self {
        let slow = Queue { client: self.quick.client.clone(), url, name: "slow delivery" };
        Self { slow: Some(slow), ..self }
    }

    /// Sends a ticket into its lane, to arrive no sooner than after `delay` (at most
    /// [`LONGEST_DELAY`]).
    ///
    /// # Errors
    /// When SQS does not take it.
    pub async fn send(&self, ticket: &Ticket, delay: Duration) -> Result<(), QueueError> {
        let queue = match ticket.lane {
            Lane::Quick => &self.quick,
            Lane::Slow => self.slow.as_ref().unwrap_or(&self.quick),
        };
        queue.send(ticket, delay).await
    }
}

impl WakeQueue {
    /// The queue at `url`.
    #[must_use]
    pub fn new(client: Client, url: String) -> Self {
        Self(Queue { client, url, name: "wake" })
    }

    /// Sends a wake-up call, to arrive no sooner than after `delay` (cut to
    /// [`LONGEST_DELAY`]: waking early is harmless).
    ///
    /// # Errors
    /// When SQS does not take it.
    pub async fn send(&self, wake_up: &WakeUp, delay: Duration) -> Result<(), QueueError> {
        self.0.send(wake_up, delay).await
    }
}

impl Queue {
    async fn send(&self, message: &impl Serialize, delay: Duration) -> Result<(), QueueError> {
        let failed = |source| QueueError { queue: self.name, source };
        let body = serde_json::to_string(message).map_err(|error| failed(error.into()))?;
        let sent = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .delay_seconds(whole_seconds(delay))
            .send()
            .await;
        sent.map(drop).map_err(|error| failed(error.into_service_error().into()))
    }
}

/// Rounded up, so that nothing arrives before its time, and cut to what SQS takes.
fn whole_seconds(delay: Duration) -> i32 {
    let up = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    i32::try_from(up.min(LONGEST_DELAY.as_secs())).unwrap_or(900)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_and_never_more_than_sqs_takes() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(5)), 5);
        assert_eq!(whole_seconds(Duration::from_secs(86_400)), 900);
    }
}
