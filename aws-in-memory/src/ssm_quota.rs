//! The quotas of SSM: forty reads and three writes a second, for all that share the account.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::interceptor::{Call, CallInterceptor, Injected, Interception};

/// Calls that are let through: so many at once, and so many a second.
#[derive(Debug)]
struct Bucket {
    left: f64,
    rate: f64,
    filled_at: Instant,
    let_through: usize,
    throttled: usize,
}

impl Bucket {
    fn new(rate: f64) -> Self {
        let filled_at = Instant::now();
        Self { left: rate, rate, filled_at, let_through: 0, throttled: 0 }
    }

    fn take(&mut self) -> bool {
        let gained = self.filled_at.elapsed().as_secs_f64() * self.rate;
        self.left = (self.left + gained).min(self.rate);
        self.filled_at = Instant::now();
        let is_taken = self.left >= 1.0;
        if is_taken {
            self.left -= 1.0;
            self.let_through += 1;
        } else {
            self.throttled += 1;
        }
        is_taken
    }
}

/// The quotas of one account. Each process sees its calls through the same one.
#[derive(Debug)]
pub struct SsmQuota {
    reads: Mutex<Bucket>,
    writes: Mutex<Bucket>,
}

impl SsmQuota {
    /// The documented quotas.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let (reads, writes) = (Bucket::new(40.0), Bucket::new(3.0));
        Arc::new(Self { reads: Mutex::new(reads), writes: Mutex::new(writes) })
    }

    /// How many reads were let through, and how many throttled.
    #[must_use]
    pub fn reads(&self) -> (usize, usize) {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        (reads.let_through, reads.throttled)
    }
}

impl CallInterceptor for SsmQuota {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        async move {
            sleep(Duration::from_millis(10)).await;
            let bucket = match (call.to, call.what) {
                ("ssm", "PutParameter" | "DeleteParameter") => &self.writes,
                ("ssm", _) => &self.reads,
                (_, _) => return Injected::Answered.into(),
            };
            match bucket.lock().unwrap_or_else(PoisonError::into_inner).take() {
                true => Injected::Answered.into(),
                false => Injected::Refused(400, json!({"__type": "ThrottlingException"})).into(),
            }
        }
        .boxed()
    }
}
