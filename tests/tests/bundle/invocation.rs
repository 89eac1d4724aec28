//! One invocation of a function: the calls it makes, and what befalls it on the way.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_in_memory::bus::not_taken;
use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::bundle::Bundle;
use crate::functions::{Answer, Event, Function};
use crate::watch::Watch;
use crate::weather::Weather;

/// How long a process stands still: not so long that it must be thought dead.
const STALL: Duration = Duration::from_secs(20);

/// What befalls an invocation at one of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends before the call is made.
    DiesBefore,
    /// It ends when the call was made, before it hears of it.
    DiesAfter,
    /// The call cannot be made, however often it is tried.
    Lost,
    /// The call is made, and neither its answer nor that of a repeat arrives.
    Unanswered,
    /// AWS answers that it is too busy, however often it is asked.
    Busy,
    /// The call is made twice.
    Twice,
    /// A second copy of the invocation runs to its end before the call is made.
    OvertakenBefore,
    /// A second copy runs to its end when the call was made, before its answer is seen.
    OvertakenAfter,
    /// It stands still for a while before the call is made, and everybody else goes on.
    StallsBefore,
    /// It stands still for a while when the call was made, before it hears of it.
    StallsAfter,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::DiesBefore,
        Self::DiesAfter,
        Self::Lost,
        Self::Unanswered,
        Self::Busy,
        Self::Twice,
        Self::OvertakenBefore,
        Self::OvertakenAfter,
        Self::StallsBefore,
        Self::StallsAfter,
    ];

    /// Whether it can happen to a call: only AWS says that it is busy, and nobody repeats a
    /// request to render. To read twice, or to read and not hear of it, is as good as not to
    /// read at all.
    pub(crate) fn befalls(self, call: &Made) -> bool {
        match self {
            Self::Busy => call.to_aws,
            Self::Twice => call.to_aws && !call.reads,
            Self::Unanswered => !call.reads,
            Self::DiesBefore
            | Self::DiesAfter
            | Self::Lost
            | Self::OvertakenBefore
            | Self::OvertakenAfter
            | Self::StallsBefore
            | Self::StallsAfter => true,
        }
    }
}

/// How an invocation ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Answered(Answer),
    /// The function says that it failed.
    Failed,
    /// Nobody heard of it again.
    Died,
}

/// A fault at call number `call` (from 0).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) call: usize,
    pub(crate) fault: Fault,
}

/// A call that an invocation made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Where to, what, and about which kind of item.
    pub(crate) label: String,
    pub(crate) to_aws: bool,
    /// Whether it changes nothing anywhere.
    pub(crate) reads: bool,
    /// Whether all calls before it were over when it was made.
    pub(crate) alone: bool,
}

impl Made {
    /// Whether it reads what hardly anybody ever changes.
    pub(crate) fn reads_a_parameter(&self) -> bool {
        self.reads && self.label.starts_with("ssm ")
    }
}

