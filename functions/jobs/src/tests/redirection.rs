//! Deliveries that are sent to another receiver than their own, and those that are dropped.

use aws_in_memory::InMemoryAws;
use aws_in_memory::builders::delivery;
use aws_in_memory::clock::now;
use aws_lambda_events::encodings::Body;
use chrono::TimeDelta;
use domain::delivery::{Delivery, DeliveryState, GiveUpReason};
use domain::endpoint::HoldReason;
use serde_json::json;
use shared::store::{Committed, Wait};

use super::deliveries::{OTHER, URL, asked, given_up, put_config, recover, since, stored};
use super::*;

const REDELIVER: &str = "POST /v1/jobs/{jobId}/redeliver";
const DROP: &str = "POST /v1/jobs/{jobId}/drop-delivery";
/// A receiver whose URL was mistyped.
const MISTYPED: &str = "https://shop.example/hoks";

/// The delivery of the job that the event asks for, which waits for its next attempt.
fn waiting() -> Delivery {
    let next_at = now() + TimeDelta::hours(5);
    let state = DeliveryState::Pending { next_at, held: Some(HoldReason::Throttled) };
    let job_id = JobId::from_bytes([7; 16]);
    delivery().job_id(job_id).url(MISTYPED).created_at(now()).state(state).build()
}

