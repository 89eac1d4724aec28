//! Receivers that fail, and what they get. The local schedule waits 0, 1, 1, 2 and 2
//! seconds before its five attempts.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{DeliveryView, Order, Provider, Webhook, World, eventually};

const COMPLETED: &str = "video.render.completed";
const EXHAUSTED: &str = "webhook.delivery.exhausted";

/// An order for a quick render, whose receiver answers with these statuses and then 200.
async fn order(world: &World, answers: &Value) -> Result<Order> {
    let order = world.order(Provider::Shotstack).await?;
    world.scenario(&order, &json!({"durationMs": 300})).await?;
    world.receiver_answers(&order, answers).await?;
    Ok(order)
}

async fn only_delivery(world: &World, order: &Order) -> Result<DeliveryView> {
    let mut deliveries = world.deliveries(order).await?;
    assert_eq!(deliveries.len(), 1, "{deliveries:#?}");
    Ok(deliveries.remove(0))
}

/// Whatever was sent, it was the same event in the same bytes, signed anew each time.
fn assert_repeats(webhooks: &[Webhook], delivery: &DeliveryView) -> Result<()> {
    let mut earlier = 0;
    for webhook in webhooks {
        assert_eq!(webhook.header("webhook-id"), delivery.event_id);
        assert_eq!(webhook.body, delivery.body);
        assert_eq!(webhook.verified, Some(true), "{webhook:?}");
        // The time of this attempt: after the one before it had come, and before it came.
        let timestamp: i64 = webhook.header("webhook-timestamp").parse()?;
        let came = webhook.at / 1_000;
        assert!((earlier..=came).contains(&timestamp), "{timestamp} not in {earlier} to {came}");
        earlier = came;
    }
    assert_eq!(delivery.attempts.len(), webhooks.len());
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_fails_twice_gets_the_same_bytes_a_third_time() -> Result<()> {
    let world = World::open("fails-twice").await?;
    let broken = json!({"status": 500, "body": "database is down"});
    let order = order(&world, &json!([broken, broken])).await?;

    world.submit(&order).await?;
    let job = world.settled(&order).await?;

    assert_eq!(job.state, "completed");
    let webhooks = world.webhooks(&order).await?;
    let answered: Vec<u16> = webhooks.iter().map(|webhook| webhook.answered).collect();
    assert_eq!(answered, [500, 500, 200]);
    let delivery = only_delivery(&world, &order).await?;
    assert_eq!((delivery.state.as_str(), delivery.next_attempt_at.as_ref()), ("delivered", None));
    assert_eq!(delivery.statuses(), [500, 500, 200].map(Some));
    assert_repeats(&webhooks, &delivery)?;
    let excerpts: Vec<&str> = delivery.attempts.iter().map(|a| a.excerpt.as_str()).collect();
    assert_eq!(excerpts, ["database is down", "database is down", ""]);

    world.render(&order).await?;
    assert_eq!(world.submits(&order).await?, 1);
    let events = world.events(&order).await?;
    assert_eq!(events.len(), 1, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_never_answers_well_is_given_up_and_can_be_tried_again() -> Result<()> {
    let world = World::open("fails-always").await?;
    let order = order(&world, &json!(vec![json!({"status": 503}); 5])).await?;

    world.submit(&order).await?;
    let job = world.settled(&order).await?;

    // The render is as good as ever; only its webhook was given up.
    assert_eq!(job.state, "completed");
    let delivery = only_delivery(&world, &order).await?;
    assert_eq!(delivery.state, "exhausted");
    assert_eq!(delivery.statuses(), [Some(503); 5]);
    let times: Vec<i64> = world.webhooks(&order).await?.iter().map(|it| it.at).collect();
    let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, least) in waits.iter().zip([1_000, 1_000, 2_000, 2_000]) {
        assert!(*wait >= least, "{waits:?}");
    }

    let events = world.events(&order).await?;
    let names: Vec<&str> = events.iter().map(|event| event.detail_type.as_str()).collect();
    assert_eq!(names, [COMPLETED, EXHAUSTED]);
    let detail = &events[1].detail;
    let at = domain::time::parse(detail["occurredAt"].as_str().unwrap()).unwrap();
    let end = format!("{EXHAUSTED}/{}/{}", delivery.event_id, at.timestamp_millis());
    let expected = json!({
        "event": EXHAUSTED,
        "eventId": order.event_id(&end),
        "jobId": order.job_id(),
        "deliveryEventId": delivery.event_id,
        "deliveryEvent": COMPLETED,
        "endpointId": delivery.endpoint_id,
        "reason": "attempts_exhausted",
        "attempts": 5,
        "occurredAt": detail["occurredAt"],
    });
    assert_eq!(*detail, expected);

    world.redeliver(&order).await?.expect(202)?;
    let job = world.settled(&order).await?;

    assert_eq!(job.delivery.map(|it| (it.state, it.attempts)), Some(("delivered".into(), 6)));
    let delivery = only_delivery(&world, &order).await?;
    assert_repeats(&world.webhooks(&order).await?, &delivery)?;
    let statuses = [503, 503, 503, 503, 503, 200].map(Some);
    assert_eq!(delivery.statuses(), statuses);
    assert_eq!(world.events(&order).await?.len(), 2, "sending again is no news");
    Ok(())
}

#[tokio::test]
async fn a_delivered_event_can_be_sent_again_but_not_while_it_is_being_tried() -> Result<()> {
    let world = World::open("again").await?;
    let order = order(&world, &json!([])).await?;
    world.submit(&order).await?;
    world.until_settled(&order).await?;
    // More than one, should we be so slow that an attempt is over before it is answered.
    let held = json!({"status": 500, "held": true});
    world.receiver_answers(&order, &json!([held, held, held, held])).await?;

    world.redeliver(&order).await?.expect(202)?;
    let refused = world.redeliver(&order).await?.expect(409)?;
    assert_eq!(refused.json::<Value>()?["code"], "delivery_pending");
    eventually("the receiver tried", async || {
        ensure!(world.webhooks(&order).await?.len() >= 2);
        Ok(())
    })
    .await?;
    world.receiver_answers(&order, &json!([])).await?;
    world.until_settled(&order).await?;

    let delivery = only_delivery(&world, &order).await?;
    let statuses = delivery.statuses();
    let [Some(200), tried @ .., Some(200)] = &statuses[..] else { panic!("{statuses:?}") };
    assert!(
        !tried.is_empty() && tried.iter().all(|it| [None, Some(500)].contains(it)),
        "{tried:?}"
    );
    assert_repeats(&world.webhooks(&order).await?, &delivery)
}

#[tokio::test]
async fn a_receiver_is_taken_at_its_word() -> Result<()> {
    let world = World::open("words").await?;
    let gone = order(&world, &json!([{"status": 410}])).await?;
    let elsewhere = world.order(Provider::Shotstack).await?;
    let location = json!({"location": elsewhere.body["callbackUrl"]});
    let moved = order(&world, &json!([{"status": 307, "headers": location}])).await?;
    let busy = order(&world, &json!([{"status": 503, "headers": {"retry-after": "4"}}])).await?;

    let all = [&gone, &moved, &busy];
    try_join_all(all.map(|order| world.submit(order))).await?;
    try_join_all(all.map(|order| world.until_settled(order))).await?;

    let given_up = only_delivery(&world, &gone).await?;
    assert_eq!((given_up.state.as_str(), given_up.statuses()), ("exhausted", vec![Some(410)]));

    let asked_again = only_delivery(&world, &moved).await?;
    assert_eq!(asked_again.statuses(), [Some(307), Some(200)]);
    assert_eq!(world.webhooks(&elsewhere).await?.len(), 0, "a redirect was followed");

    let waited = world.webhooks(&busy).await?;
    assert_eq!(waited.len(), 2);
    assert!(waited[1].at - waited[0].at >= 4_000, "{waited:#?}");
    Ok(())
}
