//! The AWS cost of one job whose callback is confirmed by asking, read from the ledger. The test fails when a
//! change adds a write request unit. It prints the price in dollars and saves it for docs/cost.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::{LedgerEntry, SimulatedProvider, TestStack, Usage};

/// The puts of payload (1), job (1 and an entry in each of two indexes), hint (1) and delivery (1);
/// the job's changes to queued (1), to completed (1) and out of the active index (2); the
/// delivery's lease (1) and outcome (1). A signed callback needs no hint.
const MAX_WRITE_UNITS: f64 = 12.0;

fn indexes_of(request: &LedgerEntry) -> String {
    let shares = request.index_units.iter().filter(|(_, units)| **units > 0.0);
    shares.map(|(index, units)| format!("{index} {units}")).collect::<Vec<_>>().join(", ")
}

fn table_of(requests: &[LedgerEntry]) -> Result<String> {
    let mut table = String::new();
    writeln!(
        table,
        "{:<10} {:<14} {:<10} {:>6} {:>6}  indexes",
        "service", "operation", "item", "writes", "reads"
    )?;
    for request in requests {
        let LedgerEntry { service, operation, write_units, read_units, .. } = request;
        let (item, indexes) = (request.item(), indexes_of(request));
        let line = format!(
            "{service:<10} {operation:<14} {item:<10} {write_units:>6.1} {read_units:>6.1}  {indexes}"
        );
        writeln!(table, "{}", line.trim_end())?;
    }
    let [writes, reads] = [
        requests.iter().map(|it| it.write_units).sum::<f64>(),
        requests.iter().map(|it| it.read_units).sum::<f64>(),
    ];
    writeln!(table, "{:<36} {writes:>6.1} {reads:>6.1}", "total")?;
    let mut by_service = BTreeMap::<&str, usize>::new();
    for request in requests {
        *by_service.entry(&request.service).or_default() += 1;
    }
    let counts = by_service.iter().map(|(service, count)| format!("{service} {count}"));
    writeln!(table, "requests: {}", counts.collect::<Vec<_>>().join(", "))?;
    Ok(table)
}

#[tokio::test]
async fn job_costs_twelve_write_units() -> Result<()> {
    let stack = TestStack::connect("capacity").await?;
    for tries_left in (0..3).rev() {
        let (requests, api_requests) = requests_of_a_job(&stack).await?;
        // On a busy machine the SDK may repeat a request whose answer is late; then the job is
        // measured again.
        let mut calls = BTreeSet::new();
        if tries_left > 0 && !requests.iter().all(|it| calls.insert(&it.invocation)) {
            continue;
        }
        return assert_price(&requests, api_requests);
    }
    Ok(())
}

/// The functions' AWS requests for a job, from its submit to its delivery, and the number of
/// requests to our API.
async fn requests_of_a_job(stack: &TestStack) -> Result<(Vec<LedgerEntry>, usize)> {
    let test_job = stack.new_job(SimulatedProvider::Shotstack).await?;
    stack.set_endless(&test_job, &json!({})).await?;
    ensure!(test_job.body.to_string().len() < 1_024, "the payload is too large for one write unit");
    let since = stack.ledger_now().await?;

    stack.submit(&test_job).await?;
    stack.end_render(&test_job).await?;
    let requests = stack.ledger_when_settled(&test_job, since, test_job.job_id().as_str()).await?;
    let render = stack.render(&test_job).await.context("rendered once")?;
    let submit_count = 1;
    Ok((requests, submit_count + render.callbacks.len()))
}

fn assert_price(requests: &[LedgerEntry], api_requests: usize) -> Result<()> {
    let table = table_of(requests)?;
    let usage = Usage::of(requests, api_requests);
    // The test runner hides the output of `println!` when a test passes.
    write!(
        stdout(),
        "\nAWS requests of one webhook-first job, delivered at the first attempt\n\n{table}\n\
         The price of a million such jobs, without requests that serve many jobs at once:\n\
         settings, the state of the endpoint, the tick of every minute.\n\n{usage}\n"
    )?;
    for request in requests.iter().filter(|request| request.is_write()) {
        ensure!(request.status == 200, "a refused write is billed differently: {request:?}");
        ensure!(request.metered, "the units are unknown: {request:?}");
    }
    let writes: f64 = requests.iter().map(|request| request.write_units).sum();
    assert!(writes <= MAX_WRITE_UNITS, "{writes} write units:\n{table}");
    let published = requests.iter().filter(|it| it.operation == "PutEvents").count();
    let tickets = requests.iter().filter(|it| it.operation == "SendMessage").count();
    assert_eq!((published, tickets), (1, 1), "{table}");
    measurements::save(usage.cost())
}