async fn now_stored(aws: &InMemoryAws, delivery: &Delivery) -> Delivery {
    let job = delivery.subject.job_id();
    aws.store().delivery(job, &delivery.event_id).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn pending_delivery_is_redirected() {
    for (to, url) in [("current", URL), (OTHER, OTHER)] {
        let aws = with_key().await;
        put_config(&aws, json!({"url": URL})).await;
        let before = waiting();
        stored(&aws, std::slice::from_ref(&before)).await;
        let (status, problem) = asked(&aws, REDELIVER, json!({}), None).await;
        assert_eq!((status, &problem["code"]), (409, &json!("delivery_pending")));

        let body = json!({"to": to});
        let (status, moved) = asked(&aws, REDELIVER, json!({}), Some(body.clone())).await;

        assert_eq!((status, &moved["url"]), (202, &json!(url)), "{moved}");
        let after = now_stored(&aws, &before).await;
        assert_eq!((after.url.as_str(), &after.body), (url, &before.body));
        assert_eq!(after.state, DeliveryState::Pending { next_at: now(), held: None });
        assert_eq!(aws.delivery_queue().sent().len(), 1);
        // What an attempt of the old ticket has to store before it posts.
        let begun = before.leased(now());
        let committed = aws.store().commit_delivery(&begun, Wait::InQueue).await.unwrap();
        assert_eq!(committed, Committed::Conflict(Some(after)));
        let (status, problem) = asked(&aws, REDELIVER, json!({}), Some(body)).await;
        assert_eq!((status, &problem["code"]), (409, &json!("delivery_pending")), "once");
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_under_way_is_told() {
    let aws = with_key().await;
    let begun = waiting().leased(now());
    stored(&aws, std::slice::from_ref(&begun)).await;
    for (route, body) in [(REDELIVER, json!({"to": OTHER})), (DROP, json!({}))] {
        let jobs = started(&aws);
        let mut event: Value = serde_json::from_str(GET).unwrap();
        event["routeKey"] = route.into();
        event["body"] = body.to_string().into();
        let answer = handle(&jobs, serde_json::from_value(event).unwrap(), now).await.unwrap();
        let Some(Body::Text(body)) = answer.body else { panic!("no text") };
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answer.status_code, &problem["code"]), (409, &json!("attempt_under_way")));
        // An attempt has 30 s.
        assert_eq!(answer.headers["retry-after"], "31");
        assert_eq!(now_stored(&aws, &begun).await, begun);
    }
}

#[tokio::test(start_paused = true)]
async fn redirect_follows_the_address_policy() {
    let aws = with_key().await;
    stored(&aws, &[waiting()]).await;
    let recovery = "POST /v1/deliveries/recover";
    for wrong in ["http://shop.example/", "https://10.0.0.1/", "https://localhost/", "Current", ""]
    {
        for (route, body) in
            [(REDELIVER, json!({"to": wrong})), (recovery, json!({"since": since(9), "to": wrong}))]
        {
            let (status, problem) = asked(&aws, route, json!({}), Some(body)).await;
            assert_eq!((status, &problem["code"]), (422, &json!("invalid_webhook_url")), "{wrong}");
            assert_eq!(problem["field"], "to");
        }
    }
    assert_eq!(now_stored(&aws, &waiting()).await.url, MISTYPED);
    let current = Some(json!({"to": "current"}));
    let (status, problem) = asked(&aws, REDELIVER, json!({}), current).await;
    assert_eq!((status, &problem["code"]), (409, &json!("webhook_not_configured")));
}

/// An operator sends to what an admin has configured, and nowhere else.
#[tokio::test(start_paused = true)]
async fn redirect_to_named_url_needs_admin() {
    let aws = InMemoryAws::new(&[]);
    aws.add_api_key(KEY, [Scope::Operate].into_iter().collect()).await.unwrap();
    with_receiver(&aws).await;
    stored(&aws, &[waiting()]).await;
    let recovery = "POST /v1/deliveries/recover";
    for (route, body) in
        [(REDELIVER, json!({"to": OTHER})), (recovery, json!({"since": since(9), "to": OTHER}))]
    {
        let (status, problem) = asked(&aws, route, json!({}), Some(body)).await;
        assert_eq!((status, &problem["scope"]), (403, &json!("admin")));
    }
    let current = Some(json!({"to": "current"}));
    let (status, moved) = asked(&aws, REDELIVER, json!({}), current).await;
    assert_eq!((status, &moved["url"]), (202, &json!(URL)));
}

#[tokio::test(start_paused = true)]
async fn current_receiver_of_job_is_its_own() {
    let aws = with_key().await;
    put_config(&aws, json!({"url": URL, "events": ["video.render.completed"]})).await;
    let jobs = [(1, None), (2, Some(OTHER)), (3, None)];
    for (number, own) in jobs {
        let id = JobId::from_bytes([number; 16]);
        let job = builders::job().id(id).callback_url(own).created_at(now()).build();
        aws.store().insert_job(&job).await.unwrap();
        stored(&aws, &[given_up(number, 5, MISTYPED)]).await;
    }
    let body = json!({"since": since(9), "to": "current"});
    assert_eq!(recover(&aws, body.clone()).await["queued"], 3);
    for (number, own) in jobs {
        let after = now_stored(&aws, &given_up(number, 5, MISTYPED)).await;
        assert_eq!(after.url, own.unwrap_or(URL), "{number}");
        assert!(!after.manual);
    }
    stored(&aws, &[given_up(4, 5, MISTYPED)]).await;
    let to_one = json!({"since": since(9), "to": OTHER});
    assert_eq!(recover(&aws, to_one).await["queued"], 1);
    assert_eq!(now_stored(&aws, &given_up(4, 5, MISTYPED)).await.url, OTHER);
}

#[tokio::test(start_paused = true)]
async fn dropped_delivery_is_announced_and_kept() {
    let aws = with_key().await;
    let before = waiting();
    stored(&aws, std::slice::from_ref(&before)).await;

    let (status, dropped) = asked(&aws, DROP, json!({}), None).await;

    assert_eq!((status, &dropped["state"]), (202, &json!("exhausted")), "{dropped}");
    assert_eq!(dropped["reason"], "dropped");
    assert_eq!(aws.delivery_queue().sent().len(), 1, "the ticket that has it announced");
    let after = now_stored(&aws, &before).await;
    let DeliveryState::GivenUp(given_up) = after.state else { panic!("{after:?}") };
    assert_eq!(given_up.reason, GiveUpReason::Dropped);
    // If that ticket is lost, the poller sends another.
    assert_eq!(aws.store().due_deliveries(0, now()).await.unwrap().len(), 1);

    let (status, problem) = asked(&aws, DROP, json!({}), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("not_pending")));
    let begun = json!({"since": "1970-01-01T00:00:00Z"});
    assert_eq!(recover(&aws, begun).await["queued"], 0, "it was not to be sent");
    let query = json!({"state": "exhausted"});
    let (_, listed) = asked(&aws, "GET /v1/deliveries", query, None).await;
    assert_eq!(listed["deliveries"][0]["reason"], "dropped");
    let (status, _) = asked(&aws, REDELIVER, json!({}), None).await;
    assert_eq!(status, 202, "unless it is asked for by name");
}

#[tokio::test(start_paused = true)]
async fn drop_names_one_of_several() {
    let aws = with_key().await;
    let (status, problem) = asked(&aws, DROP, json!({}), None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
    let completed = waiting();
    let job = JobId::from_bytes([7; 16]);
    let failed = Delivery {
        subject: domain::delivery::DeliverySubject::Render {
            job_id: job.clone(),
            event: domain::event::EventName::Failed,
        },
        event_id: EventId::of(&job, "video.render.failed"),
        ..waiting()
    };
    stored(&aws, &[completed.clone(), failed.clone()]).await;
    let (status, problem) = asked(&aws, DROP, json!({}), None).await;
    assert_eq!((status, &problem["field"]), (422, &json!("event")));
    let named = json!({"event": "video.render.failed"});
    let (status, dropped) = asked(&aws, DROP, json!({}), Some(named)).await;
    assert_eq!((status, &dropped["eventId"]), (202, &json!(failed.event_id)));
    assert_eq!(now_stored(&aws, &completed).await, completed);
}
