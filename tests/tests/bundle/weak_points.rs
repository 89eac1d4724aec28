//! Known weak points of other senders and receivers of webhooks, each with a test that ours does
//! not have it.
//!
//! | weak point | test |
//! |---|---|
//! | a record is stored, but its message is never sent | [`unsent_message_is_sent_later`] |
//! | an idempotency key hides another body | [`idempotency_key_covers_body`] |
//! | an idempotency lock ends before its request | [`idempotency_outlasts_slow_request`] |
//! | the timeout ends with the head of the answer | [`timeout_covers_body`], [`body_is_read_within_limit`] |
//! | recovery pages by one order and sorts by another | [`recovery_finds_out_of_order_deliveries`] |
//! | the begin of a failure is only in a cache | [`failure_clock_survives_cold_start`] |
//! | retries need a store that serves another purpose | [`retries_need_only_deliveries_table`] |
//! | a redirect counts as success | [`redirect_is_not_success`] |
//! | a retry that could not be queued is only logged | [`unqueued_retry_is_made_later`] |
//! | a state has no exit | [`every_state_has_exit`] |
//! | every delivery opens a connection | [`connection_is_kept_between_deliveries`] |
//! | only the last of several signatures is verified | [`any_of_several_signatures_verifies`] |
//! | an undecodable key is used as it is | [`undecodable_key_is_refused`] |
//! | the body is verified although something else was signed | [`unsupported_signed_content_is_refused`] |
//! | a route does not call the verification | [`every_route_verifies`] |
//! | deduplication reads before it writes | [`concurrent_duplicates_are_deduplicated`] |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_in_memory::clock;
use bytes::Bytes;
use chrono::TimeDelta;
use domain::address::{ReceiverUrl, TargetPolicy};
use domain::delivery::{DeliveryState, GiveUpReason};
use domain::id::JobId;
use domain::lease::AwakePolicy;
use domain::retry::DeliverySchedule;
use domain::signature::WebhookSecret;
use domain::verifier::{Incoming, SchemeSpec, SignatureScheme, Verification};
use futures_util::FutureExt;
use http::{Method, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shared::egress::{
    Answered, Dial, Dialling, EgressLimits, Outgoing, PostOutcome, Receivers, Stream,
};
use tests::SimulatedProvider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::checks::invariant::Invariant;
use crate::checks::invariant_checker::text;
use crate::faults::fault::{Fault, PlannedFault};
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, PROVIDER_SECRET, RunSettings};
use crate::harness::functions::{Function, StackParameters, adjustments};
use crate::harness::gateway::routes;
use crate::harness::provider_callbacks::{callback_path, hmac, post};
use crate::harness::provider_hosts::video_url;
use crate::harness::receivers::PlannedAnswer;

fn with_schedule(schedule: &str, horizon: Duration) -> RunSettings {
    let parameters = StackParameters {
        shards: 1,
        schedule: DeliverySchedule::parse(schedule).unwrap(),
        adjustments: adjustments(),
        awake_policy: AwakePolicy::default(),
    };
    RunSettings { parameters, horizon, skips_idle_ticks: true, ..RunSettings::default() }
}

fn assert_no_violations(bundle: &Bundle) {
    let log = bundle.checker.log().text();
    assert_eq!(bundle.checker.violations(), [""; 0], "{log}");
}

/// The statuses that a receiver answered, the oldest first.
fn answers(bundle: &Bundle, receiver: &str) -> Vec<u16> {
    let all = bundle.receivers.received().into_iter();
    all.filter(|webhook| webhook.receiver == receiver).map(|webhook| webhook.answered).collect()
}

/// The events of this kind on the bus.
fn events_on_bus(bundle: &Bundle, kind: &str) -> Vec<Value> {
    let events = bundle.aws.events().into_iter().filter(|event| event.detail_type == kind);
    events.map(|event| serde_json::from_str(&event.detail).unwrap()).collect()
}

/// The call that sends a ticket, after a call that begins with `after`.
fn ticket_sent(bundle: &Bundle, function: Function, after: &str) -> (usize, usize) {
    let invocations = bundle.invocations();
    let found = invocations.iter().filter(|it| it.function == function).find_map(|invocation| {
        let calls = invocation.calls();
        let before = calls.iter().position(|call| call.label.starts_with(after))?;
        let sent = calls.iter().skip(before).position(|call| call.label == "sqs SendMessage")?;
        Some((invocation.number, before + sent))
    });
    found.expect("a ticket is sent")
}

