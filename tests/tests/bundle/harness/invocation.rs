//! One invocation of a function: the calls it makes, and what befalls it on the way.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use shared::fake::bus::not_taken;
use shared::fake::fate::{Call, Fated, Happens};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::faults::fault::{Fault, PlannedFault};
use crate::faults::random_faults::RandomFaults;
use crate::harness::functions::{Answer, Event, Function};

/// How long a process stands still: not so long that it must be thought dead.
const STALL: Duration = Duration::from_secs(20);

/// How an invocation ended.
#[derive(Debug)]
pub(crate) enum InvocationEnd {
    Answered(Answer),
    /// The function says that it failed.
    Failed,
    /// Nobody heard of it again.
    Died,
}

/// A call that an invocation made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallRecord {
    /// Where to, what, and about which kind of item.
    pub(crate) label: String,
    pub(crate) to_aws: bool,
    /// Whether it changes nothing anywhere.
    pub(crate) reads: bool,
    /// Whether all calls before it were over when it was made.
    pub(crate) alone: bool,
}

impl CallRecord {
    /// Whether it reads what hardly anybody ever changes.
    pub(crate) fn reads_parameter(&self) -> bool {
        self.reads && self.label.starts_with("ssm ")
    }
}

/// What went wrong in an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObservedFault {
    /// It ended before it had answered.
    Died,
    /// Nobody could connect to a host.
    Unreachable,
    /// Something befell a call.
    AtCall(Fault),
}

/// One invocation.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// In the order in which they begin, from 0.
    pub(crate) number: usize,
    pub(crate) function: Function,
    /// Whether the schedule called.
    pub(crate) is_tick: bool,
    /// The body of the request that it answers; empty when nobody calls over HTTP.
    pub(crate) request: String,
    planned: Option<PlannedFault>,
    random_faults: Arc<RandomFaults>,
    calls: Mutex<Vec<CallRecord>>,
    /// What went wrong, and where to.
    observed: Mutex<Vec<(String, ObservedFault)>>,
    /// How many of them are not over yet.
    pending: Mutex<usize>,
    /// A call that does not get through any more, and why.
    broken: Mutex<Option<(String, Fault)>>,
    died: Notify,
    /// Whether a copy is to run, and whether it has.
    pub(crate) reached: Notify,
    pub(crate) released: Notify,
    /// Until when it stands still.
    stalled: Mutex<Option<Instant>>,
}

