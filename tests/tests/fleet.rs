//! A thousand deliveries to twenty endpoints, of which one is dead, one slow, and the others
//! answer every tenth webhook with 500: nothing is lost, nothing arrives twice with different
//! bytes, and nobody is tried more often than the schedule says. The dead one's deliveries
//! are parked; when it is well again, all of them arrive.

use std::collections::{BTreeMap, HashMap};
use std::io::{Write as _, stdout};
use std::time::Instant;

use anyhow::{Result, ensure};
use domain::delivery::{Attempt, Delivery, DeliveryState, Outcome as AttemptOutcome};
use domain::endpoint::Hold;
use domain::id::JobId;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tests::{
    ClosedPort, Provider, ReceivedWebhook, SettledJob, SharedReceiver, TestJob, TestStack,
    eventually,
};

const ENDPOINTS: usize = 20;
const DELIVERIES_EACH: usize = 50;

/// The attempts of the local stack's schedule.
const MAX_ATTEMPTS: usize = 5;

/// Of so many posts one may be made twice because a function was stopped in between: the
/// promise is "at least once". A ticket that is followed twice makes far more of them.
const POSTS_PER_REPEAT: usize = 20;

/// How much is asked of the stack at once.
const AT_ONCE: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum EndpointKind {
    /// Answers every tenth webhook with 500.
    Ordinary,
    /// Answers well, after three seconds.
    Slow,
    /// Refuses connections.
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

/// All of them, and the port that keeps the dead one dead.
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
async fn a_thousand_deliveries_to_twenty_endpoints() -> Result<()> {
    let stack = TestStack::connect("fleet").await?;
    let (endpoints, port) = endpoints(&stack).await?;
    let test_jobs: Vec<TestJob> = (0..ENDPOINTS * DELIVERIES_EACH)
        .map(|number| {
            stack.new_job_to(Provider::Shotstack, &endpoints[number % ENDPOINTS].receiver)
        })
        .collect::<Result<_>>()?;
    let to_the_dead =
        |test_job: &&TestJob| test_job.body["callbackUrl"] == *endpoints[0].receiver.url;
    let (dead, others): (Vec<TestJob>, Vec<TestJob>) =
        test_jobs.iter().cloned().partition(|test_job| to_the_dead(&test_job));

    let began = Instant::now();
    stack.deliver_all(&test_jobs, AT_ONCE).await?;
    let queued = began.elapsed();
    let mut outcomes = stack.until_all_finished(&others, |_| ()).await?;
    let over = began.elapsed();
    let parked = until_parked(&stack, &dead).await?;
    let before: usize = parked.iter().map(|it| it.attempts.len()).sum();

    // All are well again, and nobody wants to wait for the next probe. One that answers 500
    // now and then may have met the same webhook every time.
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
    // Written past the test's own output: a run that passes shall show it too.
    write!(
        stdout().lock(),
        "\n{}\n{} deliveries queued after {:.0} s; all but the dead endpoint's made after {:.0} s, \
         and its {} parked after {before} attempts; all after {:.0} s. {posts} webhooks arrived, \
         {repeats} of them unasked for.\n",
        summary(&endpoints, &deliveries),
        test_jobs.len(),
        queued.as_secs_f64(),
        over.as_secs_f64(),
        dead.len(),
        recovered.as_secs_f64(),
    )?;

    assert_eq!(deliveries.len(), test_jobs.len(), "one for each job");
    for delivery in &deliveries {
        let id = delivery.event_id.to_string();
        let arrived = arrived.get(&id).map_or(&[][..], Vec::as_slice);
        let rounds = again.get(&id).map_or(1, |times| times + 1);
        assert_whole(delivery, rounds, arrived);
    }
    assert_eq!(arrived.len(), deliveries.len(), "a webhook that nobody knows of");
    assert!(repeats <= posts / POSTS_PER_REPEAT, "{repeats} of {posts} came unasked for");
    assert!(before < dead.len() * MAX_ATTEMPTS, "the breaker saved the dead one nothing");
    Ok(())
}

fn is_delivered(outcome: &SettledJob) -> bool {
    outcome.deliveries.iter().all(|delivery| delivery.state == DeliveryState::Delivered)
}

/// The dead endpoint's deliveries when none of them is about to be tried: given up, or held
/// because their endpoint fails.
async fn until_parked(stack: &TestStack, test_jobs: &[TestJob]) -> Result<Vec<Delivery>> {
    let ids: Vec<JobId> = test_jobs.iter().map(|test_job| test_job.job_id().clone()).collect();
    eventually("the dead endpoint's deliveries parked", async || {
        let outcomes = stack.settled_jobs(&ids).await?;
        ensure!(outcomes.len() == ids.len(), "{} jobs are settled", outcomes.len());
        let deliveries: Vec<Delivery> = outcomes.into_iter().flat_map(|it| it.deliveries).collect();
        for delivery in &deliveries {
            let state = delivery.state;
            let parked = match state {
                DeliveryState::Pending { held, .. } => held == Some(Hold::Failing),
                DeliveryState::Exhausted(_) => true,
                DeliveryState::GivenUp(_) | DeliveryState::Delivered => false,
            };
            ensure!(parked, "{} is {state:?}", delivery.event_id);
        }
        Ok(deliveries)
    })
    .await
}

/// Has every delivery sent again; answers how often each was, by its event's id. One that is
/// being tried by itself just now says so.
async fn send_again(stack: &TestStack, test_jobs: &[TestJob]) -> Result<HashMap<String, usize>> {
    let asked = stream::iter(test_jobs).map(async |test_job| {
        let times = eventually("sent again, or delivered by itself", async || {
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
    asked.buffer_unordered(AT_ONCE).try_collect().await
}

/// Every webhook that arrived, by its id.
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

/// It arrived, always in the same bytes, and was tried as often as the schedule allows in
/// each of its rounds.
fn assert_whole(delivery: &Delivery, rounds: usize, arrived: &[ReceivedWebhook]) {
    let id = &delivery.event_id;
    assert_eq!(delivery.state, DeliveryState::Delivered, "{id}");
    let outcomes: Vec<AttemptOutcome> = delivery.attempts.iter().map(|it| it.outcome).collect();
    assert!(outcomes.len() <= rounds * MAX_ATTEMPTS, "{id}: {outcomes:?}");
    assert_eq!(outcomes.last(), Some(&AttemptOutcome::Answered(200)), "{id}");
    let seen: Vec<u16> = arrived.iter().map(|webhook| webhook.answered).collect();
    let answered = outcomes.iter().filter(|it| matches!(it, AttemptOutcome::Answered(_))).count();
    assert!(seen.len() >= answered, "{id}: {outcomes:?} written down, {seen:?} arrived");
    for webhook in arrived {
        assert_eq!(webhook.body, delivery.body, "{id}");
        assert_eq!(webhook.verified, Some(true), "{id}: {webhook:?}");
    }
}

#[derive(Default)]
struct Row {
    deliveries: usize,
    attempts: usize,
    good: usize,
    bad: usize,
    none: usize,
    /// From the moment a delivery was due to its last attempt's end, in milliseconds.
    took: Vec<i64>,
}

impl Row {
    fn add(&mut self, delivery: &Delivery) {
        self.deliveries += 1;
        self.attempts += delivery.attempts.len();
        for attempt in &delivery.attempts {
            match attempt.outcome {
                AttemptOutcome::Answered(200..=299) => self.good += 1,
                AttemptOutcome::Answered(_) => self.bad += 1,
                AttemptOutcome::Failed(_) => self.none += 1,
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
        let Self { deliveries, attempts, good, bad, none, .. } = self;
        format!(
            "{endpoint:<8} {kind:<8} {deliveries:>10} {attempts:>8} {good:>5} {bad:>5} {none:>9} \
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
