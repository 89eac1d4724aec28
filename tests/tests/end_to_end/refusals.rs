//! Providers that say no at once.

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{Answer, Provider, World};

use crate::endings::assert_told_once;

/// A provider's "no", and what our caller is to be told.
struct Refusal {
    provider: Provider,
    knobs: Value,
    status: u16,
    code: &'static str,
    message: &'static str,
}

#[tokio::test]
async fn what_a_provider_refuses_is_told_and_not_asked_again() -> Result<()> {
    let world = World::open("refused").await?;
    let refusal =
        |provider, knobs, status, code, message| Refusal { provider, knobs, status, code, message };
    let (zvid, shotstack) = (Provider::Zvid, Provider::Shotstack);
    let details = json!({
        "error": "ValidationError",
        "message": "Validation failed",
        "details": [{"field": "payload", "message": "\"visuals\" is required"}],
    });
    let edit = json!({"success": false, "message": "Bad Request", "response": "Malformed edit"});
    let all = [
        refusal(
            zvid,
            json!({"submitStatus": 400, "submitBody": details}),
            422,
            "provider_rejected",
            "\"visuals\" is required",
        ),
        refusal(
            shotstack,
            json!({"submitStatus": 400, "submitBody": edit}),
            422,
            "provider_rejected",
            "Malformed edit",
        ),
        refusal(zvid, json!({"submitStatus": 401}), 502, "provider_auth", "Please try again later"),
        refusal(shotstack, json!({"submitStatus": 403}), 502, "provider_auth", "Forbidden"),
        refusal(
            zvid,
            json!({"submitStatus": 402}),
            402,
            "provider_quota",
            "You do not have enough credits for this render",
        ),
        refusal(
            zvid,
            json!({"submitStatus": 429, "retryAfter": "60"}),
            503,
            "provider_busy",
            "Hourly limit exceeded. Try again later.",
        ),
        refusal(shotstack, json!({"submitStatus": 429}), 503, "provider_busy", "Too Many Requests"),
    ];
    try_join_all(all.iter().map(|refusal| assert_told(&world, refusal))).await?;
    Ok(())
}

#[tokio::test]
async fn a_providers_own_codes_are_understood() -> Result<()> {
    let world = World::open("codes").await?;
    let refusal =
        |provider, knobs, status, code, message| Refusal { provider, knobs, status, code, message };
    let (json2video, viralsync) = (Provider::Json2Video, Provider::ViralSync);
    let wrong_key = json!({"success": false, "message": "Error: Invalid API Key"});
    let wrong_movie = json!({"code": "E1002", "message": "Movie: scenes is required"});
    let complaint =
        json!({"loc": ["output_files"], "msg": "field required", "type": "value_error"});
    let all = [
        // Its HTTP statuses say something else.
        refusal(
            json2video,
            json!({"submitStatus": 400, "submitBody": wrong_key}),
            502,
            "provider_auth",
            "Error: Invalid API Key",
        ),
        refusal(
            json2video,
            json!({"submitStatus": 400}),
            402,
            "provider_quota",
            "Error: Insufficient credits",
        ),
        refusal(
            json2video,
            json!({"submitStatus": 400, "submitBody": wrong_movie}),
            422,
            "provider_rejected",
            "Movie: scenes is required",
        ),
        refusal(
            json2video,
            json!({"submitStatus": 401}),
            402,
            "provider_quota",
            "You exceeded the quota of movies in your plan. Please upgrade your plan to continue.",
        ),
        refusal(
            viralsync,
            json!({"submitStatus": 409}),
            503,
            "provider_busy",
            "Concurrent render limit exceeded.",
        ),
        refusal(
            viralsync,
            json!({"submitStatus": 402}),
            402,
            "provider_quota",
            "Monthly render quota exceeded.",
        ),
        refusal(
            viralsync,
            json!({"submitStatus": 401}),
            502,
            "provider_auth",
            "This API key has been revoked.",
        ),
        refusal(
            Provider::RenderIo,
            json!({"submitStatus": 422, "submitBody": {"detail": [complaint]}}),
            422,
            "provider_rejected",
            "field required",
        ),
        refusal(
            Provider::RenderIo,
            json!({"submitStatus": 429}),
            503,
            "provider_busy",
            "RATE_LIMITED",
        ),
    ];
    try_join_all(all.iter().map(|refusal| assert_told(&world, refusal))).await?;
    Ok(())
}

async fn assert_told(world: &World, refusal: &Refusal) -> Result<()> {
    let Refusal { provider, knobs, status, code, message } = refusal;
    let order = world.order(*provider).await?;
    world.scenario(&order, knobs).await?;

    let first = world.post(&order).await?;
    let job = world.settled(&order).await?;
    let second = world.post(&order).await?;

    let failure = json!({"code": code, "message": message});
    assert_eq!(job.states(), ["submitting", "failed"], "{knobs}");
    assert_eq!((&job.failure, &job.render_job_id), (&Some(failure), &None), "{knobs}");
    assert_eq!(first.status, *status, "{knobs}: {first}");
    assert_eq!(first.header("content-type"), "application/problem+json");
    let problem: Value = first.json()?;
    assert_eq!(problem["code"], *code, "{knobs}");
    assert_eq!(problem["detail"], *message, "{knobs}");
    assert_eq!(problem["job"]["jobId"], json!(order.job_id()), "{knobs}");
    assert_eq!(problem["job"]["state"], "failed", "{knobs}");

    let said = |answer: &Answer| (answer.status, answer.text.clone());
    assert_eq!(said(&second), said(&first), "a repeat gets another answer");
    assert_eq!(world.submits(&order).await?, 1, "{knobs}");
    assert_eq!(world.renders(&order).await?.len(), 0, "{knobs}");
    assert_told_once(world, &order, &job).await
}
