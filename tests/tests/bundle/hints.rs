//! Callbacks that prove nothing: they are answered at once, joined and spaced, and what they
//! announce is found all the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::job::State;
use futures_util::future::join_all;
use http::{Method, Request};
use serde_json::{Value, json};
use tests::SimulatedProvider;
use tokio::time::{Instant, sleep};

use crate::checks::invariant_checker::text;
use crate::faults::fault::{Fault, PlannedFault};
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, PROVIDER_SECRET, RunSettings};
use crate::harness::functions::Function;
use crate::harness::provider_callbacks::{callback_path, hmac, post};
use crate::harness::provider_hosts::video_url;

/// The bound that senders get.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

fn assert_no_violations(bundle: &Bundle) {
    let log = bundle.checker.log().text();
    assert_eq!(bundle.checker.violations(), [""; 0], "{log}");
}

/// A running render of Shotstack that sends no callback, and the body of one about its end.
async fn running(bundle: &Arc<Bundle>, tag: &str, options: &Value) -> String {
    let mut options = options.clone();
    options["callback"] = json!({"skip": true});
    bundle.set_render_options(SimulatedProvider::Shotstack, tag, &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, tag)).await.unwrap();
    let render = text(&job(bundle), "render").to_owned();
    json!({"type": "edit", "action": "render", "id": render, "status": "done"}).to_string()
}

/// The item of the only job.
fn job(bundle: &Bundle) -> Value {
    let items = bundle.aws.table().items();
    items.into_iter().find(|item| text(item, "sk") == "job").unwrap()
}

fn state(bundle: &Bundle) -> State {
    State::from_name(text(&job(bundle), "state")).unwrap()
}

/// How often providers were asked about renders.
async fn status_calls(bundle: &Bundle) -> usize {
    let calls = bundle.control(Method::GET, "/requests", &Value::Null).await;
    let calls = calls.as_array().unwrap().iter();
    calls.filter(|call| call["method"] == "GET").count()
}

/// Posts a callback. Returns the answer and how long it took.
async fn answered(bundle: &Arc<Bundle>, request: Request<Bytes>) -> (u16, Value, Duration) {
    let begun = Instant::now();
    let seen = bundle.call(request).await;
    (seen.status, seen.body, begun.elapsed())
}

fn hints(bundle: &Bundle) -> usize {
    bundle.aws.table().items().iter().filter(|item| text(item, "sk") == "hint").count()
}

#[test]
fn slow_status_api_delays_no_answer() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let slow = json!({"durationMs": 1000, "statusDelayMs": 9000});
        let body = running(bundle, "slow", &slow).await;
        sleep(Duration::from_secs(2)).await;
        let (status, answer, took) =
            answered(bundle, post(&callback_path(bundle), &[], &body)).await;
        assert_eq!((status, answer), (200, json!({"status": "hint_stored"})));
        assert!(took < ANSWERED_WITHIN, "{took:?}");
        assert!(took > Duration::from_secs(1), "the provider had a chance: {took:?}");
        sleep(Duration::from_secs(11)).await;
        assert_eq!(state(bundle), State::Completed);
    });
    assert_no_violations(&bundle);
}

#[test]
fn lagging_status_api_is_asked_again() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let body = running(bundle, "lagging", &json!({"durationMs": 6000})).await;
        let (status, answer, _) = answered(bundle, post(&callback_path(bundle), &[], &body)).await;
        assert_eq!((status, answer), (200, json!({"status": "hint_stored"})));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(state(bundle), State::Completed, "seconds after its end");
        assert_eq!(status_calls(bundle).await, 3, "with the callback, and after 2 and 5 seconds");
    });
    assert_no_violations(&bundle);
}

