//! Deliveries to receivers that fail. The local schedule waits 0, 1, 1, 2 and 2 seconds before
//! its five attempts.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use tests::{DeliveryView, ReceivedWebhook, SimulatedProvider, TestJob, TestStack, eventually};

const COMPLETED: &str = "video.render.completed";
const EXHAUSTED: &str = "webhook.delivery.exhausted";

/// A job with a quick render, whose receiver gives these answers and then 200.
async fn test_job(stack: &TestStack, answers: &Value) -> Result<TestJob> {
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 300})).await?;
    stack.set_receiver_answers(&test_job, answers).await?;
    Ok(test_job)
}

async fn only_delivery(stack: &TestStack, test_job: &TestJob) -> Result<DeliveryView> {
    let mut deliveries = stack.deliveries(test_job).await?;
    assert_eq!(deliveries.len(), 1, "{deliveries:#?}");
    Ok(deliveries.remove(0))
}

/// Asserts that each webhook has the same event with the same bytes and a signature of its own.
fn assert_repeats(webhooks: &[ReceivedWebhook], delivery: &DeliveryView) -> Result<()> {
    let mut earlier = 0;
    for webhook in webhooks {
        assert_eq!(webhook.header("webhook-id"), delivery.event_id);
        assert_eq!(webhook.body, delivery.body);
        assert_eq!(webhook.verified, Some(true), "{webhook:?}");
        // The attempt's time is after the arrival of the previous webhook and before this one's.
        let timestamp: i64 = webhook.header("webhook-timestamp").parse()?;
        let arrived = webhook.at / 1_000;
        assert!(
            (earlier..=arrived).contains(&timestamp),
            "{timestamp} not in {earlier} to {arrived}"
        );
        earlier = arrived;
    }
    assert_eq!(delivery.attempts.len(), webhooks.len());
    Ok(())
}

