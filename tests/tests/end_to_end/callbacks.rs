//! Callbacks that are forged or premature, and checks of their URLs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use domain::id::JobId;
use serde_json::{Value, json};
use tests::{SimulatedProvider, SimulatedRender, TestJob, TestStack};

/// A job whose render does not end and whose provider never calls back.
async fn set_endless(stack: &TestStack) -> Result<(TestJob, SimulatedRender)> {
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_endless(&test_job, &json!({})).await?;
    stack.submit(&test_job).await?;
    let render = stack.render(&test_job).await?;
    Ok((test_job, render))
}

/// Shotstack's callback for a completed render.
fn done(render: &SimulatedRender) -> String {
    let body = json!({
        "type": "edit",
        "action": "render",
        "id": render.id,
        "owner": "5ca6hu7s9k",
        "status": "done",
        "url": "https://evil.example/video.mp4",
        "error": null,
    });
    body.to_string()
}

#[tokio::test]
async fn callback_invalid_changes_nothing() -> Result<()> {
    let stack = TestStack::connect("strangers").await?;
    let (test_job, render) = set_endless(&stack).await?;
    let (other, _) = set_endless(&stack).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;
    let (start, token) = url.rsplit_once('/').context("a callback URL ends with the token")?;
    let other_url = stack.callback_url(other.provider, other.job_id()).await?;
    let other_token = other_url.rsplit('/').next().unwrap_or_default();
    let unknown_job_url =
        stack.callback_url(test_job.provider, &JobId::from_bytes([7; 16])).await?;
    let zvid_url = stack.callback_url(SimulatedProvider::Zvid, test_job.job_id()).await?;
    let done = done(&render);
    let serve = json!({
        "type": "serve", "action": "copy", "id": "a-1", "render": render.id, "status": "ready",
    });
    let zvid = json!({"event": "render.completed", "jobId": render.id, "test": false}).to_string();
    let large = format!("{{\"padding\":\"{}\"}}", "x".repeat(256 * 1024));
    let before = [stack.items(&test_job).await?, stack.items(&other).await?];

    for (what, url, body, status, code) in [
        ("no token", &format!("{start}/x"), &done, 401, "invalid_token"),
        ("a token cut short", &url[..url.len() - 1].to_owned(), &done, 401, "invalid_token"),
        ("another job's token", &format!("{start}/{other_token}"), &done, 401, "invalid_token"),
        ("no provider", &url.replace("shotstack", "unknown"), &done, 401, "invalid_token"),
        ("another provider", &url.replace("shotstack", "zvid"), &done, 401, "invalid_token"),
        ("no job id", &format!("{start}x/{token}"), &done, 401, "invalid_token"),
        ("another provider's own token", &zvid_url, &zvid, 404, "not_found"),
        ("a job that does not exist", &unknown_job_url, &done, 404, "not_found"),
        ("no JSON", &url.to_owned(), &"{".to_owned(), 400, "malformed_callback"),
        ("nothing", &url.to_owned(), &String::new(), 400, "malformed_callback"),
        ("too much", &url.to_owned(), &large, 413, "payload_too_large"),
        ("another kind of event", &url.to_owned(), &serve.to_string(), 200, ""),
        ("no event at all", &url.to_owned(), &"[]".to_owned(), 200, ""),
    ] {
        let answer = stack.call_back(url, body.clone()).await?;
        assert_eq!(answer.status, status, "{what}: {answer}");
        let body: Value = answer.json()?;
        match code {
            "" => assert_eq!(body, json!({"status": "ignored"}), "{what}"),
            code => assert_eq!(body["code"], code, "{what}"),
        }
    }

    assert_eq!([stack.items(&test_job).await?, stack.items(&other).await?], before);
    assert_eq!(stack.render(&test_job).await?.polls, 0, "none made us poll the provider");
    assert_eq!(stack.events(&test_job).await?, []);
    assert_eq!(stack.webhooks(&test_job).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn callback_forged_is_not_confirmed() -> Result<()> {
    let stack = TestStack::connect("forged").await?;
    let (test_job, render) = set_endless(&stack).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;

    // The provider is polled, and its answer "rendering" is stored.
    let answer = stack.call_back(url, done(&render)).await?.expect(200)?;
    assert_eq!(answer.json::<Value>()?, json!({"status": "hint_stored"}));
    let job = stack.job(&test_job).await?;
    assert_eq!(job.states(), ["submitting", "queued", "processing"]);
    assert_eq!((job.provider_status.as_deref(), job.result_url), (Some("rendering"), None));

    // Further callbacks join the hint, and the looks at it have the same answer.
    let before = stack.items(&test_job).await?;
    for _ in 0..10 {
        stack.call_back(url, done(&render)).await?.expect(200)?;
    }
    assert_eq!(stack.items(&test_job).await?, before);
    let polls = stack.render(&test_job).await?.polls;
    assert!((1..=3).contains(&polls), "{polls} polls for eleven callbacks");
    assert_eq!(stack.events(&test_job).await?, []);
    assert_eq!(stack.webhooks(&test_job).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn callback_naming_another_render_is_ignored() -> Result<()> {
    let stack = TestStack::connect("misnamed").await?;
    let (test_job, render) = set_endless(&stack).await?;
    let completed = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_scenario(&completed, &json!({"durationMs": 1})).await?;
    stack.submit(&completed).await?;
    stack.until_settled(&completed).await?;
    let completed = stack.render(&completed).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;

    let answer = stack.call_back(url, done(&completed)).await?.expect(200)?;
    assert_eq!(answer.json::<Value>()?, json!({"status": "ignored"}));

    let job = stack.job(&test_job).await?;
    assert_eq!((job.state.as_str(), job.render_job_id), ("queued", Some(render.id)));
    assert_eq!(stack.events(&test_job).await?, []);
    Ok(())
}

#[tokio::test]
async fn callback_is_answered_before_slow_status() -> Result<()> {
    let stack = TestStack::connect("slow-status").await?;
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    let slow = json!({"durationMs": 1, "statusDelayMs": 9000, "callback": {"skip": true}});
    stack.set_scenario(&test_job, &slow).await?;
    stack.submit(&test_job).await?;
    let render = stack.render(&test_job).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;

    let begun = Instant::now();
    let answer = stack.call_back(url, done(&render)).await?.expect(200)?;
    let took = begun.elapsed();
    assert_eq!(answer.json::<Value>()?, json!({"status": "hint_stored"}));
    assert!(took < Duration::from_secs(3), "{took:?}");
    stack.until_settled(&test_job).await?;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "the poller looks at once: {took:?}");
    assert_eq!(stack.job(&test_job).await?.state, "completed");
    Ok(())
}

#[tokio::test]
async fn callback_url_answers_registration_checks() -> Result<()> {
    let stack = TestStack::connect("registration").await?;
    let (test_job, render) = set_endless(&stack).await?;
    let url = render.callback_url().context("Shotstack gets a callback URL")?;
    let (start, _) = url.rsplit_once('/').context("a callback URL ends with the token")?;
    let account = stack.account_url(SimulatedProvider::RenderIo);
    for url in [url, &format!("{start}/a-guess"), &account] {
        for end in ["", "/"] {
            // `OPTIONS` is checked in the bundle's tests: the emulator answers it by itself, where
            // API Gateway hands it to the route unless the API has CORS settings.
            for (method, status) in [("HEAD", 200), ("GET", 200)] {
                let answer = stack.check_url(method.parse()?, &format!("{url}{end}")).await?;
                assert_eq!((answer.status, answer.text.len()), (status, 0), "{method}: {answer}");
                assert_eq!(answer.header("access-control-allow-origin"), "");
            }
        }
        stack.check_url("DELETE".parse()?, url).await?.expect(405)?;
    }
    let answer = stack.call_back(&format!("{url}/"), done(&render)).await?.expect(200)?;
    assert_eq!(answer.json::<Value>()?, json!({"status": "hint_stored"}), "it is the same URL");
    assert_eq!(stack.job(&test_job).await?.state, "processing");
    Ok(())
}
