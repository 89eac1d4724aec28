//! Submits that the provider rejects.

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{HttpAnswer, SimulatedProvider, TestStack};

use crate::endings::assert_published_once;

/// A provider's rejection, and the problem document that our caller must get.
struct RejectedSubmit {
    provider: SimulatedProvider,
    options: Value,
    status: u16,
    code: &'static str,
    message: &'static str,
}

fn rejected(
    provider: SimulatedProvider,
    options: Value,
    status: u16,
    code: &'static str,
    message: &'static str,
) -> RejectedSubmit {
    RejectedSubmit { provider, options, status, code, message }
}

#[tokio::test]
async fn submit_rejected_is_not_repeated() -> Result<()> {
    let stack = TestStack::connect("refused").await?;
    let (zvid, shotstack) = (SimulatedProvider::Zvid, SimulatedProvider::Shotstack);
    let details = json!({
        "error": "ValidationError",
        "message": "Validation failed",
        "details": [{"field": "payload", "message": "\"visuals\" is required"}],
    });
    let edit = json!({"success": false, "message": "Bad Request", "response": "Malformed edit"});
    let all = [
        rejected(
            zvid,
            json!({"submitStatus": 400, "submitBody": details}),
            422,
            "provider_rejected",
            "\"visuals\" is required",
        ),
        rejected(
            shotstack,
            json!({"submitStatus": 400, "submitBody": edit}),
            422,
            "provider_rejected",
            "Malformed edit",
        ),
        rejected(
            zvid,
            json!({"submitStatus": 401}),
            502,
            "provider_auth",
            "Please try again later",
        ),
        rejected(shotstack, json!({"submitStatus": 403}), 502, "provider_auth", "Forbidden"),
        rejected(
            zvid,
            json!({"submitStatus": 402}),
            402,
            "provider_quota",
            "You do not have enough credits for this render",
        ),
        rejected(
            zvid,
            json!({"submitStatus": 429, "retryAfter": "60"}),
            503,
            "provider_busy",
            "Hourly limit exceeded. Try again later.",
        ),
        rejected(
            shotstack,
            json!({"submitStatus": 429}),
            503,
            "provider_busy",
            "Too Many Requests",
        ),
    ];
    try_join_all(all.iter().map(|rejected| assert_explained(&stack, rejected))).await?;
    Ok(())
}

#[tokio::test]
async fn submit_rejection_maps_provider_codes() -> Result<()> {
    let stack = TestStack::connect("codes").await?;
    let (json2video, viralsync) = (SimulatedProvider::Json2Video, SimulatedProvider::ViralSync);
    let wrong_key = json!({"success": false, "message": "Error: Invalid API Key"});
    let wrong_movie = json!({"code": "E1002", "message": "Movie: scenes is required"});
    let detail = json!({"loc": ["output_files"], "msg": "field required", "type": "value_error"});
    let all = [
        // JSON2Video's HTTP statuses are misleading.
        rejected(
            json2video,
            json!({"submitStatus": 400, "submitBody": wrong_key}),
            502,
            "provider_auth",
            "Error: Invalid API Key",
        ),
        rejected(
            json2video,
            json!({"submitStatus": 400}),
            402,
            "provider_quota",
            "Error: Insufficient credits",
        ),
        rejected(
            json2video,
            json!({"submitStatus": 400, "submitBody": wrong_movie}),
            422,
            "provider_rejected",
            "Movie: scenes is required",
        ),
        rejected(
            json2video,
            json!({"submitStatus": 401}),
            402,
            "provider_quota",
            "You exceeded the quota of movies in your plan. Please upgrade your plan to continue.",
        ),
        rejected(
            viralsync,
            json!({"submitStatus": 409}),
            503,
            "provider_busy",
            "Concurrent render limit exceeded.",
        ),
        rejected(
            viralsync,
            json!({"submitStatus": 402}),
            402,
            "provider_quota",
            "Monthly render quota exceeded.",
        ),
        rejected(
            viralsync,
            json!({"submitStatus": 401}),
            502,
            "provider_auth",
            "This API key has been revoked.",
        ),
        rejected(
            SimulatedProvider::RenderIo,
            json!({"submitStatus": 422, "submitBody": {"detail": [detail]}}),
            422,
            "provider_rejected",
            "field required",
        ),
        rejected(
            SimulatedProvider::RenderIo,
            json!({"submitStatus": 429}),
            503,
            "provider_busy",
            "RATE_LIMITED",
        ),
    ];
    try_join_all(all.iter().map(|rejected| assert_explained(&stack, rejected))).await?;
    Ok(())
}

async fn assert_explained(stack: &TestStack, rejected: &RejectedSubmit) -> Result<()> {
    let RejectedSubmit { provider, options, status, code, message } = rejected;
    let test_job = stack.new_job(*provider).await?;
    stack.set_scenario(&test_job, options).await?;

    let first = stack.post(&test_job).await?;
    let job = stack.settled(&test_job).await?;
    let second = stack.post(&test_job).await?;

    let failure = json!({"code": code, "message": message});
    assert_eq!(job.states(), ["submitting", "failed"], "{options}");
    assert_eq!((&job.failure, &job.render_job_id), (&Some(failure), &None), "{options}");
    assert_eq!(first.status, *status, "{options}: {first}");
    assert_eq!(first.header("content-type"), "application/problem+json");
    let problem: Value = first.json()?;
    assert_eq!(problem["code"], *code, "{options}");
    assert_eq!(problem["detail"], *message, "{options}");
    assert_eq!(problem["job"]["jobId"], json!(test_job.job_id()), "{options}");
    assert_eq!(problem["job"]["state"], "failed", "{options}");

    let parts = |answer: &HttpAnswer| (answer.status, answer.text.clone());
    assert_eq!(parts(&second), parts(&first), "a repeat gets another answer");
    assert_eq!(stack.submit_count(&test_job).await?, 1, "{options}");
    assert_eq!(stack.renders(&test_job).await?.len(), 0, "{options}");
    assert_published_once(stack, &test_job, &job).await
}
