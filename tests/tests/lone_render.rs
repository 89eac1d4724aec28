//! How soon the end of a polled render is noticed when nothing else goes on, and what the
//! waiting has cost. Prints it: a busy machine is slow, so only what holds on any is asserted.

use std::io::{Write as _, stdout};

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use serde_json::json;
use tests::{LedgerEntry, Provider, TestStack, Usage};

/// How long the render takes.
const DURATION_MS: i64 = 20_000;

#[tokio::test]
async fn a_lone_polled_render_is_found_by_the_polls_that_its_law_has_due() -> Result<()> {
    let stack = TestStack::connect("lone").await?;
    let test_job = stack.new_job(Provider::Zvid).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": DURATION_MS})).await?;
    let since = stack.ledger_now().await?;

    stack.submit(&test_job).await?;
    // All of them: nothing else goes on.
    let requests = stack.ledger_when_settled(&test_job, since, "").await?;
    let job = stack.job(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "queued", "processing", "completed"]);
    let render = stack.render(&test_job).await?;
    let polls = stack.status_calls(&render.id).await?;
    let submitted = stack.provider_calls(&test_job).await?;
    let submitted = submitted.iter().find(|call| call.method == "POST").context("no submit")?;
    let end = submitted.at + DURATION_MS;
    // Exact at the end: so many were due by the job's law.
    let due = usize::try_from(job.attempt_count)?;
    ensure!((3..=20).contains(&due), "{due} polls were due");
    // Somebody who takes over may repeat a poll of the last moments, and no more than that.
    ensure!(polls.len() <= 2 * due, "{} polls, and {due} were due", polls.len());

    let ended = job.timeline.last().context("no timeline")?;
    let found = DateTime::parse_from_rfc3339(&ended.at)?.timestamp_millis();
    let sent = |kind: &str| requests.iter().filter(|it| is_wake_up(it, kind)).count();
    let (new, next) = (sent("new_job"), sent("successor"));
    let leases = requests.iter().filter(|it| it.is_write() && it.request.contains("lease#"));
    let submit_count = 1;
    let usage = Usage::of(&requests, submit_count);
    // Straight to the stream: the test runner hides what `println!` says when all is well.
    writeln!(
        stdout(),
        "\nA lone polled render of {} s: found {:.1} s after its end, by {} polls ({due} due). \
         {} invocations of the poller by {} messages ({new} of submits, {next} of pollers), \
         {} SQS requests; {} lease writes.\n\n\
         What a million such renders cost, each of them alone. Not in it is that the tick of \
         every minute\ninvokes the poller too.\n\n{usage}",
        DURATION_MS / 1_000,
        (found - end) as f64 / 1_000.0,
        polls.len(),
        new + next,
        new + next,
        // Sent, received and deleted.
        3 * (new + next),
        leases.count(),
    )?;
    ensure!(new >= 1, "the submit woke nobody");
    Ok(())
}

fn is_wake_up(request: &LedgerEntry, kind: &str) -> bool {
    request.operation == "SendMessage" && request.request.contains(kind)
}
