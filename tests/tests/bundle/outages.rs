//! Outages of the table, a queue or the bus for minutes, and concurrent callers: no caller gets a
//! 2xx before the fact is stored, and nothing that was accepted is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use http::header::RETRY_AFTER;
use serde_json::{Value, json};
use tests::SimulatedProvider;
use tokio::time::Instant;

use crate::faults::fault::{Fault, PlannedFault};
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::functions::Function;
use crate::harness::receivers::{self, DEFAULT, PlannedAnswer};

/// The length of an outage.
const OUTAGE: Duration = Duration::from_secs(4 * 60);

const TABLE: &str = "dynamodb";
const QUEUES: &str = "sqs";
const BUS: &str = "events";

/// Runs a scenario, and asserts that there is no violation.
fn run(scenario: impl AsyncFnOnce(&Arc<Bundle>)) -> Arc<Bundle> {
    let bundle = Bundle::run(RunSettings::default(), scenario);
    assert_eq!(bundle.checker.violations(), [""; 0], "{}", bundle.checker.log().text());
    bundle
}

impl Bundle {
    /// Makes a service fail for [`OUTAGE`].
    async fn with_outage(&self, service: &'static str, how: Fault) {
        self.random_faults.start_outage(service, how);
        tokio::time::sleep(OUTAGE).await;
        self.random_faults.end_outage(service);
    }

    fn event_names_on_bus(&self) -> Vec<String> {
        self.aws.events().into_iter().map(|event| event.detail_type).collect()
    }

    /// The statuses of a provider's callbacks.
    async fn callback_statuses(&self, provider: SimulatedProvider) -> Vec<u64> {
        let path = format!("/renders?provider={}", provider.name());
        let renders = self.control(Method::GET, &path, &Value::Null).await;
        let callbacks = renders.pointer("/0/callbacks").and_then(Value::as_array);
        callbacks.into_iter().flatten().filter_map(|it| it["status"].as_u64()).collect()
    }
}

/// An answer that is slow enough for an outage to begin before it.
fn slow_answer(status: u16) -> PlannedAnswer {
    PlannedAnswer { after: Duration::from_millis(1900), ..PlannedAnswer::status(status) }
}

#[test]
fn table_outage_is_answered_with_retry_after() {
    for how in [Fault::Lost, Fault::Busy] {
        run(async |bundle| {
            bundle.random_faults.start_outage(TABLE, how);
            let request = CallerRequest::new(SimulatedProvider::ViralSync, "early");
            let calls = [
                (Method::POST, "/v1/jobs", &request.body),
                (Method::GET, "/v1/jobs/job_00000000000000000000000000000000", &Value::Null),
                (Method::GET, "/v1/webhook-config", &Value::Null),
                (Method::POST, "/v1/deliveries/recover", &json!({"since": "2026-01-01T00:00:00Z"})),
            ];
            for (method, path, body) in calls {
                let seen = bundle.call_api(method, path, Some("early"), body).await;
                assert_eq!(seen.status, 503, "{path}: {}", seen.body);
                assert_eq!(seen.body["code"], "temporarily_unavailable", "{path}");
                assert!(seen.headers.contains_key(RETRY_AFTER), "{path}");
            }
            assert!(bundle.submitted.lock().unwrap().is_empty(), "the request is stored first");

            bundle.random_faults.end_outage(TABLE);
            let job = bundle.submit(&request).await;
            assert!(job.is_some(), "the same request is taken");
        });
    }
}

#[test]
fn unstored_callback_is_repeated() {
    for how in [Fault::Lost, Fault::Busy] {
        run(async |bundle| {
            let options = json!({"durationMs": 60_000, "callbackRetryMs": 60_000});
            bundle.set_render_options(SimulatedProvider::ViralSync, "called", &options).await;
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "called")).await;
            tokio::time::sleep(Duration::from_secs(55)).await;
            bundle.with_outage(TABLE, how).await;
            bundle.until("the webhook arrives", |it| it.received("called") > 0).await;
            let statuses = bundle.callback_statuses(SimulatedProvider::ViralSync).await;
            assert!(statuses.contains(&500), "{statuses:?}");
            let odd = statuses.iter().find(|status| ![200, 500].contains(*status));
            assert_eq!(odd, None, "{statuses:?}");
        });
    }
}

