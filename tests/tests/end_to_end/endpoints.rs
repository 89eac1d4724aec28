//! Receivers that fail, throttle or disable their deliveries.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use chrono::Utc;
use domain::time;
use http::Method;
use serde_json::{Value, json};
use tests::{SimulatedProvider, TestJob, TestStack, eventually};

/// A job with a quick render, whose receiver gives these answers and then 200.
async fn test_job(stack: &TestStack, answers: &Value) -> Result<TestJob> {
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 200})).await?;
    stack.set_receiver_answers(&test_job, answers).await?;
    Ok(test_job)
}

/// Another job with the same receiver.
async fn another(stack: &TestStack, first: &TestJob) -> Result<TestJob> {
    let test_job = stack.new_job_like(SimulatedProvider::Shotstack, first).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": 200})).await?;
    Ok(test_job)
}

/// The ids of the events that the job's receiver got.
async fn events(stack: &TestStack, test_job: &TestJob) -> Result<BTreeSet<String>> {
    let webhooks = stack.webhooks(test_job).await?;
    Ok(webhooks.iter().map(|webhook| webhook.header("webhook-id").to_owned()).collect())
}

#[tokio::test]
async fn endpoint_gone_is_disabled_until_success() -> Result<()> {
    let stack = TestStack::connect("gone").await?;
    let first = test_job(&stack, &json!([{"status": 410}])).await?;
    stack.submit(&first).await?;
    let gone = stack.until_delivery(&first, "exhausted", Some("gone")).await?;
    assert_eq!(gone.statuses(), [Some(410)]);
    let announced = stack.until_disabled(&gone.endpoint_id, 1).await?;
    assert_eq!((&announced[0].detail["reason"], announced.len()), (&json!("gone"), 1));
    assert!(announced[0].detail["host"].is_string() && announced[0].detail.get("url").is_none());

    let second = another(&stack, &first).await?;
    stack.submit(&second).await?;
    let refused = stack.until_delivery(&second, "exhausted", Some("endpoint_disabled")).await?;
    assert_eq!(refused.attempts, []);
    assert_eq!(stack.webhooks(&first).await?.len(), 1, "no attempt was made");
    stack.settled(&second).await?;
    let published = stack.events(&second).await?;
    let last = published.last().expect("it has an event");
    assert_eq!(last.detail_type, "webhook.delivery.exhausted");
    assert_eq!(last.detail["reason"], "endpoint_disabled");
    assert_eq!(last.detail["attempts"], 0);

    // A manual redelivery ignores that the endpoint is disabled. Its success enables the endpoint.
    stack.redeliver(&second).await?.expect(202)?;
    stack.until_delivery(&second, "delivered", None).await?;
    let third = another(&stack, &first).await?;
    stack.submit(&third).await?;
    stack.until_delivery(&third, "delivered", None).await?;
    assert_eq!(events(&stack, &first).await?.len(), 3);
    assert_eq!(stack.until_disabled(&gone.endpoint_id, 1).await?.len(), 1, "announced once");
    Ok(())
}

#[tokio::test]
async fn endpoint_gone_is_enabled_by_owner() -> Result<()> {
    let stack = TestStack::connect("back").await?;
    let first = test_job(&stack, &json!([{"status": 410}])).await?;
    stack.submit(&first).await?;
    let gone = stack.until_delivery(&first, "exhausted", Some("gone")).await?;
    stack.until_disabled(&gone.endpoint_id, 1).await?;
    {
        let _guard = stack.lock_default_receiver().await;
        let before: Value = stack.webhook_config(Method::GET, "", None).await?.json()?;
        let url = json!({"url": first.body["callbackUrl"]});
        let config = stack.webhook_config(Method::PUT, "", Some(&url)).await?.expect(200)?;
        assert_eq!(config.json::<Value>()?["endpoint"]["state"], "healthy");
        let before = json!({"url": before["url"]});
        stack.webhook_config(Method::PUT, "", Some(&before)).await?.expect(200)?;
    }
    let second = another(&stack, &first).await?;
    stack.submit(&second).await?;
    let delivered = stack.until_delivery(&second, "delivered", None).await?;
    assert_eq!(delivered.endpoint_id, gone.endpoint_id);
    Ok(())
}