impl Invocation {
    pub(crate) fn new(
        number: usize,
        function: Function,
        event: &Event,
        planned: Option<PlannedFault>,
        random_faults: Arc<RandomFaults>,
    ) -> Self {
        let request = match event {
            Event::Http(request) => request.body.clone().unwrap_or_default(),
            Event::Messages(_) | Event::Tick(_) => String::new(),
        };
        Self {
            number,
            function,
            is_tick: matches!(event, Event::Tick(_)),
            request,
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

    /// The calls so far, in their order.
    pub(crate) fn calls(&self) -> Vec<CallRecord> {
        self.calls.lock().unwrap().clone()
    }

    /// The number of the call that its fault befell; none when none did.
    pub(crate) fn faulted_call(&self) -> Option<usize> {
        let calls = self.calls.lock().unwrap();
        let applies =
            |it: &PlannedFault| calls.get(it.call).is_some_and(|call| it.fault.applies_to(call));
        self.planned.filter(applies).map(|planned| planned.call)
    }

    /// Notes what went wrong; `to` is the AWS service or host, where it was a call.
    pub(crate) fn record(&self, to: &str, observed: ObservedFault) {
        self.observed.lock().unwrap().push((to.to_owned(), observed));
    }

    /// What went wrong so far, and where to.
    pub(crate) fn observed_faults(&self) -> Vec<(String, ObservedFault)> {
        self.observed.lock().unwrap().clone()
    }

    /// Whether it did nothing that anybody could notice.
    pub(crate) fn only_read(&self) -> bool {
        self.calls.lock().unwrap().iter().all(|call| call.reads)
    }

    pub(crate) fn is_overtaken(&self) -> bool {
        let overtaken = [Fault::OvertakenBefore, Fault::OvertakenAfter];
        self.planned.is_some_and(|planned| overtaken.contains(&planned.fault))
    }

    /// Waits until it dies, which few do.
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

    /// Stands still for a while. It is the process that does: none of its clocks runs out
    /// before it goes on.
    async fn stall(&self) {
        let until = Instant::now() + STALL;
        *self.stalled.lock().unwrap() = Some(until);
        tokio::time::sleep_until(until).await;
    }

    /// What the invocation does, with the times at which it stands still.
    pub(crate) fn with_stalls<F: Future>(self: &Arc<Self>, work: F) -> WithStalls<F> {
        WithStalls { invocation: Arc::clone(self), work: Box::pin(work), pause: None }
    }

    pub(crate) async fn of(self: Arc<Self>, call: &Call<'_>) -> Fated {
        let Fated { happens, then } = Arc::clone(&self).decide(call).await;
        let then = async move {
            then.await;
            *self.pending.lock().unwrap() -= 1;
        };
        Fated { happens, then: then.boxed() }
    }

    fn begin(&self, call: &Call<'_>) -> (usize, CallRecord) {
        let mut pending = self.pending.lock().unwrap();
        let made = CallRecord { alone: *pending == 0, ..describe(call) };
        *pending += 1;
        let mut calls = self.calls.lock().unwrap();
        calls.push(made.clone());
        (calls.len() - 1, made)
    }

    async fn decide(self: Arc<Self>, call: &Call<'_>) -> Fated {
        let (number, made) = self.begin(call);
        // What the AWS clients wait between repeats comes from here. Some of them take a
        // number or two when the first of them in a process starts, so it begins anew.
        fastrand::seed(u64::try_from(self.number * 1000 + number).unwrap());
        tokio::time::sleep(latency(&made) + self.random_faults.delay()).await;
        let identity = format!("{} {}", made.label, call.body);
        let broken = self.broken.lock().unwrap().clone();
        if let Some((_, fault)) = broken.filter(|(broken, _)| *broken == identity) {
            return match fault {
                Fault::Busy => busy(call),
                _ => Happens::Lost,
            }
            .into();
        }
        let applies = |it: &PlannedFault| it.call == number && it.fault.applies_to(&made);
        let planned = self.planned.filter(applies);
        let random_faults = self.random_faults.roll_call(call.to, &made);
        let Some(fault) = planned.map(|planned| planned.fault).or(random_faults) else {
            return Happens::Answered.into();
        };
        self.record(call.to, ObservedFault::AtCall(fault));
        // RandomFaults passes, and a repeat may get through.
        let breaks = || {
            *self.broken.lock().unwrap() = planned.map(|_| (identity.clone(), fault));
        };
        match fault {
            Fault::DiesBefore => self.die().await,
            Fault::DiesAfter => {
                let me = Arc::clone(&self);
                let then = async move { me.die().await }.boxed();
                Fated { happens: Happens::Answered, then }
            }
            Fault::Lost => {
                breaks();
                Happens::Lost.into()
            }
            Fault::Unanswered => {
                breaks();
                Happens::Unanswered.into()
            }
            Fault::Busy => {
                breaks();
                busy(call).into()
            }
            Fault::Twice => Happens::Twice.into(),
            Fault::OvertakenBefore => {
                self.overtaken().await;
                Happens::Answered.into()
            }
            Fault::OvertakenAfter => {
                let me = Arc::clone(&self);
                let then = async move { me.overtaken().await }.boxed();
                Fated { happens: Happens::Answered, then }
            }
            Fault::StallsBefore => {
                self.stall().await;
                Happens::Answered.into()
            }
            Fault::StallsAfter => {
                let me = Arc::clone(&self);
                let then = async move { me.stall().await }.boxed();
                Fated { happens: Happens::Answered, then }
            }
        }
    }
}

/// The work of an invocation, which is not at it while it stands still.
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

/// What a busy AWS answers. The bus answers 200, and says inside that it took nothing.
fn busy(call: &Call<'_>) -> Happens {
    let (status, body) = match call.to {
        "events" => not_taken(),
        "dynamodb" => {
            let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
            (400, json!({"__type": kind}))
        }
        _ => (400, json!({"__type": "ThrottlingException"})),
    };
    Happens::Refused(status, body)
}

fn describe(call: &Call<'_>) -> CallRecord {
    let to_aws = matches!(call.to, "dynamodb" | "sqs" | "events" | "ssm");
    let item = ["/Item/sk/S", "/Key/sk/S", "/IndexName", "/Entries/0/DetailType", "/Name"];
    let about = item.iter().find_map(|at| call.body.pointer(at)).and_then(Value::as_str);
    // A delivery's key ends in an id, which says nothing here.
    let about = about.unwrap_or_default().split('#').next().unwrap_or_default();
    let label = format!("{} {} {about}", call.to, call.what).trim_end().to_owned();
    let reading = ["Get", "BatchGet", "Query", "Scan"];
    let reads = match to_aws {
        true => reading.iter().any(|word| call.what.starts_with(word)),
        // A question to a provider.
        false => call.what.starts_with("GET "),
    };
    CallRecord { label, to_aws, reads, alone: false }
}

/// So that time passes while a function works.
fn latency(call: &CallRecord) -> Duration {
    Duration::from_millis(if call.to_aws { 5 } else { 40 })
}