#[test]
fn accepted_jobs_survive_table_outage() {
    // The outage begins before the submit, during the render, at its end or during delivery.
    for (second, how) in (0..=65).step_by(5).zip([Fault::Lost, Fault::Busy].into_iter().cycle()) {
        run(async |bundle| {
            let options = json!({"durationMs": 45_000, "callbackRetryMs": 20_000});
            bundle.set_render_options(SimulatedProvider::ViralSync, "midst", &options).await;
            bundle.receivers.set_behaviors("midst", vec![PlannedAnswer::status(500); 2]);
            let request = CallerRequest::new(SimulatedProvider::ViralSync, "midst");
            let outage = async {
                tokio::time::sleep(Duration::from_secs(second)).await;
                bundle.with_outage(TABLE, how).await;
            };
            let (job, ()) = futures_util::join!(bundle.submit(&request), outage);
            assert!(job.is_some(), "it was taken in the end");
        });
    }
}

#[test]
fn unsent_ticket_is_retried() {
    let bundle = run(async |bundle| {
        bundle.receivers.set_behaviors("unsent", [slow_answer(500)]);
        let options = json!({"durationMs": 1000});
        bundle.set_render_options(SimulatedProvider::ViralSync, "unsent", &options).await;
        let first = async {
            bundle.until("the first attempt", |it| it.received("unsent") == 1).await;
            bundle.with_outage(QUEUES, Fault::Lost).await;
        };
        let request = CallerRequest::new(SimulatedProvider::ViralSync, "unsent");
        futures_util::join!(bundle.submit(&request), first);
        bundle.until("the second attempt", |it| it.received("unsent") == 2).await;
    });
    assert_eq!(bundle.received("unsent"), 2, "and no third");
}

#[test]
fn poller_sends_missing_first_ticket() {
    let bundle = run(async |bundle| {
        bundle
            .set_render_options(SimulatedProvider::ViralSync, "first", &json!({"durationMs": 1000}))
            .await;
        let request = CallerRequest::new(SimulatedProvider::ViralSync, "first");
        futures_util::join!(bundle.submit(&request), bundle.with_outage(QUEUES, Fault::Lost));
    });
    assert_eq!(bundle.received("first"), 1);
}

#[test]
fn default_receiver_survives_unreadable_configuration() {
    let run_with = |fault| {
        let settings = RunSettings { fault, ..RunSettings::default() };
        let bundle = Bundle::run(settings, async |bundle| {
            let config = json!({"url": receivers::url(DEFAULT)});
            bundle.call_until_answered(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
            bundle
                .submit(
                    &CallerRequest::new(SimulatedProvider::ViralSync, "plain")
                        .without("callbackUrl"),
                )
                .await;
        });
        assert_eq!(bundle.checker.violations(), [""; 0], "{}", bundle.checker.log().text());
        assert_eq!(bundle.received(DEFAULT), 1);
        bundle
    };
    let (number, call) = reading_of_the_receiver(&run_with(None));
    for fault in [Fault::Lost, Fault::Busy] {
        let bundle = run_with(Some((number, PlannedFault { call, fault })));
        assert_eq!(bundle.invocations()[number].faulted_call(), Some(call));
    }
}

/// The invocation and the call that read the default receiver at a job's end.
fn reading_of_the_receiver(bundle: &Bundle) -> (usize, usize) {
    let invocations = bundle.invocations();
    let found = invocations.iter().filter(|it| it.function == Function::Webhook).find_map(|it| {
        let calls = it.calls();
        let call = calls.iter().position(|call| call.label == "dynamodb GetItem webhook")?;
        Some((it.number, call))
    });
    found.expect("the configuration is read")
}

#[test]
fn refused_event_is_published_later() {
    // A throttling bus answers 200 and reports refused entries in the body.
    for how in [Fault::Busy, Fault::Lost] {
        let bundle = run(async |bundle| {
            bundle
                .set_render_options(
                    SimulatedProvider::ViralSync,
                    "quiet",
                    &json!({"durationMs": 1000}),
                )
                .await;
            let request = CallerRequest::new(SimulatedProvider::ViralSync, "quiet");
            futures_util::join!(bundle.submit(&request), bundle.with_outage(BUS, how));
        });
        assert_eq!(bundle.event_names_on_bus(), ["video.render.completed"]);
        assert_eq!(bundle.received("quiet"), 1);
    }
}

#[test]
fn webhook_arrives_during_bus_outage() {
    for how in [Fault::Busy, Fault::Lost] {
        let bundle = run(async |bundle| {
            let options = json!({"durationMs": 1000});
            bundle.set_render_options(SimulatedProvider::ViralSync, "unheard", &options).await;
            bundle.random_faults.start_outage(BUS, how);
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "unheard")).await;
            let begun = Instant::now();
            bundle.until("the webhook arrives", |it| it.received("unheard") == 1).await;
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
            tokio::time::sleep(OUTAGE).await;
            assert!(bundle.event_names_on_bus().is_empty());
            bundle.random_faults.end_outage(BUS);
        });
        assert_eq!(bundle.event_names_on_bus(), ["video.render.completed"]);
        assert_eq!(bundle.received("unheard"), 1);
    }
}

