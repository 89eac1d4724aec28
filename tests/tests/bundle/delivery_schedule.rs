//! A webhook that its receiver never accepts, through the whole schedule: ten attempts in 75 hours
//! and 35 minutes. First without faults, to the second; then with receivers that ask for more time
//! or are disabled; then with random faults of functions and messages.
//!
//! `DELIVERY_FAULTS_FIRST=7 DELIVERY_FAULTS_SEEDS=1` runs one seed again,
//! `DELIVERY_FAULTS_SEEDS=1000` runs many.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::clock;
use aws_in_memory::random::Random;
use chrono::{DateTime, TimeDelta, Utc};
use domain::attempt::Attempt;
use domain::delivery::{Delivery, DeliveryState, GiveUpReason};
use domain::endpoint::Lane;
use domain::event::EventName;
use domain::id::{EventId, JobId};
use domain::lease::AwakePolicy;
use domain::retry::DeliverySchedule;
use serde_json::Value;
use shared::queue::Ticket;
use tests::SimulatedProvider;

use crate::checks::invariant_checker::text;
use crate::faults::delivery_faults::Counts;
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::functions::{Function, StackParameters, adjustments};
use crate::harness::invocation::STALL;
use crate::harness::parallel::in_parallel;
use crate::harness::receivers::PlannedAnswer;

