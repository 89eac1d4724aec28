//! What becomes of jobs while the table, a queue or the bus is in trouble for minutes, and of
//! callers who are faster than each other: nobody is told yes before it is stored, and nothing
//! that was answered with yes is missing afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use http::header::RETRY_AFTER;
use serde_json::{Value, json};
use tests::Provider;

use crate::faults::fault::{Fault, Planned};
use crate::harness::backend::Order;
use crate::harness::bundle::{Bundle, Settings};
use crate::harness::functions::Function;
use crate::harness::receivers::{self, DEFAULT, Manner};

/// How long the trouble lasts.
const A_WHILE: Duration = Duration::from_secs(4 * 60);

const TABLE: &str = "dynamodb";
const QUEUES: &str = "sqs";
const BUS: &str = "events";

/// Runs a story, and sees that nothing is wrong when everything is quiet.
fn run(story: impl AsyncFnOnce(&Arc<Bundle>)) -> Arc<Bundle> {
    let bundle = Bundle::run(Settings::default(), story);
    assert_eq!(bundle.watch.violations(), [""; 0], "{}", bundle.watch.log().text());
    bundle
}

impl Bundle {
    /// Has a neighbour be away, or too busy, for a while.
    async fn in_trouble(&self, neighbour: &'static str, how: Fault) {
        self.weather.take_away(neighbour, how);
        tokio::time::sleep(A_WHILE).await;
        self.weather.bring_back(neighbour);
    }

    /// The names of the events on the bus.
    fn on_the_bus(&self) -> Vec<String> {
        self.aws.events().into_iter().map(|event| event.detail_type).collect()
    }

    /// The statuses that a provider saw of its callbacks.
    async fn callback_statuses(&self, provider: Provider) -> Vec<u64> {
        let path = format!("/renders?provider={}", provider.name());
        let renders = self.control(Method::GET, &path, &Value::Null).await;
        let callbacks = renders.pointer("/0/callbacks").and_then(Value::as_array);
        callbacks.into_iter().flatten().filter_map(|it| it["status"].as_u64()).collect()
    }
}

/// An answer that comes when a story has had the time to take something away meanwhile.
fn unhurried(status: u16) -> Manner {
    Manner { after: Duration::from_millis(1900), ..Manner::status(status) }
}

#[test]
fn callers_hear_when_to_come_back_while_the_table_is_in_trouble() {
    for how in [Fault::Lost, Fault::Busy] {
        run(async |bundle| {
            bundle.weather.take_away(TABLE, how);
            let order = Order::new(Provider::ViralSync, "early");
            let calls = [
                (Method::POST, "/v1/jobs", &order.body),
                (Method::GET, "/v1/jobs/job_00000000000000000000000000000000", &Value::Null),
                (Method::GET, "/v1/webhook-config", &Value::Null),
                (Method::POST, "/v1/deliveries/recover", &json!({"since": "2026-01-01T00:00:00Z"})),
            ];
            for (method, path, body) in calls {
                let seen = bundle.ask(method, path, Some("early"), body).await;
                assert_eq!(seen.status, 503, "{path}: {}", seen.body);
                assert_eq!(seen.body["code"], "temporarily_unavailable", "{path}");
                assert!(seen.headers.contains_key(RETRY_AFTER), "{path}");
            }
            assert!(bundle.submitted.lock().unwrap().is_empty(), "intent comes first");

            bundle.weather.bring_back(TABLE);
            let job = bundle.place(&order).await;
            assert!(job.is_some(), "the same request is taken");
        });
    }
}

#[test]
fn a_provider_calls_again_when_its_callback_could_not_be_stored() {
    for how in [Fault::Lost, Fault::Busy] {
        run(async |bundle| {
            let knobs = json!({"durationMs": 60_000, "callbackRetryMs": 60_000});
            bundle.scenario(Provider::ViralSync, "called", &knobs).await;
            bundle.place(&Order::new(Provider::ViralSync, "called")).await;
            tokio::time::sleep(Duration::from_secs(55)).await;
            bundle.in_trouble(TABLE, how).await;
            bundle.until("the webhook arrives", |it| it.received("called") > 0).await;
            let statuses = bundle.callback_statuses(Provider::ViralSync).await;
            assert!(statuses.contains(&500), "{statuses:?}");
            let odd = statuses.iter().find(|status| ![200, 500].contains(*status));
            assert_eq!(odd, None, "{statuses:?}");
        });
    }
}

#[test]
fn what_was_taken_is_not_lost_when_the_table_goes_away_at_any_moment() {
    // Minutes after the order: before its submit, at work, at its end, while it is delivered.
    for (second, how) in (0..=65).step_by(5).zip([Fault::Lost, Fault::Busy].into_iter().cycle()) {
        run(async |bundle| {
            let knobs = json!({"durationMs": 45_000, "callbackRetryMs": 20_000});
            bundle.scenario(Provider::ViralSync, "midst", &knobs).await;
            bundle.receivers.treat("midst", vec![Manner::status(500); 2]);
            let order = Order::new(Provider::ViralSync, "midst");
            let trouble = async {
                tokio::time::sleep(Duration::from_secs(second)).await;
                bundle.in_trouble(TABLE, how).await;
            };
            let (job, ()) = futures_util::join!(bundle.place(&order), trouble);
            assert!(job.is_some(), "it was taken in the end");
        });
    }
}

