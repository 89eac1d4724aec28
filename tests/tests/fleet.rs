//! A thousand deliveries to twenty endpoints, of which one is dead, one slow, and the others
//! answer every tenth webhook with 500. No delivery is lost, none arrives with different bytes,
//! and none has more attempts than the schedule allows. The dead endpoint's deliveries are held
//! or exhausted; when it has recovered, all of them arrive.

use std::collections::{BTreeMap, HashMap};
use std::io::{Write as _, stdout};
use std::time::Instant;

use anyhow::{Result, ensure};
use domain::attempt::{Attempt, AttemptOutcome};
use domain::delivery::{Delivery, DeliveryState};
use domain::endpoint::HoldReason;
use domain::id::JobId;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tests::{
    ClosedPort, ReceivedWebhook, SettledJob, SharedReceiver, SimulatedProvider, TestJob, TestStack,
    eventually,
};

const ENDPOINTS: usize = 20;
const DELIVERIES_EACH: usize = 50;

/// The number of attempts in the local stack's schedule.
const MAX_ATTEMPTS: usize = 5;

/// One of so many posts may be repeated, because a function was stopped before it stored the
/// outcome: delivery is at-least-once. A bug that handles tickets twice repeats far more.
const POSTS_PER_REPEAT: usize = 20;

/// The number of concurrent requests of the test.
const CONCURRENCY: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum EndpointKind {
    /// It answers every tenth webhook with 500.
    Ordinary,
    /// It answers 200 after three seconds.
    Slow,
    /// It refuses connections.
    Dead,
}

impl EndpointKind {
    fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "10 % 500",
            Self::Slow => "slow",
            Self::Dead => "dead",
        }
    }

    fn answers(self) -> Vec<Value> {
        let answer = |number: usize| match self {
            Self::Ordinary if number % 10 == 3 => json!({"status": 500}),
            Self::Slow => json!({"delayMs": 3_000}),
            Self::Ordinary | Self::Dead => json!({"status": 200}),
        };
        (0..DELIVERIES_EACH * MAX_ATTEMPTS).map(answer).collect()
    }
}

struct FleetEndpoint {
    kind: EndpointKind,
    receiver: SharedReceiver,
}

fn name(number: usize) -> String {
    format!("endpoint-{number:02}")
}

/// All endpoints, and the port of the dead one.
async fn endpoints(stack: &TestStack) -> Result<(Vec<FleetEndpoint>, ClosedPort)> {
    let (receiver, port) = stack.refusing_receiver(&name(0)).await?;
    let mut endpoints = vec![FleetEndpoint { kind: EndpointKind::Dead, receiver }];
    for number in 1..ENDPOINTS {
        let kind = if number == 1 { EndpointKind::Slow } else { EndpointKind::Ordinary };
        let receiver = stack.receiver(&name(number), &kind.answers()).await?;
        endpoints.push(FleetEndpoint { kind, receiver });
    }
    Ok((endpoints, port))
}

