//! Very many jobs at all five providers, while callers and providers repeat themselves,
//! providers break and lose callbacks, and receivers fail: every job is settled, was rendered
//! once and told of in one way, and none is left among the active ones.
//!
//! `cargo xtask load --jobs 2000` runs it with as many as one likes.

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod faults;
#[cfg(test)]
mod progress;
#[cfg(test)]
mod summary;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tests::{JobView, Order, Outcome, Receiver, World, eventually};

use crate::faults::Fault;
use crate::progress::Progress;

const RECEIVERS: usize = 10;

/// How many orders are placed at once. The emulator starts a process for each.
const AT_ONCE: usize = 16;

/// One job, and what is done to it.
struct Trial {
    number: usize,
    order: Order,
    fault: Fault,
}

/// Every text that came under an id, and how often it did.
type Texts = HashMap<String, BTreeMap<String, usize>>;

fn jobs() -> Result<usize> {
    match std::env::var("RELAY_LOAD_JOBS") {
        Ok(jobs) => jobs.parse().context("RELAY_LOAD_JOBS is no number"),
        Err(_) => Ok(500),
    }
}

/// They answer one webhook in ten with 500.
async fn receivers(world: &World, jobs: usize) -> Result<Vec<Receiver>> {
    let mut receivers = Vec::new();
    for name in 0..RECEIVERS {
        let answer = |number| json!({"status": if number % 10 == 3 { 500 } else { 200 }});
        let answers: Vec<Value> = (0..2 * jobs / RECEIVERS).map(answer).collect();
        receivers.push(world.receiver(&format!("receiver-{name}"), &answers).await?);
    }
    Ok(receivers)
}

/// Posts an order as its caller does, who may be answered too late and repeat it.
async fn post(world: &World, trial: &Trial) -> Result<()> {
    let Trial { number, order, fault } = trial;
    // Only now: the simulator keeps so many and no more.
    world.scenario(order, &fault.knobs(*number)).await?;
    let posts = if *fault == Fault::PostedTwice { 2 } else { 1 };
    for _ in 0..posts {
        let answer = world.post(order).await?.expect(fault.answer())?;
        if fault.answer() == 202 {
            assert_eq!(answer.json::<JobView>()?.job_id, order.job_id().as_str());
        }
    }
    Ok(())
}

/// What arrived at the receivers, by the webhook's id.
async fn arrived(world: &World, receivers: &[Receiver]) -> Result<Texts> {
    let mut arrived = Texts::new();
    for receiver in receivers {
        for webhook in world.received(receiver).await? {
            assert_eq!(webhook.verified, Some(true), "{webhook:?}");
            let texts = arrived.entry(webhook.header("webhook-id").to_owned()).or_default();
            *texts.entry(webhook.body).or_default() += 1;
        }
    }
    Ok(arrived)
}

/// What a subscriber of the bus got of this world's renders, by the event's id.
async fn on_the_bus(world: &World) -> Result<Texts> {
    let mut events = Texts::new();
    for event in world.all_events().await? {
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
async fn every_job_is_settled_whatever_goes_wrong() -> Result<()> {
    let jobs = jobs()?;
    let world = World::open("load").await?;
    let receivers = receivers(&world, jobs).await?;
    let trial = |number: usize| {
        let receiver = &receivers[number % receivers.len()];
        let order = world.order_to(faults::provider(number), receiver)?;
        Ok(Trial { number, order, fault: Fault::of(number) })
    };
    let trials: Vec<Trial> = (0..jobs).map(trial).collect::<Result<_>>()?;
    let orders: Vec<Order> = trials.iter().map(|trial| trial.order.clone()).collect();

    let began = Instant::now();
    let progress = Progress::of("submitted", jobs);
    let posts = stream::iter(&trials).map(async |trial| {
        post(&world, trial).await?;
        progress.one_more();
        anyhow::Ok(())
    });
    posts.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let submitted = began.elapsed();
    let progress = Progress::of("settled", jobs);
    let outcomes = world.all_over(&orders, |over| progress.at(over)).await?;
    let settled = began.elapsed();

    assert_eq!(world.active_of(&orders).await?, [""; 0], "still active");
    let renders = world.renders_by_mark().await?;
    let arrived = arrived(&world, &receivers).await?;
    for Trial { order, fault, .. } in &trials {
        let Outcome { job, deliveries } = &outcomes[order.job_id()];
        let what = format!("{} of {}, {}", job.id, job.request.provider, fault.name());
        assert_eq!(job.state.name(), fault.end(), "{what}");
        let rendered = renders.get(&order.mark).copied().unwrap_or_default();
        assert_eq!(rendered, fault.renders(), "{what}");
        let [delivery] = &deliveries[..] else { panic!("{what}: {deliveries:#?}") };
        let id = order.event_id(&format!("video.render.{}", fault.end()));
        assert_eq!(delivery.event_id.as_str(), id, "{what}");
        let bodies: Vec<&String> = arrived.get(&id).into_iter().flat_map(|it| it.keys()).collect();
        assert_eq!(bodies, [&delivery.body], "{what}");
    }
    assert_eq!(arrived.len(), jobs, "a webhook that nobody knows of");
    let events = eventually("an event of every job on the bus", async || {
        let events = on_the_bus(&world).await?;
        ensure!(events.len() == jobs, "{} events", events.len());
        Ok(events)
    })
    .await?;
    for outcome in outcomes.values() {
        let delivery = &outcome.deliveries[0];
        let texts: Vec<&String> = events[delivery.event_id.as_str()].keys().collect();
        let body: Value = serde_json::from_str(&delivery.body)?;
        assert_eq!(texts, [&body.to_string()], "{}", delivery.event_id);
    }

    let repeats = |texts: &Texts| {
        texts.values().flat_map(BTreeMap::values).map(|count| count - 1).sum::<usize>()
    };
    println!(
        "\n{}\n{jobs} jobs submitted in {:.0} s and settled in {:.0} s; none is active; {} events \
         and {} webhooks came again, all with the same bytes",
        summary::table(&trials, &outcomes),
        submitted.as_secs_f64(),
        settled.as_secs_f64(),
        repeats(&events),
        repeats(&arrived),
    );
    Ok(())
}
