//! One invocation of a function: its calls, and the faults at them.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_in_memory::bus::not_taken;
use aws_in_memory::clock;
use aws_in_memory::interceptor::{Call, Injected, Interception};
use aws_in_memory::trace::{self, Trace};
use aws_lambda_events::sqs::SqsMessage;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::faults::fault::{Fault, PlannedFault};
use crate::faults::random_faults::RandomFaults;
use crate::harness::functions::{Function, FunctionAnswer, FunctionEvent};

/// The length of a stall: shorter than any lease.
pub(crate) const STALL: Duration = Duration::from_secs(20);

/// How an invocation ended.
#[derive(Debug)]
pub(crate) enum InvocationEnd {
    Answered(FunctionAnswer),
    /// The function returned an error.
    Failed,
    /// The process ended without an answer.
    Died,
    /// Too many others were running, so that it never began.
    Throttled,
}

/// A call of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallRecord {
    /// Service or host, operation, and the kind of item.
    pub(crate) label: String,
    pub(crate) to_aws: bool,
    /// Whether it changes nothing.
    pub(crate) reads: bool,
    /// Whether no other call of the invocation was pending when it began.
    pub(crate) alone: bool,
}

impl CallRecord {
    /// Whether it reads a parameter, which hardly ever changes.
    pub(crate) fn reads_parameter(&self) -> bool {
        self.reads && self.label.starts_with("ssm ")
    }
}

/// What a message is about: a delivery, the polling of a shard, or a look at a job's hint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Errand {
    /// The event's id.
    Deliver(String),
    /// The shard's number.
    Poll(String),
    /// The job's id.
    Look(String),
}

/// A message that an invocation handles.
#[derive(Clone, Debug)]
pub(crate) struct HandledMessage {
    pub(crate) errand: Errand,
    /// The invocation that sent it.
    pub(crate) sent_by: usize,
}

/// A fault that an invocation met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObservedFault {
    /// The process ended before it answered.
    Died,
    /// A host could not be connected to.
    Unreachable,
    /// A fault happened at a call.
    AtCall(Fault),
}

#[derive(Debug)]
pub(crate) struct Invocation {
    /// Counted from 0 in the order of their begin.
    pub(crate) number: usize,
    pub(crate) function: Function,
    /// Whether the schedule is the caller.
    pub(crate) is_tick: bool,
    /// The body of the HTTP request; empty for other events.
    pub(crate) request: String,
    pub(crate) trace: Trace,
    pub(crate) begun: DateTime<Utc>,
    /// The messages of its batch.
    pub(crate) messages: Vec<HandledMessage>,
    /// The errands on which it got further: by an attempt, a poll or a stored change.
    progress: Mutex<BTreeSet<Errand>>,
    /// Whether AWS refused one of its calls.
    refused_by_aws: Mutex<bool>,
    planned: Option<PlannedFault>,
    random_faults: Arc<RandomFaults>,
    calls: Mutex<Vec<CallRecord>>,
    /// The faults, each with its service or host.
    observed: Mutex<Vec<(String, ObservedFault)>>,
    /// The number of pending calls.
    pending: Mutex<usize>,
    /// A call that fails on every repeat, and its fault.
    broken: Mutex<Option<(String, Fault)>>,
    died: Notify,
    /// Wakes the copy, and the invocation when the copy has ended.
    pub(crate) reached: Notify,
    pub(crate) released: Notify,
    /// The end of the current stall.
    stalled: Mutex<Option<Instant>>,
}

impl Invocation {
    pub(crate) fn new(
        number: usize,
        function: Function,
        event: &FunctionEvent,
        planned: Option<PlannedFault>,
        random_faults: Arc<RandomFaults>,
    ) -> Self {
        let request = match event {
            FunctionEvent::Http(request) => request.body.clone().unwrap_or_default(),
            FunctionEvent::Messages(_) | FunctionEvent::Tick(_) => String::new(),
        };
        let (name, id) = (function.name(), u64::try_from(number).unwrap());
        let trace = match event {
            FunctionEvent::Messages(batch) => Trace::continued(name, id, batch),
            FunctionEvent::Http(_) | FunctionEvent::Tick(_) => Trace::begun(name, id),
        };
        let messages = match event {
            FunctionEvent::Messages(batch) => batch.records.iter().filter_map(handled).collect(),
            FunctionEvent::Http(_) | FunctionEvent::Tick(_) => Vec::new(),
        };
        Self {
            number,
            function,
            is_tick: matches!(event, FunctionEvent::Tick(_)),
            request,
            trace,
            begun: clock::true_now(),
            messages,
            progress: Mutex::default(),
            refused_by_aws: Mutex::default(),
            planned,
            random_faults,
            calls: Mutex::default(),
            observed: Mutex::default(),
            pending: Mutex::default(),
            broken: Mutex::default(),
            died: Notify::new(),
            reached: Notify::new(),
            released: Notify::new(),
            stalled: Mutex::default(),
        }
    }

    pub(crate) fn calls(&self) -> Vec<CallRecord> {
        self.calls.lock().unwrap().clone()
    }