#[tokio::test]
async fn delivery_survives_dead_and_slow_endpoints() -> Result<()> {
    let stack = TestStack::connect("fleet").await?;
    let (endpoints, port) = endpoints(&stack).await?;
    let test_jobs: Vec<TestJob> = (0..ENDPOINTS * DELIVERIES_EACH)
        .map(|number| {
            stack.new_job_to(SimulatedProvider::Shotstack, &endpoints[number % ENDPOINTS].receiver)
        })
        .collect();
    let to_the_dead =
        |test_job: &&TestJob| test_job.body["callbackUrl"] == *endpoints[0].receiver.url;
    let (dead, others): (Vec<TestJob>, Vec<TestJob>) =
        test_jobs.iter().cloned().partition(|test_job| to_the_dead(&test_job));

    let began = Instant::now();
    stack.deliver_all(&test_jobs, CONCURRENCY).await?;
    let queued = began.elapsed();
    let mut outcomes = stack.until_all_finished(&others, |_| ()).await?;
    let finished = began.elapsed();
    let parked = until_parked(&stack, &dead).await?;
    let before: usize = parked.iter().map(|it| it.attempts.len()).sum();

    // All endpoints recover. The test redelivers instead of waiting for the next probes. An
    // ordinary endpoint may have answered all attempts of one delivery with 500.
    port.open()?;
    for (number, _) in endpoints.iter().enumerate() {
        stack.receiver(&name(number), &[]).await?;
    }
    let delivered = |test_job: &TestJob| outcomes.get(test_job.job_id()).is_some_and(is_delivered);
    let missed: Vec<TestJob> =
        test_jobs.iter().filter(|test_job| !delivered(test_job)).cloned().collect();
    let again = send_again(&stack, &missed).await?;
    outcomes.extend(stack.until_all_finished(&missed, |_| ()).await?);
    let recovered = began.elapsed();

    let deliveries: Vec<&Delivery> = outcomes.values().flat_map(|it| &it.deliveries).collect();
    let arrived = arrived(&stack, &endpoints).await?;
    let posts: usize = arrived.values().map(Vec::len).sum();
    let answered = |it: &&Attempt| matches!(it.outcome, AttemptOutcome::Answered(_));
    let attempts = deliveries.iter().flat_map(|it| &it.attempts);
    let repeats = posts.saturating_sub(attempts.filter(answered).count());
    // The test runner hides the output of `println!` when a test passes.
    write!(
        stdout().lock(),
        "\n{}\n{} deliveries queued after {:.0} s; all but the dead endpoint's made after {:.0} s, \
         and its {} parked after {before} attempts; all after {:.0} s. {posts} webhooks arrived, \
         {repeats} of them without an attempt.\n",
        summary(&endpoints, &deliveries),
        test_jobs.len(),
        queued.as_secs_f64(),
        finished.as_secs_f64(),
        dead.len(),
        recovered.as_secs_f64(),
    )?;

    assert_eq!(deliveries.len(), test_jobs.len(), "one for each job");
    for delivery in &deliveries {
        let id = delivery.event_id.to_string();
        let arrived = arrived.get(&id).map_or(&[][..], Vec::as_slice);
        let rounds = again.get(&id).map_or(1, |times| times + 1);
        assert_delivered(delivery, rounds, arrived);
    }
    assert_eq!(arrived.len(), deliveries.len(), "a webhook without a delivery");
    assert!(repeats <= posts / POSTS_PER_REPEAT, "{repeats} of {posts} had no attempt");
    assert!(before < dead.len() * MAX_ATTEMPTS, "the circuit breaker held back no attempt");
    Ok(())
}

fn is_delivered(outcome: &SettledJob) -> bool {
    outcome.deliveries.iter().all(|delivery| delivery.state == DeliveryState::Delivered)
}

/// Waits until each of the dead endpoint's deliveries is exhausted, or held because the endpoint
/// fails, and returns them.
async fn until_parked(stack: &TestStack, test_jobs: &[TestJob]) -> Result<Vec<Delivery>> {
    let ids: Vec<JobId> = test_jobs.iter().map(|test_job| test_job.job_id().clone()).collect();
    eventually("the dead endpoint's deliveries parked", async || {
        let outcomes = stack.settled_jobs(&ids).await?;
        ensure!(outcomes.len() == ids.len(), "{} jobs are settled", outcomes.len());
        let deliveries: Vec<Delivery> = outcomes.into_iter().flat_map(|it| it.deliveries).collect();
        for delivery in &deliveries {
            let state = delivery.state;
            let parked = match state {
                DeliveryState::Pending { held, .. } => held == Some(HoldReason::Failing),
                DeliveryState::Exhausted(_) => true,
                DeliveryState::GivenUp(_) | DeliveryState::Delivered => false,
            };
            ensure!(parked, "{} is {state:?}", delivery.event_id);
        }
        Ok(deliveries)
    })
    .await
}

/// Redelivers every delivery, and returns the number of redeliveries by event id. A delivery
/// with an attempt in flight refuses that, and is delivered without it.
async fn send_again(stack: &TestStack, test_jobs: &[TestJob]) -> Result<HashMap<String, usize>> {
    let requests = stream::iter(test_jobs).map(async |test_job| {
        let times = eventually("redelivered, or delivered by its schedule", async || {
            let answer = stack.redeliver(test_job).await?;
            if answer.status == 202 {
                return Ok(1);
            }
            answer.expect(409)?;
            let deliveries = stack.deliveries(test_job).await?;
            ensure!(deliveries.iter().all(|it| it.state == "delivered"), "{deliveries:?}");
            Ok(0)
        });
        Ok((test_job.event_id("video.render.completed"), times.await?))
    });
    requests.buffer_unordered(CONCURRENCY).try_collect().await
}