/// What went wrong in an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It ended before it had answered.
    Died,
    /// Nobody could connect to a host.
    Unreachable,
    /// Something befell a call.
    Befallen(Fault),
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
    planned: Option<Planned>,
    weather: Arc<Weather>,
    calls: Mutex<Vec<Made>>,
    /// What went wrong, and where to.
    befallen: Mutex<Vec<(String, Harm)>>,
    /// How many of them are not over yet.
    under_way: Mutex<usize>,
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
        planned: Option<Planned>,
        weather: Arc<Weather>,
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
            weather,
            calls: Mutex::default(),
            befallen: Mutex::default(),
            under_way: Mutex::default(),
            broken: Mutex::default(),
            died: Notify::new(),
            reached: Notify::new(),
            released: Notify::new(),
            stalled: Mutex::default(),
        }
    }

    /// The calls so far, in their order.
    pub(crate) fn calls(&self) -> Vec<Made> {
        self.calls.lock().unwrap().clone()
    }

    /// The number of the call that its fault befell; none when none did.
    pub(crate) fn struck_at(&self) -> Option<usize> {
        let calls = self.calls.lock().unwrap();
        let befalls = |it: &Planned| calls.get(it.call).is_some_and(|call| it.fault.befalls(call));
        self.planned.filter(befalls).map(|planned| planned.call)
    }

    /// Notes what went wrong; `to` is the AWS service or host, where it was a call.
    pub(crate) fn suffers(&self, to: &str, harm: Harm) {
        self.befallen.lock().unwrap().push((to.to_owned(), harm));
    }

    /// What went wrong so far, and where to.
    pub(crate) fn harms(&self) -> Vec<(String, Harm)> {
        self.befallen.lock().unwrap().clone()
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
    pub(crate) fn at_its_pace<F: Future>(self: &Arc<Self>, work: F) -> AtItsPace<F> {
        AtItsPace { invocation: Arc::clone(self), work: Box::pin(work), pause: None }
    }

    async fn of(self: Arc<Self>, call: &Call<'_>) -> Interception {
        let Interception { injected, then } = Arc::clone(&self).decide(call).await;
        let then = async move {
            then.await;
            *self.under_way.lock().unwrap() -= 1;
        };
        Interception { injected, then: then.boxed() }
    }

    fn begin(&self, call: &Call<'_>) -> (usize, Made) {
        let mut under_way = self.under_way.lock().unwrap();
        let made = Made { alone: *under_way == 0, ..describe(call) };
        *under_way += 1;
        let mut calls = self.calls.lock().unwrap();
        calls.push(made.clone());
        (calls.len() - 1, made)
    }

    async fn decide(self: Arc<Self>, call: &Call<'_>) -> Interception {
        let (number, made) = self.begin(call);
        // What the AWS clients wait between repeats comes from here. Some of them take a
        // number or two when the first of them in a process starts, so it begins anew.
        fastrand::seed(u64::try_from(self.number * 1000 + number).unwrap());
        tokio::time::sleep(latency(&made) + self.weather.delay()).await;
        let identity = format!("{} {}", made.label, call.body);
        let broken = self.broken.lock().unwrap().clone();
        if let Some((_, fault)) = broken.filter(|(broken, _)| *broken == identity) {
            return match fault {
                Fault::Busy => busy(call),
                _ => Injected::Lost,
            }
            .into();
        }
        let befalls = |it: &Planned| it.call == number && it.fault.befalls(&made);
        let planned = self.planned.filter(befalls);
        let weather = self.weather.befalls(call.to, &made);
        let Some(fault) = planned.map(|planned| planned.fault).or(weather) else {
            return Injected::Answered.into();
        };
        self.suffers(call.to, Harm::Befallen(fault));
        // Weather passes, and a repeat may get through.
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

/// The work of an invocation, which is not at it while it stands still.
pub(crate) struct AtItsPace<F> {
    invocation: Arc<Invocation>,
    work: Pin<Box<F>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for AtItsPace<F> {
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

fn describe(call: &Call<'_>) -> Made {
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
    Made { label, to_aws, reads, alone: false }
}

/// So that time passes while a function works.
fn latency(call: &Made) -> Duration {
    Duration::from_millis(if call.to_aws { 5 } else { 40 })
}

/// The process that an instance of a function runs in: its calls are those of whatever
/// invocation it is at.
pub(crate) struct Process {
    current: Mutex<Option<Arc<Invocation>>>,
    watch: Arc<Watch>,
    weather: Arc<Weather>,
    /// How wrong its clock is.
    pub(crate) skew: TimeDelta,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Process").field(&self.current).finish()
    }
}

impl Process {
    pub(crate) fn new(bundle: &Bundle) -> Self {
        let weather = Arc::clone(&bundle.weather);
        let skew = weather.skew();
        Self { current: Mutex::default(), watch: Arc::clone(&bundle.watch), weather, skew }
    }

    pub(crate) fn begin(&self, invocation: &Arc<Invocation>) {
        *self.current.lock().unwrap() = Some(Arc::clone(invocation));
    }
}

impl CallInterceptor for Process {
    fn connects(&self, host: &str) -> bool {
        self.watch.dials(host);
        let is_there = self.weather.outage(host).is_none();
        if let (false, Some(invocation)) = (is_there, &*self.current.lock().unwrap()) {
            invocation.suffers(host, Harm::Unreachable);
        }
        is_there
    }

    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let invocation = self.current.lock().unwrap().clone();
        let invocation = invocation.expect("a function calls only when it is called");
        async move {
            let fated = invocation.of(call).await;
            if call.to == "events"
                && !matches!(fated.injected, Injected::Lost | Injected::Refused(..))
            {
                self.watch.told(call.body);
            }
            fated
        }
        .boxed()
    }
}
