//! Renders that another stack, or an earlier one, made at the same provider account for the same
//! idempotency keys.

use anyhow::Result;
use domain::id::JobId;
use futures_util::future::try_join_all;
use serde_json::json;
use sha2::{Digest, Sha256};
use tests::{SimulatedProvider, TestStack};

use crate::endings::assert_published_once;

const VIDEO: &str = "https://cdn.example/product-123.mp4";

#[tokio::test]
async fn renders_of_other_stacks_are_not_told() -> Result<()> {
    let stack = TestStack::connect("neighbours").await?;
    let all = [
        SimulatedProvider::Zvid,
        SimulatedProvider::Json2Video,
        SimulatedProvider::ViralSync,
        SimulatedProvider::RenderIo,
    ];
    let cases = all.into_iter().flat_map(|provider| [true, false].map(|lost| (provider, lost)));
    try_join_all(cases.map(|(provider, lost)| told_own_render(&stack, provider, lost))).await?;
    Ok(())
}

/// The other stack's render is over when the job is submitted, with or without an answer.
async fn told_own_render(stack: &TestStack, provider: SimulatedProvider, lost: bool) -> Result<()> {
    let test_job = stack.new_job(provider).await?;
    // An id that follows from the key alone, as another stack would have it.
    let digest: [u8; 32] = Sha256::digest(format!("render-relay/job/{}", test_job.tag)).into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    let reversed: String = test_job.tag.chars().rev().collect();
    stack.render_of_another_stack(provider, &JobId::from_bytes(first), &reversed).await?;
    let mut options = json!({"durationMs": 1, "resultUrl": VIDEO});
    if lost {
        options["submitAnswer"] = json!("never");
        options["callback"] = json!({"skip": true});
    }
    stack.set_scenario(&test_job, &options).await?;

    stack.submit(&test_job).await?;
    let job = stack.settled(&test_job).await?;

    let name = provider.name();
    assert_eq!(
        (job.state.as_str(), job.result_url.as_deref()),
        ("completed", Some(VIDEO)),
        "{name}"
    );
    assert_eq!(job.render_job_id, Some(stack.render(&test_job).await?.id), "{name}");
    assert_eq!(stack.submit_count(&test_job).await?, 1, "{name}");
    assert_published_once(stack, &test_job, &job).await
}
