//! Calls to AWS that fail, have no answer or are slow, and how polling carries on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_in_memory::clock::now;
use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use domain::job::{Job, Observation, RenderResult, RenderStatus, Report, State, Transition};
use domain::polling::Tracking;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::json;

use tokio::time::Instant;

use super::world::PollerWorld;
use crate::plan::PollTarget;

/// Injects a fault into the first calls of one operation.
#[derive(Debug)]
struct FaultyCalls {
    operation: &'static str,
    injected: Injected,
    left: AtomicUsize,
}

impl FaultyCalls {
    fn new(operation: &'static str, times: usize, injected: Injected) -> Arc<Self> {
        Arc::new(Self { operation, injected, left: AtomicUsize::new(times) })
    }
}

impl CallInterceptor for FaultyCalls {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let less = |left: usize| left.checked_sub(1);
        let is_hit = call.what == self.operation
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        let injected = if is_hit { self.injected.clone() } else { Injected::Answered };
        ready(injected.into()).boxed()
    }
}

fn denied() -> Injected {
    Injected::Refused(400, json!({"__type": "AccessDeniedException"}))
}

#[tokio::test(start_paused = true)]
async fn failed_list_is_retried_soon() {
    let world = PollerWorld::new().with_faults(FaultyCalls::new("Query", 1, denied()));
    let id = world.submit("zvid", Tracking::PollOnly, 5.0).await;
    world.run_unticked(60.0).await;
    let found = world.settled_at(&id).await.expect("the lease is its holder's still");
    assert!(found < 16.0, "found after {found} s");
}

#[tokio::test(start_paused = true)]
async fn failing_list_multiplies_no_calls() {
    let world = PollerWorld::new().with_faults(FaultyCalls::new("Query", 1000, denied()));
    world.submit("zvid", Tracking::PollOnly, 10_000.0).await;
    world.run_unticked(80.0).await;
    let calls = world.aws.wake_queue().len();
    // Two leases may be stored when a renewal is under way.
    assert!((1..=2).contains(&calls), "{calls} calls after {} rounds", world.invocations());
}

/// Loses the answers of all calls for a while, from the first write after `after` on.
#[derive(Debug)]
struct UnansweredCalls {
    after: Instant,
    lasts: Duration,
    since: OnceLock<Instant>,
}

impl UnansweredCalls {
    fn after(wait: Duration, lasts: Duration) -> Arc<Self> {
        Arc::new(Self { after: Instant::now() + wait, lasts, since: OnceLock::new() })
    }
}

impl CallInterceptor for UnansweredCalls {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        if call.what == "PutItem" && Instant::now() >= self.after {
            self.since.get_or_init(Instant::now);
        }
        let is_unanswered = self.since.get().is_some_and(|since| since.elapsed() < self.lasts);
        let injected = if is_unanswered { Injected::Unanswered } else { Injected::Answered };
        ready(injected.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn unanswered_lease_write_is_continued() {
    let faults = UnansweredCalls::after(Duration::ZERO, Duration::from_secs(20));
    let world = PollerWorld::new().with_faults(faults);
    let id = world.submit("zvid", Tracking::PollOnly, 5.0).await;
    world.run_unticked(100.0).await;
    let found = world.settled_at(&id).await.expect("the lease is its holder's still");
    assert!(found < 60.0, "found after {found} s");
}

#[tokio::test(start_paused = true)]
async fn failed_continuation_is_sent_later() {
    let world = PollerWorld::new().with_faults(FaultyCalls::new("SendMessage", 1, denied()));
    let id = world.submit("zvid", Tracking::PollOnly, 30.0).await;
    world.run_unticked(60.0).await;
    let found = world.settled_at(&id).await.expect("the chain goes on");
    assert!(found < 50.0, "found after {found} s");
}

#[tokio::test(start_paused = true)]
async fn unanswered_renewal_keeps_polling() {
    // The lease is taken after two seconds, and renewed ten seconds later as awake.
    let faults = UnansweredCalls::after(Duration::from_secs(8), Duration::from_secs(20));
    let world = PollerWorld::new().with_faults(faults);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(world.submit("zvid", Tracking::PollOnly, 10_000.0).await);
    }
    world.run_unticked(90.0).await;
    for id in &ids {
        let last = world.polled_at(id).last().copied().unwrap_or_default();
        assert!(last > 75.0, "last asked about after {last} s");
    }
}

/// Delays each answer to one operation.
#[derive(Debug)]
struct SlowCalls {
    operation: &'static str,
    takes: Duration,
}

impl CallInterceptor for SlowCalls {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let takes = if call.what == self.operation { self.takes } else { Duration::ZERO };
        let then = async move { tokio::time::sleep(takes).await }.boxed();
        ready(Interception { injected: Injected::Answered, then }).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn long_read_keeps_the_lease() {
    let world = PollerWorld::new().with_faults(Arc::new(SlowCalls {
        operation: "BatchGetItem",
        takes: Duration::from_millis(2_900),
    }));
    // Five rounds of eight batches, three seconds each.
    for _ in 0..3_300 {
        world.insert_job("zvid", Tracking::WebhookFirst, 1e9, None, now()).await;
    }
    world.submit("zvid", Tracking::PollOnly, 1e9).await;
    world.run_unticked(13.5).await;
    assert!(world.polls().is_empty(), "it is not read yet");
    let lease = world.poller.tracker.store.lease(0).await.unwrap().unwrap();
    assert!(lease.is_awake(now()), "and the lease says that its holder is awake");
}

#[tokio::test(start_paused = true)]
async fn concurrent_end_outlives_a_checkpoint() {
    let world = PollerWorld::new();
    // The job is past its deadline, and its age has doubled since its last write, so that a
    // checkpoint is due.
    let made_at = now() - Duration::from_secs(2 * 3_600);
    let job = world.insert_job("zvid", Tracking::PollOnly, 1e9, None, made_at).await;
    let goes_on = |job: &Job, status, word: &str, at| {
        let (render_job_id, provider_status) = (None, word.to_owned());
        let seen = Observation { render_job_id, status, provider_status, progress: None };
        let Transition::Changed(job) = job.apply(&Report::Observed(seen), 1, at) else { panic!() };
        *job
    };
    let stale = goes_on(&job, RenderStatus::Processing, "active", made_at);
    let done = RenderStatus::Completed(RenderResult::default());
    let ended = goes_on(&stale, done, "completed", now());
    for job in [&stale, &ended] {
        world.poller.tracker.store.commit_job(job).await.unwrap();
    }

    let target = PollTarget::Provider;
    let outcome = world.poller.poll_job(stale.clone(), target, now).await.unwrap();

    assert_eq!(world.job(&stale.id).await.state, State::Completed);
    assert!(outcome.job.is_none_or(|job| job.state == State::Completed));
}
