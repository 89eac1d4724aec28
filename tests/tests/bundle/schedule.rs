//! A webhook that nobody takes, through all of its schedule: ten attempts in 75 hours and 35
//! minutes. First as it should be, to the second; then with receivers that ask for more time
//! or are disabled on the way; then in a storm, in which functions die, messages come twice,
//! late, stale and in any order, and calls are lost.
//!
//! A storm follows from its seed, which a failure names: `STORM_SEED=7 STORMS=1` runs that one
//! again, `STORMS=1000` many.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::attempt::Attempt;
use domain::delivery::{Delivery, DeliveryState, GiveUpReason};
use domain::endpoint::Lane;
use domain::event::EventName;
use domain::id::{EventId, JobId};
use domain::retry::DeliverySchedule;
use serde_json::Value;
use shared::fake::clock;
use shared::queue::Ticket;
use tests::Provider;

use crate::backend::Order;
use crate::bundle::{Bundle, Settings};
use crate::crash_points::on_all_processors;
use crate::functions::{Function, Parameters, catalogue};
use crate::random::Random;
use crate::receivers::Manner;
use crate::storm::Counts;
use crate::watch::text;

/// The wait before each attempt, in seconds: the example of Standard Webhooks 1.0.0. Written
/// out, so that the schedule under test is not its own judge.
const WAITS_S: [i64; 10] = [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// What a wait may be longer by: a tenth of it, and at most a quarter of an hour.
fn jitter(wait_s: i64) -> TimeDelta {
    TimeDelta::milliseconds(wait_s * 100).min(TimeDelta::minutes(15))
}

/// Queues carry whole seconds, and a call takes its time.
const INEXACT: TimeDelta = TimeDelta::seconds(2);

/// How long an attempt keeps others out, at least: nobody knows sooner that it died.
const LEASE: TimeDelta = TimeDelta::seconds(30);

/// How many storms there are when nothing else is said.
const STORMS: u64 = 8;

/// The longest wait that a queue can carry, in seconds.
const QUEUE_S: i64 = 900;

fn settings(seed: u64) -> Settings {
    Settings {
        seed,
        parameters: Parameters {
            shards: 1,
            schedule: DeliverySchedule::default(),
            catalogue: catalogue(),
        },
        skips_idle_ticks: true,
        horizon: Duration::from_secs(10 * 24 * 3600),
        ..Settings::default()
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// Orders a render; its webhook is on its way when it is completed.
async fn order(bundle: &Arc<Bundle>, mark: &str, receiver: &str) -> JobId {
    let url = crate::receivers::url(receiver);
    let order = Order::new(Provider::ViralSync, mark).with("callbackUrl", Value::from(url));
    bundle.place(&order).await.expect("it is taken")
}

/// Lets time pass until a job's delivery is over, and nothing stale is left in the queues.
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

/// When every run begins.
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

/// When a delivery's webhooks arrived, oldest first.
fn arrivals(bundle: &Bundle, delivery: &Delivery) -> Vec<DateTime<Utc>> {
    let all = bundle.receivers.received();
    let its = all.into_iter().filter(|webhook| webhook.id == delivery.event_id.as_str());
    its.map(|webhook| webhook.at).collect()
}

/// The ids of the events on the bus that tell of the end of a delivery.
fn announcements(bundle: &Bundle, delivery: &Delivery) -> Vec<String> {
    let events = bundle.aws.events().into_iter();
    let ends = events.filter(|event| event.detail_type == "webhook.delivery.exhausted");
    let details = ends.map(|event| serde_json::from_str::<Value>(&event.detail).unwrap());
    let its = details.filter(|it| it["deliveryEventId"] == delivery.event_id.as_str());
    its.map(|it| it["eventId"].as_str().unwrap().to_owned()).collect()
}

/// When an attempt was over.
fn end(attempt: &Attempt) -> DateTime<Utc> {
    attempt.at + TimeDelta::milliseconds(i64::try_from(attempt.duration_ms).unwrap())
}

fn assert_calm(bundle: &Bundle) {
    let log = bundle.watch.log().text();
    assert_eq!(bundle.watch.violations(), [""; 0], "{log}");
}

#[test]
fn ten_attempts_in_75_hours_and_35_minutes_and_then_it_is_given_up() {
    let bundle = Bundle::run(settings(1), async |bundle| {
        bundle.receivers.refuse("dead", 500);
        let job = order(bundle, "dead", "dead").await;
        for (number, wait) in WAITS_S.into_iter().enumerate() {
            let look = Duration::from_secs(if wait > QUEUE_S { 30 } else { 2 });
            while bundle.received("dead") <= number {
                assert!(clock::true_now() < begun() + TimeDelta::days(4), "attempt {number}");
                tokio::time::sleep(look).await;
            }
            tokio::time::sleep(look).await;
            let next = WAITS_S.get(number + 1).copied();
            // Where the next attempt waits: short waits in the queue, long ones in the index.
            let in_index = usize::from(next.is_some_and(|next| next > QUEUE_S));
            let in_queue = usize::from(next.is_some_and(|next| next <= QUEUE_S));
            let waiting =
                (bundle.aws.table().indexed("due").len(), bundle.aws.delivery_queue().len());
            assert_eq!(waiting, (in_index, in_queue), "after the wait of {wait} s");
        }
        let given_up = over(bundle, &job).await;
        assert_eq!(reason(&given_up), Some(GiveUpReason::AttemptsExhausted));
        // Nobody comes back to it, two days on.
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
        assert_eq!(announcements(bundle, &given_up).len(), 1, "it is told of once");
        // One message for each attempt, none of them with more than a queue can carry.
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
                // Moved from the index when what is left can be carried.
                QUEUE_S.. => 0..=QUEUE_S,
                _ => wait..=(seconds(wait) + jitter(wait) + INEXACT).num_seconds(),
            };
            assert!(expected.contains(&delay), "{delay} s in the queue of {wait} s");
        }
    });
    assert_calm(&bundle);
}

#[test]
fn tickets_of_other_attempts_and_early_ones_make_none() {
    let bundle = Bundle::run(settings(6), async |bundle| {
        bundle.receivers.refuse("dead", 500);
        let job = order(bundle, "dead", "dead").await;
        let event_id = EventId::of(&job, EventName::Completed.as_str());
        for made in 1..=5 {
            while bundle.received("dead") < made {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // What was made, what is due later, and what is far ahead.
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
    assert_calm(&bundle);
}

#[test]
fn what_a_receiver_asks_for_is_never_undercut_and_never_more_than_a_day() {
    let bundle = Bundle::run(settings(2), async |bundle| {
        let asks = |status, text| Manner { retry_after: Some(text), ..Manner::status(status) };
        bundle.receivers.treat(
            "busy",
            [
                asks(503, "7200"),
                // A date, 12 hours after the beginning.
                asks(500, "Sun, 24 May 2026 18:00:00 GMT"),
                asks(429, "604800"),
                asks(400, "Sun, 21 Jun 2026 06:00:00 GMT"),
                // Less than the schedule: that is not undercut either.
                asks(502, "60"),
                asks(504, "soon"),
            ],
        );
        let job = order(bundle, "busy", "busy").await;
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
            // A hold adds a jitter of its own.
            let late = jitter(asked.num_seconds()) + INEXACT;
            assert!(gap <= asked + late, "{gap} instead of {asked}: late");
        }
    });
    assert_calm(&bundle);
}

#[test]
fn a_receiver_that_asks_for_silence_gets_it_from_all_its_deliveries() {
    let bundle = Bundle::run(settings(3), async |bundle| {
        let busy = Manner { retry_after: Some("7200"), ..Manner::status(503) };
        // And one that does not say for how long.
        bundle.receivers.treat("shared", [busy, Manner::status(429)]);
        let first = order(bundle, "first", "shared").await;
        bundle.until("it asks for silence", |it| it.received("shared") == 1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let second = order(bundle, "second", "shared").await;
        let (first, second) = (over(bundle, &first).await, over(bundle, &second).await);

        let mut at = [arrivals(bundle, &first), arrivals(bundle, &second)].concat();
        at.sort();
        assert_eq!(at.len(), 4, "two were refused, and all were taken in the end");
        assert!(at[1] - at[0] >= TimeDelta::hours(2), "{at:?}");
        assert!(at[2] - at[1] >= TimeDelta::minutes(1), "{at:?}");
        assert!(at[3] - at[0] <= TimeDelta::hours(3), "{at:?}");
    });
    assert_calm(&bundle);
}

#[test]
fn a_dead_receivers_webhooks_are_held_and_each_still_has_its_ten_attempts() {
    let bundle = Bundle::run(settings(4), async |bundle| {
        bundle.receivers.refuse("dead", 500);
        let mut jobs = Vec::new();
        for number in 0..4 {
            jobs.push(order(bundle, &format!("held-{number}"), "dead").await);
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
            // The breaker holds each attempt for a quarter of an hour at most; so may the
            // attempts of the others that it lets through.
            let held = TimeDelta::minutes(15) * 10;
            assert!(whole <= waits.sum::<TimeDelta>() + held, "{whole}");
        }
    });
    assert_calm(&bundle);
}

#[test]
fn five_days_of_nothing_but_failures_end_what_is_still_to_be_sent() {
    let bundle = Bundle::run(settings(5), async |bundle| {
        bundle.receivers.refuse("dead", 500);
        let first = order(bundle, "first", "dead").await;
        bundle.until("it fails", |it| it.received("dead") > 0).await;
        let failing_since = bundle.receivers.received()[0].at;
        tokio::time::sleep(hours(60)).await;
        let second = order(bundle, "second", "dead").await;
        tokio::time::sleep(hours(55)).await;
        let third = order(bundle, "third", "dead").await;

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
    assert_calm(&bundle);
}

/// Whether a webhook arrived by an attempt: what it takes to get there is the latency.
fn is_of(attempt: &Attempt, arrival: DateTime<Utc>) -> bool {
    (attempt.at..attempt.at + TimeDelta::seconds(1)).contains(&arrival)
}

/// Judges every arrival by the attempts that were written down before it: after so many, the
/// next one had to wait for so long. Repeats of an attempt that was not written down had to
/// wait for each other's lease.
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
            assert!(waited >= LEASE, "attempt {number} again after {waited}");
        }
        last_try = Some((number, *arrival));
    }
}

/// How many attempts may have been made without being written down: one for each invocation
/// that posted and that something befell. Messages that come twice, late or in another order
/// are no excuse.
fn excused(bundle: &Bundle, receiver: &str) -> usize {
    let post = format!("/hooks/{receiver}");
    let invocations = bundle.invocations();
    let delivering = invocations.iter().filter(|it| it.function == Function::Deliver);
    let struck = delivering.filter(|it| it.struck_at().is_some());
    struck.filter(|it| it.calls().iter().any(|call| call.label.ends_with(&post))).count()
}

/// How a receiver fails in a storm: some answers, and none in time.
fn failures(random: &mut Random) -> Manner {
    let hangs = Manner { after: Duration::from_secs(20), ..Manner::status(200) };
    match random.next() % 6 {
        0 => Manner::status(302),
        1 => Manner::status(404),
        2 => hangs,
        3 => Manner::status(503),
        _ => Manner::status(500),
    }
}

/// Some deliveries through a storm. One receiver fails always, the others take theirs at some
/// attempt.
async fn through_a_storm(bundle: &Arc<Bundle>, seed: u64) -> Passed {
    let mut random = Random::new(seed);
    let mut jobs = Vec::new();
    for receiver in ["never", "later", "sooner"] {
        let taken_at = match receiver {
            "never" => None,
            _ => Some(usize::try_from(1 + random.next() % 9).unwrap()),
        };
        // More than anybody may make.
        let failing = taken_at.unwrap_or(200);
        bundle.receivers.treat(receiver, (0..failing).map(|_| failures(&mut random)));
        jobs.push((order(bundle, receiver, receiver).await, receiver));
    }
    bundle.storm.begin(seed);
    let mut unwritten = 0;
    for (job, receiver) in jobs {
        let done = over(bundle, &job).await;
        unwritten += judge(bundle, &done, receiver);
    }
    let struck = bundle.invocations().iter().filter(|it| it.struck_at().is_some()).count();
    let counts = bundle.storm.counts();
    println!(
        "storm {seed}: {struck} invocations struck, {} messages twice, {} late, {} out of order, \
         {unwritten} attempts made again",
        counts.copies, counts.late, counts.reordered,
    );
    Passed { struck, unwritten, counts }
}

/// Judges a delivery that went through a storm; answers how many of its attempts were made
/// without being written down.
fn judge(bundle: &Bundle, done: &Delivery, receiver: &str) -> usize {
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
            assert_eq!(announced.len(), 1, "it is told of, under one id");
        }
    }
    unwritten
}

/// What a delivery went through.
struct Passed {
    struck: usize,
    unwritten: usize,
    counts: Counts,
}

#[test]
fn whatever_happens_to_functions_and_messages_no_attempt_is_early_or_too_many() {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse().expect("a number"));
    let first: u64 = number("STORM_SEED").unwrap_or(1);
    let seeds: Vec<u64> = (first..first + number("STORMS").unwrap_or(STORMS)).collect();
    let passed = on_all_processors(&seeds, |seed| {
        let mut passed = None;
        // A storm that panics says which one it is.
        println!("storm {seed}");
        let bundle = Bundle::run(settings(*seed), async |bundle| {
            passed = Some(through_a_storm(bundle, *seed).await);
        });
        let violations = bundle.watch.violations();
        assert_eq!(violations, [""; 0], "storm {seed}: {}", bundle.watch.log().text());
        passed.unwrap()
    });
    // What may happen did, or nothing was shown.
    let sum = |of: fn(&Passed) -> usize| passed.iter().map(of).sum::<usize>();
    println!("{} attempts made again", sum(|it| it.unwritten));
    assert!(sum(|it| it.struck) > 0, "no invocation was struck");
    assert!(sum(|it| it.counts.copies) > 0, "no message came twice");
    assert!(sum(|it| it.counts.late) > 0, "no message was late");
}
