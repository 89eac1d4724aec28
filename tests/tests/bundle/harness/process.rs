//! The process of a started function: it passes each call of the function on to the current
//! invocation.

use std::sync::{Arc, Mutex};

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use aws_in_memory::trace::Trace;
use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::checks::invariant_checker::InvariantChecker;
use crate::faults::random_faults::RandomFaults;
use crate::harness::bundle::Bundle;
use crate::harness::invocation::{Invocation, ObservedFault};

pub(crate) struct Process {
    current: Mutex<Option<Arc<Invocation>>>,
    checker: Arc<InvariantChecker>,
    random_faults: Arc<RandomFaults>,
    /// The error of the process's clock.
    pub(crate) skew: TimeDelta,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Process").field(&self.current).finish()
    }
}

impl Process {
    pub(crate) fn new(bundle: &Bundle) -> Self {
        let random_faults = Arc::clone(&bundle.random_faults);
        let skew = random_faults.skew();
        Self {
            current: Mutex::default(),
            checker: Arc::clone(&bundle.checker),
            random_faults,
            skew,
        }
    }

    pub(crate) fn begin(&self, invocation: &Arc<Invocation>) {
        *self.current.lock().unwrap() = Some(Arc::clone(invocation));
    }
}

impl CallInterceptor for Process {
    fn trace(&self) -> Option<Trace> {
        self.current.lock().unwrap().as_ref().map(|invocation| invocation.trace.clone())
    }

    fn answered(&self, call: &Call<'_>, status: u16, answer: &Value) {
        if let Some(invocation) = &*self.current.lock().unwrap() {
            invocation.note_answer(call, status, answer);
        }
    }

    fn connects(&self, host: &str) -> bool {
        self.checker.record_connection(host);
        let is_there = self.random_faults.outage(host).is_none();
        if let (false, Some(invocation)) = (is_there, &*self.current.lock().unwrap()) {
            invocation.record(host, ObservedFault::Unreachable);
        }
        is_there
    }

    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let invocation = self.current.lock().unwrap().clone();
        let invocation = invocation.expect("a function calls only when it is called");
        async move {
            let interception = invocation.intercept(call).await;
            if call.to == "events"
                && !matches!(interception.injected, Injected::Lost | Injected::Refused(..))
            {
                self.checker.record_bus_request(call.body);
            }
            interception
        }
        .boxed()
    }
}