#[tokio::test]
async fn endpoint_enabled_by_owner_is_recovered() -> Result<()> {
    let stack = TestStack::connect("silence").await?;
    let since = time::text(Utc::now());
    let disable = json!({"status": 200, "headers": {"webhook-delivery": "disable"}});
    let first = test_job(&stack, &json!([disable])).await?;
    stack.submit(&first).await?;
    let delivered = stack.until_delivery(&first, "delivered", None).await?;
    let endpoint = delivered.endpoint_id.as_str();
    assert_eq!(stack.until_disabled(endpoint, 1).await?[0].detail["reason"], "asked");

    let missed = [another(&stack, &first).await?, another(&stack, &first).await?];
    for test_job in &missed {
        stack.submit(test_job).await?;
        stack.until_delivery(test_job, "exhausted", Some("endpoint_disabled")).await?;
        stack.settled(test_job).await?;
    }
    let nothing = json!({"queued": 0, "disabled": 2, "next": null});
    assert_eq!(
        stack.recover(endpoint, &since).await?,
        nothing,
        "a disabled endpoint is not recovered"
    );

    {
        let _guard = stack.lock_default_receiver().await;
        let before: Value = stack.webhook_config(Method::GET, "", None).await?.json()?;
        let url = json!({"url": first.body["callbackUrl"], "maxInFlight": 1, "ratePerSecond": 50});
        let config = stack.webhook_config(Method::PUT, "", Some(&url)).await?.expect(200)?;
        let config: Value = config.json()?;
        assert_eq!(config["endpoint"]["endpointId"], endpoint);
        assert_eq!(config["endpoint"]["state"], "healthy");
        let listed = stack.deliveries_in("exhausted", &since, endpoint).await?;
        assert_eq!(listed.len(), 2, "{listed:#?}");

        let both = json!({"queued": 2, "disabled": 0, "next": null});
        assert_eq!(stack.recover(endpoint, &since).await?, both);
        for test_job in &missed {
            stack.until_delivery(test_job, "delivered", None).await?;
        }
        let none = json!({"queued": 0, "disabled": 0, "next": null});
        assert_eq!(stack.recover(endpoint, &since).await?, none, "nothing is exhausted any more");
        let shown: Value = stack.webhook_config(Method::GET, "", None).await?.json()?;
        assert_eq!((&shown["maxInFlight"], &shown["ratePerSecond"]), (&json!(1), &json!(50)));
        let before = json!({"url": before["url"]});
        stack.webhook_config(Method::PUT, "", Some(&before)).await?.expect(200)?;
    }
    assert_eq!(events(&stack, &first).await?.len(), 3, "all events arrived");
    let delivered = stack.deliveries_in("delivered", &since, endpoint).await?;
    assert_eq!(delivered.len(), 3, "{delivered:#?}");
    Ok(())
}

#[tokio::test]
async fn delivery_aborted_by_receiver_is_exhausted() -> Result<()> {
    let stack = TestStack::connect("aborts").await?;
    let abort = json!({"status": 422, "headers": {"webhook-delivery": "abort-message"}});
    let first = test_job(&stack, &json!([abort])).await?;
    stack.submit(&first).await?;
    let aborted = stack.until_delivery(&first, "exhausted", Some("aborted")).await?;
    assert_eq!(aborted.statuses(), [Some(422)]);
    assert_eq!(aborted.attempts[0].error.as_deref(), Some("status"));
    let second = another(&stack, &first).await?;
    stack.submit(&second).await?;
    stack.until_delivery(&second, "delivered", None).await?;
    Ok(())
}

#[tokio::test]
async fn endpoint_failing_holds_its_deliveries() -> Result<()> {
    let stack = TestStack::connect("held").await?;
    let first = test_job(&stack, &json!(vec![json!({"status": 500}); 5])).await?;
    stack.submit(&first).await?;
    stack.until_delivery(&first, "exhausted", Some("attempts_exhausted")).await?;

    let second = another(&stack, &first).await?;
    stack.submit(&second).await?;
    // The delivery is held for at least a minute. On a very slow machine that minute may be
    // over already; then this delivery is the probe.
    let held = eventually("held", async || {
        let deliveries = stack.deliveries(&second).await?;
        let reason = deliveries.first().and_then(|delivery| delivery.reason.clone());
        let tried = deliveries.first().is_some_and(|delivery| !delivery.attempts.is_empty());
        ensure!(tried || reason.is_some(), "{deliveries:?}");
        Ok(reason.filter(|_| !tried))
    })
    .await?;
    if let Some(reason) = held {
        assert_eq!(reason, "endpoint_failing");
        // A manual redelivery does not wait for the circuit breaker.
        stack.redeliver(&second).await?;
    } else {
        let times: Vec<i64> = stack.webhooks(&first).await?.iter().map(|it| it.at).collect();
        assert!(times[5] - times[4] >= 60_000, "{times:?}");
    }
    stack.until_delivery(&second, "delivered", None).await?;
    let third = another(&stack, &first).await?;
    stack.submit(&third).await?;
    stack.until_delivery(&third, "delivered", None).await?;
    Ok(())
}

#[tokio::test]
async fn endpoint_throttled_delays_all_deliveries() -> Result<()> {
    let stack = TestStack::connect("busy").await?;
    let busy = json!({"status": 429, "headers": {"retry-after": "3"}});
    let first = test_job(&stack, &json!([busy])).await?;
    stack.submit(&first).await?;
    // Now the attempt and its `Retry-After` are stored.
    stack.until_attempted(&first, 1).await?;
    let second = another(&stack, &first).await?;
    stack.submit(&second).await?;
    for test_job in [&first, &second] {
        stack.until_delivery(test_job, "delivered", None).await?;
    }
    let times: Vec<i64> = stack.webhooks(&first).await?.iter().map(|it| it.at).collect();
    assert!(times.len() >= 3 && times[1] - times[0] >= 3_000, "{times:?}");
    Ok(())
}
