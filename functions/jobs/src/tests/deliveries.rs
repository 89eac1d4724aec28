//! Webhooks that were not delivered, their receivers, and what operators do about both.

use aws_in_memory::InMemoryAws;
use aws_in_memory::builders::delivery;
use aws_in_memory::clock::now;
use aws_lambda_events::encodings::Body;
use chrono::TimeDelta;
use domain::attempt::{Attempt, AttemptError, AttemptOutcome};
use domain::delivery::{Delivery, DeliveryState, GiveUpReason, GivenUp};
use domain::endpoint::{
    AdmissionDecision, AttemptRequest, AttemptSignal, Endpoint, Lane, ResponseHints,
};
use domain::id::EndpointId;
use domain::time;
use serde_json::{Value, json};
use shared::store::{Committed, Consistency, Wait};
use tokio::time::{Duration, sleep};

use super::*;

pub(super) const URL: &str = "https://shop.example/hooks";
pub(super) const OTHER: &str = "https://other.example/hooks";

pub(super) async fn asked(
    aws: &InMemoryAws,
    route: &str,
    query: Value,
    body: Option<Value>,
) -> (i64, Value) {
    let jobs = started(aws);
    let mut event: Value = serde_json::from_str(GET).unwrap();
    event["routeKey"] = route.into();
    event["rawQueryString"] = query_string(&query).into();
    event["body"] = body.map_or(Value::Null, |body| body.to_string().into());
    let response = handle(&jobs, serde_json::from_value(event).unwrap(), now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

/// The query string of these parameters.
fn query_string(parameters: &Value) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters.as_object().unwrap() {
        match value {
            Value::String(text) => query.append_pair(name, text),
            other => query.append_pair(name, &other.to_string()),
        };
    }
    query.finish()
}

pub(super) async fn recover(aws: &InMemoryAws, body: Value) -> Value {
    let (status, answer) = asked(aws, "POST /v1/deliveries/recover", json!({}), Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    answer
}

/// A delivery of job number `n` that was given up, created so many minutes ago.
pub(super) fn given_up(n: u8, minutes: i64, url: &str) -> Delivery {
    let at = now() - TimeDelta::minutes(minutes);
    let attempt = Attempt {
        at,
        duration_ms: 15_000,
        outcome: AttemptOutcome::Failed(AttemptError::Timeout),
        excerpt: String::new(),
    };
    let given_up = GivenUp { at, reason: GiveUpReason::AttemptsExhausted };
    delivery()
        .job_id(JobId::from_bytes([n; 16]))
        .url(url)
        .created_at(at)
        .attempts(vec![attempt; 10])
        .state(DeliveryState::Exhausted(given_up))
        .build()
}

pub(super) async fn stored(aws: &InMemoryAws, deliveries: &[Delivery]) {
    for delivery in deliveries {
        aws.store().insert_delivery(delivery, Wait::InQueue).await.unwrap();
    }
}

/// The endpoint after an answer of this status.
pub(super) async fn answers(aws: &InMemoryAws, url: &str, status: u16) {
    let request = AttemptRequest {
        manual: true,
        has_slot: false,
        lane: Lane::Slow,
        token: 0,
        jitter_sample: 0.0,
    };
    let before = aws.store().endpoint(url, Consistency::Strong).await.unwrap();
    let AdmissionDecision::Go { permit, .. } = before.admit(&request, now()) else {
        panic!("held")
    };
    let signal = AttemptSignal::of(
        AttemptOutcome::Answered(status),
        ResponseHints::default(),
        Duration::ZERO,
    );
    let after = before.record(&permit, &signal, now()).unwrap();
    let committed = aws.store().commit_endpoint(&before, &after).await.unwrap();
    assert_eq!(committed, Committed::Stored);
}

async fn endpoint(aws: &InMemoryAws, url: &str) -> Endpoint {
    aws.store().endpoint(url, Consistency::Strong).await.unwrap()
}

pub(super) fn since(minutes: i64) -> String {
    time::text(now() - TimeDelta::minutes(minutes))
}

#[tokio::test(start_paused = true)]
async fn redelivery_stops_after_a_thousand_attempts() {
    let aws = with_key().await;
    // Of the job that the event asks for.
    let delivery = given_up(7, 10, URL);
    let attempts = vec![delivery.attempts[0].clone(); 1_000];
    stored(&aws, &[Delivery { attempts, ..delivery }]).await;

    let redeliver = "POST /v1/jobs/{jobId}/redeliver";
    let (status, problem) = asked(&aws, redeliver, json!({}), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("too_many_attempts")));
    let recovered = recover(&aws, json!({"since": since(60)})).await;
    assert_eq!(recovered, json!({"queued": 0, "disabled": 0, "next": null}));
}

/// Guards against deliveries that no list shows: of a stack with several shards, and of one whose
/// number of shards was lowered since.
#[tokio::test(start_paused = true)]
async fn exhausted_deliveries_of_every_shard_are_listed() {
    let aws = with_key().await;
    aws.store().put_max_shards(4).await.unwrap();
    let deliveries: Vec<Delivery> = (0u8..4)
        .map(|shard| Delivery { shard: shard.into(), ..given_up(shard, 10, URL) })
        .collect();
    stored(&aws, &deliveries).await;

    let query = json!({"state": "exhausted", "since": since(60)});
    let (status, listed) = asked(&aws, "GET /v1/deliveries", query, None).await;
    assert_eq!((status, listed["deliveries"].as_array().map(Vec::len)), (200, Some(4)), "{listed}");
    let recovered = recover(&aws, json!({"since": since(60)})).await;
    assert_eq!(recovered["queued"], 4);
}

/// Guards against recovery that pages by one order and continues by another: deliveries whose
/// ids do not grow with time are skipped then.
#[tokio::test(start_paused = true)]
async fn recovery_misses_no_delivery() {
    let aws = with_key().await;
    // Ids and ages each in an order of their own, and several of the same age.
    let ages = [50, 10, 40, 10, 30, 20, 20, 10, 60, 40, 30];
    let deliveries: Vec<Delivery> =
        (0u8..).zip(ages).map(|(n, minutes)| given_up(n.wrapping_mul(97), minutes, URL)).collect();
    stored(&aws, &deliveries).await;
    aws.table().delay_indexes(Duration::from_millis(200));

    let (mut queued, mut calls, mut cursor) = (0, 0, Value::Null);
    loop {
        let body = json!({"since": since(60), "limit": 2, "cursor": cursor});
        let answer = recover(&aws, body).await;
        queued += answer["queued"].as_u64().unwrap();
        calls += 1;
        cursor = answer["next"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!((queued, calls), (11, 6));
    assert_eq!(aws.delivery_queue().sent().len(), 11, "one ticket each");
    for delivery in &deliveries {
        let job = delivery.subject.job_id();
        let again = aws.store().delivery(job, &delivery.event_id).await.unwrap().unwrap();
        assert_eq!(again.state, DeliveryState::Pending { next_at: now(), held: None });
        assert_eq!((again.round_start, &again.body), (10, &delivery.body));
        assert!(!again.manual, "it is no probe");
    }
    sleep(Duration::from_secs(1)).await;
    let nothing = json!({"queued": 0, "disabled": 0, "next": null});
    assert_eq!(recover(&aws, json!({"since": since(61)})).await, nothing, "a second run");
}

#[tokio::test(start_paused = true)]
async fn concurrent_recoveries_send_each_delivery_once() {
    let aws = with_key().await;
    let deliveries: Vec<Delivery> = (1..=9).map(|n| given_up(n, 5, URL)).collect();
    stored(&aws, &deliveries).await;
    // The second reads the index as it was before the first.
    aws.table().delay_indexes(Duration::from_secs(5));
    let first = recover(&aws, json!({"since": since(10)})).await;
    let second = recover(&aws, json!({"since": since(10)})).await;
    assert_eq!((&first["queued"], &second["queued"]), (&json!(9), &json!(0)));
    assert_eq!(aws.delivery_queue().sent().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn recovery_filters_by_span_and_receiver() {
    let aws = with_key().await;
    stored(&aws, &[given_up(1, 50, URL), given_up(2, 30, URL), given_up(3, 30, OTHER)]).await;
    stored(&aws, &[given_up(4, 10, URL)]).await;
    let id = EndpointId::of(URL);
    let body = json!({"since": since(40), "until": since(20), "endpointId": id});
    let one = json!({"queued": 1, "disabled": 0, "next": null});
    assert_eq!(recover(&aws, body).await, one);
    for (wrong, field) in [
        (json!({"since": "yesterday"}), "since"),
        (json!({"since": since(1), "until": since(2)}), "since"),
        (json!({"since": since(1), "until": 5}), ""),
        (json!({"since": since(1), "limit": 0}), "limit"),
        (json!({"since": since(1), "limit": 101}), "limit"),
        (json!({"since": since(1), "cursor": "%"}), "cursor"),
        (json!({"since": since(1), "endpointId": "shop"}), "endpointId"),
        (json!({"before": since(1)}), ""),
    ] {
        let route = "POST /v1/deliveries/recover";
        let (status, problem) = asked(&aws, route, json!({}), Some(wrong.clone())).await;
        let expected = if field.is_empty() { 400 } else { 422 };
        assert_eq!(status, expected, "{wrong}");
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{wrong}");
    }
}

/// The table takes each change, and then the queue is down: what was stored is found in the
/// index of waits that are over, and a repeated call goes on where this one broke off.
#[tokio::test(start_paused = true)]
async fn recovery_without_queue_loses_nothing() {
    let aws = with_key().await;
    stored(&aws, &[given_up(1, 5, URL)]).await;
    let broken = aws.seen_by(Arc::new(without_queue::NoQueue));
    let route = "POST /v1/deliveries/recover";
    let (status, _) = asked(&broken, route, json!({}), Some(json!({"since": since(9)}))).await;
    assert_eq!(status, 503);
    assert_eq!(aws.delivery_queue().sent().len(), 0);
    assert_eq!(aws.store().due_deliveries(0, now()).await.unwrap().len(), 1);
}

pub(super) mod without_queue {
    use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    #[derive(Debug)]
    pub(crate) struct NoQueue;

    impl CallInterceptor for NoQueue {
        fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
            let injected = if call.to == "sqs" { Injected::Lost } else { Injected::Answered };
            std::future::ready(injected.into()).boxed()
        }
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_listed_by_state() {
    let aws = with_key().await;
    let exhausted: Vec<Delivery> = (1..=5).map(|n| given_up(n, n.into(), URL)).collect();
    stored(&aws, &exhausted).await;
    let next_at = now() + TimeDelta::hours(2);
    let pending = Delivery {
        state: DeliveryState::Pending {
            next_at,
            held: Some(domain::endpoint::HoldReason::Throttled),
        },
        ..given_up(9, 3, OTHER)
    };
    stored(&aws, std::slice::from_ref(&pending)).await;

    let list = async |query: Value| asked(&aws, "GET /v1/deliveries", query, None).await;
    let (_, first) = list(json!({"state": "exhausted", "limit": "3"})).await;
    let (_, second) =
        list(json!({"state": "exhausted", "limit": "3", "cursor": first["next"]})).await;
    assert_eq!(second["next"], Value::Null);
    let lines = [&first["deliveries"], &second["deliveries"]];
    let lines = lines.into_iter().flat_map(|page| page.as_array().unwrap());
    let jobs: Vec<_> = lines.clone().map(|line| line["jobId"].as_str().unwrap()).collect();
    let newest_first: Vec<_> =
        exhausted.iter().map(|it| it.subject.job_id().unwrap().as_str()).collect();
    assert_eq!(jobs, newest_first);
    for line in lines {
        assert_eq!(line["reason"], "attempts_exhausted");
        assert_eq!(line["attempts"], 10);
        assert_eq!(line["lastAttempt"]["error"], "timeout");
    }
    let (_, page) = list(json!({"state": "exhausted", "since": since(2)})).await;
    assert_eq!(page["deliveries"].as_array().unwrap().len(), 2);

    let (_, page) = list(json!({"state": "pending"})).await;
    let line = &page["deliveries"][0];
    assert_eq!(line["reason"], "endpoint_throttled");
    assert_eq!(line["nextAttemptAt"], time::text(next_at));
    assert_eq!(page["deliveries"].as_array().unwrap().len(), 1);
    for wrong in [json!({}), json!({"state": "lost"}), json!({"state": "pending", "since": "?"})] {
        assert_eq!(list(wrong.clone()).await.0, 422, "{wrong}");
    }
}

pub(super) async fn put_config(aws: &InMemoryAws, body: Value) -> (i64, Value) {
    asked(aws, "PUT /v1/webhook-config", json!({}), Some(body)).await
}

async fn get_config(aws: &InMemoryAws) -> Value {
    asked(aws, "GET /v1/webhook-config", json!({}), None).await.1
}

#[tokio::test(start_paused = true)]
async fn configuring_again_enables_the_receiver() {
    let aws = with_key().await;
    put_config(&aws, json!({"url": URL})).await;
    assert_eq!(get_config(&aws).await["endpoint"]["state"], "healthy");
    answers(&aws, URL, 410).await;
    stored(&aws, &[given_up(1, 5, URL), given_up(2, 5, OTHER)]).await;

    let shown = get_config(&aws).await;
    assert_eq!(shown["endpoint"]["state"], "disabled");
    assert_eq!(shown["endpoint"]["disabledReason"], "gone");
    let only_the_other = json!({"queued": 1, "disabled": 1, "next": null});
    assert_eq!(recover(&aws, json!({"since": since(9)})).await, only_the_other);

    let (status, shown) = put_config(&aws, json!({"url": URL})).await;
    assert_eq!((status, &shown["endpoint"]["state"]), (200, &json!("healthy")));
    assert_eq!(endpoint(&aws, URL).await.disabled, None);
    let the_one = json!({"queued": 1, "disabled": 0, "next": null});
    assert_eq!(recover(&aws, json!({"since": since(9)})).await, the_one);
}

#[tokio::test(start_paused = true)]
async fn limits_apply_to_configured_receiver_only() {
    let aws = with_key().await;
    let body = json!({"url": URL, "maxInFlight": 3, "ratePerSecond": 20});
    let (_, shown) = put_config(&aws, body).await;
    assert_eq!((&shown["maxInFlight"], &shown["ratePerSecond"]), (&json!(3), &json!(20)));
    assert_eq!(get_config(&aws).await["maxInFlight"], 3);
    let limits = endpoint(&aws, URL).await.limits;
    assert_eq!(limits.max_in_flight.map(u16::from), Some(3));
    assert_eq!(limits.per_second.map(u16::from), Some(20));

    put_config(&aws, json!({"url": OTHER})).await;
    assert!(endpoint(&aws, URL).await.is_blank(), "it has no limits any more");
    put_config(&aws, json!({"url": OTHER, "maxInFlight": 1})).await;
    asked(&aws, "DELETE /v1/webhook-config", json!({}), None).await;
    assert!(endpoint(&aws, OTHER).await.is_blank());

    for (member, number) in [("maxInFlight", 0), ("maxInFlight", 51), ("ratePerSecond", 101)] {
        let mut body = json!({"url": URL});
        body[member] = number.into();
        let (status, problem) = put_config(&aws, body).await;
        assert_eq!((status, &problem["field"]), (422, &json!(member)), "{number}");
    }
    assert!(endpoint(&aws, URL).await.is_blank(), "nothing was stored");
}

#[tokio::test(start_paused = true)]
async fn receiver_without_limits_has_no_item() {
    let aws = with_key().await;
    put_config(&aws, json!({"url": URL})).await;
    assert_eq!(endpoint(&aws, URL).await.version, 0, "there is nothing to say of it");
}

#[tokio::test(start_paused = true)]
async fn manual_redelivery_is_a_probe() {
    let aws = with_key().await;
    let delivery = given_up(7, 5, URL);
    stored(&aws, std::slice::from_ref(&delivery)).await;
    let (status, shown) = asked(&aws, "POST /v1/jobs/{jobId}/redeliver", json!({}), None).await;
    assert_eq!((status, &shown["state"]), (202, &json!("pending")), "{shown}");
    let job = delivery.subject.job_id();
    let again = aws.store().delivery(job, &delivery.event_id).await.unwrap().unwrap();
    assert!(again.manual);
    assert_eq!(aws.table().indexed("undelivered"), Vec::<Value>::new());
}
