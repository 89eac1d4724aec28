//! The delay and the cost of polling a single render on an idle stack. The test prints both, and
//! asserts only bounds that also hold on a slow machine.

use std::io::{Write as _, stdout};

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use serde_json::json;
use tests::{LedgerEntry, SimulatedProvider, TestStack, Usage};

const DURATION_MS: i64 = 20_000;

#[tokio::test]
async fn poll_count_follows_the_schedule() -> Result<()> {
    let stack = TestStack::connect("lone").await?;
    let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
    stack.set_scenario(&test_job, &json!({"durationMs": DURATION_MS})).await?;
    let since = stack.ledger_now().await?;

    stack.submit(&test_job).await?;
    // The stack is idle, so all requests belong to this render.
    let requests = stack.ledger_when_settled(&test_job, since, "").await?;
    let job = stack.job(&test_job).await?;

    assert_eq!(job.states(), ["submitting", "queued", "processing", "completed"]);
    let render = stack.render(&test_job).await?;
    let polls = stack.status_calls(&render.id).await?;
    let submitted = stack.provider_calls(&test_job).await?;
    let submitted = submitted.iter().find(|call| call.method == "POST").context("no submit")?;
    let end = submitted.at + DURATION_MS;
    // The count is exact when the job has ended: it is the number of polls due by its schedule.
    let due = usize::try_from(job.attempt_count)?;
    ensure!((3..=20).contains(&due), "{due} polls were due");
    // A poller that takes over the lease may repeat the last poll.
    ensure!(polls.len() <= 2 * due, "{} polls, and {due} were due", polls.len());

    let ended = job.timeline.last().context("no timeline")?;
    let found = DateTime::parse_from_rfc3339(&ended.at)?.timestamp_millis();
    let sent = |kind: &str| requests.iter().filter(|it| is_wake_up(it, kind)).count();
    let (new, continued) = (sent("new_job"), sent("continuation"));
    let leases = requests.iter().filter(|it| it.is_write() && it.request.contains("lease#"));
    let submit_count = 1;
    let usage = Usage::of(&requests, submit_count);
    // The test runner hides the output of `println!` when a test passes.
    writeln!(
        stdout(),
        "\nA lone polled render of {} s: found {:.1} s after its end, by {} polls ({due} due). \
         {} invocations of the poller by {} messages ({new} of submits, {continued} of pollers), \
         {} SQS requests; {} lease writes.\n\n\
         The price of a million such renders, each of them alone, without the poller's \
         invocations\nby the tick of every minute.\n\n{usage}",
        DURATION_MS / 1_000,
        (found - end) as f64 / 1_000.0,
        polls.len(),
        new + continued,
        new + continued,
        // A message is sent, received and deleted.
        3 * (new + continued),
        leases.count(),
    )?;
    ensure!(new >= 1, "the submit sent no wake-up call");
    Ok(())
}

fn is_wake_up(request: &LedgerEntry, kind: &str) -> bool {
    request.operation == "SendMessage" && request.request.contains(kind)
}
