//! What the default receiver gets, and with which headers.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{Provider, Webhook};

use crate::owner::Owner;

const COMPLETED: &str = "video.render.completed";
const FAILED: &str = "video.render.failed";

#[tokio::test]
async fn a_test_event_arrives_like_any_other_and_is_seen_nowhere_else() -> Result<()> {
    let owner = Owner::alone("test-event").await?;
    let order = owner.world.order(Provider::Shotstack).await?;
    let receiver = owner.world.receiver_of(&order);
    // Whatever it wants, a test is sent.
    owner.put(&json!({"url": receiver, "events": [FAILED]})).await?.expect(200)?;
    owner.world.receiver_answers(&order, &json!([{"status": 500}])).await?;

    let test = owner.world.test_event().await?;

    assert_eq!((test.event.as_str(), test.url.as_str()), ("webhook.test", receiver.as_str()));
    let webhook = &owner.world.webhooks(&order).await?[0];
    assert_eq!(webhook.header("webhook-id"), test.event_id);
    assert_eq!(webhook.header("user-agent"), concat!("render-relay/", env!("CARGO_PKG_VERSION")));
    assert_eq!((webhook.verified, &webhook.body), (Some(true), &test.body));
    let body: Value = serde_json::from_str(&test.body)?;
    assert_eq!((&body["event"], &body["eventId"]), (&"webhook.test".into(), &json!(test.event_id)));
    Ok(())
}

#[tokio::test]
async fn the_default_receiver_gets_what_it_wants_and_other_receivers_what_their_jobs_want()
-> Result<()> {
    let owner = Owner::alone("filter").await?;
    let world = &owner.world;
    let quick = json!({"durationMs": 300});
    let default = world.order(Provider::Shotstack).await?.without_receiver();
    let own = world.order(Provider::Shotstack).await?;
    let receiver = world.receiver_of(&default);
    owner.put(&json!({"url": receiver, "events": [FAILED]})).await?.expect(200)?;
    assert_eq!(owner.config().await?["events"], json!([FAILED]));
    for order in [&default, &own] {
        world.scenario(order, &quick).await?;
        world.submit(order).await?;
    }
    world.until_told(&default).await?;
    world.until_settled(&own).await?;

    assert_eq!(world.job(&default).await?.state, "completed");
    assert_eq!(world.deliveries(&default).await?, []);
    assert_eq!(world.webhooks(&default).await?.len(), 0);
    let on_bus = world.events(&default).await?;
    assert_eq!(on_bus.len(), 1, "the bus has it all the same: {on_bus:#?}");
    assert_eq!(world.webhooks(&own).await?.len(), 1, "it was the job that was asked");

    owner.put(&json!({"url": receiver, "events": [FAILED, COMPLETED]})).await?.expect(200)?;
    let wanted = world.order(Provider::Shotstack).await?.without_receiver();
    world.scenario(&wanted, &quick).await?;
    world.submit(&wanted).await?;
    world.until_settled(&wanted).await?;
    assert_eq!(world.webhooks(&default).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn the_owners_headers_come_with_every_attempt_and_are_shown_by_name_only() -> Result<()> {
    let owner = Owner::alone("headers").await?;
    let world = &owner.world;
    let order = world.order(Provider::Shotstack).await?;
    let receiver = world.receiver_of(&order);
    let headers = json!({"Authorization": "Bearer for-the-gateway", "X-Shop": "berlin"});
    let answer = owner.put(&json!({"url": receiver, "headers": headers})).await?.expect(200)?;
    for shown in [answer.json()?, owner.config().await?] {
        assert_eq!(shown["headerNames"], json!(["authorization", "x-shop"]));
        assert!(!shown.to_string().contains("for-the-gateway"), "{shown}");
    }

    let theirs =
        |webhook: &Webhook| ["authorization", "x-shop"].map(|name| webhook.header(name).to_owned());
    world.test_event().await?;
    let came = theirs(&world.webhooks(&order).await?[0]);
    assert_eq!(came, ["Bearer for-the-gateway", "berlin"]);

    // Another receiver, and no word of headers: there are none any more.
    let other = world.order(Provider::Shotstack).await?;
    owner.put(&json!({"url": world.receiver_of(&other)})).await?.expect(200)?;
    world.test_event().await?;
    assert_eq!(theirs(&world.webhooks(&other).await?[0]), ["", ""]);
    assert_eq!(owner.config().await?["headerNames"], json!([]));
    Ok(())
}

#[tokio::test]
async fn headers_that_are_not_the_owners_to_set_are_refused() -> Result<()> {
    let owner = Owner::alone("forbidden").await?;
    let order = owner.world.order(Provider::Shotstack).await?;
    let receiver = owner.world.receiver_of(&order);
    owner.put(&json!({"url": receiver})).await?.expect(200)?;
    let before = owner.config().await?;
    for name in ["Host", "webhook-signature", "content-length", "cookie", "x-amz-date", "a b"] {
        let config = json!({"url": receiver, "headers": {name: "for-the-gateway"}});
        let answer = owner.put(&config).await?.expect(422)?;
        let problem: Value = answer.json()?;
        assert_eq!(
            (&problem["code"], &problem["field"]),
            (&"invalid_header".into(), &"headers".into())
        );
        assert!(!answer.text.contains("for-the-gateway"), "{answer}");
    }
    assert_eq!(owner.config().await?, before);
    Ok(())
}
