//! Events that had no receiver when they were published: sent later, one by one or by a span.

use aws_in_memory::InMemoryAws;
use aws_in_memory::clock::now;
use chrono::TimeDelta;
use domain::delivery::{Delivery, DeliveryState};
use domain::event::{Event, EventName};
use domain::id::EventId;
use domain::job::{Observation, RenderStatus};
use serde_json::json;
use tokio::time::{Duration, sleep};

use super::deliveries::{OTHER, URL, answers, asked, put_config, recover, since, without_queue};
use super::*;

const REDELIVER: &str = "POST /v1/jobs/{jobId}/redeliver";

fn id(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

fn event_id(number: u8, event: &str) -> EventId {
    EventId::of(&id(number), event)
}

fn new_job(number: u8, minutes: i64) -> Job {
    let at = now() - TimeDelta::minutes(minutes);
    builders::job().id(id(number)).provider("viralsync").created_at(at).build()
}

/// Job number `number`, which failed so many minutes ago and was published then.
async fn ended(aws: &InMemoryAws, number: u8, minutes: i64) -> Job {
    published(aws, new_job(number, minutes), minutes).await
}

async fn published(aws: &InMemoryAws, job: Job, minutes: i64) -> Job {
    let at = now() - TimeDelta::minutes(minutes);
    let failure = Failure::new(FailureCode::ProviderRejected, "no scenes");
    let tracker = aws.tracker().unwrap();
    tracker.store.insert_job(&job).await.unwrap();
    let Transition::Changed(job) = job.apply(&Report::Rejected(failure), 0, at) else { panic!() };
    assert_eq!(tracker.store.commit_job(&job).await.unwrap(), shared::store::Committed::Stored);
    let job = tracker.publish_outbox(*job, at).await.unwrap();
    assert!(job.settled_at.is_some(), "{job:?}");
    job
}

async fn delete_config(aws: &InMemoryAws) {
    let (status, _) = asked(aws, "DELETE /v1/webhook-config", json!({}), None).await;
    assert_eq!(status, 200);
}

/// A stack that had a receiver, and has none.
async fn without_receiver() -> InMemoryAws {
    let aws = with_key().await;
    put_config(&aws, json!({"url": OTHER})).await;
    delete_config(&aws).await;
    aws
}

async fn delivery(aws: &InMemoryAws, number: u8) -> Option<Delivery> {
    let event = event_id(number, "video.render.failed");
    aws.store().delivery(Some(&id(number)), &event).await.unwrap()
}

async fn all_pages(aws: &InMemoryAws, mut body: Value) -> (u64, usize) {
    let (mut queued, mut calls) = (0, 0);
    loop {
        let answer = recover(aws, body.clone()).await;
        queued += answer["queued"].as_u64().unwrap();
        calls += 1;
        body["cursor"] = answer["next"].clone();
        if body["cursor"].is_null() {
            return (queued, calls);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn redelivery_makes_the_missing_delivery() {
    for had_receiver in [false, true] {
        let aws = if had_receiver { without_receiver().await } else { with_key().await };
        let job = ended(&aws, 7, 5).await;
        let (status, problem) = asked(&aws, REDELIVER, json!({}), None).await;
        assert_eq!((status, &problem["code"]), (409, &json!("webhook_not_configured")));
        put_config(&aws, json!({"url": URL})).await;

        let (status, made) = asked(&aws, REDELIVER, json!({}), None).await;

        assert_eq!((status, &made["state"], &made["url"]), (202, &json!("pending"), &json!(URL)));
        assert_eq!(made["eventId"], json!(event_id(7, "video.render.failed")));
        let on_bus = aws.events().into_iter().find(|event| event.detail_type.ends_with("failed"));
        assert_eq!(made["body"], json!(on_bus.unwrap().detail), "the bytes of the bus");
        assert_eq!(aws.delivery_queue().sent().len(), 1);
        assert_eq!(aws.events().len(), 1, "it goes on the bus once");
        let stored = aws.store().job(&job.id).await.unwrap().unwrap();
        assert!(stored.without_receiver.is_empty());
        assert_eq!(aws.table().indexed("undelivered"), [] as [Value; 0]);
        let (status, problem) = asked(&aws, REDELIVER, json!({}), None).await;
        assert_eq!((status, &problem["code"]), (409, &json!("delivery_pending")));
    }
}

#[tokio::test(start_paused = true)]
async fn redelivery_before_an_end_has_nothing() {
    let aws = with_job(&new_job(7, 5)).await;
    put_config(&aws, json!({"url": URL})).await;
    let (status, problem) = asked(&aws, REDELIVER, json!({}), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("nothing_to_deliver")));
}

/// The outbox has a delivery of its own to make.
#[tokio::test(start_paused = true)]
async fn unpublished_event_is_not_sent_twice() {
    let aws = with_key().await;
    put_config(&aws, json!({"url": URL})).await;
    let Transition::Changed(job) = new_job(7, 5).apply(
        &Report::Rejected(Failure::new(FailureCode::ProviderRejected, "no")),
        0,
        now(),
    ) else {
        panic!()
    };
    aws.store().insert_job(&job).await.unwrap();
    let (status, problem) = asked(&aws, REDELIVER, json!({}), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("delivery_pending")));
    assert_eq!(all_pages(&aws, json!({"since": since(60), "missing": true})).await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn redelivery_chooses_what_is_subscribed_to() {
    let aws = with_key().await;
    let at = now() - TimeDelta::minutes(5);
    let steps = [EventName::Queued, EventName::Failed];
    let job = builders::job().provider("viralsync").created_at(at).subscribed_events(steps);
    let queued = after(&job.build(), &Report::Accepted(RenderJobId::parse("r-1").unwrap()));
    let failed = Report::Observed(Observation {
        render_job_id: None,
        status: RenderStatus::Failed(Failure::new(FailureCode::RenderFailed, "no")),
        provider_status: "failed".into(),
        progress: None,
    });
    let job = after(&queued, &failed);
    let store = aws.store();
    store.insert_job(&job).await.unwrap();
    aws.tracker().unwrap().publish_outbox(job.clone(), now()).await.unwrap();
    put_config(&aws, json!({"url": URL, "events": ["video.render.queued"]})).await;

    let named =
        async |event: &str| asked(&aws, REDELIVER, json!({}), Some(json!({"event": event}))).await;
    let (status, made) = asked(&aws, REDELIVER, json!({}), None).await;
    assert_eq!((status, &made["event"]), (202, &json!("video.render.queued")), "{made}");
    let queued = Event::of(&job, &job.changes()[0]).to_body().unwrap();
    assert_eq!(made["body"], queued);
    let (status, made) = named("video.render.failed").await;
    assert_eq!((status, &made["event"]), (202, &json!("video.render.failed")), "it is named");
    let (status, problem) = named("video.render.completed").await;
    assert_eq!((status, &problem["code"]), (409, &json!("nothing_to_deliver")));
    let (status, problem) = named("webhook.test").await;
    assert_eq!((status, &problem["field"]), (422, &json!("event")));
    for malformed in [json!({"events": []}), json!([]), json!({"event": 5})] {
        assert_eq!(asked(&aws, REDELIVER, json!({}), Some(malformed)).await.0, 400);
    }
}

/// Of a stack that had a receiver once: the index has what is missing, and nothing is scanned.
#[tokio::test(start_paused = true)]
async fn missing_deliveries_are_found_without_scan() {
    let aws = without_receiver().await;
    sleep(Duration::from_secs(2 * 3600)).await;
    for (number, minutes) in (1..).zip([50, 10, 40, 10, 30, 20, 20]) {
        ended(&aws, number, minutes).await;
    }
    put_config(&aws, json!({"url": URL})).await;
    let before = aws.calls().len();
    let body = json!({"since": since(60), "missing": true, "limit": 2});
    assert_eq!(all_pages(&aws, body).await, (7, 4));
    assert!(aws.calls()[before..].iter().all(|call| call != "Scan"), "{:?}", aws.calls());
}

#[tokio::test(start_paused = true)]
async fn recovery_makes_missing_deliveries_of_span() {
    for had_receiver in [false, true] {
        let aws = if had_receiver { without_receiver().await } else { with_key().await };
        let minutes = [50, 10, 40, 10, 30, 20, 20, 10, 60, 40, 30];
        for (number, minutes) in (1..).zip(minutes) {
            ended(&aws, number, minutes).await;
        }
        let own = new_job(99, 30);
        let own = builders::job().id(own.id).callback_url(Some(OTHER)).created_at(own.created_at);
        published(&aws, own.build(), 30).await;
        put_config(&aws, json!({"url": URL})).await;
        let sent = aws.delivery_queue().sent().len();

        let span = json!({"since": since(45), "until": since(15), "missing": true, "limit": 2});
        let (queued, calls) = all_pages(&aws, span.clone()).await;

        assert_eq!(queued, 6);
        assert!(calls >= 4, "{calls} calls");
        for (number, minutes) in (1..).zip(minutes) {
            let delivery = delivery(&aws, number).await;
            let is_in = (15..=45).contains(&minutes);
            assert_eq!(delivery.is_some(), is_in, "{minutes}");
            if let Some(delivery) = delivery {
                assert_eq!((delivery.url.as_str(), delivery.manual), (URL, false));
                let waits = DeliveryState::Pending { next_at: now(), held: None };
                assert_eq!(delivery.state, waits);
            }
        }
        assert_eq!(aws.delivery_queue().sent().len() - sent, 6, "one ticket each");
        assert_eq!(all_pages(&aws, span).await.0, 0, "a second run");
        let all = json!({"since": since(120), "missing": true});
        assert_eq!(all_pages(&aws, all).await.0, 5, "the others");
        assert_eq!(aws.events().len(), 12, "nothing goes on the bus again");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_recoveries_make_each_delivery_once() {
    for had_receiver in [false, true] {
        let aws = if had_receiver { without_receiver().await } else { with_key().await };
        for number in 1..=9 {
            ended(&aws, number, 5).await;
        }
        put_config(&aws, json!({"url": URL})).await;
        aws.table().delay_indexes(Duration::from_secs(5));
        let body = json!({"since": since(10), "missing": true});
        let (first, second, third) = tokio::join!(
            all_pages(&aws, body.clone()),
            all_pages(&aws, body.clone()),
            asked(&aws, REDELIVER, json!({}), None),
        );
        let by_hand = u64::from(third.0 == 202);
        assert_eq!(first.0 + second.0 + by_hand, 9);
        assert_eq!(aws.delivery_queue().sent().len(), 9);
    }
}

#[tokio::test(start_paused = true)]
async fn missing_delivery_waits_for_its_receiver() {
    let aws = without_receiver().await;
    ended(&aws, 1, 5).await;
    let missing = json!({"since": since(10), "missing": true});
    let route = "POST /v1/deliveries/recover";
    let (status, problem) = asked(&aws, route, json!({}), Some(missing.clone())).await;
    assert_eq!((status, &problem["code"]), (409, &json!("webhook_not_configured")));

    put_config(&aws, json!({"url": URL, "events": ["video.render.completed"]})).await;
    assert_eq!(all_pages(&aws, missing.clone()).await.0, 0, "it did not subscribe to failures");
    put_config(&aws, json!({"url": URL})).await;
    answers(&aws, URL, 410).await;
    assert_eq!(recover(&aws, missing.clone()).await["disabled"], 1);
    assert_eq!(delivery(&aws, 1).await, None);
    put_config(&aws, json!({"url": URL})).await;
    assert_eq!(all_pages(&aws, missing).await.0, 1);

    let wrong = json!({"since": since(1), "missing": true, "endpointId": "ep_1c7f0a3e5d9b4286a0f1e2d3c4b5a697"});
    let (status, problem) = asked(&aws, route, json!({}), Some(wrong)).await;
    assert_eq!((status, &problem["field"]), (422, &json!("endpointId")));
    let foreign = json!({"since": since(1), "missing": true, "cursor": "%"});
    let (status, problem) = asked(&aws, route, json!({}), Some(foreign)).await;
    assert_eq!((status, &problem["field"]), (422, &json!("cursor")));
}

#[tokio::test(start_paused = true)]
async fn missing_deliveries_go_to_named_receiver() {
    for had_receiver in [false, true] {
        let aws = if had_receiver { without_receiver().await } else { with_key().await };
        ended(&aws, 1, 5).await;
        let body = json!({"since": since(10), "missing": true, "to": URL});
        assert_eq!(all_pages(&aws, body).await.0, 1);
        assert_eq!(delivery(&aws, 1).await.unwrap().url, URL);
    }
}

/// What was stored is found in the index of waits that are over, and a repeated call clears up.
#[tokio::test(start_paused = true)]
async fn missing_delivery_outlives_an_outage() {
    let aws = without_receiver().await;
    let job = ended(&aws, 1, 5).await;
    put_config(&aws, json!({"url": URL})).await;
    let broken = aws.seen_by(Arc::new(without_queue::NoQueue));
    let body = json!({"since": since(9), "missing": true});
    let route = "POST /v1/deliveries/recover";
    assert_eq!(asked(&broken, route, json!({}), Some(body.clone())).await.0, 503);
    assert_eq!(aws.store().due_deliveries(0, now()).await.unwrap().len(), 1);
    assert_eq!(all_pages(&aws, body).await.0, 0);
    let stored = aws.store().job(&job.id).await.unwrap().unwrap();
    assert!(stored.without_receiver.is_empty(), "it is not found again");
}
