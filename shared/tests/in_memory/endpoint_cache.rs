//! Endpoints as one process sees them: [`shared::endpoint_cache`].

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::InMemoryAws;
use aws_in_memory::clock::now;
use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use domain::attempt::AttemptOutcome;
use domain::endpoint::{
    AttemptRequest, AttemptSignal, Endpoint, EndpointLimits, Health, HoldReason, Lane, Permit,
    ResponseHints,
};
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use shared::endpoint_cache::{Admission, EndpointCache};
use shared::store::Consistency;
use tokio::time::sleep;

const URL: &str = "https://shop.example/hooks";

fn request(token: u64) -> AttemptRequest {
    AttemptRequest { manual: false, has_slot: false, lane: Lane::Quick, token, jitter_sample: 0.0 }
}

fn signal(status: u16) -> AttemptSignal {
    AttemptSignal::of(
        AttemptOutcome::Answered(status),
        ResponseHints::default(),
        Duration::from_millis(80),
    )
}

fn process(aws: &InMemoryAws) -> EndpointCache {
    EndpointCache::new(aws.store())
}

async fn permit(endpoints: &EndpointCache, token: u64) -> Permit {
    match endpoints.admit(URL, &request(token), now()).await.unwrap() {
        Admission::Go(permit) => permit,
        other => panic!("{other:?}"),
    }
}

async fn attempt(endpoints: &EndpointCache, status: u16) -> Endpoint {
    let permit = permit(endpoints, 0).await;
    endpoints.record(URL, &permit, &signal(status), now()).await.unwrap()
}

fn puts(aws: &InMemoryAws) -> usize {
    aws.calls().iter().filter(|asked| *asked == "PutItem").count()
}