    /// The number of the call at which the planned fault happened, if it did.
    pub(crate) fn faulted_call(&self) -> Option<usize> {
        let calls = self.calls.lock().unwrap();
        let applies =
            |it: &PlannedFault| calls.get(it.call).is_some_and(|call| it.fault.applies_to(call));
        self.planned.filter(applies).map(|planned| planned.call)
    }

    /// Records a fault; `to` is the AWS service or the host, empty when it was no call.
    pub(crate) fn record(&self, to: &str, observed: ObservedFault) {
        self.observed.lock().unwrap().push((to.to_owned(), observed));
    }

    /// The faults so far, each with its service or host.
    pub(crate) fn observed_faults(&self) -> Vec<(String, ObservedFault)> {
        self.observed.lock().unwrap().clone()
    }

    /// Whether it got further on an errand.
    pub(crate) fn got_further(&self, errand: &Errand) -> bool {
        self.progress.lock().unwrap().contains(errand)
    }

    /// Whether it may have got no further for a reason that is not ours.
    pub(crate) fn was_hindered(&self) -> bool {
        *self.refused_by_aws.lock().unwrap() || !self.observed.lock().unwrap().is_empty()
    }

    /// Notes an answer of AWS.
    pub(crate) fn note_answer(&self, call: &Call<'_>, status: u16, answer: &Value) {
        let kind = answer.get("__type").and_then(Value::as_str).unwrap_or_default();
        // These are no troubles of AWS.
        let usual =
            ["ConditionalCheckFailedException", "ParameterNotFound", "ParameterAlreadyExists"];
        let is_usual = usual.iter().any(|usual| kind.ends_with(usual));
        let failed = answer.get("FailedEntryCount").and_then(Value::as_u64).unwrap_or_default();
        if (status >= 400 && !is_usual) || failed > 0 {
            *self.refused_by_aws.lock().unwrap() = true;
        }
        if status < 300 && call.what == "PutItem" {
            let key = |name: &str| call.body["Item"][name]["S"].as_str().unwrap_or_default();
            let stored = match (key("pk").split_once('#'), key("sk").split_once('#')) {
                (_, Some(("delivery", event))) => Some(Errand::Deliver(event.to_owned())),
                (Some(("lease", shard)), None) => Some(Errand::Poll(shard.to_owned())),
                _ => None,
            };
            self.progress.lock().unwrap().extend(stored);
        }
    }

    /// Notes a call to a provider or a receiver: a poll is one for every shard at hand.
    fn note_request(&self, call: &Call<'_>) {
        let event = call.body.get("eventId").and_then(Value::as_str);
        let mut progress = self.progress.lock().unwrap();
        match (self.function, event) {
            (Function::Deliver, Some(event)) => {
                progress.insert(Errand::Deliver(event.to_owned()));
            }
            (Function::Poller, _) => {
                progress.extend(self.messages.iter().map(|message| message.errand.clone()));
            }
            (Function::Deliver | Function::Submit | Function::Webhook | Function::Jobs, _) => {}
        }
    }

    /// Whether it had no visible effect.
    pub(crate) fn only_read(&self) -> bool {
        self.calls.lock().unwrap().iter().all(|call| call.reads)
    }

    pub(crate) fn is_overtaken(&self) -> bool {
        let overtaken = [Fault::OvertakenBefore, Fault::OvertakenAfter];
        self.planned.is_some_and(|planned| overtaken.contains(&planned.fault))
    }

    /// Completes when the process dies.
    pub(crate) async fn death(&self) {
        self.died.notified().await;
    }

    async fn die<T>(&self) -> T {
        self.died.notify_one();
        std::future::pending().await
    }

    async fn overtaken(&self) {
        self.reached.notify_one();
        self.released.notified().await;
    }

    /// Stalls the process: none of its timers fires before the stall ends.
    async fn stall(&self) {
        let until = Instant::now() + STALL;
        *self.stalled.lock().unwrap() = Some(until);
        tokio::time::sleep_until(until).await;
    }

    /// Wraps the work of the invocation so that it pauses during stalls.
    pub(crate) fn with_stalls<F: Future>(self: &Arc<Self>, work: F) -> WithStalls<F> {
        WithStalls { invocation: Arc::clone(self), work: Box::pin(work), pause: None }
    }

    pub(crate) async fn intercept(self: Arc<Self>, call: &Call<'_>) -> Interception {
        let Interception { injected, then } = Arc::clone(&self).decide(call).await;
        let then = async move {
            then.await;
            *self.pending.lock().unwrap() -= 1;
        };
        Interception { injected, then: then.boxed() }
    }

    fn begin(&self, call: &Call<'_>) -> (usize, CallRecord) {
        let mut pending = self.pending.lock().unwrap();
        let made = CallRecord { alone: *pending == 0, ..describe(call) };
        if !made.to_aws {
            self.note_request(call);
        }
        *pending += 1;
        let mut calls = self.calls.lock().unwrap();
        calls.push(made.clone());
        (calls.len() - 1, made)
    }