#[test]
fn unsent_message_is_sent_later() {
    let run = |fault| {
        let settings = RunSettings { fault, ..RunSettings::default() };
        Bundle::run(settings, async |bundle| {
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "sent")).await;
        })
    };
    let (number, call) = ticket_sent(&run(None), Function::Webhook, "dynamodb PutItem delivery");
    for fault in [Fault::DiesBefore, Fault::Lost, Fault::Busy] {
        let bundle = run(Some((number, PlannedFault { call, fault })));
        assert_eq!(bundle.invocations()[number].faulted_call(), Some(call));
        assert_eq!(answers(&bundle, "sent"), [200], "{fault:?}");
        assert_no_violations(&bundle);
    }
}

#[test]
fn idempotency_key_covers_body() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let request = CallerRequest::new(SimulatedProvider::ViralSync, "first");
        bundle.submit(&request).await;
        let other =
            request.clone().with("payload", SimulatedProvider::ViralSync.payload("another"));
        let elsewhere = request.clone().with("callbackUrl", json!("http://shop.test/hooks/other"));
        for changed in [other, elsewhere] {
            let key = changed.key.as_deref();
            let seen = bundle.call_api(Method::POST, "/v1/jobs", key, &changed.body).await;
            assert_eq!(seen.status, 422, "{}", seen.body);
            assert_eq!(seen.body["code"], "idempotency_mismatch");
        }
        let again = bundle.call_api(Method::POST, "/v1/jobs", Some("first"), &request.body).await;
        assert_eq!(again.status, 202, "the same request is welcome");
    });
    assert_eq!(bundle.submitted.lock().unwrap().len(), 1, "one render was submitted");
    assert_no_violations(&bundle);
}

#[test]
fn idempotency_outlasts_slow_request() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        // Longer than such locks usually last.
        let slow = json!({"submitDelayMs": 12_000, "durationMs": 30_000});
        bundle.set_render_options(SimulatedProvider::ViralSync, "slow", &slow).await;
        let request = CallerRequest::new(SimulatedProvider::ViralSync, "slow");
        let asked = (0..20).map(|number| {
            let (bundle, request) = (Arc::clone(bundle), request.clone());
            async move {
                sleep(Duration::from_millis(600 * number)).await;
                bundle.submit(&request).await
            }
        });
        let jobs_made = futures_util::future::join_all(asked).await;
        assert!(jobs_made.iter().all(Option::is_some), "{jobs_made:?}");
        let jobs: BTreeSet<String> = jobs_made.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(jobs.len(), 1, "all answers name the same job");
    });
    assert_eq!(bundle.submitted.lock().unwrap().len(), 1, "one render was submitted");
    assert_no_violations(&bundle);
}

/// A receiver that sends `head`, then sends `then` after each pause without an end.
struct Endless {
    head: &'static str,
    then: Vec<u8>,
    pause: Duration,
    sent: Arc<AtomicUsize>,
}

/// The capacity of the connection in bytes.
const PIPE: usize = 16 * 1024;

