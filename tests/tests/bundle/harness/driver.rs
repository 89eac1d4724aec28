//! Runs the functions: starts them, calls them with events, and advances time until no work is
//! left.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_in_memory::clock;
use aws_in_memory::quotas::Throttle;
use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::checks::invariant::Invariant;
use crate::harness::bundle::Bundle;
use crate::harness::functions::{Function, FunctionEvent, Instance};
use crate::harness::invocation::{Invocation, InvocationEnd, ObservedFault};
use crate::harness::process::Process;

/// The interval at which the driver looks for work. It is out of step with the schedule, which
/// calls once a minute.
const POLL_INTERVAL: Duration = Duration::from_secs(7);
/// How long no work may be found before a run is over. The schedule calls at least once meanwhile.
const QUIET: Duration = Duration::from_secs(70);
/// A started function and its process.
pub(crate) type Started = (Arc<Process>, Instance);

impl Bundle {
    /// Calls a function with an event, unless too many are running. The invocation continues when
    /// the handle is dropped.
    pub(crate) fn invoke(
        self: &Arc<Self>,
        function: Function,
        event: FunctionEvent,
    ) -> JoinHandle<InvocationEnd> {
        let Some(execution) = self.aws.executions().begin() else {
            self.aws.count_throttle(Throttle::Execution);
            return tokio::task::spawn_local(std::future::ready(InvocationEnd::Throttled));
        };
        let invocation = self.begin(function, &event);
        let copy =
            invocation.is_overtaken().then(|| self.copy(&invocation, function, event.clone()));
        *self.running.lock().unwrap() += 1;
        let me = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let ended = me.run_to_its_end(&invocation, event).await;
            if let InvocationEnd::Died = ended {
                invocation.record("", ObservedFault::Died);
            }
            *me.running.lock().unwrap() -= 1;
            drop(execution);
            if let Some(copy) = copy {
                copy.abort();
            }
            ended
        })
    }

    async fn run_to_its_end(
        &self,
        invocation: &Arc<Invocation>,
        event: FunctionEvent,
    ) -> InvocationEnd {
        let function = invocation.function;
        let deployed = self.deployments.load(Ordering::SeqCst);
        let warm = self.warm.lock().unwrap().get_mut(&function).and_then(Vec::pop);
        let work = async {
            let (process, instance) = match warm {
                Some((process, instance)) => {
                    process.begin(invocation);
                    (process, instance)
                }
                None => self.start(function, invocation).await?,
            };
            let answer = clock::skewed(process.skew, instance.handle(event)).await;
            if self.deployments.load(Ordering::SeqCst) == deployed {
                self.warm.lock().unwrap().entry(function).or_default().push((process, instance));
            }
            answer
        };
        let work = invocation.with_stalls(AssertUnwindSafe(work).catch_unwind());
        let work = tokio::time::timeout(function.time_limit(), work);
        tokio::select! {
            biased;
            () = invocation.death() => InvocationEnd::Died,
            ended = work => match ended {
                Ok(Ok(Ok(answer))) => InvocationEnd::Answered(answer),
                Ok(Ok(Err(problem))) => {
                    warn!("{function:?} failed: {problem}");
                    InvocationEnd::Failed
                }
                Ok(Err(_)) => {
                    self.checker.violated(Invariant::InputNeverPanics, format!("{function:?} panics"));
                    InvocationEnd::Died
                }
                Err(_) => InvocationEnd::Died,
            },
        }
    }

    /// Starts a function in a new process (a cold start).
    async fn start(
        &self,
        function: Function,
        invocation: &Arc<Invocation>,
    ) -> Result<Started, String> {
        let process = Arc::new(Process::new(self));
        process.begin(invocation);
        let aws = self.aws.seen_by(Arc::clone(&process) as _);
        let network = self.network.seen_by(Arc::clone(&process) as _);
        let instance =
            Instance::start(function, &aws, network, &self.parameters(), &self.url).await?;
        Ok((process, instance))
    }

    fn begin(&self, function: Function, event: &FunctionEvent) -> Arc<Invocation> {
        let mut invocations = self.invocations.lock().unwrap();
        let number = invocations.len();
        let planned = self.settings.fault.filter(|(observed, _)| *observed == number);
        let planned =
            planned.map(|(_, planned)| planned).or_else(|| self.delivery_faults.roll(function));
        let invocation = Arc::new(Invocation::new(
            number,
            function,
            event,
            planned,
            Arc::clone(&self.random_faults),
        ));
        invocations.push(Arc::clone(&invocation));
        invocation
    }

    /// Prepares a copy of an invocation. It starts when the invocation reaches the planned call,
    /// and the invocation waits for its end.
    fn copy(
        self: &Arc<Self>,
        invocation: &Arc<Invocation>,
        function: Function,
        event: FunctionEvent,
    ) -> JoinHandle<()> {
        let (me, invocation) = (Arc::clone(self), Arc::clone(invocation));
        tokio::spawn(async move {
            invocation.reached.notified().await;
            drop(me.invoke(function, event).await);
            invocation.released.notify_one();
        })
    }

    /// Ends every idle process, so that its caches are lost.
    pub(crate) fn end_warm_processes(&self) {
        self.warm.lock().unwrap().clear();
    }

    /// Advances time until a condition holds. `what` names the condition in the violation.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = tokio::time::Instant::now();
        while !is_so(self) {
            if begun.elapsed() > self.settings.horizon {
                self.checker.violated(
                    Invariant::EveryJobSettles,
                    format!("the run waits in vain until {what}"),
                );
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether no work is left.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pending().is_empty()
    }

    /// The work that is left, as text.
    fn pending(&self) -> Vec<String> {
        let table = self.aws.table();
        let counts = [
            ("functions", *self.running.lock().unwrap()),
            ("active jobs", table.indexed("active").len()),
            ("due deliveries", table.indexed("due").len()),
            ("tickets", self.aws.delivery_queue().len()),
            ("slow tickets", self.aws.slow_delivery_queue().len()),
            ("dead tickets", self.aws.delivery_queue().dead_letters().len()),
            ("dead slow tickets", self.aws.slow_delivery_queue().dead_letters().len()),
            ("wake-up calls", self.aws.wake_queue().len()),
        ];
        let some = counts.into_iter().filter(|(_, count)| *count > 0);
        some.map(|(what, count)| format!("{count} {what}")).collect()
    }

    /// Advances time until no work has been found for a while, or until the horizon.
    pub(crate) async fn until_quiet(&self) {
        let begun = tokio::time::Instant::now();
        let mut quiet = Duration::ZERO;
        while quiet < QUIET {
            if begun.elapsed() > self.settings.horizon {
                let pending = self.pending().join(", ");
                self.checker.violated(
                    Invariant::EveryJobSettles,
                    format!("work is left at the end: {pending}"),
                );
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            quiet = if self.is_quiet() { quiet + POLL_INTERVAL } else { Duration::ZERO };
        }
    }
}