#[test]
fn event_is_published_during_queue_outage() {
    let bundle = run(async |bundle| {
        let options = json!({"durationMs": 1000});
        bundle.set_render_options(SimulatedProvider::ViralSync, "unsent", &options).await;
        bundle.random_faults.start_outage(QUEUES, Fault::Lost);
        bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "unsent")).await;
        let begun = Instant::now();
        bundle.until("the event", |it| !it.event_names_on_bus().is_empty()).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        tokio::time::sleep(OUTAGE).await;
        assert_eq!(bundle.received("unsent"), 0);
        bundle.random_faults.end_outage(QUEUES);
    });
    assert_eq!(bundle.event_names_on_bus(), ["video.render.completed"], "once");
    assert_eq!(bundle.received("unsent"), 1);
}

#[test]
fn exhaustion_is_published_after_bus_outage() {
    let bundle = run(async |bundle| {
        bundle.receivers.set_behaviors("gone", [slow_answer(410)]);
        bundle
            .set_render_options(SimulatedProvider::ViralSync, "gone", &json!({"durationMs": 1000}))
            .await;
        let end = async {
            bundle.until("the attempt", |it| it.received("gone") == 1).await;
            bundle.with_outage(BUS, Fault::Busy).await;
        };
        let request = CallerRequest::new(SimulatedProvider::ViralSync, "gone");
        futures_util::join!(bundle.submit(&request), end);
    });
    let names: BTreeSet<String> = bundle.event_names_on_bus().into_iter().collect();
    let expected =
        ["video.render.completed", "webhook.delivery.exhausted", "webhook.endpoint.disabled"];
    assert_eq!(names, expected.map(str::to_owned).into());
}

#[test]
fn concurrent_equal_requests_make_one_job() {
    let bundle = run(async |bundle| {
        let request = CallerRequest::new(SimulatedProvider::Zvid, "same");
        let jobs_made = join_all((0..20).map(|_| bundle.submit(&request))).await;
        let jobs: BTreeSet<String> =
            jobs_made.into_iter().flatten().map(|it| it.to_string()).collect();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
    });
    assert_eq!(bundle.submitted.lock().unwrap().len(), 1);
    assert_eq!(bundle.event_names_on_bus(), ["video.render.completed"]);
    assert_eq!(bundle.received("same"), 1);
}

#[test]
fn concurrent_callback_copies_end_job_once() {
    let bundle = run(async |bundle| {
        let options = json!({"durationMs": 5000, "callback": {"times": 20}});
        bundle.set_render_options(SimulatedProvider::ViralSync, "copied", &options).await;
        bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "copied")).await;
    });
    assert_eq!(bundle.event_names_on_bus(), ["video.render.completed"]);
    assert_eq!(bundle.received("copied"), 1);
}
