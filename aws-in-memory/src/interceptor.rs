//! What becomes of the calls that leave a process.

use std::fmt::Debug;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

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

/// What happens to a call.
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

/// What becomes of a call, and what its answer waits for once it was made.
pub struct Interception {
    /// What happens to it.
    pub injected: Injected,
    /// Between the making and the answer.
    pub then: BoxFuture<'static, ()>,
}

impl From<Injected> for Interception {
    fn from(injected: Injected) -> Self {
        Self { injected, then: std::future::ready(()).boxed() }
    }
}

/// Decides what becomes of the calls of one process. A process that is to die waits here for
/// ever, and is dropped; one that is to be overtaken waits here for as long as it takes.
pub trait CallInterceptor: Debug + Send + Sync {
    /// Before a call is made.
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception>;

    /// Whether the process can connect to a host of the network.
    fn connects(&self, _host: &str) -> bool {
        true
    }
}

/// All calls are made and answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl CallInterceptor for NoFaults {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        std::future::ready(Injected::Answered.into()).boxed()
    }
}
