//! Rotation: webhooks verify with the previous secret and with the new one.

use anyhow::{Result, ensure};
use chrono::{TimeDelta, Utc};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{ForeignReceiver, SimulatedProvider, TestJob, TestStack, eventually};

use crate::owner::{Owner, verification};

/// The results when all libraries accept the webhook, and refuse it with any one bit flipped.
fn accepted(libraries: &[&str]) -> (u16, Value) {
    (200, json!({"accepted": libraries, "refused": [], "acceptedTampered": []}))
}

fn refused(libraries: &[&str]) -> (u16, Value) {
    (401, json!({"accepted": [], "refused": libraries, "acceptedTampered": []}))
}

/// A job for this receiver, whose event has more than ASCII in it.
async fn test_job(stack: &TestStack, receiver: &str) -> Result<TestJob> {
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 300})).await?;
    let metadata = json!({"title": "Grüße an 世界 🎬", "sum": "€ 1.000,–", "quote": "\"\\\u{1}"});
    Ok(test_job.with("callbackUrl", receiver.into()).with("metadata", metadata))
}

/// The results for the job's webhook, at its first attempt.
async fn outcome(stack: &TestStack, test_job: &TestJob) -> Result<(u16, Value)> {
    eventually(&format!("webhook of {} attempted", test_job.tag), async || {
        stack.until_settled(test_job).await?;
        let deliveries = stack.deliveries(test_job).await?;
        ensure!(deliveries.len() == 1, "{deliveries:#?}");
        verification(&deliveries[0].attempts[..1])
    })
    .await
}

#[tokio::test]
async fn webhook_verifies_with_every_secret() -> Result<()> {
    let owner = Owner::lock("whichever").await?;
    let receivers = ForeignReceiver::all()?;
    let old = owner.reset_secret().await?;
    let pair = owner.rotate(&json!({"type": "v1a", "gracePeriodSeconds": 3600})).await?;
    let new = owner.rotate(&json!({"type": "v1", "gracePeriodSeconds": 3600})).await?;
    assert!(new.ends.len() >= 2, "the previous secrets still sign");
    new.until_begun().await;

    let mut test_jobs = Vec::new();
    for receiver_program in &receivers {
        for (name, key) in [("old", &old), ("pair", &pair.key), ("new", &new.key)] {
            let receiver = receiver_program.receiver(name, key)?;
            let test_job = test_job(&owner.stack, &receiver).await?;
            test_jobs.push((
                test_job,
                accepted(receiver_program.libraries(key)),
                receiver_program.language,
                name,
            ));
        }
    }
    try_join_all(test_jobs.iter().map(|(test_job, ..)| owner.stack.submit(test_job))).await?;
    for (test_job, expected, language, name) in &test_jobs {
        let outcome = outcome(&owner.stack, test_job).await?;
        assert_eq!(outcome, *expected, "{language}, with the {name} key");
    }
    Ok(())
}

#[tokio::test]
async fn rotation_without_grace_revokes_old_secret() -> Result<()> {
    let owner = Owner::lock("no-grace").await?;
    let receivers = ForeignReceiver::all()?;
    let leaked = owner.reset_secret().await?;
    let rotated = owner.rotate(&json!({"gracePeriodSeconds": 0})).await?;
    assert_eq!(rotated.ends.iter().max(), Some(&rotated.begins), "the old one signs until then");
    rotated.until_begun().await;

    for receiver_program in &receivers {
        for (name, key, expected) in [
            ("leaked", &leaked, refused(receiver_program.libraries(&leaked))),
            ("new", &rotated.key, accepted(receiver_program.libraries(&rotated.key))),
        ] {
            let receiver = receiver_program.receiver(name, key)?;
            owner.put(&json!({"url": receiver})).await?.expect(200)?;
            let test = owner.stack.test_event().await?;
            assert_eq!(
                verification(&test.attempts)?,
                expected,
                "{}: {name}",
                receiver_program.language
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn secret_ends_with_its_grace_period() -> Result<()> {
    let owner = Owner::lock("grace").await?;
    owner.reset_secret().await?;
    let rotated = owner.rotate(&json!({"gracePeriodSeconds": 2})).await?;
    let [end] = rotated.ends[..] else { panic!("{:?}", rotated.ends) };
    assert_eq!(end - rotated.begins, TimeDelta::seconds(2));
    let left = end - Utc::now() + TimeDelta::seconds(1);
    tokio::time::sleep(left.to_std().unwrap_or_default()).await;

    let test_job = owner.stack.new_job(SimulatedProvider::Shotstack).await?;
    owner.put(&json!({"url": owner.stack.receiver_of(&test_job)})).await?.expect(200)?;
    owner.stack.test_event().await?;
    let webhooks = owner.stack.webhooks(&test_job).await?;
    let signature = webhooks[0].header("webhook-signature");
    assert_eq!(signature.split(' ').count(), 1, "{signature}");
    let shown = owner.config().await?;
    assert_eq!(shown["secrets"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["secrets"][0]["expiresAt"], Value::Null);
    Ok(())
}