impl Dial for Endless {
    fn dial(&self, _: Uri) -> Dialling {
        let (ours, mut theirs) = tokio::io::duplex(PIPE);
        let (head, then, pause) = (self.head, self.then.clone(), self.pause);
        let sent = Arc::clone(&self.sent);
        tokio::spawn(async move {
            drop(theirs.read(&mut [0; 4096]).await);
            drop(theirs.write_all(head.as_bytes()).await);
            while let Ok(()) = theirs.write_all(&then).await {
                sent.fetch_add(then.len(), Ordering::SeqCst);
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        });
        std::future::ready(Ok(Box::new(TokioIo::new(ours)) as Box<dyn Stream>)).boxed()
    }
}

/// The results of posts through a network.
async fn posted(network: Arc<dyn Dial>, times: usize) -> Vec<Answered> {
    let policy = TargetPolicy::local_use();
    let receivers = Receivers::through(network, policy.clone(), EgressLimits::default()).unwrap();
    let url = ReceiverUrl::parse("http://shop.test/hooks", &policy).unwrap();
    let mut all = Vec::new();
    for _ in 0..times {
        let body = Bytes::from_static(b"{}");
        all.push(receivers.post(Outgoing { url: &url, headers: Vec::new(), body }).await);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn timeout_covers_body() {
    let second = Duration::from_secs(1);
    for (head, then, drips) in [
        ("HTTP/1.1 500 Slow\r\ncontent-length: 1000000\r\n\r\n", "y", "a body"),
        ("HTTP/1.1 200 OK\r\nx-drip: ", "y", "a head"),
        ("", "", "nothing"),
    ] {
        let then = then.as_bytes().to_vec();
        let network = Endless { head, then, pause: second, sent: Arc::default() };
        let begun = Instant::now();
        let answered = posted(Arc::new(network), 1).await;
        let took = begun.elapsed();
        assert_eq!(took.as_secs(), 15, "{drips} drips: {:?}", answered[0].outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn body_is_read_within_limit() {
    let sent = Arc::new(AtomicUsize::new(0));
    // A gigabyte, as fast as it is read.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
    let then = vec![b'y'; 1024];
    let network = Endless { head, then, pause: Duration::ZERO, sent: Arc::clone(&sent) };
    let answered = posted(Arc::new(network), 1).await;
    let PostOutcome::Answer(answer) = &answered[0].outcome else { panic!("{answered:?}") };
    assert_eq!((answer.status.as_u16(), answer.excerpt.len()), (200, 1024));
    let limits = EgressLimits::default();
    // The read limit, the client's buffer and the connection's capacity.
    let most = limits.body + 4 * PIPE + 128 * 1024;
    assert!(sent.load(Ordering::SeqCst) <= most, "{sent:?} bytes of it were taken");
}

#[test]
fn recovery_finds_out_of_order_deliveries() {
    let bundle = Bundle::run(with_schedule("0,5", Duration::from_secs(3 * 3600)), async |bundle| {
        let tags: Vec<String> = (0..7).map(|number| format!("lost-{number}")).collect();
        for tag in &tags {
            bundle.receivers.always_answer(tag, 500);
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, tag)).await;
        }
        let all_failed = |it: &Bundle| tags.iter().all(|tag| it.received(tag) == 2);
        bundle.until("all are given up", |it| it.is_quiet() && all_failed(it)).await;
        let given_up = bundle.receivers.received();
        let ids: Vec<&str> = given_up.iter().map(|webhook| webhook.id.as_str()).collect();
        assert!(!ids.is_sorted(), "their ids say nothing of when they were created");

        let mut recover = json!({"since": "2026-01-01T00:00:00Z", "limit": 2});
        let mut queued = 0;
        for page in 0.. {
            // Some receivers accept again in between, the others fail once more.
            tags.iter().take(page * 2 + 1).for_each(|tag| bundle.receivers.accept_again(tag));
            let seen =
                bundle.call_api(Method::POST, "/v1/deliveries/recover", None, &recover).await;
            assert_eq!(seen.status, 202, "{}", seen.body);
            queued += seen.body["queued"].as_u64().unwrap();
            if seen.body["next"].is_null() {
                break;
            }
            recover["cursor"] = seen.body["next"].clone();
        }
        assert_eq!(queued, 7, "none is missed, and none is taken twice");
        tags.iter().for_each(|tag| bundle.receivers.accept_again(tag));
        bundle
            .until("all are delivered", |it| {
                tags.iter().all(|tag| answers(it, tag).last() == Some(&200))
            })
            .await;
    });
    assert_no_violations(&bundle);
}

#[test]
fn failure_clock_survives_cold_start() {
    // Every half day, for longer than the five days after which an endpoint is disabled.
    let schedule = format!("0{}", ",43200".repeat(14));
    let day = Duration::from_secs(24 * 3600);
    let bundle = Bundle::run(with_schedule(&schedule, 8 * day), async |bundle| {
        bundle.receivers.always_answer("dead", 500);
        let job =
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "dead")).await.unwrap();
        // No process lives longer than an hour.
        while events_on_bus(bundle, "webhook.endpoint.disabled").is_empty() {
            sleep(Duration::from_secs(3600)).await;
            bundle.end_warm_processes();
            assert!(bundle.received("dead") < 15, "it is never disabled");
        }
        let webhooks = bundle.receivers.received();
        let failing = webhooks.last().unwrap().at - webhooks[0].at;
        assert!(failing >= TimeDelta::days(5), "{failing}");
        assert!(failing <= TimeDelta::days(6), "{failing}");
        let delivery = bundle.aws.store().deliveries(&job).await.unwrap().pop().unwrap();
        let DeliveryState::Exhausted(given_up) = delivery.state else { panic!("{delivery:?}") };
        assert_eq!(given_up.reason, GiveUpReason::EndpointDisabled);
    });
    assert_eq!(events_on_bus(&bundle, "webhook.endpoint.disabled")[0]["reason"], "failing");
    assert_no_violations(&bundle);
}

#[test]
fn retries_need_only_deliveries_table() {
    // The bus has an outage from the first attempt until after the last. The schedule continues,
    // and the exhaustion is published afterwards.
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        bundle.receivers.always_answer("unseen", 500);
        bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "unseen")).await;
        bundle.until("it fails", |it| it.received("unseen") == 1).await;
        bundle.random_faults.start_outage("events", Fault::Lost);
        sleep(Duration::from_secs(1800)).await;
        let at: Vec<_> = bundle.receivers.received().iter().map(|webhook| webhook.at).collect();
        let waits = [5, 60, 1200].map(TimeDelta::seconds);
        assert_eq!(at.len(), 4, "{}: {at:?}", Invariant::IndependentRetries);
        for (gap, wait) in at.windows(2).map(|two| two[1] - two[0]).zip(waits) {
            assert!(gap >= wait && gap <= wait + wait / 10 + TimeDelta::seconds(2), "{gap}");
        }
        assert_eq!(events_on_bus(bundle, "webhook.delivery.exhausted"), [Value::Null; 0]);
        bundle.random_faults.end_outage("events");
        bundle
            .until("its end is published", |it| {
                !events_on_bus(it, "webhook.delivery.exhausted").is_empty()
            })
            .await;
    });
    assert_no_violations(&bundle);

    // Attempts need only the deliveries' table. During its outage nothing is sent, and nothing is
    // lost.
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        bundle
            .receivers
            .set_behaviors("later", [PlannedAnswer::status(500), PlannedAnswer::status(500)]);
        bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "later")).await;
        bundle.until("it fails", |it| it.received("later") == 1).await;
        sleep(Duration::from_secs(2)).await;
        bundle.random_faults.start_outage("dynamodb", Fault::Lost);
        sleep(Duration::from_secs(2 * 3600)).await;
        assert_eq!(bundle.received("later"), 1, "{}", Invariant::IndependentRetries);
        bundle.random_faults.end_outage("dynamodb");
        bundle.until("it is delivered", |it| it.received("later") == 3).await;
    });
    assert_eq!(answers(&bundle, "later"), [500, 500, 200]);
    assert_no_violations(&bundle);
}