#[test]
fn hints_in_parallel_cause_one_status_call() {
    for delay in [0, 1500, 9000] {
        let bundle = Bundle::run(RunSettings::default(), async |bundle| {
            let options = json!({"durationMs": 300_000, "statusDelayMs": delay});
            let body = running(bundle, "parallel", &options).await;
            let path = callback_path(bundle);
            let posts = (0..40).map(|_| answered(bundle, post(&path, &[], &body)));
            for (status, answer, took) in join_all(posts).await {
                assert_eq!((status, answer), (200, json!({"status": "hint_stored"})));
                assert!(took < ANSWERED_WITHIN, "{took:?}");
            }
            assert_eq!(status_calls(bundle).await, 1, "with the callback");
            assert_eq!(hints(bundle), 1);
            // One chain of looks, although a second callback guarded the first.
            sleep(Duration::from_secs(75) + Duration::from_millis(delay) * 2).await;
            let calls = status_calls(bundle).await;
            assert_eq!(calls, 5, "and after 2, 5, 15 and 40 seconds: {delay}");
        });
        assert_no_violations(&bundle);
    }
}

#[test]
fn hints_over_a_minute_are_spaced() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let body = running(bundle, "spaced", &json!({"durationMs": 62_000})).await;
        let path = callback_path(bundle);
        for _ in 0..40 {
            let (status, _, _) = answered(bundle, post(&path, &[], &body)).await;
            assert_eq!(status, 200);
            sleep(Duration::from_millis(1500)).await;
        }
        let calls = status_calls(bundle).await;
        // One for each ten seconds, and the first hint's quick looks.
        assert!((6..=8).contains(&calls), "{calls} in a minute");
        assert_eq!(hints(bundle), 1);
        sleep(Duration::from_secs(15)).await;
        assert_eq!(state(bundle), State::Completed, "the last hint's look finds the end");
    });
    assert_no_violations(&bundle);
}

/// The callback is the only proof of its render, and is answered 200 while the provider's API is
/// away for longer than the looks go on.
#[test]
fn hint_names_render_to_later_polls() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let options = json!({
            "durationMs": 25_000, "submitAnswer": "never", "statusCode": 503, "statusCodeTimes": 6,
        });
        bundle.set_render_options(SimulatedProvider::Shotstack, "unproved", &options).await;
        bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, "unproved")).await;
        sleep(Duration::from_secs(90)).await;
        assert_eq!(state(bundle), State::SubmitUnknown, "five looks failed");
        sleep(Duration::from_secs(190)).await;
        assert_eq!(state(bundle), State::Completed);
    });
    assert_no_violations(&bundle);
}

/// The call of the webhook's first invocation that stores the hint.
fn hint_put(bundle: &Bundle) -> (usize, usize) {
    let invocations = bundle.invocations();
    let webhook = invocations.iter().find(|it| it.function == Function::Webhook).unwrap();
    let calls = webhook.calls();
    let put = calls.iter().position(|call| call.label == "dynamodb PutItem hint").unwrap();
    (webhook.number, put)
}

#[test]
fn hint_of_dead_process_is_looked_at() {
    let run = |fault, repeat_after_ms: u64| {
        let settings = RunSettings { fault, ..RunSettings::default() };
        Bundle::run(settings, async |bundle| {
            let body = running(bundle, "dead", &json!({"durationMs": 1000})).await;
            sleep(Duration::from_secs(2)).await;
            let path = callback_path(bundle);
            let mut seen = answered(bundle, post(&path, &[], &body)).await;
            if bundle.has_fault() {
                assert_eq!(seen.0, 500);
                sleep(Duration::from_millis(repeat_after_ms)).await;
                seen = answered(bundle, post(&path, &[], &body)).await;
            }
            assert_eq!(seen.0, 200, "{}", seen.1);
            sleep(Duration::from_secs(5)).await;
            assert_eq!(state(bundle), State::Completed, "repeated after {repeat_after_ms} ms");
        })
    };
    let (number, call) = hint_put(&run(None, 0));
    for repeat_after_ms in [0, 500, 2900, 3100, 9000, 11_000] {
        let fault = PlannedFault { call, fault: Fault::DiesAfter };
        let bundle = run(Some((number, fault)), repeat_after_ms);
        assert_eq!(bundle.invocations()[number].faulted_call(), Some(call));
        assert_no_violations(&bundle);
    }
}

