//! AWS within the process, and the cost of its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_in_memory::InMemoryAws;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

use crate::cost;

/// Measures the processor time that AWS in memory takes to answer.
#[derive(Clone, Debug)]
pub(crate) struct TimedAws {
    aws: InMemoryAws,
    nanoseconds: Arc<AtomicU64>,
}

impl TimedAws {
    pub(crate) fn new(aws: InMemoryAws) -> Self {
        Self { aws, nanoseconds: Arc::default() }
    }

    /// The configuration of clients whose requests are measured.
    pub(crate) fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        let client = http_client_fn(move |_, _| connector.clone());
        self.aws.config().into_builder().http_client(client).build()
    }

    /// The processor time of all answers since the last call.
    pub(crate) fn take_cost(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.swap(0, Ordering::Relaxed))
    }
}

impl HttpConnector for TimedAws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { aws, nanoseconds } = self.clone();
        HttpConnectorFuture::new(async move {
            // If the clock cannot be read, the cost counts as zero. AWS in memory never waits, so
            // no other task runs in between.
            let before = cost::thread_cpu().unwrap_or_default();
            let answer = aws.call(request).await;
            let took = cost::thread_cpu().unwrap_or_default().saturating_sub(before);
            let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            nanoseconds.fetch_add(took, Ordering::Relaxed);
            answer
        })
    }
}