    async fn decide(self: Arc<Self>, call: &Call<'_>) -> Interception {
        let (number, made) = self.begin(call);
        // The AWS clients take the jitter of their retries from here. Some take a number when the
        // first of them in a process starts, so the seed is set at every call.
        fastrand::seed(u64::try_from(self.number * 1000 + number).unwrap());
        tokio::time::sleep(latency(&made) + self.random_faults.delay()).await;
        let identity = format!("{} {}", made.label, call.body);
        let broken = self.broken.lock().unwrap().clone();
        if let Some((_, fault)) = broken.filter(|(broken, _)| *broken == identity) {
            return match fault {
                Fault::Busy => busy(call),
                _ => Injected::Lost,
            }
            .into();
        }
        let applies = |it: &PlannedFault| it.call == number && it.fault.applies_to(&made);
        let planned = self.planned.filter(applies);
        let random_faults = self.random_faults.roll_call(call.to, &made);
        let Some(fault) = planned.map(|planned| planned.fault).or(random_faults) else {
            return Injected::Answered.into();
        };
        self.record(call.to, ObservedFault::AtCall(fault));
        // A random fault does not repeat, so a retry may succeed.
        let breaks = || {
            *self.broken.lock().unwrap() = planned.map(|_| (identity.clone(), fault));
        };
        match fault {
            Fault::DiesBefore => self.die().await,
            Fault::DiesAfter => {
                let me = Arc::clone(&self);
                let then = async move { me.die().await }.boxed();
                Interception { injected: Injected::Answered, then }
            }
            Fault::Lost => {
                breaks();
                Injected::Lost.into()
            }
            Fault::Unanswered => {
                breaks();
                Injected::Unanswered.into()
            }
            Fault::Busy => {
                breaks();
                busy(call).into()
            }
            Fault::Twice => Injected::Twice.into(),
            Fault::OvertakenBefore => {
                self.overtaken().await;
                Injected::Answered.into()
            }
            Fault::OvertakenAfter => {
                let me = Arc::clone(&self);
                let then = async move { me.overtaken().await }.boxed();
                Interception { injected: Injected::Answered, then }
            }
            Fault::StallsBefore => {
                self.stall().await;
                Injected::Answered.into()
            }
            Fault::StallsAfter => {
                let me = Arc::clone(&self);
                let then = async move { me.stall().await }.boxed();
                Interception { injected: Injected::Answered, then }
            }
        }
    }
}

/// A message that says what it is about.
fn handled(record: &SqsMessage) -> Option<HandledMessage> {
    let body: Value = serde_json::from_str(record.body.as_deref()?).ok()?;
    let errand = match (body["eventId"].as_str(), body["shard"].as_u64()) {
        (Some(event), _) => Errand::Deliver(event.to_owned()),
        (None, Some(shard)) => Errand::Poll(shard.to_string()),
        (None, None) if body["kind"] == "look" => Errand::Look(body["jobId"].as_str()?.to_owned()),
        (None, None) => return None,
    };
    let sent_by = usize::try_from(trace::of_record(record)?.parent).ok()?;
    Some(HandledMessage { errand, sent_by })
}

/// The work of an invocation, which makes no progress during a stall.
pub(crate) struct WithStalls<F> {
    invocation: Arc<Invocation>,
    work: Pin<Box<F>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for WithStalls<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let polled = self.work.as_mut().poll(cx);
            let stalled = self.invocation.stalled.lock().unwrap().take();
            match (polled, stalled) {
                (Poll::Pending, Some(until)) => {
                    self.pause = Some(Box::pin(tokio::time::sleep_until(until)));
                }
                (polled, _) => return polled,
            }
        }
    }
}

/// The answer of a throttling AWS. The bus answers 200 and reports refused entries in the body.
fn busy(call: &Call<'_>) -> Injected {
    let (status, body) = match call.to {
        "events" => not_taken(),
        "dynamodb" => {
            let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
            (400, json!({"__type": kind}))
        }
        _ => (400, json!({"__type": "ThrottlingException"})),
    };
    Injected::Refused(status, body)
}

fn describe(call: &Call<'_>) -> CallRecord {
    let to_aws = matches!(call.to, "dynamodb" | "sqs" | "events" | "ssm");
    let item =
        ["/Item/sk/S", "/Key/sk/S", "/IndexName", "/Entries/0/DetailType", "/Name", "/Names/0"];
    let about = item.iter().find_map(|at| call.body.pointer(at)).and_then(Value::as_str);
    // A delivery's key ends in an id, which would make labels differ between runs.
    let about = about.unwrap_or_default().split('#').next().unwrap_or_default();
    let label = format!("{} {} {about}", call.to, call.what).trim_end().to_owned();
    let reading = ["Get", "BatchGet", "Query", "Scan"];
    let reads = match to_aws {
        true => reading.iter().any(|word| call.what.starts_with(word)),
        // A status or list call of a provider.
        false => call.what.starts_with("GET "),
    };
    CallRecord { label, to_aws, reads, alone: false }
}

/// The time that a call takes.
fn latency(call: &CallRecord) -> Duration {
    Duration::from_millis(if call.to_aws { 5 } else { 40 })
}