#[test]
fn redirect_is_not_success() {
    let redirects = [300, 301, 302, 303, 304, 305, 307, 308];
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        for status in redirects {
            let receiver = format!("moved-{status}");
            bundle.receivers.set_behaviors(&receiver, [PlannedAnswer::status(status)]);
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, &receiver)).await;
        }
    });
    for status in redirects {
        assert_eq!(answers(&bundle, &format!("moved-{status}")), [status, 200]);
    }
    assert_no_violations(&bundle);
}

#[test]
fn unqueued_retry_is_made_later() {
    let run = |fault| {
        let settings = RunSettings { fault, ..RunSettings::default() };
        Bundle::run(settings, async |bundle| {
            bundle.receivers.set_behaviors("retried", [PlannedAnswer::status(500)]);
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "retried")).await;
        })
    };
    let (number, call) = ticket_sent(&run(None), Function::Deliver, "shop.test POST");
    for fault in [Fault::Lost, Fault::Busy, Fault::DiesBefore] {
        let bundle = run(Some((number, PlannedFault { call, fault })));
        assert_eq!(bundle.invocations()[number].faulted_call(), Some(call));
        assert_eq!(answers(&bundle, "retried"), [500, 200], "{fault:?}");
        assert_no_violations(&bundle);
    }
}

