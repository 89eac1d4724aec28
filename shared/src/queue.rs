//! The two queues: tickets for delivery attempts, and wake-up calls for the poller.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use aws_sdk_sqs::Client;
use chrono::{DateTime, Utc};
use domain::delivery::Delivery;
use domain::endpoint::Lane;
use domain::hint::Hint;
use domain::id::{EventId, JobId, RenderJobId};
use domain::polling::Suspicion;
use serde::{Deserialize, Serialize};

/// The longest delay SQS carries.
pub const MAX_DELAY: Duration = Duration::from_secs(900);

/// A message could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("a message could not be sent to the {queue} queue")]
pub struct QueueError {
    queue: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

/// The message for one attempt of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The job; none for a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The event that is delivered.
    pub event_id: EventId,
    /// The number of attempts before this one.
    pub attempt: usize,
    #[serde(default)]
    pub lane: Lane,
}

/// Asks the poller to poll a shard's jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum WakeUp {
    /// The shard has a new job without callbacks.
    NewJob {
        shard: u32,
        /// When the job was created, in Unix milliseconds.
        #[serde(with = "chrono::serde::ts_milliseconds")]
        created_at: DateTime<Utc>,
    },
    /// Continues where the lease's holder stopped.
    Continuation {
        shard: u32,
        /// The epoch of the lease.
        epoch: u64,
        /// All polls due until then were made, in Unix milliseconds.
        #[serde(with = "chrono::serde::ts_milliseconds")]
        seen: DateTime<Utc>,
        /// The renders that their providers could not tell of.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        suspects: BTreeMap<JobId, Suspicion>,
    },
}

/// Asks the poller to look at a job's hint: to ask the provider how the render stands. It is in
/// the queue of the wake-up calls, and needs no shard's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LookCall {
    /// What tells it from the calls for a shard.
    kind: LookKind,
    pub job_id: JobId,
    /// When the hint came, in Unix milliseconds, by which it is known.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub hinted_at: DateTime<Utc>,
    /// The render that the hint names, where the job did not know its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub render_job_id: Option<RenderJobId>,
    /// The number of this look, by which its wait was chosen.
    pub look: usize,
    /// Whether it is only needed if no other call was sent for the hint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_guard: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LookKind {
    Look,
}

impl LookCall {
    /// The call for the first look at a hint.
    #[must_use]
    pub fn first(job: &JobId, hint: &Hint) -> Self {
        Self {
            kind: LookKind::Look,
            job_id: job.clone(),
            hinted_at: hint.at,
            render_job_id: hint.render_job_id.clone(),
            look: hint.first_look(),
            is_guard: false,
        }
    }

    /// The same call, in case no other is sent for the hint.
    #[must_use]
    pub fn guard(self) -> Self {
        Self { is_guard: true, ..self }
    }

    /// The call for the look after this one.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { look: self.look.saturating_add(1), is_guard: false, ..self.clone() }
    }
}

impl WakeUp {
    #[must_use]
    pub fn shard(&self) -> u32 {
        match self {
            Self::NewJob { shard, .. } | Self::Continuation { shard, .. } => *shard,
        }
    }

    /// The same calls without those that another of them stands for: one for the oldest of a
    /// shard's new jobs, and one continuation of an epoch, the first. A failure must not leave
    /// more calls than it found, because each may become a poller of its own.
    #[must_use]
    pub fn merged(calls: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::new();
        for call in calls {
            let known = merged
                .iter_mut()
                .find_map(|known| known.with(&call).map(|for_both| (known, for_both)));
            match known {
                Some((known, for_both)) => *known = for_both,
                None => merged.push(call),
            }
        }
        merged
    }

    /// The call that stands for this one and another; none when there is no such call.
    fn with(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (
                Self::NewJob { shard, created_at },
                Self::NewJob { shard: other, created_at: others },
            ) if shard == other => {
                Some(Self::NewJob { shard: *shard, created_at: *created_at.min(others) })
            }
            (
                Self::Continuation { shard, epoch, .. },
                Self::Continuation { shard: other, epoch: others, .. },
            ) if (shard, epoch) == (other, others) => Some(self.clone()),
            (Self::NewJob { .. } | Self::Continuation { .. }, _) => None,
        }
    }
}

/// The delivery queue, with one lane or two.
#[derive(Clone, Debug)]
pub struct DeliveryQueue {
    quick: SqsQueue,
    slow: Option<SqsQueue>,
}

/// The queue of the poller's wake-up calls.
#[derive(Clone, Debug)]
pub struct WakeQueue(SqsQueue);

#[derive(Clone, Debug)]
struct SqsQueue {
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
    /// The queue at `url`, for callers that do not choose a lane.
    #[must_use]
    pub fn new(client: Client, url: String) -> Self {
        Self { quick: SqsQueue { client, url, name: "delivery" }, slow: None }
    }

