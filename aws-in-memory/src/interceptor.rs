//! Injecting faults into the calls that leave a process.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::trace::Trace;

/// A call that is about to leave a process.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The AWS service (`dynamodb`, `sqs`, `events`, `ssm`) or the host.
    pub to: &'a str,
    /// The operation, or method and path.
    pub what: &'a str,
    /// The body, where it is JSON; else null.
    pub body: &'a Value,
}

/// What is injected into a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Injected {
    /// It is made and answered.
    #[default]
    Answered,
    /// It never arrives. The caller sees a connection that broke.
    Lost,
    /// It is made, and the caller sees a connection that broke.
    Unanswered,
    /// It is made twice, as by a client that repeats it; the second answer is seen.
    Twice,
    /// It is answered with this HTTP status and body instead of being made.
    Refused(u16, Value),
}

/// What is injected into a call, and what its answer waits for once the call was made.
pub struct Interception {
    /// What is injected.
    pub injected: Injected,
    /// Runs after the call was made and before it is answered.
    pub then: BoxFuture<'static, ()>,
}

impl From<Injected> for Interception {
    fn from(injected: Injected) -> Self {
        Self { injected, then: std::future::ready(()).boxed() }
    }
}

/// Decides what is injected into the calls of one process. It may hold a call for ever, for a
/// process that crashes there and is dropped, or until another process has gone on.
pub trait CallInterceptor: Debug + Send + Sync {
    /// Called before a call is made.
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception>;

    /// The trace of the invocation that the process runs; none outside of one.
    fn trace(&self) -> Option<Trace> {
        None
    }

    /// Called when AWS has answered a call with this HTTP status and body, whether or not the
    /// answer arrives.
    fn answered(&self, _call: &Call<'_>, _status: u16, _answer: &Value) {}

    /// Whether the process can connect to a host of the network.
    fn connects(&self, _host: &str) -> bool {
        true
    }
}

/// Injects the same into every call of one operation, and makes and answers all other calls.
#[derive(Clone, Debug)]
pub struct FaultyOperation {
    operation: &'static str,
    injected: Injected,
}

impl FaultyOperation {
    /// The operation, such as `PutItem`, and what is injected.
    #[must_use]
    pub fn new(operation: &'static str, injected: Injected) -> Arc<Self> {
        Arc::new(Self { operation, injected })
    }
}

impl CallInterceptor for FaultyOperation {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let is_hit = call.what == self.operation;
        let injected = if is_hit { self.injected.clone() } else { Injected::Answered };
        std::future::ready(injected.into()).boxed()
    }
}

/// Makes and answers all calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl CallInterceptor for NoFaults {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        std::future::ready(Injected::Answered.into()).boxed()
    }
}