#[test]
fn every_state_has_exit() {
    let run = |fault| {
        let settings = with_schedule("0,5", Duration::from_secs(3 * 3600));
        Bundle::run(RunSettings { fault, ..settings }, async |bundle| {
            bundle.receivers.always_answer("refusing", 500);
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "refusing")).await;
        })
    };
    // The process dies at each of its calls in turn.
    let calm = run(None);
    let mut left_behind = BTreeSet::new();
    for invocation in calm.invocations() {
        if invocation.function != Function::Deliver {
            continue;
        }
        for call in 0..invocation.calls().len() {
            let planned = PlannedFault { call, fault: Fault::DiesAfter };
            let bundle = run(Some((invocation.number, planned)));
            assert_eq!(bundle.invocations()[invocation.number].faulted_call(), Some(call));
            assert_no_violations(&bundle);
            let end = events_on_bus(&bundle, "webhook.delivery.exhausted");
            let ids: BTreeSet<String> = end.iter().map(|it| it["eventId"].to_string()).collect();
            assert_eq!(ids.len(), 1, "call {call}");
            left_behind.insert(invocation.calls()[call].label.clone());
        }
    }
    let attempt = ["dynamodb GetItem delivery", "dynamodb PutItem delivery", "events PutEvents"];
    for label in attempt {
        assert!(left_behind.iter().any(|it| it.starts_with(label)), "{label}: {left_behind:?}");
    }
}

#[test]
fn connection_is_kept_between_deliveries() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        for number in 0..20 {
            bundle
                .submit(&CallerRequest::new(
                    SimulatedProvider::ViralSync,
                    &format!("kept-{number:02}"),
                ))
                .await;
            let count = number + 1;
            bundle.until("it is delivered", |it| it.receivers.received().len() == count).await;
        }
    });
    assert_eq!(bundle.checker.connections("shop.test"), 1, "for twenty webhooks in a row");
    assert_no_violations(&bundle);
}

/// The form of most senders: a time and signatures as pairs in one header.
fn pairs() -> SignatureScheme {
    let scheme = json!({
        "method": {"kind": "hmac", "hash": "sha256"},
        "carrier": {"kind": "pairs", "header": "x-signature", "separator": ",", "keys": ["v1"]},
        "encoding": "hex",
        "key": {"form": "text"},
        "content": "{timestamp}.{body}",
        "timestamp": {
            "place": {"kind": "key", "key": "t"}, "unit": "seconds", "maxAgeSeconds": 300,
        },
    });
    SignatureScheme::try_from(serde_json::from_value::<SchemeSpec>(scheme).unwrap()).unwrap()
}

/// HMAC-SHA256, as hex.
#[tokio::test(start_paused = true)]
async fn any_of_several_signatures_verifies() {
    let (scheme, now, body) = (pairs(), clock::now(), b"{}");
    let time = now.timestamp();
    let signed = |key| hmac(key, format!("{time}.{{}}").as_bytes());
    let (old, new, strange) = (signed("old"), signed("new"), signed("a stranger's"));
    // During a rotation the sender signs with both secrets, and the receiver knows one or both.
    for (ours, header) in [
        ("new", format!("t={time},v1={new},v1={old}")),
        ("old", format!("t={time},v1={new},v1={old}")),
        ("new", format!("t={time},v1={old},v1={new},v1={strange}")),
        ("old,new", format!("t={time},v1={strange},v1={new}")),
    ] {
        let headers = [("x-signature", header.as_bytes())];
        let secrets = scheme.parse_secrets(ours).unwrap();
        let verification = scheme.verify(&Incoming { headers: &headers, body }, &secrets, now);
        assert!(
            matches!(verification, Verification::Verified { .. }),
            "{ours} of {header}: {verification:?}"
        );
    }
    let header = format!("t={time},v1={strange},v1={strange}");
    let headers = [("x-signature", header.as_bytes())];
    let secrets = scheme.parse_secrets("old,new").unwrap();
    let verification = scheme.verify(&Incoming { headers: &headers, body }, &secrets, now);
    assert!(matches!(verification, Verification::Invalid(_)), "{verification:?}");
}

