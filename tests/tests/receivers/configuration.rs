//! The events and the headers of the default receiver's webhooks.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{ReceivedWebhook, SimulatedProvider};

use crate::owner::Owner;

const COMPLETED: &str = "video.render.completed";
const FAILED: &str = "video.render.failed";

#[tokio::test]
async fn test_event_ignores_subscribed_events() -> Result<()> {
    let owner = Owner::lock("test-event").await?;
    let test_job = owner.stack.new_job(SimulatedProvider::Shotstack).await?;
    let receiver = owner.stack.receiver_of(&test_job);
    // A test event is sent regardless of the subscribed events.
    owner.put(&json!({"url": receiver, "events": [FAILED]})).await?.expect(200)?;
    owner.stack.set_receiver_answers(&test_job, &json!([{"status": 500}])).await?;

    let test = owner.stack.test_event().await?;

    assert_eq!((test.event.as_str(), test.url.as_str()), ("webhook.test", receiver.as_str()));
    let webhook = &owner.stack.webhooks(&test_job).await?[0];
    assert_eq!(webhook.header("webhook-id"), test.event_id);
    assert_eq!(webhook.header("user-agent"), concat!("render-relay/", env!("CARGO_PKG_VERSION")));
    assert_eq!((webhook.verified, &webhook.body), (Some(true), &test.body));
    let body: Value = serde_json::from_str(&test.body)?;
    assert_eq!((&body["event"], &body["eventId"]), (&"webhook.test".into(), &json!(test.event_id)));
    Ok(())
}

#[tokio::test]
async fn default_receiver_gets_subscribed_events_only() -> Result<()> {
    let owner = Owner::lock("filter").await?;
    let stack = &owner.stack;
    let quick = json!({"durationMs": 300});
    let default = stack.new_job(SimulatedProvider::Shotstack).await?.without_receiver();
    let own = stack.new_job(SimulatedProvider::Shotstack).await?;
    let receiver = stack.receiver_of(&default);
    owner.put(&json!({"url": receiver, "events": [FAILED]})).await?.expect(200)?;
    assert_eq!(owner.config().await?["events"], json!([FAILED]));
    for test_job in [&default, &own] {
        stack.set_scenario(test_job, &quick).await?;
        stack.submit(test_job).await?;
    }
    stack.until_inactive(&default).await?;
    stack.until_settled(&own).await?;

    assert_eq!(stack.job(&default).await?.state, "completed");
    assert_eq!(stack.deliveries(&default).await?, []);
    assert_eq!(stack.webhooks(&default).await?.len(), 0);
    let on_bus = stack.events(&default).await?;
    assert_eq!(on_bus.len(), 1, "the bus has the event regardless: {on_bus:#?}");
    assert_eq!(stack.webhooks(&own).await?.len(), 1, "a job's own receiver is not filtered");

    owner.put(&json!({"url": receiver, "events": [FAILED, COMPLETED]})).await?.expect(200)?;
    let subscribed = stack.new_job(SimulatedProvider::Shotstack).await?.without_receiver();
    stack.set_scenario(&subscribed, &quick).await?;
    stack.submit(&subscribed).await?;
    stack.until_settled(&subscribed).await?;
    assert_eq!(stack.webhooks(&default).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn custom_headers_are_sent_and_hidden() -> Result<()> {
    let owner = Owner::lock("headers").await?;
    let stack = &owner.stack;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    let receiver = stack.receiver_of(&test_job);
    let headers = json!({"Authorization": "Bearer for-the-gateway", "X-Shop": "berlin"});
    let answer = owner.put(&json!({"url": receiver, "headers": headers})).await?.expect(200)?;
    for shown in [answer.json()?, owner.config().await?] {
        assert_eq!(shown["headerNames"], json!(["authorization", "x-shop"]));
        assert!(!shown.to_string().contains("for-the-gateway"), "{shown}");
    }

    let custom_headers = |webhook: &ReceivedWebhook| {
        ["authorization", "x-shop"].map(|name| webhook.header(name).to_owned())
    };
    stack.test_event().await?;
    let sent = custom_headers(&stack.webhooks(&test_job).await?[0]);
    assert_eq!(sent, ["Bearer for-the-gateway", "berlin"]);

    // A configuration without headers removes them.
    let other = stack.new_job(SimulatedProvider::Shotstack).await?;
    owner.put(&json!({"url": stack.receiver_of(&other)})).await?.expect(200)?;
    stack.test_event().await?;
    assert_eq!(custom_headers(&stack.webhooks(&other).await?[0]), ["", ""]);
    assert_eq!(owner.config().await?["headerNames"], json!([]));
    Ok(())
}

#[tokio::test]
async fn custom_headers_with_reserved_names_are_refused() -> Result<()> {
    let owner = Owner::lock("forbidden").await?;
    let test_job = owner.stack.new_job(SimulatedProvider::Shotstack).await?;
    let receiver = owner.stack.receiver_of(&test_job);
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