/// The wait before each attempt in seconds: the example of Standard Webhooks 1.0.0. It is written
/// out so that the test does not depend on the schedule under test.
const WAITS_S: [i64; 10] = [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// The most jitter of a wait: a tenth of it, and at most 15 minutes.
fn jitter(wait_s: i64) -> TimeDelta {
    TimeDelta::milliseconds(wait_s * 100).min(TimeDelta::minutes(15))
}

/// Queues count in whole seconds, and calls take time.
const INEXACT: TimeDelta = TimeDelta::seconds(2);

/// The shortest lease of an attempt. No other function can know earlier that it died.
const ATTEMPT_LEASE: TimeDelta = TimeDelta::seconds(30);

/// The default of `DELIVERY_FAULTS_SEEDS`.
const SEEDS: u64 = 8;

/// The longest delay of a message in a queue, in seconds.
const QUEUE_S: i64 = 900;

fn settings(seed: u64) -> RunSettings {
    RunSettings {
        seed,
        parameters: StackParameters {
            shards: 1,
            schedule: DeliverySchedule::default(),
            adjustments: adjustments(),
            awake_policy: AwakePolicy::default(),
        },
        skips_idle_ticks: true,
        horizon: Duration::from_secs(10 * 24 * 3600),
        ..RunSettings::default()
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// Requests a render for a receiver.
async fn submit_to(bundle: &Arc<Bundle>, tag: &str, receiver: &str) -> JobId {
    let url = crate::harness::receivers::url(receiver);
    let request =
        CallerRequest::new(SimulatedProvider::ViralSync, tag).with("callbackUrl", Value::from(url));
    bundle.submit(&request).await.expect("it is taken")
}

/// Advances time until a job's delivery has ended and the queues are empty.
async fn over(bundle: &Arc<Bundle>, job: &JobId) -> Delivery {
    let (pk, event) = (format!("job#{job}"), EventId::of(job, EventName::Completed.as_str()));
    let sk = format!("delivery#{event}");
    let is_over = || {
        let item = bundle.aws.table().item(&pk, &sk);
        item.is_some_and(|item| ["delivered", "exhausted"].contains(&text(&item, "state")))
    };
    while !(is_over() && bundle.is_quiet()) {
        assert!(clock::true_now() < begun() + TimeDelta::days(20), "it never ends");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    bundle.aws.store().delivery(Some(job), &event).await.unwrap().unwrap()
}

fn begun() -> DateTime<Utc> {
    DateTime::from_timestamp(1_779_602_400, 0).unwrap()
}

fn reason(delivery: &Delivery) -> Option<GiveUpReason> {
    match delivery.state {
        DeliveryState::Exhausted(given_up) => Some(given_up.reason),
        DeliveryState::Pending { .. } | DeliveryState::Delivered | DeliveryState::GivenUp(_) => {
            None
        }
    }
}

/// The times at which a delivery's webhooks arrived, the oldest first.
fn arrivals(bundle: &Bundle, delivery: &Delivery) -> Vec<DateTime<Utc>> {
    let all = bundle.receivers.received();
    let its = all.into_iter().filter(|webhook| webhook.id == delivery.event_id.as_str());
    its.map(|webhook| webhook.at).collect()
}

/// The ids of the events that report the exhaustion of a delivery.
fn announcements(bundle: &Bundle, delivery: &Delivery) -> Vec<String> {
    let events = bundle.aws.events().into_iter();
    let ends = events.filter(|event| event.detail_type == "webhook.delivery.exhausted");
    let details = ends.map(|event| serde_json::from_str::<Value>(&event.detail).unwrap());
    let its = details.filter(|it| it["deliveryEventId"] == delivery.event_id.as_str());
    its.map(|it| it["eventId"].as_str().unwrap().to_owned()).collect()
}

/// The end of an attempt.
fn end(attempt: &Attempt) -> DateTime<Utc> {
    attempt.at + TimeDelta::milliseconds(i64::try_from(attempt.duration_ms).unwrap())
}

fn assert_no_violations(bundle: &Bundle) {
    let log = bundle.checker.log().text();
    assert_eq!(bundle.checker.violations(), [""; 0], "{log}");
}

#[test]
fn delivery_exhausts_after_ten_attempts() {
    let bundle = Bundle::run(settings(1), async |bundle| {
        bundle.receivers.always_answer("dead", 500);
        let job = submit_to(bundle, "dead", "dead").await;
        for (number, wait) in WAITS_S.into_iter().enumerate() {
            let look = Duration::from_secs(if wait > QUEUE_S { 30 } else { 2 });
            while bundle.received("dead") <= number {
                assert!(clock::true_now() < begun() + TimeDelta::days(4), "attempt {number}");
                tokio::time::sleep(look).await;
            }
            tokio::time::sleep(look).await;
            let next = WAITS_S.get(number + 1).copied();
            // A short wait is spent in the queue, a long one in the index.
            let in_index = usize::from(next.is_some_and(|next| next > QUEUE_S));
            let in_queue = usize::from(next.is_some_and(|next| next <= QUEUE_S));
            let waiting =
                (bundle.aws.table().indexed("due").len(), bundle.aws.delivery_queue().len());
            assert_eq!(waiting, (in_index, in_queue), "after the wait of {wait} s");
        }
        let given_up = over(bundle, &job).await;
        assert_eq!(reason(&given_up), Some(GiveUpReason::AttemptsExhausted));
        // No function returns to it within two days.
        tokio::time::sleep(hours(48)).await;

        assert_eq!(given_up.attempts.len(), 10);
        let at = arrivals(bundle, &given_up);
        assert_eq!(at.len(), 10, "nothing twice");
        for (gap, wait) in at.windows(2).map(|two| two[1] - two[0]).zip(&WAITS_S[1..]) {
            assert!(gap >= seconds(*wait), "{gap} instead of {wait} s: early");
            assert!(gap <= seconds(*wait) + jitter(*wait) + INEXACT, "{gap} instead of {wait} s");
        }
        let whole = at[9] - at[0];
        assert!(whole >= seconds(WAITS_S.iter().sum()), "{whole}");
        assert_eq!(announcements(bundle, &given_up).len(), 1, "the end is published once");
        // There is one message for each attempt, none with a longer delay than a queue allows.
        let delays: Vec<i64> = bundle
            .aws
            .delivery_queue()
            .sent()
            .iter()
            .map(|sent| i64::try_from(sent.delay.as_secs()).unwrap())
            .collect();
        assert_eq!(delays.len(), 10, "{delays:?}");
        for (delay, wait) in delays.into_iter().zip(WAITS_S) {
            let expected = match wait {
                // It is moved from the index when the queue can hold the rest of the wait.
                QUEUE_S.. => 0..=QUEUE_S,
                _ => wait..=(seconds(wait) + jitter(wait) + INEXACT).num_seconds(),
            };
            assert!(expected.contains(&delay), "{delay} s in the queue of {wait} s");
        }
    });
    assert_no_violations(&bundle);
}

#[test]
fn wrong_tickets_make_no_attempt() {
    let bundle = Bundle::run(settings(6), async |bundle| {
        bundle.receivers.always_answer("dead", 500);
        let job = submit_to(bundle, "dead", "dead").await;
        let event_id = EventId::of(&job, EventName::Completed.as_str());
        for made in 1..=5 {
            while bundle.received("dead") < made {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // Past attempts, the next one and later ones.
            for attempt in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let (job_id, event_id) = (Some(job.clone()), event_id.clone());
                let ticket = Ticket { job_id, event_id, attempt, lane: Lane::Quick };
                bundle.aws.deliveries().send(&ticket, Duration::ZERO).await.unwrap();
            }
        }
        let given_up = over(bundle, &job).await;
        let at = arrivals(bundle, &given_up);
        assert_eq!((given_up.attempts.len(), at.len()), (10, 10));
        assert_never_early(&given_up, &at);
    });
    assert_no_violations(&bundle);
}

#[test]
fn retry_after_is_respected_and_capped() {
    let bundle = Bundle::run(settings(2), async |bundle| {
        let asks = |status, text| PlannedAnswer {
            retry_after: Some(text),
            ..PlannedAnswer::status(status)
        };
        bundle.receivers.set_behaviors(
            "busy",
            [
                asks(503, "7200"),
                // A date, 12 hours after the beginning.
                asks(500, "Sun, 24 May 2026 18:00:00 GMT"),
                asks(429, "604800"),
                asks(400, "Sun, 21 Jun 2026 06:00:00 GMT"),
                // It is less than the schedule's wait, which still counts.
                asks(502, "60"),
                asks(504, "soon"),
            ],
        );
        let job = submit_to(bundle, "busy", "busy").await;
        let delivered = over(bundle, &job).await;
        assert_eq!(delivered.state, DeliveryState::Delivered);
        let at = arrivals(bundle, &delivered);
        assert_eq!(at.len(), 7);

        let day = TimeDelta::hours(24);
        let noon = begun() + TimeDelta::hours(12);
        let asked = [TimeDelta::hours(2), noon - at[1], day, day, seconds(18_000)];
        let asked = asked.into_iter().chain([seconds(36_000)]);
        for (gap, asked) in at.windows(2).map(|two| two[1] - two[0]).zip(asked) {
            assert!(gap >= asked, "{gap} instead of {asked}: early");
            // A throttled endpoint adds a jitter of its own.
            let late = jitter(asked.num_seconds()) + INEXACT;
            assert!(gap <= asked + late, "{gap} instead of {asked}: late");
        }
    });
    assert_no_violations(&bundle);
}

#[test]
fn throttle_holds_all_deliveries() {
    let bundle = Bundle::run(settings(3), async |bundle| {
        let busy = PlannedAnswer { retry_after: Some("7200"), ..PlannedAnswer::status(503) };
        // The second refusal names no time.
        bundle.receivers.set_behaviors("shared", [busy, PlannedAnswer::status(429)]);
        let first = submit_to(bundle, "first", "shared").await;
        bundle.until("it asks for silence", |it| it.received("shared") == 1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let second = submit_to(bundle, "second", "shared").await;
        let (first, second) = (over(bundle, &first).await, over(bundle, &second).await);

        let mut at = [arrivals(bundle, &first), arrivals(bundle, &second)].concat();
        at.sort();
        assert_eq!(at.len(), 4, "two were refused, and all were taken in the end");
        assert!(at[1] - at[0] >= TimeDelta::hours(2), "{at:?}");
        assert!(at[2] - at[1] >= TimeDelta::minutes(1), "{at:?}");
        assert!(at[3] - at[0] <= TimeDelta::hours(3), "{at:?}");
    });
    assert_no_violations(&bundle);
}

#[test]
fn held_deliveries_keep_ten_attempts() {
    let bundle = Bundle::run(settings(4), async |bundle| {
        bundle.receivers.always_answer("dead", 500);
        let mut jobs = Vec::new();
        for number in 0..4 {
            jobs.push(submit_to(bundle, &format!("held-{number}"), "dead").await);
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        for job in jobs {
            let given_up = over(bundle, &job).await;
            assert_eq!(reason(&given_up), Some(GiveUpReason::AttemptsExhausted));
            assert_eq!(given_up.attempts.len(), 10);
            assert_eq!(arrivals(bundle, &given_up).len(), 10, "nothing twice");
            assert_eq!(announcements(bundle, &given_up).len(), 1);
            assert_never_early(&given_up, &arrivals(bundle, &given_up));
            let begun = given_up.attempts[0].at;
            let whole = end(&given_up.attempts[9]) - begun;
            let waits = WAITS_S.iter().map(|wait| seconds(*wait) + jitter(*wait) + INEXACT);
            // The circuit breaker delays each attempt by at most 15 minutes, and so may the probes
            // of other deliveries.
            let held = TimeDelta::minutes(15) * 10;
            assert!(whole <= waits.sum::<TimeDelta>() + held, "{whole}");
        }
    });
    assert_no_violations(&bundle);
}

#[test]
fn endpoint_is_disabled_after_five_days() {
    let bundle = Bundle::run(settings(5), async |bundle| {
        bundle.receivers.always_answer("dead", 500);
        let first = submit_to(bundle, "first", "dead").await;
        bundle.until("it fails", |it| it.received("dead") > 0).await;
        let failing_since = bundle.receivers.received()[0].at;
        tokio::time::sleep(hours(60)).await;
        let second = submit_to(bundle, "second", "dead").await;
        tokio::time::sleep(hours(55)).await;
        let third = submit_to(bundle, "third", "dead").await;

        let ends = [first, second, third];
        let [first, second, third] = {
            let mut over_all = Vec::new();
            for job in &ends {
                over_all.push(over(bundle, job).await);
            }
            <[Delivery; 3]>::try_from(over_all).unwrap()
        };
        assert_eq!(reason(&first), Some(GiveUpReason::AttemptsExhausted), "that took 76 hours");
        for cut_off in [&second, &third] {
            assert_eq!(reason(cut_off), Some(GiveUpReason::EndpointDisabled));
            assert!(cut_off.attempts.len() < 10);
        }
        for given_up in [&first, &second, &third] {
            assert_eq!(announcements(bundle, given_up).len(), 1);
            assert_never_early(given_up, &arrivals(bundle, given_up));
        }
        let events = bundle.aws.events().into_iter();
        let disabled: Vec<_> =
            events.filter(|event| event.detail_type == "webhook.endpoint.disabled").collect();
        assert_eq!(disabled.len(), 1, "{disabled:?}");
        assert!(disabled[0].detail.contains(r#""reason":"failing""#), "{}", disabled[0].detail);
        assert!(disabled[0].at - failing_since >= TimeDelta::days(5));
        let last = bundle.receivers.received().into_iter().map(|webhook| webhook.at).max();
        assert!(last.unwrap() <= disabled[0].at, "nothing is sent to it any more");
    });
    assert_no_violations(&bundle);
}

/// Whether a webhook belongs to an attempt. It arrives within the latency of a call, or that long
/// after a stall of the process.
fn is_of(attempt: &Attempt, arrival: DateTime<Utc>) -> bool {
    let arrives_from = |begin: DateTime<Utc>| begin..begin + TimeDelta::seconds(1);
    let stall = TimeDelta::from_std(STALL).unwrap();
    let is_stalled = end(attempt) - attempt.at >= stall;
    arrives_from(attempt.at).contains(&arrival)
        || is_stalled && arrives_from(attempt.at + stall).contains(&arrival)
}

/// Checks every arrival against the attempts that were stored before it: the next attempt had to
/// wait for its time. Repeats of an attempt that was not stored had to wait for its lease.
fn assert_never_early(delivery: &Delivery, arrivals: &[DateTime<Utc>]) {
    let mut last_try: Option<(usize, DateTime<Utc>)> = None;
    for arrival in arrivals {
        let before = |attempt: &&Attempt| attempt.at < *arrival && !is_of(attempt, *arrival);
        let made: Vec<&Attempt> = delivery.attempts.iter().filter(before).collect();
        let number = made.len();
        assert!(number < delivery.attempts.len(), "an attempt when all was over");
        if let Some(previous) = made.last() {
            let waited = *arrival - end(previous);
            let wait = seconds(WAITS_S[number]);
            assert!(waited >= wait, "attempt {number} after {waited} instead of {wait}");
        }
        if let Some((_, at)) = last_try.filter(|(tried, _)| *tried == number) {
            let waited = *arrival - at;
            assert!(waited >= ATTEMPT_LEASE, "attempt {number} again after {waited}");
        }
        last_try = Some((number, *arrival));
    }
}

/// The number of attempts that may have been made without being stored: one for each invocation
/// that posted and had a fault. Duplicate, late and reordered messages are no excuse.
fn excused(bundle: &Bundle, receiver: &str) -> usize {
    let post = format!("/hooks/{receiver}");
    let invocations = bundle.invocations();
    let delivering = invocations.iter().filter(|it| it.function == Function::Deliver);
    let faulted = delivering.filter(|it| it.faulted_call().is_some());
    faulted.filter(|it| it.calls().iter().any(|call| call.label.ends_with(&post))).count()
}

/// A random failure of a receiver: an error status, or no answer in time.
fn failures(random: &mut Random) -> PlannedAnswer {
    let hangs = PlannedAnswer { after: Duration::from_secs(20), ..PlannedAnswer::status(200) };
    match random.next() % 6 {
        0 => PlannedAnswer::status(302),
        1 => PlannedAnswer::status(404),
        2 => hangs,
        3 => PlannedAnswer::status(503),
        _ => PlannedAnswer::status(500),
    }
}

/// Makes three deliveries under random faults. One receiver always fails, the others accept at
/// some attempt.
async fn deliver_with_faults(bundle: &Arc<Bundle>, seed: u64) -> RunSummary {
    let mut random = Random::new(seed);
    let mut jobs = Vec::new();
    for receiver in ["never", "later", "sooner"] {
        let taken_at = match receiver {
            "never" => None,
            _ => Some(usize::try_from(1 + random.next() % 9).unwrap()),
        };
        // More than any delivery has attempts.
        let failing = taken_at.unwrap_or(200);
        bundle.receivers.set_behaviors(receiver, (0..failing).map(|_| failures(&mut random)));
        jobs.push((submit_to(bundle, receiver, receiver).await, receiver));
    }
    bundle.delivery_faults.begin(seed);
    let mut unwritten = 0;
    for (job, receiver) in jobs {
        let done = over(bundle, &job).await;
        unwritten += check_delivery(bundle, &done, receiver);
    }
    let faulted = bundle.invocations().iter().filter(|it| it.faulted_call().is_some()).count();
    let counts = bundle.delivery_faults.counts();
    println!(
        "seed {seed}: {faulted} invocations faulted, {} messages twice, {} late, {} out of order, \
         {unwritten} attempts made again",
        counts.copies, counts.late, counts.reordered,
    );
    RunSummary { faulted, unwritten, counts }
}

/// Checks a delivery that was made under random faults, and returns how many of its attempts were
/// made without being stored.
fn check_delivery(bundle: &Bundle, done: &Delivery, receiver: &str) -> usize {
    let at = arrivals(bundle, done);
    assert_never_early(done, &at);
    let written = |at: &DateTime<Utc>| done.attempts.iter().any(|it| is_of(it, *at));
    let unwritten = at.iter().filter(|at| !written(at)).count();
    let excused = excused(bundle, receiver);
    assert!(unwritten <= excused, "{unwritten} attempts too many, {excused} of them excused");
    let mut announced = announcements(bundle, done);
    announced.dedup();
    match done.state {
        DeliveryState::Delivered => {
            assert_ne!(receiver, "never");
            assert_eq!(announced, [""; 0]);
        }
        DeliveryState::Pending { .. } | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => {
            assert_eq!(reason(done), Some(GiveUpReason::AttemptsExhausted));
            assert_eq!(done.attempts.len(), 10, "as many as it has, and no more");
            assert_eq!(announced.len(), 1, "the end is published, under one id");
        }
    }
    unwritten
}

/// The faults of one run.
struct RunSummary {
    faulted: usize,
    unwritten: usize,
    counts: Counts,
}

#[test]
fn attempts_are_never_early_or_surplus() {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse().expect("a number"));
    let first: u64 = number("DELIVERY_FAULTS_FIRST").unwrap_or(1);
    let seeds: Vec<u64> =
        (first..first + number("DELIVERY_FAULTS_SEEDS").unwrap_or(SEEDS)).collect();
    let passed = in_parallel(&seeds, |seed| {
        let mut passed = None;
        // The output of a failed seed names it.
        println!("seed {seed}");
        let bundle = Bundle::run(settings(*seed), async |bundle| {
            passed = Some(deliver_with_faults(bundle, *seed).await);
        });
        let violations = bundle.checker.violations();
        assert_eq!(violations, [""; 0], "seed {seed}: {}", bundle.checker.log().text());
        passed.unwrap()
    });
    // Without faults the test would show nothing.
    let sum = |of: fn(&RunSummary) -> usize| passed.iter().map(of).sum::<usize>();
    println!("{} attempts made again", sum(|it| it.unwritten));
    assert!(sum(|it| it.faulted) > 0, "no invocation was faulted");
    assert!(sum(|it| it.counts.copies) > 0, "no message came twice");
    assert!(sum(|it| it.counts.late) > 0, "no message was late");
}