/// A job of ViralSync whose render has ended, without a callback.
async fn ended(bundle: &Arc<Bundle>, tag: &str, options: &Value) -> String {
    let mut options = options.clone();
    options["durationMs"] = 3000.into();
    options["callback"] = json!({"skip": true});
    bundle.set_render_options(SimulatedProvider::ViralSync, tag, &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, tag)).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    text(&job(bundle), "render").to_owned()
}

async fn signed(bundle: &Arc<Bundle>, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let proof = hmac(PROVIDER_SECRET, body.as_bytes());
    let request = post(&callback_path(bundle), &[("x-render-signature", &proof)], &body);
    let (status, answer, _) = answered(bundle, request).await;
    (status, answer)
}

#[test]
fn signed_end_without_result_is_asked_about() {
    for url in [Value::Null, json!("soon"), json!("javascript:alert(1)")] {
        let bundle = Bundle::run(RunSettings::default(), async |bundle| {
            let render = ended(bundle, "bare", &json!({})).await;
            let body = json!({"jobId": render, "status": "done", "outputUrl": url});
            assert_eq!(signed(bundle, &body).await, (200, json!({"status": "stored"})));
            assert_eq!(text(&job(bundle), "url"), video_url("bare"), "from the status call");
            assert_eq!(status_calls(bundle).await, 1);
        });
        assert_no_violations(&bundle);
    }
}

#[test]
fn signed_failure_stands_without_status_call() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let render = ended(bundle, "failed", &json!({"failWith": "no codec"})).await;
        let body = json!({"jobId": render, "status": "failed", "error": "no codec"});
        assert_eq!(signed(bundle, &body).await, (200, json!({"status": "stored"})));
        assert_eq!(state(bundle), State::Failed);
        assert_eq!(status_calls(bundle).await, 0);
    });
    assert_no_violations(&bundle);
}

#[test]
fn callback_url_answers_registration_checks() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let render = ended(bundle, "registered", &json!({})).await;
        let path = callback_path(bundle);
        let calls = bundle.aws.calls().len();
        for (method, status) in [("OPTIONS", 204), ("HEAD", 200), ("GET", 200)] {
            for path in [&path, "/v1/webhooks/zvid/a/b", "/v1/webhooks/zvid", "/v1/webhooks/no one"]
            {
                for end in ["", "/"] {
                    let path = path.replace(' ', "%20");
                    let mut request = post(&format!("{path}{end}"), &[], "");
                    *request.method_mut() = method.parse().unwrap();
                    request.headers_mut().insert("origin", "https://a.example".parse().unwrap());
                    let seen = bundle.call(request).await;
                    assert_eq!((seen.status, seen.body), (status, Value::Null), "{method} {path}");
                    assert!(seen.headers.is_empty(), "{:?}", seen.headers);
                }
            }
        }
        let mut request = post(&path, &[], "");
        *request.method_mut() = Method::DELETE;
        let seen = bundle.call(request).await;
        assert_eq!((seen.status, &seen.body["code"]), (405, &json!("method_not_allowed")));
        assert_eq!(seen.headers["allow"], "GET, HEAD, OPTIONS, POST");
        assert_eq!(bundle.aws.calls().len(), calls + 1, "a cold start reads the specs");

        // A slash at the end is no other URL.
        let url = video_url("registered");
        let body = json!({"jobId": render, "status": "done", "outputUrl": url}).to_string();
        let proof = hmac(PROVIDER_SECRET, body.as_bytes());
        let request = post(&format!("{path}/"), &[("x-render-signature", &proof)], &body);
        assert_eq!(bundle.called_back(request).await, 200);
        assert_eq!(state(bundle), State::Completed);
        assert!(!bundle.checker.log().text().contains(path.rsplit('/').next().unwrap()));
    });
    assert_no_violations(&bundle);
}
