//! One secret takes over from another, and receivers that know either see no difference.

use anyhow::{Result, ensure};
use chrono::Utc;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{ForeignReceiver, Provider, TestJob, TestStack, eventually};

use crate::owner::{Owner, verdict};

/// What a receiver says whose libraries all took the webhook, and took it with no bit turned.
fn taken(libraries: &[&str]) -> (u16, Value) {
    (200, json!({"took": libraries, "refused": [], "fooledBy": []}))
}

fn refused(libraries: &[&str]) -> (u16, Value) {
    (401, json!({"took": [], "refused": libraries, "fooledBy": []}))
}

/// An order whose event has more than ASCII in it, for a receiver.
async fn test_job(stack: &TestStack, receiver: &str) -> Result<TestJob> {
    let test_job = stack.new_job(Provider::Shotstack).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 300})).await?;
    let metadata = json!({"title": "Grüße an 世界 🎬", "sum": "€ 1.000,–", "quote": "\"\\\u{1}"});
    Ok(test_job.with("callbackUrl", receiver.into()).with("metadata", metadata))
}

/// What becomes of the order's webhook when functions that were warm before the rotation had
/// their minute to hear of it.
async fn outcome(stack: &TestStack, test_job: &TestJob) -> Result<(u16, Value)> {
    eventually(&format!("webhook of {} taken", test_job.tag), async || {
        stack.until_settled(test_job).await?;
        let deliveries = stack.deliveries(test_job).await?;
        ensure!(deliveries.len() == 1, "{deliveries:#?}");
        let verdict = verdict(&deliveries[0].attempts)?;
        if verdict.0 == 401 {
            stack.redeliver(test_job).await?.expect(202)?;
        }
        ensure!(verdict.0 != 401, "{verdict:?}");
        Ok(verdict)
    })
    .await
}

#[tokio::test]
async fn renders_verify_at_strangers_receivers_whichever_secret_those_know() -> Result<()> {
    let owner = Owner::alone("whichever").await?;
    let receivers = ForeignReceiver::all()?;
    let old = owner.begin().await?;
    let pair = owner.rotate(&json!({"type": "v1a", "gracePeriodSeconds": 3600})).await?;
    let new = owner.rotate(&json!({"type": "v1", "gracePeriodSeconds": 3600})).await?;
    assert_eq!(new.ends.len(), 2, "the others sign on");
    // For a test the secrets are read anew, so the others mostly need not wait their minute.
    owner.stack.test_event().await?;

    let mut test_jobs = Vec::new();
    for receiver_program in &receivers {
        for (name, known) in [("old", &old), ("pair", &pair.known), ("new", &new.known)] {
            let receiver = receiver_program.receiver(name, known)?;
            let test_job = test_job(&owner.stack, &receiver).await?;
            test_jobs.push((
                test_job,
                taken(receiver_program.libraries(known)),
                receiver_program.language,
                name,
            ));
        }
    }
    try_join_all(test_jobs.iter().map(|(test_job, ..)| owner.stack.submit(test_job))).await?;
    for (test_job, expected, language, name) in &test_jobs {
        let outcome = outcome(&owner.stack, test_job).await?;
        assert_eq!(outcome, *expected, "{language}, which knows the {name} one");
    }
    Ok(())
}

#[tokio::test]
async fn without_grace_only_the_new_secret_verifies() -> Result<()> {
    let owner = Owner::alone("no-grace").await?;
    let receivers = ForeignReceiver::all()?;
    let leaked = owner.begin().await?;
    let rotated = owner.rotate(&json!({"gracePeriodSeconds": 0})).await?;
    assert!(rotated.ends.is_empty(), "{:?}", rotated.ends);

    for receiver_program in &receivers {
        for (name, known, expected) in [
            ("leaked", &leaked, refused(receiver_program.libraries(&leaked))),
            ("new", &rotated.known, taken(receiver_program.libraries(&rotated.known))),
        ] {
            let receiver = receiver_program.receiver(name, known)?;
            owner.put(&json!({"url": receiver})).await?.expect(200)?;
            let test = owner.stack.test_event().await?;
            assert_eq!(verdict(&test.attempts)?, expected, "{}: {name}", receiver_program.language);
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

    let test_job = owner.stack.new_job(Provider::Shotstack).await?;
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
