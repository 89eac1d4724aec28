//! Processes that start all at once, or while SSM throttles every call: each of them needs secrets,
//! and the account has 40 reads of parameters a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tests::SimulatedProvider;

use crate::checks::lateness::dead_letters;
use crate::faults::fault::Fault;
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};

const PROVIDER: SimulatedProvider = SimulatedProvider::ViralSync;

/// The submits that come at once.
const SUBMITS: usize = 200;

/// How long SSM throttles everything.
const THROTTLED_FOR: Duration = Duration::from_secs(60);

/// Submits once each, all at once and without a warm process, and counts the answers by status.
async fn submit_at_once(bundle: &Arc<Bundle>) -> BTreeMap<u16, usize> {
    bundle.end_warm_processes();
    let submits = (0..SUBMITS).map(|number| async move {
        let tag = format!("order-{number:03}.");
        let request = CallerRequest::new(PROVIDER, &tag);
        bundle.set_render_options(PROVIDER, &tag, &json!({"durationMs": 60_000})).await;
        let key = request.key.as_deref();
        bundle.call_api(Method::POST, "/v1/jobs", key, &request.body).await.status
    });
    let mut statuses = BTreeMap::new();
    for status in join_all(submits).await {
        *statuses.entry(status).or_default() += 1;
    }
    statuses
}

/// Runs a scenario. The jobs belong to no request of the harness, so only what it returns counts.
fn run<T>(scenario: impl AsyncFnOnce(&Arc<Bundle>) -> T) -> (Arc<Bundle>, T) {
    let mut answer = None;
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        answer = Some(scenario(bundle).await);
    });
    (bundle, answer.unwrap())
}

#[test]
fn new_stack_takes_cold_submits_at_once() {
    let (bundle, statuses) = run(submit_at_once);
    assert_eq!(statuses, [(202, SUBMITS)].into(), "{:?}", bundle.aws.throttles());
}

#[test]
fn used_stack_takes_cold_submits_at_once() {
    let (bundle, statuses) = run(async |bundle| {
        bundle.submit(&CallerRequest::new(PROVIDER, "before")).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        submit_at_once(bundle).await
    });
    assert_eq!(statuses, [(202, SUBMITS)].into(), "{:?}", bundle.aws.throttles());
}

#[test]
fn warm_processes_outlast_throttled_parameters() {
    let (bundle, ()) = run(async |bundle| {
        let options = json!({"durationMs": 5000});
        bundle.set_render_options(PROVIDER, "before", &options).await;
        bundle.submit(&CallerRequest::new(PROVIDER, "before")).await;
        bundle.until("the first webhook", |it| it.received("before") == 1).await;
        tokio::time::sleep(Duration::from_secs(5 * 60)).await;
        bundle.random_faults.start_outage("ssm", Fault::Busy);
        let request = CallerRequest::new(PROVIDER, "during");
        bundle.set_render_options(PROVIDER, "during", &options).await;
        let key = request.key.as_deref();
        let seen = bundle.call_api(Method::POST, "/v1/jobs", key, &request.body).await;
        assert_eq!(seen.status, 202, "{}", seen.body);
        tokio::time::sleep(THROTTLED_FOR).await;
        assert_eq!(bundle.received("during"), 1, "its callback and its webhook");
        bundle.random_faults.end_outage("ssm");
    });
    assert_eq!(dead_letters(&bundle), None);
}
