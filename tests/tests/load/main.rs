//! Many jobs at all five providers, with repeated submits and callbacks, failing providers, lost
//! callbacks and failing receivers. Every job must be settled, rendered once, and published with
//! the same bytes each time, and no job may stay active.
//!
//! `cargo xtask load --jobs 2000` runs it with any number of jobs.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its helpers are outside its function"
)]

mod faults;
mod progress;
mod summary;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tests::{JobView, SettledJob, SharedReceiver, TestJob, TestStack, eventually};

use crate::faults::Fault;
use crate::progress::ProgressBar;

const RECEIVERS: usize = 10;

/// The number of concurrent submits. The emulator starts a process for each.
const CONCURRENCY: usize = 16;

/// One job and its fault.
struct Trial {
    number: usize,
    test_job: TestJob,
    fault: Fault,
}

/// The different bodies of each id, and the number of arrivals of each body.
type BodyCounts = HashMap<String, BTreeMap<String, usize>>;

fn jobs() -> Result<usize> {
    match std::env::var("RELAY_LOAD_JOBS") {
        Ok(jobs) => jobs.parse().context("RELAY_LOAD_JOBS is not a number"),
        Err(_) => Ok(500),
    }
}

/// Receivers that answer one webhook in ten with 500.
async fn receivers(stack: &TestStack, jobs: usize) -> Result<Vec<SharedReceiver>> {
    let mut receivers = Vec::new();
    for name in 0..RECEIVERS {
        let answer = |number| json!({"status": if number % 10 == 3 { 500 } else { 200 }});
        let answers: Vec<Value> = (0..2 * jobs / RECEIVERS).map(answer).collect();
        receivers.push(stack.receiver(&format!("receiver-{name}"), &answers).await?);
    }
    Ok(receivers)
}

/// Submits a job, twice if its fault is a repeated submit.
async fn post(stack: &TestStack, trial: &Trial) -> Result<()> {
    let Trial { number, test_job, fault } = trial;
    // Set right before the submit, because the simulator keeps a limited number of scenarios.
    stack.set_scenario(test_job, &fault.options(*number)).await?;
    let posts = if *fault == Fault::PostedTwice { 2 } else { 1 };
    for _ in 0..posts {
        let answer = stack.post(test_job).await?.expect(fault.answer())?;
        if fault.answer() == 202 {
            assert_eq!(answer.json::<JobView>()?.job_id, test_job.job_id().as_str());
        }
    }
    Ok(())
}

/// The bodies that arrived at the receivers, by webhook id.
async fn arrived(stack: &TestStack, receivers: &[SharedReceiver]) -> Result<BodyCounts> {
    let mut arrived = BodyCounts::new();
    for receiver in receivers {
        for webhook in stack.received(receiver).await? {
            assert_eq!(webhook.verified, Some(true), "{webhook:?}");
            let bodies = arrived.entry(webhook.header("webhook-id").to_owned()).or_default();
            *bodies.entry(webhook.body).or_default() += 1;
        }
    }
    Ok(arrived)
}

/// The render events that a subscriber of the bus got, by event id.
async fn on_the_bus(stack: &TestStack) -> Result<BodyCounts> {
    let mut events = BodyCounts::new();
    for event in stack.all_events().await? {
        if event.detail_type.starts_with("video.render.") {
            let id = event.detail.get("eventId").and_then(Value::as_str).unwrap_or_default();
            *events
                .entry(id.to_owned())
                .or_default()
                .entry(event.detail.to_string())
                .or_default() += 1;
        }
    }
    Ok(events)
}

#[tokio::test]
async fn job_settles_under_every_fault() -> Result<()> {
    let jobs = jobs()?;
    let stack = TestStack::connect("load").await?;
    let receivers = receivers(&stack, jobs).await?;
    let trial = |number: usize| {
        let receiver = &receivers[number % receivers.len()];
        let test_job = stack.new_job_to(faults::provider(number), receiver);
        Trial { number, test_job, fault: Fault::of(number) }
    };
    let trials: Vec<Trial> = (0..jobs).map(trial).collect();
    let test_jobs: Vec<TestJob> = trials.iter().map(|trial| trial.test_job.clone()).collect();

    let began = Instant::now();
    let progress = ProgressBar::of("submitted", jobs);
    let posts = stream::iter(&trials).map(async |trial| {
        post(&stack, trial).await?;
        progress.one_more();
        anyhow::Ok(())
    });
    posts.buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
    let submitted = began.elapsed();
    let progress = ProgressBar::of("settled", jobs);
    let outcomes = stack.until_all_finished(&test_jobs, |finished| progress.at(finished)).await?;
    let settled = began.elapsed();

    assert_eq!(stack.active_jobs(&test_jobs).await?, [""; 0], "still active");
    let renders = stack.render_counts().await?;
    let arrived = arrived(&stack, &receivers).await?;
    for Trial { test_job, fault, .. } in &trials {
        let SettledJob { job, deliveries } = &outcomes[test_job.job_id()];
        let what = format!("{} of {}, {}", job.id, job.request.provider, fault.name());
        assert_eq!(job.state.name(), fault.end(), "{what}");
        let rendered = renders.get(&test_job.tag).copied().unwrap_or_default();
        assert_eq!(rendered, fault.renders(), "{what}");
        let [delivery] = &deliveries[..] else { panic!("{what}: {deliveries:#?}") };
        let id = test_job.event_id(&format!("video.render.{}", fault.end()));
        assert_eq!(delivery.event_id.as_str(), id, "{what}");
        let bodies: Vec<&String> = arrived.get(&id).into_iter().flat_map(|it| it.keys()).collect();
        assert_eq!(bodies, [&delivery.body], "{what}");
    }
    assert_eq!(arrived.len(), jobs, "a webhook without a delivery");
    let events = eventually("an event of every job on the bus", async || {
        let events = on_the_bus(&stack).await?;
        ensure!(events.len() == jobs, "{} events", events.len());
        Ok(events)
    })
    .await?;
    for outcome in outcomes.values() {
        let delivery = &outcome.deliveries[0];
        let bodies: Vec<&String> = events[delivery.event_id.as_str()].keys().collect();
        let body: Value = serde_json::from_str(&delivery.body)?;
        assert_eq!(bodies, [&body.to_string()], "{}", delivery.event_id);
    }

    let repeats = |counts: &BodyCounts| {
        counts.values().flat_map(BTreeMap::values).map(|count| count - 1).sum::<usize>()
    };
    println!(
        "\n{}\n{jobs} jobs submitted in {:.0} s and settled in {:.0} s; none is active; {} events \
         and {} webhooks were repeated, all with the same bytes",
        summary::table(&trials, &outcomes),
        submitted.as_secs_f64(),
        settled.as_secs_f64(),
        repeats(&events),
        repeats(&arrived),
    );
    Ok(())
}
