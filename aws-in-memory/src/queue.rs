//! SQS queues in memory: delays, visibility timeouts, receive counts, dead letters. A test
//! takes messages as the event source mapping of a function does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{clock, trace};

/// The longest delay SQS takes, in seconds.
const MAX_DELAY_S: u64 = 900;
/// The most messages a receive or a batch has.
const MAX_BATCH: usize = 10;
/// The longest message, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// A queue's settings in `template.yaml`.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueSettings {
    /// The visibility timeout.
    pub(super) visibility: Duration,
    /// How often a message is received before it is a dead letter.
    pub(super) max_receives: u32,
    /// How long a message is kept.
    pub(super) retention: Duration,
}

/// A queue and its dead letters.
#[derive(Debug)]
pub struct InMemoryQueue {
    settings: QueueSettings,
    state: Mutex<QueueState>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    messages: VecDeque<QueuedMessage>,
    dead: Vec<DeadLetter>,
    /// How many messages ever became dead letters.
    dead_letter_total: usize,
    /// Bodies and delays of everything that was sent.
    sent: Vec<Sent>,
    ids: u64,
}

#[derive(Clone, Debug)]
struct DeadLetter {
    body: String,
    trace: Option<String>,
}

#[derive(Clone, Debug)]
struct QueuedMessage {
    id: u64,
    body: String,
    /// The header of the call that sent it.
    trace: Option<String>,
    visible_at: Instant,
    expires_at: Instant,
    receives: u32,
    is_copy: bool,
}

/// What was sent to a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message.
    pub body: String,
    /// How long it was to wait.
    pub delay: Duration,
}

impl InMemoryQueue {
    pub(super) fn new(settings: QueueSettings) -> Self {
        Self { settings, state: Mutex::default(), arrived: Notify::new() }
    }

    /// Takes up to ten visible messages, as an event for a function; they are visible again
    /// after the visibility timeout unless they are deleted. `pick` chooses the next one among
    /// so many: real queues keep no order. None when no message is visible.
    pub fn take(&self, mut pick: impl FnMut(usize) -> usize) -> Option<SqsEvent> {
        let now = Instant::now();
        let mut state = self.state();
        state.expire(now, &self.settings);
        let mut seen: Vec<u64> =
            state.messages.iter().filter(|it| it.visible_at <= now).map(|it| it.id).collect();
        let mut event = SqsEvent::default();
        while !seen.is_empty() && event.records.len() < MAX_BATCH {
            let id = seen.remove(pick(seen.len()).min(seen.len() - 1));
            let Some(message) = state.messages.iter_mut().find(|it| it.id == id) else { continue };
            message.receives += 1;
            message.visible_at = now + self.settings.visibility;
            let mut record = SqsMessage::default();
            record.message_id = Some(format!("m-{id}"));
            record.body = Some(message.body.clone());
            let receives = ("ApproximateReceiveCount".to_owned(), message.receives.to_string());
            record.attributes.extend([receives]);
            record.attributes.extend(message.trace.as_deref().map(trace::attribute));
            event.records.push(record);
        }
        (!event.records.is_empty()).then_some(event)
    }

    /// The same, oldest first.
    pub fn take_in_order(&self) -> Option<SqsEvent> {
        self.take(|_| 0)
    }

    /// Deletes a message, by the id it was taken with.
    pub fn delete(&self, message_id: &str) {
        self.state().messages.retain(|it| format!("m-{}", it.id) != message_id);
    }

