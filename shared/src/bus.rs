//! The event bus that downstream applications subscribe to. It has every event at least once, and
//! subscribers deduplicate by the event's id.
//!
//! Events that are published in the same turn of the scheduler go in one request, and so do those
//! that wait while [`MAX_REQUESTS`] are in flight; an event that is alone waits for nothing. No
//! task runs in the background, because Lambda may freeze it: a publisher that waits for its
//! event sends the next request, which may have the events of others.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::error::ProvideErrorMetadata;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, PutEventsResultEntry};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::aws::ATTEMPT_TIMEOUT;
use crate::entropy::Entropy;

/// The `source` of all events that we publish.
pub const SOURCE: &str = "render-relay";

/// The most events in one request.
const MAX_ENTRIES: usize = 10;

/// The most bytes of one request, all of its events together: less than 256 KiB.
const MAX_BYTES: usize = 256 * 1024 - 1;

/// The most requests of one process in flight. Four of ten events each, at 20 ms, are two
/// thousand events a second; a bus that does not answer gets no more than these.
const MAX_REQUESTS: usize = 4;

/// How often an event that the bus refuses for the moment is sent.
const MAX_SENDS: u32 = 3;

/// The wait before the second of them, with its jitter. It doubles.
const BACKOFF: Duration = Duration::from_millis(50);

/// An event could not be put on the bus.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// EventBridge did not answer, or refused the request.
    #[error("an event could not be put on the bus")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// EventBridge answered and did not accept the event.
    #[error("the bus refused an event: {code}")]
    Refused { code: String },
    /// Nothing came of it in time. The event may be published all the same.
    #[error("the bus did not answer in time")]
    Slow,
    /// EventBridge takes no event of this size.
    #[error("an event of {bytes} bytes is too large for the bus")]
    TooLarge { bytes: usize },
}

/// The stack's event bus, as one process sees it. Clones share what is waiting.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
    name: String,
    entropy: Entropy,
    /// How long an event may take. Its publisher has other work, and the event stays in the
    /// table until it is published.
    patience: Duration,
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
    requests: Arc<Semaphore>,
}

/// An event that waits to be sent, or is being sent.
#[derive(Debug)]
struct Waiting {
    event: BusEvent,
    outcome: oneshot::Sender<Result<(), BusError>>,
}

#[derive(Clone, Debug)]
struct BusEvent {
    detail_type: String,
    detail: String,
}

type Outcome = oneshot::Receiver<Result<(), BusError>>;