async fn with_limits(aws: &InMemoryAws, limits: EndpointLimits) {
    let configured = |endpoint: &Endpoint| endpoint.configured(limits, None, now());
    process(aws).update(URL, Consistency::Strong, now(), configured).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn healthy_endpoint_costs_no_write() {
    let aws = InMemoryAws::new(&[]);
    let endpoints = process(&aws);
    for _ in 0..100 {
        attempt(&endpoints, 200).await;
    }
    assert_eq!(aws.calls(), ["GetItem"]);
    assert_eq!(aws.table().consumed().read_units, 0.5, "and not a consistent one");
    sleep(Duration::from_secs(1)).await;
    attempt(&endpoints, 200).await;
    assert_eq!(aws.calls(), ["GetItem", "GetItem"]);
}

#[tokio::test(start_paused = true)]
async fn processes_learn_within_a_second() {
    let aws = InMemoryAws::new(&[]);
    let (one, other) = (process(&aws), process(&aws));
    for _ in 0..4 {
        attempt(&one, 500).await;
    }
    sleep(Duration::from_secs(2)).await;
    // The other process reads just before the fifth failure.
    other.get(URL, Consistency::Eventual, now()).await.unwrap();
    attempt(&one, 500).await;
    let held = one.admit(URL, &request(0), now()).await.unwrap();
    assert!(matches!(held, Admission::Hold { by: HoldReason::Failing, .. }), "{held:?}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(other.admit(URL, &request(0), now()).await.unwrap(), held);
}

#[tokio::test(start_paused = true)]
async fn concurrent_failures_count_as_four() {
    let aws = InMemoryAws::new(&[]);
    let mut crowd = Vec::new();
    for _ in 0..40 {
        let process = process(&aws);
        let permit = permit(&process, 0).await;
        crowd.push((process, permit));
    }
    for (process, permit) in &crowd {
        process.record(URL, permit, &signal(503), now()).await.unwrap();
    }
    let endpoint = process(&aws).get(URL, Consistency::Eventual, now()).await.unwrap();
    assert_eq!(endpoint.failing.map(|failing| failing.failures), Some(4));
    assert_eq!(endpoint.health(now()), Health::Failing);
    // Each of the others lost one conditional write, and had nothing to write after that.
    assert_eq!(puts(&aws), 4 + 3 + 36);

    sleep(Duration::from_secs(2)).await;
    for (process, permit) in &crowd {
        process.record(URL, permit, &signal(503), now()).await.unwrap();
    }
    let endpoint = process(&aws).get(URL, Consistency::Eventual, now()).await.unwrap();
    assert_eq!(endpoint.failing.map(|failing| failing.failures), Some(5));
    assert_eq!(endpoint.health(now()), Health::CircuitOpen);
    assert_eq!(puts(&aws), 4 + 3 + 36 + 1, "all had read it again");
}

/// How many processes post to a busy endpoint.
const PROCESSES: usize = 10;

/// A hundred posts a second: when each is made, and by which process.
type Traffic = fn(u64) -> (Duration, usize);

/// Each process takes ten tickets on the second, so what they learn is news to all of them.
const TOGETHER: Traffic =
    |number| (Duration::from_secs(number / 100), (number / 10) as usize % PROCESSES);

/// One post after the other, by processes in a pseudo-random order.
const SPREAD: Traffic = |number| {
    let process = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % PROCESSES;
    (Duration::from_millis(number * 10), process)
};

/// So many seconds of it, each post answered after 80 ms; answers how many were made.
async fn busy(
    aws: &InMemoryAws,
    traffic: Traffic,
    seconds: u64,
    status_of: impl Fn(u64) -> u16,
) -> usize {
    let processes: Vec<EndpointCache> = (0..PROCESSES).map(|_| process(aws)).collect();
    let (processes, status_of) = (&processes, &status_of);
    let posts = (0..seconds * 100).map(|number| async move {
        let (at, process) = traffic(number);
        sleep(at).await;
        let process = &processes[process];
        let Admission::Go(permit) = process.admit(URL, &request(number), now()).await.unwrap()
        else {
            return false;
        };
        sleep(Duration::from_millis(80)).await;
        process.record(URL, &permit, &signal(status_of(number)), now()).await.unwrap();
        true
    });
    join_all(posts).await.into_iter().filter(|made| *made).count()
}

#[tokio::test(start_paused = true)]
async fn occasional_failures_never_open_breaker() {
    for traffic in [TOGETHER, SPREAD] {
        let aws = InMemoryAws::new(&[]);
        let every_tenth = |number| if number % 10 == 9 { 503 } else { 200 };
        assert_eq!(busy(&aws, traffic, 60, every_tenth).await, 6_000);
    }
}

#[tokio::test(start_paused = true)]
async fn constant_failures_open_breaker_everywhere() {
    for traffic in [TOGETHER, SPREAD] {
        let aws = InMemoryAws::new(&[]);
        let made = busy(&aws, traffic, 20, |_| 503).await;
        // Two seconds until the breaker opens, and one until every process has read that.
        assert!((200..=400).contains(&made), "{made}");
        let endpoint = process(&aws).get(URL, Consistency::Eventual, now()).await.unwrap();
        assert_eq!(endpoint.health(now()), Health::CircuitOpen);
        // A process that has not read it yet writes in vain: for the failures, and for the
        // open breaker.
        let most = 5 + 2 * PROCESSES;
        assert!(puts(&aws) <= most, "{} writes", puts(&aws));
    }
}

#[tokio::test(start_paused = true)]
async fn cached_refusal_is_read_again() {
    let aws = InMemoryAws::new(&[]);
    let process = process(&aws);
    attempt(&process, 410).await;
    assert_eq!(process.admit(URL, &request(0), now()).await.unwrap(), Admission::Refuse);
    with_limits(&aws, EndpointLimits::default()).await;
    let admission = process.admit(URL, &request(0), now()).await.unwrap();
    assert!(matches!(admission, Admission::Go(_)), "{admission:?}");
}

#[tokio::test(start_paused = true)]
async fn limits_hold_across_stale_caches() {
    let aws = InMemoryAws::new(&[]);
    with_limits(&aws, EndpointLimits::new(Some(2), None).unwrap()).await;
    let processes = [process(&aws), process(&aws), process(&aws)];
    for process in &processes {
        process.get(URL, Consistency::Eventual, now()).await.unwrap();
    }
    let first = permit(&processes[0], 1).await;
    permit(&processes[1], 2).await;
    let third = processes[2].admit(URL, &request(3), now()).await.unwrap();
    assert!(matches!(third, Admission::Hold { by: HoldReason::InFlight, .. }), "{third:?}");
    processes[0].record(URL, &first, &signal(200), now()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    permit(&processes[2], 3).await;
}

#[tokio::test(start_paused = true)]
async fn attempts_of_one_process_queue() {
    let aws = InMemoryAws::new(&[]);
    with_limits(&aws, EndpointLimits::new(None, Some(100)).unwrap()).await;
    let endpoints = process(&aws);
    let all = (0..10).map(|token| permit(&endpoints, token));
    join_all(all).await;
    assert_eq!(puts(&aws), 1 + 10, "none was refused");
}

/// Has each write of an endpoint lose against another version.
#[derive(Debug)]
struct AlwaysConflicts(InMemoryAws);

impl CallInterceptor for AlwaysConflicts {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let injected = match call.what {
            "PutItem" => {
                let item = self.0.table().items().pop().unwrap();
                let kind = "ConditionalCheckFailedException";
                let body = json!({"__type": kind, "Item": item});
                Injected::Refused(400, body)
            }
            _ => Injected::Answered,
        };
        Box::pin(std::future::ready(injected.into()))
    }
}

#[tokio::test(start_paused = true)]
async fn endless_conflicts_end_in_contention() {
    let aws = InMemoryAws::new(&[]);
    with_limits(&aws, EndpointLimits::new(None, Some(1)).unwrap()).await;
    let crowded = aws.seen_by(Arc::new(AlwaysConflicts(aws.clone())));
    let endpoints = process(&crowded);
    let admission = endpoints.admit(URL, &request(0), now()).await.unwrap();
    assert_eq!(admission, Admission::Contended);
    let permit = permit(&process(&aws), 0).await;
    let recorded = endpoints.record(URL, &permit, &signal(500), now()).await.unwrap();
    assert_eq!(recorded.health(now()), Health::Failing, "as far as this process knows");
}
