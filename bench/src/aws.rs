//! AWS within the process, and what answering for it cost.

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

/// Counts the processor time that the in-memory AWS behind it takes to answer.
#[derive(Clone, Debug)]
pub(crate) struct TimedAws {
    aws: InMemoryAws,
    nanoseconds: Arc<AtomicU64>,
}

impl TimedAws {
    pub(crate) fn new(aws: InMemoryAws) -> Self {
        Self { aws, nanoseconds: Arc::default() }
    }

    /// For clients whose requests are counted.
    pub(crate) fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        let client = http_client_fn(move |_, _| connector.clone());
        self.aws.config().into_builder().http_client(client).build()
    }

    /// Processor time of all answers since the last call.
    pub(crate) fn take_cost(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.swap(0, Ordering::Relaxed))
    }
}

impl HttpConnector for TimedAws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { aws, nanoseconds } = self.clone();
        HttpConnectorFuture::new(async move {
            // A clock that cannot be read shows as answers that cost nothing. It never
            // waits, so nobody else runs in between.
            let before = cost::thread_cpu().unwrap_or_default();
            let answer = aws.call(request).await;
            let took = cost::thread_cpu().unwrap_or_default().saturating_sub(before);
            let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            nanoseconds.fetch_add(took, Ordering::Relaxed);
            answer
        })
    }
}