impl Bus {
    /// The bus named `name`. Waits between repeats have their jitter from `entropy`.
    #[must_use]
    pub fn new(client: Client, name: String, entropy: Entropy) -> Self {
        let timeouts = client.config().timeout_config();
        let attempt = timeouts.and_then(|timeouts| timeouts.operation_attempt_timeout());
        Self {
            patience: attempt.unwrap_or(ATTEMPT_TIMEOUT),
            client,
            name,
            entropy,
            waiting: Arc::default(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    /// Publishes one event; `detail` is a JSON object. It takes as long as one attempt of a call
    /// to AWS may.
    ///
    /// # Errors
    /// When EventBridge does not confirm it; the event may be published all the same. The call
    /// may be repeated: subscribers deduplicate by the event's id.
    pub async fn publish(&self, detail_type: &str, detail: &str) -> Result<(), BusError> {
        let event = BusEvent { detail_type: detail_type.to_owned(), detail: detail.to_owned() };
        let bytes = event.bytes();
        if bytes > MAX_BYTES {
            return Err(BusError::TooLarge { bytes });
        }
        let mut outcome = self.enqueue(event.clone());
        let in_time = timeout(self.patience, self.send_until_done(event, &mut outcome)).await;
        in_time.unwrap_or_else(|_| outcome.try_recv().unwrap_or(Err(BusError::Slow)))
    }

    fn enqueue(&self, event: BusEvent) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        self.waiting().push_back(Waiting { event, outcome: sender });
        outcome
    }

    async fn send_until_done(
        &self,
        event: BusEvent,
        outcome: &mut Outcome,
    ) -> Result<(), BusError> {
        loop {
            // Others that publish in this turn are in the queue after it.
            tokio::task::yield_now().await;
            if let Ok(done) = self.help(outcome).await {
                return done;
            }
            // The publisher that sent it was dropped before the bus answered.
            *outcome = self.enqueue(event.clone());
        }
    }

    /// Sends what is waiting, other publishers' events too, until the outcome is there. It fails when the
    /// sender of the outcome is dropped.
    async fn help(
        &self,
        outcome: &mut Outcome,
    ) -> Result<Result<(), BusError>, oneshot::error::RecvError> {
        loop {
            tokio::select! {
                biased;
                done = &mut *outcome => return done,
                _permit = self.requests.acquire() => {
                    let batch = self.take_batch();
                    if batch.is_empty() {
                        // Another one is sending it.
                        drop(_permit);
                        return outcome.await;
                    }
                    self.send(batch).await;
                }
            }
        }
    }

    /// The oldest events that fit into one request, without those whose publisher has gone: they
    /// are still in the table.
    fn take_batch(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = waiting.front() {
            if next.outcome.is_closed() {
                waiting.pop_front();
                continue;
            }
            bytes += next.event.bytes();
            if batch.len() == MAX_ENTRIES || bytes > MAX_BYTES {
                break;
            }
            batch.extend(waiting.pop_front());
        }
        batch
    }

    /// Sends events until each is taken, or refused for good.
    async fn send(&self, batch: Vec<Waiting>) {
        let mut left = batch;
        let mut sends = 0;
        while !left.is_empty() {
            if sends > 0 {
                let jitter = 0.5 + self.entropy.jitter_sample();
                sleep(BACKOFF.mul_f64(jitter) * 2_u32.pow(sends - 1)).await;
            }
            sends += 1;
            left = self.send_once(left, sends == MAX_SENDS).await;
        }
    }

    /// Sends events once, and returns those that may be sent again.
    async fn send_once(&self, batch: Vec<Waiting>, is_last: bool) -> Vec<Waiting> {
        let entries = batch.iter().map(|it| self.entry(&it.event)).collect();
        let answered = self.client.put_events().set_entries(Some(entries)).send().await;
        let output = match answered {
            Ok(output) => output,
            Err(error) => {
                let cause = error.into_service_error();
                if batch.len() > 1 && cause.code() == Some("ValidationException") {
                    // One of them is at fault, and the others are not to suffer for it.
                    for one in batch {
                        Box::pin(self.send_once(vec![one], true)).await;
                    }
                    return Vec::new();
                }
                let cause: Arc<dyn Error + Send + Sync> = Arc::new(cause);
                for one in batch {
                    one.done(Err(BusError::Unavailable(Arc::clone(&cause))));
                }
                return Vec::new();
            }
        };
        let mut left = Vec::new();
        let mut results = output.entries().iter();
        for one in batch {
            match refusal(results.next()) {
                None => one.done(Ok(())),
                Some(code) if is_transient(code) && !is_last => left.push(one),
                Some(code) => one.done(Err(BusError::Refused { code: code.to_owned() })),
            }
        }
        left
    }

    fn entry(&self, event: &BusEvent) -> PutEventsRequestEntry {
        PutEventsRequestEntry::builder()
            .event_bus_name(&self.name)
            .source(SOURCE)
            .detail_type(&event.detail_type)
            .detail(&event.detail)
            .build()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Tells the publisher, if it still waits.
    fn done(self, outcome: Result<(), BusError>) {
        drop(self.outcome.send(outcome));
    }
}

impl BusEvent {
    /// The size as EventBridge counts it. We send neither time nor resources, which count too.
    fn bytes(&self) -> usize {
        SOURCE.len() + self.detail_type.len() + self.detail.len()
    }
}

/// Why the bus did not take an event, if it did not. `PutEvents` answers 200 also then.
fn refusal(result: Option<&PutEventsResultEntry>) -> Option<&str> {
    match result {
        Some(result) => result.error_code(),
        None => Some("NoResult"),
    }
}

/// Whether the bus may take the same event in a moment.
fn is_transient(code: &str) -> bool {
    matches!(code, "ThrottlingException" | "InternalFailure" | "InternalException" | "NoResult")
}