#[test]
fn undecodable_key_is_refused() {
    let scheme = json!({
        "method": {"kind": "hmac", "hash": "sha256"},
        "carrier": {"kind": "list", "header": "webhook-signature", "prefix": "v1,"},
        "encoding": "base64",
        "key": {"form": "encoded", "encoding": "base64", "prefix": "whsec_"},
        "content": "{body}",
    });
    let scheme = serde_json::from_value::<SchemeSpec>(scheme).unwrap();
    let scheme = SignatureScheme::try_from(scheme).unwrap();
    let good = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert!(scheme.parse_secrets(good).is_ok());
    let bad = ["whsec_!!", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_", "MfKQ9r8G"];
    for bad in bad {
        assert!(scheme.parse_secrets(bad).is_err(), "{bad} of a sender");
        assert!(WebhookSecret::parse(bad).is_err(), "{bad} of ours");
    }
}

#[test]
fn unsupported_signed_content_is_refused() {
    // A sender that signs the URL and form fields cannot be described. Its callbacks are hints,
    // and no scheme may verify their body instead.
    for content in ["{url}", "{url}{params}", "{url}{body}", "{method} {body}", "{body}{", ""] {
        let mut scheme = json!({
            "method": {"kind": "hmac", "hash": "sha1"},
            "carrier": {"kind": "header", "header": "x-signature"},
            "encoding": "base64",
            "key": {"form": "text"},
        });
        scheme["content"] = json!(content);
        let scheme = serde_json::from_value::<SchemeSpec>(scheme).map_err(|it| it.to_string());
        let scheme =
            scheme.and_then(|spec| SignatureScheme::try_from(spec).map_err(|it| it.to_string()));
        assert!(scheme.is_err(), "{content}");
    }
}

/// A job whose render sends no callback, and the body of a callback about its end.
async fn silent(bundle: &Arc<Bundle>, tag: &str) -> (JobId, String) {
    let options = json!({"durationMs": 5000, "callback": {"skip": true}});
    bundle.set_render_options(SimulatedProvider::ViralSync, tag, &options).await;
    let job = bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, tag)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let item = bundle.aws.table().item(&format!("job#{job}"), "job").unwrap();
    let body = json!({
        "jobId": text(&item, "render"),
        "status": "done",
        "progress": 1.0,
        "outputUrl": video_url(tag),
        "timestamp": clock::now().to_rfc3339(),
    });
    (job, body.to_string())
}

#[test]
fn every_route_verifies() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let (job, body) = silent(bundle, "forged").await;
        let path = callback_path(bundle);
        let table = || {
            let items = bundle.aws.table().items().into_iter();
            // The other items belong to the poller.
            let ours = |item: &Value| text(item, "pk").starts_with("job#");
            items.filter(ours).collect::<Vec<_>>()
        };
        let before = table();
        for (method, pattern, function) in routes() {
            // These providers call back to the URL of a job or of an account.
            let provider = if pattern.contains("{token}") { "viralsync" } else { "renderio" };
            let path = pattern
                .replace("{provider}", provider)
                .replace("{jobId}", job.as_str())
                .replace("{token}", "a-guess")
                .replace("{proxy+}", &format!("viralsync/{job}/a-guess/"));
            let method = if method == "ANY" { "POST" } else { method };
            for authorization in [None, Some("Bearer rr_a-guess"), Some("Basic cnI6cnI=")] {
                let mut request = post(&path, &[], &body);
                *request.method_mut() = method.parse().unwrap();
                if let Some(value) = authorization {
                    let name = http::header::AUTHORIZATION;
                    request.headers_mut().insert(name, value.parse().unwrap());
                }
                let seen = bundle.call(request).await;
                assert_eq!(seen.status, 401, "{method} {pattern} ({function:?}): {}", seen.body);
            }
        }
        // The right token with no signature or a wrong one.
        let signed_by_another = hmac("a-guess", body.as_bytes());
        let signed_else = hmac(PROVIDER_SECRET, b"something else");
        for signature in ["", "NO_SECRET_PROVIDED", &signed_by_another, &signed_else] {
            let request = post(&path, &[("x-render-signature", signature)], &body);
            assert_eq!(bundle.call(request).await.status, 401, "{signature}");
        }
        assert_eq!(bundle.call(post(&path, &[], &body)).await.status, 401);
        assert_eq!(table(), before, "nothing is changed");

        let proof = hmac(PROVIDER_SECRET, body.as_bytes());
        let request = post(&path, &[("x-render-signature", &proof)], &body);
        assert_eq!(bundle.called_back(request).await, 200);
    });
    assert_no_violations(&bundle);
}

#[test]
fn concurrent_duplicates_are_deduplicated() {
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        let (_, body) = silent(bundle, "hundredfold").await;
        let path = callback_path(bundle);
        let proof = hmac(PROVIDER_SECRET, body.as_bytes());
        let copies = (0..100)
            .map(|_| bundle.called_back(post(&path, &[("x-render-signature", &proof)], &body)));
        let seen = futures_util::future::join_all(copies).await;
        assert!(seen.iter().all(|status| *status == 200), "{seen:?}");
    });
    assert_eq!(answers(&bundle, "hundredfold"), [200], "one webhook");
    assert_eq!(events_on_bus(&bundle, "video.render.completed").len(), 1, "one event");
    assert_no_violations(&bundle);
}