    /// Makes a second copy of a message that was taken, to be seen after `delay`: SQS
    /// delivers at least once. A copy is not copied again.
    pub fn deliver_again(&self, message_id: &str, delay: Duration) {
        let mut state = self.state();
        let found = state.messages.iter().find(|it| format!("m-{}", it.id) == message_id);
        if let Some(mut copy) = found.filter(|it| !it.is_copy).cloned() {
            copy.is_copy = true;
            state.ids += 1;
            copy.id = state.ids;
            copy.visible_at = Instant::now() + delay;
            state.messages.push_back(copy);
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Waits until a message may be visible.
    pub async fn ready(&self) {
        loop {
            let arrived = self.arrived.notified();
            let next = self.next_at();
            match next {
                Some(at) if at <= Instant::now() => return,
                Some(at) => {
                    // Whichever is first: a message that arrives may be visible sooner.
                    let _ = tokio::time::timeout_at(at, arrived).await;
                }
                None => arrived.await,
            }
        }
    }

    /// When the next message is visible; none when the queue is empty.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let mut state = self.state();
        state.expire(Instant::now(), &self.settings);
        state.messages.iter().map(|it| it.visible_at).min()
    }

    /// How many messages there are, hidden ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().messages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages that were taken too often.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<String> {
        self.state().dead.iter().map(|letter| letter.body.clone()).collect()
    }

    /// How many messages were ever taken too often, those that were moved back included.
    #[must_use]
    pub fn dead_letter_total(&self) -> usize {
        self.state().dead_letter_total
    }

