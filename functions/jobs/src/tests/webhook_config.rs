//! The webhook configuration: what is shown, what is kept where, and what a crash or a race
//! leaves of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use aws_in_memory::{InMemoryAws, clock};
use domain::event::EventName;
use domain::signature::{LEAD, SigningSecrets, WebhookSecret};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::secrets::SecretName;
use shared::store::Consistency;
use tokio::sync::Notify;
use tokio::time::advance;

use super::*;

const PUT: &str = include_str!("../../../../events/jobs-put-webhook-config.json");
const ROTATE: &str = include_str!("../../../../events/jobs-rotate-secret.json");
const URL: &str = "https://shop.example/hooks";

fn request(event: &str, route: &str, body: Option<&Value>) -> ApiGatewayV2httpRequest {
    let mut event: Value = serde_json::from_str(event).unwrap();
    event["routeKey"] = route.into();
    event["body"] = body.map_or(Value::Null, |body| body.to_string().into());
    serde_json::from_value(event).unwrap()
}

async fn asked(aws: &InMemoryAws, route: &str, body: Option<&Value>) -> (i64, Value) {
    answered(aws, request(PUT, route, body)).await
}

async fn answered(aws: &InMemoryAws, request: ApiGatewayV2httpRequest) -> (i64, Value) {
    let jobs = started(aws);
    let response = handle(&jobs, request.into(), clock::now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

async fn put(aws: &InMemoryAws, body: Value) -> (i64, Value) {
    asked(aws, "PUT /v1/webhook-config", Some(&body)).await
}

async fn rotate(aws: &InMemoryAws, body: Value) -> (i64, Value) {
    asked(aws, "POST /v1/webhook-config/rotate-secret", Some(&body)).await
}

async fn shown(aws: &InMemoryAws) -> Value {
    let (status, shown) = asked(aws, "GET /v1/webhook-config", None).await;
    assert_eq!(status, 200, "{shown}");
    shown
}

/// What `deliver` would sign with.
fn stored(aws: &InMemoryAws) -> SigningSecrets {
    SigningSecrets::parse(&aws.parameter("webhook-secrets").unwrap()).unwrap()
}

fn in_force(aws: &InMemoryAws) -> Vec<WebhookSecret> {
    stored(aws).in_force(clock::now()).map(|stored| stored.secret.clone()).collect()
}

/// All headers that SSM has.
async fn stored_headers(aws: &InMemoryAws) -> Vec<String> {
    let all = aws.parameters().into_iter();
    let headers = all.filter(|(name, _)| name.contains("/webhook-headers/"));
    let texts = headers.map(|(_, text)| {
        let text: Value = serde_json::from_str(&text).unwrap();
        text["headers"].to_string()
    });
    texts.collect()
}

/// Until a secret made by a rotation is in force.
async fn lead() {
    advance(LEAD.to_std().unwrap()).await;
}

fn secret(answer: &Value) -> WebhookSecret {
    WebhookSecret::parse(answer["secret"].as_str().unwrap()).unwrap()
}

/// With a receiver, and the secret that came with it.
async fn configured() -> (InMemoryAws, WebhookSecret) {
    let aws = with_key().await;
    let (status, config) = put(&aws, json!({"url": URL})).await;
    assert_eq!(status, 200, "{config}");
    (aws, secret(&config))
}

#[tokio::test(start_paused = true)]
async fn webhook_secret_is_shown_once() {
    let aws = with_key().await;
    let (status, first) = answered(&aws, serde_json::from_str(PUT).unwrap()).await;
    assert_eq!(status, 200, "{first}");
    let made = secret(&first);
    assert_eq!(in_force(&aws), [made]);
    let at = domain::time::text(clock::now());
    let expected = json!({
        "url": URL,
        "events": ["video.render.completed", "video.render.failed"],
        "headerNames": ["authorization"],
        "secrets": [{"type": "v1", "publicKey": null, "createdAt": at, "expiresAt": null}],
        "maxInFlight": null,
        "ratePerSecond": null,
        "endpoint": first["endpoint"],
        "updatedAt": at,
    });
    let mut without = first.clone();
    without.as_object_mut().unwrap().remove("secret");
    assert_eq!(without, expected);
    assert_eq!(shown(&aws).await, expected);
    let (_, again) = answered(&aws, serde_json::from_str(PUT).unwrap()).await;
    assert_eq!(again.get("secret"), None);
}

#[tokio::test(start_paused = true)]
async fn table_holds_no_secrets_or_headers() {
    let aws = with_key().await;
    let (_, first) = answered(&aws, serde_json::from_str(PUT).unwrap()).await;
    let (_, second) = rotate(&aws, json!({"type": "v1"})).await;
    let items = format!("{:?}", aws.table().items());
    assert!(items.contains(URL), "{items}");
    for hidden in [first["secret"].as_str(), second["secret"].as_str(), Some("gateway-example")] {
        assert!(!items.contains(hidden.unwrap()), "invariant 5: {items}");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_are_deleted_with_their_receiver() {
    let aws = with_key().await;
    put(&aws, json!({"url": URL, "headers": {"X-Key": "one"}})).await;
    assert_eq!(stored_headers(&aws).await, [r#"{"x-key":"one"}"#]);
    put(&aws, json!({"url": URL})).await;
    assert!(stored_headers(&aws).await.is_empty());
    assert_eq!(shown(&aws).await["headerNames"], json!([]));

    put(&aws, json!({"url": URL, "headers": {"X-Key": "two"}})).await;
    let (status, gone) = asked(&aws, "DELETE /v1/webhook-config", None).await;
    assert_eq!((status, gone), (200, json!({"url": null})));
    assert!(stored_headers(&aws).await.is_empty());
    assert_eq!(in_force(&aws).len(), 1, "jobs with a callbackUrl still need the secret");
    assert_eq!(asked(&aws, "GET /v1/webhook-config", None).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn invalid_configuration_changes_nothing() {
    let (aws, _) = configured().await;
    let before = shown(&aws).await;
    for (body, status, code, field) in [
        (json!({"url": URL, "headers": {"Host": "x"}}), 422, "invalid_header", "headers"),
        (json!({"url": URL, "headers": {"x": "a\r\nb: c"}}), 422, "invalid_header", "headers"),
        (json!({"url": "http://shop.example/"}), 422, "invalid_webhook_url", "url"),
        (json!({}), 422, "missing_field", "url"),
        (json!({"url": URL, "events": ["webhook.test"]}), 422, "invalid_field", "events"),
        (json!({"url": URL, "event": []}), 422, "invalid_field", "event"),
    ] {
        let (answered, problem) = put(&aws, body).await;
        assert_eq!((answered, &problem["code"]), (status, &code.into()), "{problem}");
        assert_eq!(problem["field"], field);
    }
    let (status, problem) = put(&aws, json!([])).await;
    assert_eq!((status, &problem["code"]), (400, &"malformed_json".into()));
    assert_eq!(shown(&aws).await, before);
}

#[tokio::test(start_paused = true)]
async fn rotation_keeps_old_secret_a_day() {
    let (aws, old) = configured().await;
    let created = domain::time::text(clock::now());
    advance(Duration::from_secs(5)).await;
    let (status, answer) = rotate(&aws, json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let new = secret(&answer);
    assert_eq!(
        in_force(&aws),
        std::slice::from_ref(&old),
        "until every process has read the new one"
    );
    let begin = domain::time::text(clock::now() + LEAD);
    assert_eq!(answer["createdAt"], begin);
    let end = domain::time::text(clock::now() + LEAD + chrono::TimeDelta::days(1));
    let expected = json!([
        {"type": "v1", "publicKey": null, "createdAt": begin, "expiresAt": null},
        {"type": "v1", "publicKey": null, "createdAt": created, "expiresAt": end},
    ]);
    assert_eq!((&answer["type"], &answer["secrets"]), (&"v1".into(), &expected));
    assert_eq!(shown(&aws).await["secrets"], expected);
    lead().await;
    assert_eq!(in_force(&aws), [new.clone(), old]);
    advance(Duration::from_secs(86_400)).await;
    assert_eq!(in_force(&aws), [new]);
    assert_eq!(shown(&aws).await["secrets"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn private_key_is_not_shown() {
    let (aws, old) = configured().await;
    let (status, answer) = answered(&aws, serde_json::from_str(ROTATE).unwrap()).await;
    assert_eq!((status, &answer["type"]), (200, &"v1a".into()), "{answer}");
    lead().await;
    let [new, before] = <[_; 2]>::try_from(in_force(&aws)).unwrap();
    assert_eq!((before, answer.get("secret")), (old, None));
    assert_eq!(answer["publicKey"], new.public_key().unwrap());
    for shown in [answer, shown(&aws).await] {
        assert!(!shown.to_string().contains("whsk_"), "{shown}");
    }
    // The next one signs as this one does, unless the request says otherwise.
    let (_, next) = rotate(&aws, json!({})).await;
    assert_eq!(next["type"], "v1a");
}

#[tokio::test(start_paused = true)]
async fn own_secret_is_not_shown_back() {
    let (aws, old) = configured().await;
    let brought = json!({"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"});
    for _ in 0..2 {
        let (status, answer) = rotate(&aws, brought.clone()).await;
        assert_eq!((status, answer.get("secret")), (200, None), "{answer}");
        lead().await;
        assert_eq!(in_force(&aws).len(), 2);
    }
    assert_eq!(in_force(&aws)[0].reveal(), brought["secret"]);
    let (_, back) = rotate(&aws, json!({"secret": old.reveal(), "gracePeriodSeconds": 0})).await;
    assert_eq!(back["secrets"].as_array().unwrap().len(), 2, "{back}");
    lead().await;
    assert_eq!(in_force(&aws), [old], "rolled back");
}

#[tokio::test(start_paused = true)]
async fn eleventh_secret_is_refused() {
    let (aws, _) = configured().await;
    for _ in 1..10 {
        assert_eq!(rotate(&aws, json!({})).await.0, 200);
    }
    let before = stored(&aws);
    let (status, problem) = rotate(&aws, json!({})).await;
    assert_eq!((status, &problem["code"]), (409, &"too_many_secrets".into()));
    let end = domain::time::text(clock::now() + LEAD + chrono::TimeDelta::days(1));
    assert!(problem["detail"].as_str().unwrap().contains(&end), "{problem}");
    assert_eq!(stored(&aws), before);
    let newest = before.unended(clock::now()).next().unwrap().secret.reveal();
    let ends_the_others = json!({"secret": newest, "gracePeriodSeconds": 0});
    assert_eq!(rotate(&aws, ends_the_others).await.0, 200);
    lead().await;
    assert_eq!(rotate(&aws, json!({})).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn rotation_error_hides_the_secret() {
    let (aws, old) = configured().await;
    for (body, code) in [
        (json!({"secret": "whsec_aGlkZGVu"}), "invalid_field"),
        (json!({"secret": ["whsec_aGlkZGVu"]}), "invalid_field"),
        (json!({"type": "whsec_aGlkZGVu"}), "invalid_field"),
        (json!({"gracePeriodSeconds": 604_801}), "invalid_field"),
    ] {
        let (status, problem) = rotate(&aws, body).await;
        assert_eq!((status, &problem["code"]), (422, &code.into()), "{problem}");
        assert!(!problem.to_string().contains("aGlkZGVu"), "invariant 5: {problem}");
    }
    assert_eq!(in_force(&aws), [old]);
    let (status, problem) = rotate(&with_key().await, json!({})).await;
    assert_eq!((status, &problem["code"]), (409, &"webhook_not_configured".into()));
}

/// What is stored today has neither times nor an end.
#[tokio::test(start_paused = true)]
async fn manually_stored_secrets_rotate() {
    let by_hand = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let (aws, _) = configured().await;
    aws.set_parameter("webhook-secrets", by_hand);
    assert_eq!(shown(&aws).await["secrets"][0]["createdAt"], Value::Null);
    rotate(&aws, json!({"gracePeriodSeconds": 60})).await;
    assert_eq!(in_force(&aws)[0].reveal(), by_hand);
    lead().await;
    assert_eq!(in_force(&aws)[1].reveal(), by_hand);
}

/// Kills the process at its `n`th call: before it is made, or after.
#[derive(Debug)]
struct Dies {
    at: usize,
    after: bool,
    calls: AtomicUsize,
    dead: Arc<Notify>,
}

impl CallInterceptor for Dies {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        async move {
            if self.calls.fetch_add(1, Ordering::SeqCst) != self.at {
                return Injected::Answered.into();
            }
            let dead = Arc::clone(&self.dead);
            let die = async move {
                dead.notify_one();
                std::future::pending::<()>().await;
            };
            if self.after {
                return Interception { injected: Injected::Answered, then: die.boxed() };
            }
            die.await;
            Injected::Lost.into()
        }
        .boxed()
    }
}

/// Makes a request until its process dies at a call. Whether the process came to its end.
async fn until_it_dies(
    aws: &InMemoryAws,
    at: usize,
    after: bool,
    (route, body): (&str, Option<&Value>),
) -> bool {
    let dead = Arc::new(Notify::new());
    let interceptor = Dies { at, after, calls: AtomicUsize::new(0), dead: Arc::clone(&dead) };
    let process = aws.seen_by(Arc::new(interceptor));
    let lives = async {
        let (status, answer) = asked(&process, route, body).await;
        assert_eq!(status, 200, "{answer}");
    };
    tokio::select! {
        biased;
        () = lives => true,
        () = dead.notified() => false,
    }
}

#[tokio::test(start_paused = true)]
async fn rotation_survives_crash_at_any_call() {
    let mut crashes = 0;
    for after in [false, true] {
        for at in 0.. {
            let (aws, old) = configured().await;
            let body = json!({"gracePeriodSeconds": 3600});
            let route = "POST /v1/webhook-config/rotate-secret";
            if until_it_dies(&aws, at, after, (route, Some(&body))).await {
                break;
            }
            crashes += 1;
            // Receivers that know the old secret still verify what is signed now.
            assert!(in_force(&aws).contains(&old), "call {at}, after: {after}");
            // The lock of the crashed call expires in less than a minute.
            advance(Duration::from_secs(45)).await;
            let (status, answer) = rotate(&aws, json!({})).await;
            assert_eq!(status, 200, "call {at}, after: {after}: {answer}");
            lead().await;
            assert_eq!(in_force(&aws)[0], secret(&answer));
            assert!(in_force(&aws).contains(&old));
        }
    }
    assert!(crashes >= 10, "{crashes} calls");
}

/// Holds the first write of the secrets until the test lets it go on.
#[derive(Debug, Default)]
struct Waits {
    there: Arc<Notify>,
    go_on: Arc<Notify>,
    done: Mutex<bool>,
}

impl CallInterceptor for Waits {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        async move {
            if call.what == "PutParameter"
                && !std::mem::replace(&mut *self.done.lock().unwrap(), true)
            {
                self.there.notify_one();
                self.go_on.notified().await;
            }
            Injected::Answered.into()
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_rotations_lose_no_secret() {
    let (aws, old) = configured().await;
    let interceptor = Arc::new(Waits::default());
    let slow = aws.seen_by(interceptor.clone());
    let both = async {
        interceptor.there.notified().await;
        let (status, problem) = rotate(&aws, json!({})).await;
        assert_eq!((status, &problem["code"]), (409, &"change_in_progress".into()));
        let (status, problem) = put(&aws, json!({"url": URL})).await;
        assert_eq!((status, &problem["code"]), (409, &"change_in_progress".into()));
        interceptor.go_on.notify_one();
    };
    let ((status, first), ()) = tokio::join!(rotate(&slow, json!({})), both);
    assert_eq!(status, 200, "{first}");
    let (status, second) = rotate(&aws, json!({})).await;
    assert_eq!(status, 200, "{second}");
    lead().await;
    assert_eq!(in_force(&aws), [secret(&second), secret(&first), old]);
}

/// Answers reads of the secrets with what was there before.
#[derive(Debug)]
struct Stale(Value);

impl CallInterceptor for Stale {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let name = call.body["Names"][0].as_str().unwrap_or_default();
        let stale = call.what == "GetParameters" && name.ends_with("webhook-secrets");
        let mut parameter = self.0.clone();
        parameter["Name"] = name.into();
        let injected = match stale {
            true => Injected::Refused(200, json!({"Parameters": [parameter]})),
            false => Injected::Answered,
        };
        std::future::ready(injected.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn stale_read_loses_no_secret() {
    let (aws, _) = configured().await;
    let before = aws.parameter("webhook-secrets").unwrap();
    rotate(&aws, json!({})).await;
    let late = aws.seen_by(Arc::new(Stale(json!({"Value": before, "Version": 1}))));
    let (status, problem) = rotate(&late, json!({})).await;
    assert_eq!((status, &problem["code"]), (503, &"temporarily_unavailable".into()));
    assert_eq!(stored(&aws).unended(clock::now()).count(), 2);
    let (status, _) = rotate(&aws, json!({})).await;
    assert_eq!(status, 200, "the lock is released");
}

const OTHER: &str = "https://other.example/hooks";

/// What an attempt to this receiver would have: its limit, and its headers.
async fn receiver(aws: &InMemoryAws, url: &str) -> (Option<u64>, Option<String>) {
    let endpoint = aws.store().endpoint(url, Consistency::Strong).await.unwrap();
    let headers = endpoint.headers.map(|id| {
        let text = aws.parameter(&SecretName::WebhookHeaders(id).path());
        text.expect("what is named is stored")
    });
    let headers = headers.map(|text| {
        let text: Value = serde_json::from_str(&text).unwrap();
        text["headers"]["x-key"].as_str().unwrap().to_owned()
    });
    (endpoint.limits.per_second.map(|rate| rate.get().into()), headers)
}

/// All that a job of now and a delivery of now would get.
async fn in_force_now(aws: &InMemoryAws) -> Value {
    let config = aws.store().webhook_config().await.unwrap().unwrap();
    json!({
        "url": config.url,
        "failed": config.events.contains(EventName::Failed),
        "limit": config.limits.per_second,
        URL: receiver(aws, URL).await,
        OTHER: receiver(aws, OTHER).await,
    })
}

#[tokio::test(start_paused = true)]
async fn configuration_change_is_one_write_or_none() {
    let old = json!({"url": URL, "headers": {"X-Key": "old"}, "ratePerSecond": 5});
    let moved = json!({
        "url": OTHER,
        "headers": {"X-Key": "moved"},
        "ratePerSecond": 7,
        "events": ["video.render.completed"],
    });
    let same = json!({
        "url": URL,
        "headers": {"X-Key": "same"},
        "ratePerSecond": 8,
        "events": ["video.render.completed"],
    });
    let bare = json!({"url": URL, "events": ["video.render.completed"]});
    let (put_route, delete_route) = ("PUT /v1/webhook-config", "DELETE /v1/webhook-config");
    for (route, body) in [
        (put_route, Some(&moved)),
        (put_route, Some(&same)),
        (put_route, Some(&bare)),
        (delete_route, None),
    ] {
        let whole = {
            let aws = with_key().await;
            put(&aws, old.clone()).await;
            let before = in_force_now(&aws).await;
            assert_eq!(asked(&aws, route, body).await.0, 200);
            [before, in_force_now(&aws).await]
        };
        assert_ne!(whole[0], whole[1]);
        let (mut crashes, mut seen) = (0, [0, 0]);
        for after in [false, true] {
            for at in 0.. {
                let aws = with_key().await;
                put(&aws, old.clone()).await;
                if until_it_dies(&aws, at, after, (route, body)).await {
                    break;
                }
                crashes += 1;
                let now = in_force_now(&aws).await;
                let which = whole.iter().position(|whole| *whole == now);
                let which = which.unwrap_or_else(|| panic!("call {at}, after: {after}: {now}"));
                seen[which] += 1;
                // The lock of the crashed call expires, and the change is made again.
                advance(Duration::from_secs(45)).await;
                let (status, answer) = asked(&aws, route, body).await;
                assert_eq!(status, 200, "call {at}, after: {after}: {answer}");
                assert_eq!(in_force_now(&aws).await, whole[1]);
                let left = stored_headers(&aws).await.len();
                let named = body.is_some_and(|body| body.get("headers").is_some());
                assert_eq!(left, usize::from(named), "call {at}, after: {after}: none is left");
            }
        }
        println!("{route} {body:?}: {crashes} crashes, {seen:?} before and after the switch");
        assert!(crashes >= 10 && seen.iter().all(|seen| *seen >= 4), "{crashes}, {seen:?}");
    }
}