    /// The same, with the queue of the slow lane at `url`.
    #[must_use]
    pub fn with_slow_lane(self, url: String) -> Self {
        let slow = SqsQueue { client: self.quick.client.clone(), url, name: "slow delivery" };
        Self { slow: Some(slow), ..self }
    }

    /// Sends a ticket into its lane, to arrive after `delay` (at most [`MAX_DELAY`]) or
    /// later.
    ///
    /// # Errors
    /// When SQS does not confirm it; the ticket may be sent all the same.
    pub async fn send(&self, ticket: &Ticket, delay: Duration) -> Result<(), QueueError> {
        let queue = match ticket.lane {
            Lane::Quick => &self.quick,
            Lane::Slow => self.slow.as_ref().unwrap_or(&self.quick),
        };
        queue.send(ticket, rounded_up(delay)).await
    }
}

impl WakeQueue {
    /// The queue at `url`.
    #[must_use]
    pub fn new(client: Client, url: String) -> Self {
        Self(SqsQueue { client, url, name: "wake" })
    }

    /// Sends a wake-up call, to arrive up to a second before `delay` is over (at most
    /// [`MAX_DELAY`]): the poller waits for the rest, which costs less than being late.
    ///
    /// # Errors
    /// When SQS does not confirm it; the call may be sent all the same.
    pub async fn send(&self, wake_up: &WakeUp, delay: Duration) -> Result<(), QueueError> {
        self.0.send(wake_up, capped(delay.as_secs())).await
    }

    /// Sends a call for a look, to arrive after `delay` (at most [`MAX_DELAY`]) or later.
    ///
    /// # Errors
    /// When SQS does not confirm it; the call may be sent all the same.
    pub async fn send_look(&self, call: &LookCall, delay: Duration) -> Result<(), QueueError> {
        self.0.send(call, rounded_up(delay)).await
    }
}

impl SqsQueue {
    async fn send(&self, message: &impl Serialize, seconds: i32) -> Result<(), QueueError> {
        let failed = |source| QueueError { queue: self.name, source };
        let body = serde_json::to_string(message).map_err(|error| failed(error.into()))?;
        let sent = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .delay_seconds(seconds)
            .send()
            .await;
        sent.map(drop).map_err(|error| failed(error.into_service_error().into()))
    }
}

/// In whole seconds, rounded up so that no message arrives early.
fn rounded_up(delay: Duration) -> i32 {
    capped(delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0)))
}

/// Capped at the longest delay of SQS.
fn capped(seconds: u64) -> i32 {
    i32::try_from(seconds.min(MAX_DELAY.as_secs())).unwrap_or(900)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_rounded_up_and_capped() {
        assert_eq!(rounded_up(Duration::ZERO), 0);
        assert_eq!(rounded_up(Duration::from_millis(1)), 1);
        assert_eq!(rounded_up(Duration::from_secs(5)), 5);
        assert_eq!(rounded_up(Duration::from_secs(86_400)), 900);
    }

    #[test]
    fn look_call_is_no_wake_up_of_shard() {
        let call = LookCall {
            kind: LookKind::Look,
            job_id: JobId::from_bytes([7; 16]),
            hinted_at: DateTime::from_timestamp_millis(1_800_000_000_123).unwrap(),
            render_job_id: None,
            look: 1,
            is_guard: false,
        };
        let text = serde_json::to_string(&call).unwrap();
        let expected = r#"{"kind":"look","jobId":"job_07070707070787078707070707070707","hintedAt":1800000000123,"look":1}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<LookCall>(&text).unwrap(), call);
        assert!(serde_json::from_str::<WakeUp>(&text).is_err());
        let wake_up = r#"{"kind":"new_job","shard":0,"createdAt":1}"#;
        assert!(serde_json::from_str::<LookCall>(wake_up).is_err());
        let mixed = text.replace("look\",", "continuation\",");
        assert!(serde_json::from_str::<LookCall>(&mixed).is_err());
    }

    #[test]
    fn calls_are_merged_by_errand() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let new_job = |shard, seconds| WakeUp::NewJob { shard, created_at: at(seconds) };
        let continuation = |epoch, seconds| {
            let (seen, suspects) = (at(seconds), BTreeMap::new());
            WakeUp::Continuation { shard: 0, epoch, seen, suspects }
        };
        let calls = [
            continuation(2, 9),
            new_job(0, 5),
            continuation(1, 7),
            new_job(0, 3),
            continuation(2, 8),
            new_job(1, 1),
        ];
        let merged = WakeUp::merged(calls);
        let expected = [continuation(2, 9), new_job(0, 3), continuation(1, 7), new_job(1, 1)];
        assert_eq!(merged, expected);
    }
}
