//! One secret takes over from another, and receivers that know either see no difference.

use anyhow::{Result, ensure};
use chrono::Utc;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{Order, Provider, Verifier, World, eventually};

use crate::owner::{Owner, verdict};

/// What a receiver says whose libraries all took the webhook, and took it with no bit turned.
fn taken(libraries: &[&str]) -> (u16, Value) {
    (200, json!({"took": libraries, "refused": [], "fooledBy": []}))
}

fn refused(libraries: &[&str]) -> (u16, Value) {
    (401, json!({"took": [], "refused": libraries, "fooledBy": []}))
}

/// An order whose event has more than ASCII in it, for a receiver.
async fn order(world: &World, receiver: &str) -> Result<Order> {
    let order = world.order(Provider::Shotstack).await?;
    world.scenario(&order, &json!({"durationMs": 300})).await?;
    let metadata = json!({"title": "Grüße an 世界 🎬", "sum": "€ 1.000,–", "quote": "\"\\\u{1}"});
    Ok(order.with("callbackUrl", receiver.into()).with("metadata", metadata))
}

/// What becomes of the order's webhook when functions that were warm before the rotation had
/// their minute to hear of it.
async fn outcome(world: &World, order: &Order) -> Result<(u16, Value)> {
    eventually(&format!("webhook of {} taken", order.mark), async || {
        world.until_settled(order).await?;
        let deliveries = world.deliveries(order).await?;
        ensure!(deliveries.len() == 1, "{deliveries:#?}");
        let verdict = verdict(&deliveries[0].attempts)?;
        if verdict.0 == 401 {
            world.redeliver(order).await?.expect(202)?;
        }
        ensure!(verdict.0 != 401, "{verdict:?}");
        Ok(verdict)
    })
    .await
}

#[tokio::test]
async fn renders_verify_at_strangers_receivers_whichever_secret_those_know() -> Result<()> {
    let owner = Owner::alone("whichever").await?;
    let verifiers = Verifier::all()?;
    let old = owner.begin().await?;
    let pair = owner.rotate(&json!({"type": "v1a", "gracePeriodSeconds": 3600})).await?;
    let new = owner.rotate(&json!({"type": "v1", "gracePeriodSeconds": 3600})).await?;
    assert_eq!(new.ends.len(), 2, "the others sign on");
    // For a test the secrets are read anew, so the others mostly need not wait their minute.
    owner.world.test_event().await?;

    let mut orders = Vec::new();
    for verifier in &verifiers {
        for (name, known) in [("old", &old), ("pair", &pair.known), ("new", &new.known)] {
            let receiver = verifier.receiver(name, known)?;
            let order = order(&owner.world, &receiver).await?;
            orders.push((order, taken(verifier.libraries(known)), verifier.language, name));
        }
    }
    try_join_all(orders.iter().map(|(order, ..)| owner.world.submit(order))).await?;
    for (order, expected, language, name) in &orders {
        let outcome = outcome(&owner.world, order).await?;
        assert_eq!(outcome, *expected, "{language}, which knows the {name} one");
    }
    Ok(())
}

#[tokio::test]
async fn without_grace_only_the_new_secret_verifies() -> Result<()> {
    let owner = Owner::alone("no-grace").await?;
    let verifiers = Verifier::all()?;
    let leaked = owner.begin().await?;
    let rotated = owner.rotate(&json!({"gracePeriodSeconds": 0})).await?;
    assert!(rotated.ends.is_empty(), "{:?}", rotated.ends);

    for verifier in &verifiers {
        for (name, known, expected) in [
            ("leaked", &leaked, refused(verifier.libraries(&leaked))),
            ("new", &rotated.known, taken(verifier.libraries(&rotated.known))),
        ] {
            let receiver = verifier.receiver(name, known)?;
            owner.put(&json!({"url": receiver})).await?.expect(200)?;
            let test = owner.world.test_event().await?;
            assert_eq!(verdict(&test.attempts)?, expected, "{}: {name}", verifier.language);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_is_gone_when_its_grace_period_is() -> Result<()> {
    let owner = Owner::alone("grace").await?;
    owner.begin().await?;
    let rotated = owner.rotate(&json!({"gracePeriodSeconds": 2})).await?;
    let [end] = rotated.ends[..] else { panic!("{:?}", rotated.ends) };
    eventually("the end of the grace period", async || {
        ensure!(Utc::now() > end, "it is to come");
        Ok(())
    })
    .await?;

    let order = owner.world.order(Provider::Shotstack).await?;
    owner.put(&json!({"url": owner.world.receiver_of(&order)})).await?.expect(200)?;
    owner.world.test_event().await?;
    let webhooks = owner.world.webhooks(&order).await?;
    let signature = webhooks[0].header("webhook-signature");
    assert_eq!(signature.split(' ').count(), 1, "{signature}");
    let shown = owner.config().await?;
    assert_eq!(shown["secrets"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["secrets"][0]["expiresAt"], Value::Null);
    Ok(())
}