#[tokio::test]
async fn delivery_retries_send_the_same_bytes() -> Result<()> {
    let stack = TestStack::connect("fails-twice").await?;
    let broken = json!({"status": 500, "body": "database is down"});
    let test_job = test_job(&stack, &json!([broken, broken])).await?;

    stack.submit(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.state, "completed");
    let webhooks = stack.webhooks(&test_job).await?;
    let answered: Vec<u16> = webhooks.iter().map(|webhook| webhook.answered).collect();
    assert_eq!(answered, [500, 500, 200]);
    let delivery = only_delivery(&stack, &test_job).await?;
    assert_eq!((delivery.state.as_str(), delivery.next_attempt_at.as_ref()), ("delivered", None));
    assert_eq!(delivery.statuses(), [500, 500, 200].map(Some));
    assert_repeats(&webhooks, &delivery)?;
    let excerpts: Vec<&str> = delivery.attempts.iter().map(|a| a.excerpt.as_str()).collect();
    assert_eq!(excerpts, ["database is down", "database is down", ""]);

    stack.render(&test_job).await?;
    assert_eq!(stack.submit_count(&test_job).await?, 1);
    let events = stack.events(&test_job).await?;
    assert_eq!(events.len(), 1, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn delivery_exhausted_can_be_redelivered() -> Result<()> {
    let stack = TestStack::connect("fails-always").await?;
    let test_job = test_job(&stack, &json!(vec![json!({"status": 503}); 5])).await?;

    stack.submit(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    // The render is completed; only its delivery is exhausted.
    assert_eq!(job.state, "completed");
    let delivery = only_delivery(&stack, &test_job).await?;
    assert_eq!(delivery.state, "exhausted");
    assert_eq!(delivery.statuses(), [Some(503); 5]);
    let times: Vec<i64> = stack.webhooks(&test_job).await?.iter().map(|it| it.at).collect();
    let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, least) in waits.iter().zip([1_000, 1_000, 2_000, 2_000]) {
        assert!(*wait >= least, "{waits:?}");
    }

    let events = stack.events(&test_job).await?;
    let names: Vec<&str> = events.iter().map(|event| event.detail_type.as_str()).collect();
    assert_eq!(names, [COMPLETED, EXHAUSTED]);
    let detail = &events[1].detail;
    let at = domain::time::parse(detail["occurredAt"].as_str().unwrap()).unwrap();
    let end = format!("{EXHAUSTED}/{}/{}", delivery.event_id, at.timestamp_millis());
    let expected = json!({
        "event": EXHAUSTED,
        "eventId": test_job.event_id(&end),
        "jobId": test_job.job_id(),
        "deliveryEventId": delivery.event_id,
        "deliveryEvent": COMPLETED,
        "endpointId": delivery.endpoint_id,
        "reason": "attempts_exhausted",
        "attempts": 5,
        "occurredAt": detail["occurredAt"],
    });
    assert_eq!(*detail, expected);

    stack.redeliver(&test_job).await?.expect(202)?;
    let job = stack.settled(&test_job).await?;

    assert_eq!(job.delivery.map(|it| (it.state, it.attempts)), Some(("delivered".into(), 6)));
    let delivery = only_delivery(&stack, &test_job).await?;
    assert_repeats(&stack.webhooks(&test_job).await?, &delivery)?;
    let statuses = [503, 503, 503, 503, 503, 200].map(Some);
    assert_eq!(delivery.statuses(), statuses);
    assert_eq!(stack.events(&test_job).await?.len(), 2, "a redelivery publishes no event");
    Ok(())
}

#[tokio::test]
async fn redeliver_while_pending_is_refused() -> Result<()> {
    let stack = TestStack::connect("again").await?;
    let test_job = test_job(&stack, &json!([])).await?;
    stack.submit(&test_job).await?;
    stack.until_settled(&test_job).await?;
    // Several answers are held, because on a slow machine an attempt may time out first.
    let held = json!({"status": 500, "held": true});
    stack.set_receiver_answers(&test_job, &json!([held, held, held, held])).await?;

    stack.redeliver(&test_job).await?.expect(202)?;
    let refused = stack.redeliver(&test_job).await?.expect(409)?;
    assert_eq!(refused.json::<Value>()?["code"], "delivery_pending");
    eventually("an attempt at the receiver", async || {
        ensure!(stack.webhooks(&test_job).await?.len() >= 2);
        Ok(())
    })
    .await?;
    stack.set_receiver_answers(&test_job, &json!([])).await?;
    stack.until_settled(&test_job).await?;

    let delivery = only_delivery(&stack, &test_job).await?;
    let statuses = delivery.statuses();
    let [Some(200), tried @ .., Some(200)] = &statuses[..] else { panic!("{statuses:?}") };
    assert!(
        !tried.is_empty() && tried.iter().all(|it| [None, Some(500)].contains(it)),
        "{tried:?}"
    );
    assert_repeats(&stack.webhooks(&test_job).await?, &delivery)
}

#[tokio::test]
async fn delivery_obeys_status_and_retry_after() -> Result<()> {
    let stack = TestStack::connect("words").await?;
    let gone = test_job(&stack, &json!([{"status": 410}])).await?;
    let elsewhere = stack.new_job(SimulatedProvider::Shotstack).await?;
    let location = json!({"location": elsewhere.body["callbackUrl"]});
    let moved = test_job(&stack, &json!([{"status": 307, "headers": location}])).await?;
    let busy = test_job(&stack, &json!([{"status": 503, "headers": {"retry-after": "4"}}])).await?;

    let all = [&gone, &moved, &busy];
    try_join_all(all.map(|test_job| stack.submit(test_job))).await?;
    try_join_all(all.map(|test_job| stack.until_settled(test_job))).await?;

    let given_up = only_delivery(&stack, &gone).await?;
    assert_eq!((given_up.state.as_str(), given_up.statuses()), ("exhausted", vec![Some(410)]));

    let asked_again = only_delivery(&stack, &moved).await?;
    assert_eq!(asked_again.statuses(), [Some(307), Some(200)]);
    assert_eq!(stack.webhooks(&elsewhere).await?.len(), 0, "a redirect was followed");

    let waited = stack.webhooks(&busy).await?;
    assert_eq!(waited.len(), 2);
    assert!(waited[1].at - waited[0].at >= 4_000, "{waited:#?}");
    Ok(())
}

/// The delivery waits for its next attempt at a place that refuses it.
#[tokio::test]
async fn pending_delivery_can_be_redirected() -> Result<()> {
    let stack = TestStack::connect("moved").await?;
    let pause = json!({"status": 503, "headers": {"retry-after": "60"}});
    let moved = test_job(&stack, &json!([pause])).await?;
    let here = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.submit(&moved).await?;
    stack.until_delivery(&moved, "pending", Some("endpoint_throttled")).await?;

    let to = json!({"to": here.body["callbackUrl"]});
    let sent: DeliveryView = stack.redeliver_as(&moved, &to).await?.expect(202)?.json()?;
    let delivered = stack.until_delivery(&moved, "delivered", None).await?;

    assert_eq!(json!(delivered.url), here.body["callbackUrl"]);
    assert_eq!((&delivered.event_id, &delivered.body), (&sent.event_id, &sent.body));
    assert_eq!(delivered.statuses(), [Some(503), Some(200)]);
    assert_eq!(stack.webhooks(&moved).await?.len(), 1, "nothing more went to the old place");
    let taken = stack.webhooks(&here).await?;
    assert_eq!(taken.len(), 1, "{taken:#?}");
    assert_eq!((&taken[0].body, taken[0].verified), (&delivered.body, Some(true)));
    Ok(())
}

#[tokio::test]
async fn pending_delivery_can_be_dropped() -> Result<()> {
    let stack = TestStack::connect("dropped").await?;
    let pause = json!({"status": 503, "headers": {"retry-after": "60"}});
    let test_job = test_job(&stack, &json!([pause])).await?;
    stack.submit(&test_job).await?;
    stack.until_delivery(&test_job, "pending", Some("endpoint_throttled")).await?;

    stack.drop_delivery(&test_job).await?.expect(202)?;

    stack.until_delivery(&test_job, "exhausted", Some("dropped")).await?;
    let reason = eventually("an event about the end", async || {
        let events = stack.events(&test_job).await?;
        let end = events.into_iter().find(|event| event.detail_type == EXHAUSTED);
        ensure!(end.is_some(), "there is none");
        Ok(end.map(|event| event.detail["reason"].clone()))
    });
    assert_eq!(reason.await?, Some(json!("dropped")));
    let refused = stack.drop_delivery(&test_job).await?.expect(409)?;
    assert_eq!(refused.json::<Value>()?["code"], "not_pending");
    assert_eq!(stack.webhooks(&test_job).await?.len(), 1);
    Ok(())
}

/// Two jobs end while no receiver is configured.
#[tokio::test]
async fn event_without_receiver_is_delivered_later() -> Result<()> {
    let stack = TestStack::connect("late").await?;
    let since = domain::time::text(chrono::Utc::now());
    let missed = [
        test_job(&stack, &json!([])).await?.without_receiver(),
        test_job(&stack, &json!([])).await?.without_receiver(),
    ];
    let [by_hand, by_span] = &missed;
    let _guard = stack.lock_default_receiver().await;
    let before: Value = stack.webhook_config(Method::GET, "", None).await?.json()?;
    stack.webhook_config(Method::DELETE, "", None).await?.expect(200)?;
    for test_job in &missed {
        stack.submit(test_job).await?;
        stack.until_inactive(test_job).await?;
        let refused = stack.redeliver(test_job).await?.expect(409)?;
        assert_eq!(refused.json::<Value>()?["code"], "webhook_not_configured");
    }
    let url = json!({"url": stack.receiver_of(by_hand)});
    stack.webhook_config(Method::PUT, "", Some(&url)).await?.expect(200)?;

    stack.redeliver(by_hand).await?.expect(202)?;
    assert_eq!(stack.recover_missing(&since).await?, 1, "the other one");
    assert_eq!(stack.recover_missing(&since).await?, 0);

    for test_job in &missed {
        stack.until_delivery(test_job, "delivered", None).await?;
    }
    let taken = stack.webhooks(by_hand).await?;
    let ids: Vec<&str> = taken.iter().map(|webhook| webhook.header("webhook-id")).collect();
    let expected = [by_hand, by_span].map(|it| it.event_id(COMPLETED));
    assert!(expected.iter().all(|id| ids.contains(&id.as_str())), "{ids:?}");
    let before = json!({"url": before["url"]});
    stack.webhook_config(Method::PUT, "", Some(&before)).await?.expect(200)?;
    Ok(())
}