/// All webhooks that arrived, by their ids.
async fn arrived(
    stack: &TestStack,
    endpoints: &[FleetEndpoint],
) -> Result<BTreeMap<String, Vec<ReceivedWebhook>>> {
    let mut by_id = BTreeMap::<String, Vec<ReceivedWebhook>>::new();
    for endpoint in endpoints {
        for webhook in stack.received(&endpoint.receiver).await? {
            by_id.entry(webhook.header("webhook-id").to_owned()).or_default().push(webhook);
        }
    }
    Ok(by_id)
}

/// Asserts that the delivery arrived, with the same bytes each time, and had no more attempts
/// than the schedule allows in each of its rounds.
fn assert_delivered(delivery: &Delivery, rounds: usize, arrived: &[ReceivedWebhook]) {
    let id = &delivery.event_id;
    assert_eq!(delivery.state, DeliveryState::Delivered, "{id}");
    let outcomes: Vec<AttemptOutcome> = delivery.attempts.iter().map(|it| it.outcome).collect();
    assert!(outcomes.len() <= rounds * MAX_ATTEMPTS, "{id}: {outcomes:?}");
    assert_eq!(outcomes.last(), Some(&AttemptOutcome::Answered(200)), "{id}");
    let seen: Vec<u16> = arrived.iter().map(|webhook| webhook.answered).collect();
    let answered = outcomes.iter().filter(|it| matches!(it, AttemptOutcome::Answered(_))).count();
    assert!(seen.len() >= answered, "{id}: {outcomes:?} stored, {seen:?} arrived");
    for webhook in arrived {
        assert_eq!(webhook.body, delivery.body, "{id}");
        assert_eq!(webhook.verified, Some(true), "{id}: {webhook:?}");
    }
}

#[derive(Default)]
struct Row {
    deliveries: usize,
    attempts: usize,
    successful: usize,
    refused: usize,
    unanswered: usize,
    /// The times from a delivery's creation to the end of its last attempt, in milliseconds.
    took: Vec<i64>,
}

impl Row {
    fn add(&mut self, delivery: &Delivery) {
        self.deliveries += 1;
        self.attempts += delivery.attempts.len();
        for attempt in &delivery.attempts {
            match attempt.outcome {
                AttemptOutcome::Answered(200..=299) => self.successful += 1,
                AttemptOutcome::Answered(_) => self.refused += 1,
                AttemptOutcome::Failed(_) => self.unanswered += 1,
            }
        }
        if let Some(last) = delivery.attempts.last() {
            let duration = i64::try_from(last.duration_ms).unwrap_or(i64::MAX);
            self.took.push((last.at - delivery.created_at).num_milliseconds() + duration);
        }
    }

    fn line(&mut self, endpoint: &str, kind: &str) -> String {
        self.took.sort_unstable();
        let seconds = |place: usize| self.took.get(place).map_or(0.0, |ms| *ms as f64 / 1e3);
        let (median, last) = (seconds(self.took.len() / 2), seconds(self.took.len().max(1) - 1));
        let Self { deliveries, attempts, successful, refused, unanswered, .. } = self;
        format!(
            "{endpoint:<8} {kind:<8} {deliveries:>10} {attempts:>8} {successful:>5} {refused:>5} {unanswered:>9} \
             {median:>8.1} {last:>8.1}\n"
        )
    }
}

fn summary(endpoints: &[FleetEndpoint], deliveries: &[&Delivery]) -> String {
    let mut text = format!(
        "{:<8} {:<8} {:>10} {:>8} {:>5} {:>5} {:>9} {:>8} {:>8}\n",
        "endpoint",
        "kind",
        "deliveries",
        "attempts",
        "2xx",
        "500",
        "no answer",
        "median s",
        "last s"
    );
    let mut all = Row::default();
    for (number, FleetEndpoint { kind, receiver }) in endpoints.iter().enumerate() {
        let mut row = Row::default();
        for delivery in deliveries.iter().filter(|delivery| delivery.url == receiver.url) {
            row.add(delivery);
            all.add(delivery);
        }
        text.push_str(&row.line(&number.to_string(), kind.name()));
    }
    text.push_str(&all.line("all", ""));
    text
}