    /// Moves the dead letters back, as an operator does when the cause is gone. They keep their
    /// traces: AWS does not say, and this is the pessimistic reading.
    pub fn redrive(&self) {
        let mut state = self.state();
        let now = Instant::now();
        for DeadLetter { body, trace } in std::mem::take(&mut state.dead) {
            state.add(body, trace, now, &self.settings);
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Everything that was ever sent, oldest first.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone()
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HTTP status and body, as SQS answers a call with this trace header.
    pub(super) fn answer(
        &self,
        operation: &str,
        request: &Value,
        trace: Option<&str>,
    ) -> (u16, Value) {
        let sent = match operation {
            "SendMessage" => self.send(request, trace),
            "SendMessageBatch" => self.send_batch(request, trace),
            "ReceiveMessage" => Ok(self.receive(request)),
            "DeleteMessage" => {
                self.of_receipt(request).map(|id| self.delete(&id)).map(|()| json!({}))
            }
            "ChangeMessageVisibility" => self.hide(request),
            other => Err(format!("the in-memory queue has no {other}")),
        };
        match sent {
            Ok(answer) => (200, answer),
            Err(problem) => {
                let kind = "com.amazonaws.sqs#InvalidParameterValue";
                (400, json!({"__type": kind, "message": problem}))
            }
        }
    }

    /// Up to ten messages, hidden for as long as the request says. It answers at once.
    fn receive(&self, request: &Value) -> Value {
        let event = self.take_in_order().unwrap_or_default();
        let messages: Vec<Value> = event
            .records
            .into_iter()
            .map(|record| {
                let hold = request.get("VisibilityTimeout").cloned().unwrap_or_default();
                let receipt =
                    json!({"ReceiptHandle": record.message_id, "VisibilityTimeout": hold});
                // It cannot fail: the message was taken a moment ago.
                drop(self.hide(&receipt));
                let sent_at = clock::true_now().timestamp_millis().to_string();
                json!({
                    "MessageId": record.message_id,
                    "ReceiptHandle": record.message_id,
                    "Body": record.body,
                    "Attributes": {"SentTimestamp": sent_at},
                })
            })
            .collect();
        json!({"Messages": messages})
    }

    fn hide(&self, request: &Value) -> Result<Value, String> {
        let id = self.of_receipt(request)?;
        let seconds = request.get("VisibilityTimeout").and_then(Value::as_u64);
        let hold = seconds.map_or(self.settings.visibility, Duration::from_secs);
        let mut state = self.state();
        for message in state.messages.iter_mut().filter(|it| format!("m-{}", it.id) == id) {
            message.visible_at = Instant::now() + hold;
        }
        drop(state);
        self.arrived.notify_waiters();
        Ok(json!({}))
    }

    /// The id of the message that a receipt is for.
    fn of_receipt(&self, request: &Value) -> Result<String, String> {
        let receipt = request.get("ReceiptHandle").and_then(Value::as_str).unwrap_or_default();
        let is_there = self.state().messages.iter().any(|it| format!("m-{}", it.id) == receipt);
        if is_there { Ok(receipt.to_owned()) } else { Err("no such receipt".into()) }
    }

    fn send(&self, request: &Value, trace: Option<&str>) -> Result<Value, String> {
        let body = request.get("MessageBody").and_then(Value::as_str).unwrap_or_default();
        if body.is_empty() || body.len() > MAX_BODY {
            return Err("a message has 1 byte to 1 MiB".into());
        }
        let delay = match request.get("DelaySeconds").map(Value::as_u64) {
            None => 0,
            Some(Some(delay @ 0..=MAX_DELAY_S)) => delay,
            Some(_) => return Err("DelaySeconds is 0 to 900".into()),
        };
        let delay = Duration::from_secs(delay);
        let mut state = self.state();
        state.sent.push(Sent { body: body.to_owned(), delay });
        let (body, trace) = (body.to_owned(), trace.map(str::to_owned));
        let id = state.add(body, trace, Instant::now() + delay, &self.settings);
        drop(state);
        self.arrived.notify_waiters();
        Ok(json!({"MessageId": format!("m-{id}")}))
    }

    fn send_batch(&self, request: &Value, trace: Option<&str>) -> Result<Value, String> {
        let entries = request.get("Entries").and_then(Value::as_array);
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        if entries.is_empty() || entries.len() > MAX_BATCH {
            return Err("a batch has 1 to 10 entries".into());
        }
        let mut successful = Vec::new();
        let mut failed = Vec::new();
        for entry in entries {
            let id = entry.get("Id").cloned().unwrap_or_default();
            match self.send(entry, trace) {
                Ok(sent) => successful.push(json!({"Id": id, "MessageId": sent.get("MessageId")})),
                Err(problem) => failed.push(
                    json!({"Id": id, "SenderFault": true, "Code": "Invalid", "QueuedMessage": problem}),
                ),
            }
        }
        Ok(json!({"Successful": successful, "Failed": failed}))
    }
}

impl QueueState {
    fn add(
        &mut self,
        body: String,
        trace: Option<String>,
        visible_at: Instant,
        settings: &QueueSettings,
    ) -> u64 {
        self.ids += 1;
        let expires_at = Instant::now() + settings.retention;
        self.messages.push_back(QueuedMessage {
            id: self.ids,
            body,
            trace,
            visible_at,
            expires_at,
            receives: 0,
            is_copy: false,
        });
        self.ids
    }

    /// Drops messages past their retention, and moves those that were received too often to
    /// the dead letters.
    fn expire(&mut self, now: Instant, settings: &QueueSettings) {
        self.messages.retain(|it| it.expires_at > now);
        let is_dead =
            |it: &QueuedMessage| it.visible_at <= now && it.receives >= settings.max_receives;
        let letter =
            |it: &QueuedMessage| DeadLetter { body: it.body.clone(), trace: it.trace.clone() };
        let dead: BTreeMap<u64, DeadLetter> =
            self.messages.iter().filter(|it| is_dead(it)).map(|it| (it.id, letter(it))).collect();
        self.messages.retain(|it| !dead.contains_key(&it.id));
        self.dead_letter_total += dead.len();
        self.dead.extend(dead.into_values());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> InMemoryQueue {
        InMemoryQueue::new(QueueSettings {
            visibility: Duration::from_secs(30),
            max_receives: 2,
            retention: Duration::from_secs(3600),
        })
    }

    fn answer(queue: &InMemoryQueue, operation: &str, request: &Value) -> (u16, Value) {
        queue.answer(operation, request, None)
    }

    fn send(queue: &InMemoryQueue, body: &str, delay: u64) -> u16 {
        answer(queue, "SendMessage", &json!({"MessageBody": body, "DelaySeconds": delay})).0
    }

    #[tokio::test(start_paused = true)]
    async fn moved_message_keeps_its_trace() {
        let queue = queue();
        let trace = trace::Trace::begun("deliver", 3);
        let header = trace.to_string();
        queue.answer("SendMessage", &json!({"MessageBody": "a"}), Some(&header));
        let seen = |event: Option<SqsEvent>| {
            let record = event.unwrap().records.remove(0);
            let receives = record.attributes["ApproximateReceiveCount"].clone();
            (trace::of_record(&record).unwrap(), receives)
        };
        for receives in ["1", "2"] {
            queue.ready().await;
            assert_eq!(seen(queue.take_in_order()), (trace.clone(), receives.to_owned()));
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(queue.take_in_order().is_none());
        queue.redrive();
        assert_eq!(seen(queue.take_in_order()), (trace, "1".to_owned()));
    }

    fn bodies(event: Option<SqsEvent>) -> Vec<String> {
        event.into_iter().flat_map(|it| it.records).filter_map(|it| it.body).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn message_returns_unless_deleted() {
        let queue = queue();
        assert_eq!(send(&queue, "a", 5), 200);
        assert!(queue.take_in_order().is_none());
        queue.ready().await;
        let event = queue.take_in_order().unwrap();
        assert!(queue.take_in_order().is_none(), "it is hidden");
        queue.ready().await;
        assert_eq!(bodies(queue.take_in_order()), ["a"], "it came back");
        queue.delete(event.records[0].message_id.as_deref().unwrap());
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_receives_make_dead_letters() {
        let queue = queue();
        send(&queue, "a", 0);
        for _ in 0..2 {
            queue.ready().await;
            assert_eq!(bodies(queue.take_in_order()), ["a"]);
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(queue.take_in_order().is_none());
        assert_eq!(queue.dead_letters(), ["a"]);
        queue.redrive();
        assert_eq!(bodies(queue.take_in_order()), ["a"]);
        assert_eq!((queue.dead_letters().len(), queue.dead_letter_total()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn caller_chooses_order_and_copies() {
        let queue = queue();
        for body in ["a", "b", "c"] {
            send(&queue, body, 0);
        }
        let event = queue.take(|left| left - 1);
        assert_eq!(bodies(event), ["c", "b", "a"]);
        queue.deliver_again("m-2", Duration::from_secs(1));
        queue.ready().await;
        assert_eq!(bodies(queue.take_in_order()), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_chooses_visibility_timeout() {
        let queue = queue();
        send(&queue, "a", 0);
        let received = answer(&queue, "ReceiveMessage", &json!({"VisibilityTimeout": 100})).1;
        let receipt = &received["Messages"][0]["ReceiptHandle"];
        tokio::time::advance(Duration::from_secs(99)).await;
        assert!(queue.take_in_order().is_none());
        let seen = json!({"ReceiptHandle": receipt, "VisibilityTimeout": 0});
        assert_eq!(answer(&queue, "ChangeMessageVisibility", &seen).0, 200);
        assert_eq!(bodies(queue.take_in_order()), ["a"]);
        assert_eq!(answer(&queue, "DeleteMessage", &json!({"ReceiptHandle": receipt})).0, 200);
        assert_eq!(answer(&queue, "DeleteMessage", &json!({"ReceiptHandle": receipt})).0, 400);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_sqs_requests_are_refused() {
        let queue = queue();
        assert_eq!(send(&queue, "a", 901), 400);
        assert_eq!(send(&queue, "", 0), 400);
        assert_eq!(answer(&queue, "PurgeQueue", &json!({})).0, 400);
        let batch = json!({"Entries": [
            {"Id": "1", "MessageBody": "a"}, {"Id": "2", "MessageBody": "b", "DelaySeconds": 901},
        ]});
        let (status, answer) = answer(&queue, "SendMessageBatch", &batch);
        assert_eq!((status, answer["Failed"][0]["Id"].as_str()), (200, Some("2")));
        assert_eq!(queue.sent(), [Sent { body: "a".into(), delay: Duration::ZERO }]);
    }
}