#[test]
fn an_attempt_is_made_again_though_no_queue_took_its_ticket() {
    let bundle = run(async |bundle| {
        bundle.receivers.treat("untold", [unhurried(500)]);
        let knobs = json!({"durationMs": 1000});
        bundle.scenario(Provider::ViralSync, "untold", &knobs).await;
        let first = async {
            bundle.until("the first attempt", |it| it.received("untold") == 1).await;
            bundle.in_trouble(QUEUES, Fault::Lost).await;
        };
        let order = Order::new(Provider::ViralSync, "untold");
        futures_util::join!(bundle.place(&order), first);
        bundle.until("the second attempt", |it| it.received("untold") == 2).await;
    });
    assert_eq!(bundle.received("untold"), 2, "and no third");
}

#[test]
fn a_first_ticket_that_no_queue_took_is_sent_by_the_poller() {
    let bundle = run(async |bundle| {
        bundle.scenario(Provider::ViralSync, "first", &json!({"durationMs": 1000})).await;
        let order = Order::new(Provider::ViralSync, "first");
        futures_util::join!(bundle.place(&order), bundle.in_trouble(QUEUES, Fault::Lost));
    });
    assert_eq!(bundle.received("first"), 1);
}

#[test]
fn the_default_receiver_is_not_passed_over_when_nobody_can_say_which_it_is() {
    let told = |fault| {
        let settings = Settings { fault, ..Settings::default() };
        let bundle = Bundle::run(settings, async |bundle| {
            let config = json!({"url": receivers::url(DEFAULT)});
            bundle.insist(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
            bundle.place(&Order::new(Provider::ViralSync, "plain").without("callbackUrl")).await;
        });
        assert_eq!(bundle.watch.violations(), [""; 0], "{}", bundle.watch.log().text());
        assert_eq!(bundle.received(DEFAULT), 1);
        bundle
    };
    let (number, call) = reading_of_the_receiver(&told(None));
    for fault in [Fault::Lost, Fault::Busy] {
        let bundle = told(Some((number, Planned { call, fault })));
        assert_eq!(bundle.invocations()[number].struck_at(), Some(call));
    }
}

/// Where whoever tells of a job's end reads who is to hear of it.
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
fn an_event_that_the_bus_did_not_take_is_put_there_later() {
    // The busy bus answers 200, and says inside that it took nothing.
    for how in [Fault::Busy, Fault::Lost] {
        let bundle = run(async |bundle| {
            bundle.scenario(Provider::ViralSync, "quiet", &json!({"durationMs": 1000})).await;
            let order = Order::new(Provider::ViralSync, "quiet");
            futures_util::join!(bundle.place(&order), bundle.in_trouble(BUS, how));
        });
        assert_eq!(bundle.on_the_bus(), ["video.render.completed"]);
        assert_eq!(bundle.received("quiet"), 1);
    }
}

#[test]
fn the_bus_hears_of_a_webhook_that_was_given_up_while_it_was_in_trouble() {
    let bundle = run(async |bundle| {
        bundle.receivers.treat("gone", [unhurried(410)]);
        bundle.scenario(Provider::ViralSync, "gone", &json!({"durationMs": 1000})).await;
        let end = async {
            bundle.until("the attempt", |it| it.received("gone") == 1).await;
            bundle.in_trouble(BUS, Fault::Busy).await;
        };
        let order = Order::new(Provider::ViralSync, "gone");
        futures_util::join!(bundle.place(&order), end);
    });
    let names: BTreeSet<String> = bundle.on_the_bus().into_iter().collect();
    let expected =
        ["video.render.completed", "webhook.delivery.exhausted", "webhook.endpoint.disabled"];
    assert_eq!(names, expected.map(str::to_owned).into());
}

#[test]
fn of_twenty_equal_requests_at_once_one_makes_a_job() {
    let bundle = run(async |bundle| {
        let order = Order::new(Provider::Zvid, "same");
        let placed = join_all((0..20).map(|_| bundle.place(&order))).await;
        let jobs: BTreeSet<String> =
            placed.into_iter().flatten().map(|it| it.to_string()).collect();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
    });
    assert_eq!(bundle.submitted.lock().unwrap().len(), 1);
    assert_eq!(bundle.on_the_bus(), ["video.render.completed"]);
    assert_eq!(bundle.received("same"), 1);
}

#[test]
fn twenty_copies_of_a_callback_at_once_end_a_job_once() {
    let bundle = run(async |bundle| {
        let knobs = json!({"durationMs": 5000, "callback": {"times": 20}});
        bundle.scenario(Provider::ViralSync, "copied", &knobs).await;
        bundle.place(&Order::new(Provider::ViralSync, "copied")).await;
    });
    assert_eq!(bundle.on_the_bus(), ["video.render.completed"]);
    assert_eq!(bundle.received("copied"), 1);
}
