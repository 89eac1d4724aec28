//! Events on their way to the bus: [`shared::bus`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::InMemoryAws;
use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, ready};
use serde_json::{Value, json};
use shared::bus::{Bus, BusError, SOURCE};
use tokio::time::{Instant, sleep, timeout};

/// The most bytes that one request may have: less than 256 KiB.
const MOST: usize = 256 * 1024 - 1;

const NAME: &str = "video.render.completed";

/// What the bus says to an event of this request.
type Script = fn(request: usize, detail: &str) -> Option<&'static str>;

/// A bus that refuses events by a script, and records what it is sent.
#[derive(Debug)]
struct ScriptedBus {
    script: Script,
    /// The details of each request.
    requests: Mutex<Vec<Vec<String>>>,
    taken: Mutex<Vec<String>>,
}

impl ScriptedBus {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { script, requests: Mutex::default(), taken: Mutex::default() })
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.requests.lock().unwrap().clone()
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

fn details(request: &Value) -> Vec<String> {
    let entries = request["Entries"].as_array().into_iter().flatten();
    entries.map(|entry| entry["Detail"].as_str().unwrap().to_owned()).collect()
}

impl CallInterceptor for ScriptedBus {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let details = details(call.body);
        let mut requests = self.requests.lock().unwrap();
        requests.push(details.clone());
        let number = requests.len();
        let mut results = Vec::new();
        for detail in details {
            match (self.script)(number, &detail) {
                Some(code) => results.push(json!({"ErrorCode": code, "ErrorMessage": code})),
                None => {
                    self.taken.lock().unwrap().push(detail);
                    results.push(json!({"EventId": "e"}));
                }
            }
        }
        let failed = results.iter().filter(|it| it.get("ErrorCode").is_some()).count();
        let answer = json!({"FailedEntryCount": failed, "Entries": results});
        ready(Injected::Refused(200, answer).into()).boxed()
    }
}

/// A JSON object, one per number.
fn detail(number: usize) -> String {
    json!({"number": number}).to_string()
}

/// A JSON object that makes an event of this size as EventBridge counts it.
fn detail_of(event_bytes: usize) -> String {
    let frame = SOURCE.len() + NAME.len() + r#"{"a":""}"#.len();
    format!(r#"{{"a":"{}"}}"#, "x".repeat(event_bytes - frame))
}

fn requests_made(aws: &InMemoryAws) -> usize {
    aws.calls().iter().filter(|call| *call == "PutEvents").count()
}

#[tokio::test(start_paused = true)]
async fn concurrent_events_share_requests() {
    let aws = InMemoryAws::new(&[]);
    let bus = aws.bus();
    let details: Vec<String> = (0..25).map(detail).collect();
    let published = join_all(details.iter().map(|detail| bus.publish(NAME, detail))).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    assert_eq!(requests_made(&aws), 3, "ten events go in one request");
    let on_bus: Vec<String> = aws.events().into_iter().map(|event| event.detail).collect();
    assert_eq!(on_bus, details, "each once and in order");
}

#[tokio::test(start_paused = true)]
async fn lone_event_waits_for_nothing() {
    let aws = InMemoryAws::new(&[]);
    let bus = aws.bus();
    let begun = Instant::now();
    for number in 0..3 {
        bus.publish(NAME, &detail(number)).await.unwrap();
    }
    assert_eq!((begun.elapsed(), requests_made(&aws)), (Duration::ZERO, 3));
}

#[tokio::test(start_paused = true)]
async fn request_bytes_stay_below_the_limit() {
    for (last, requests) in [(1_000, 1), (1_001, 2)] {
        let aws = InMemoryAws::new(&[]);
        let bus = aws.bus();
        let details = [detail_of(100_000), detail_of(MOST - 101_000), detail_of(last)];
        let published = join_all(details.iter().map(|detail| bus.publish(NAME, detail))).await;
        assert!(published.iter().all(Result::is_ok), "{published:?}");
        assert_eq!((requests_made(&aws), aws.events().len()), (requests, 3), "{last}");
    }
}

#[tokio::test(start_paused = true)]
async fn oversized_event_is_not_sent() {
    let aws = InMemoryAws::new(&[]);
    let bus = aws.bus();
    bus.publish(NAME, &detail_of(MOST)).await.unwrap();
    let (largest, small) = (detail_of(MOST + 1), detail(1));
    let (refused, taken) = tokio::join!(bus.publish(NAME, &largest), bus.publish(NAME, &small));
    assert!(matches!(refused, Err(BusError::TooLarge { bytes }) if bytes == MOST + 1));
    assert!(taken.is_ok(), "it is no error of the other");
    // Two bytes a letter.
    let letters = "ü".repeat(MOST / 2);
    let refused = bus.publish(NAME, &format!(r#"{{"a":"{letters}"}}"#)).await;
    assert!(matches!(refused, Err(BusError::TooLarge { .. })), "{refused:?}");
    assert_eq!(requests_made(&aws), 2);
}

#[tokio::test(start_paused = true)]
async fn throttled_events_alone_are_sent_again() {
    let script = ScriptedBus::new(|request, detail| match (request, detail) {
        (1 | 2, r#"{"number":3}"#) => Some("ThrottlingException"),
        (1, r#"{"number":5}"#) => Some("InternalFailure"),
        (_, r#"{"number":7}"#) => Some("NotAuthorizedForDetailTypeException"),
        _ => None,
    });
    let bus = InMemoryAws::new(&[]).seen_by(script.clone()).bus();
    let details: Vec<String> = (0..10).map(detail).collect();
    let published = join_all(details.iter().map(|detail| bus.publish(NAME, detail))).await;
    for (number, published) in published.iter().enumerate() {
        assert_eq!(published.is_ok(), number != 7, "{number}: {published:?}");
    }
    let again = script.requests().split_off(1);
    assert_eq!(again, [vec![detail(3), detail(5)], vec![detail(3)]]);
    assert_eq!(script.taken().len(), 9, "each once");
}

#[tokio::test(start_paused = true)]
async fn throttling_bus_ends_in_an_error() {
    let script = ScriptedBus::new(|_, _| Some("ThrottlingException"));
    let bus = InMemoryAws::new(&[]).seen_by(script.clone()).bus();
    let begun = Instant::now();
    let refused = bus.publish(NAME, &detail(1)).await;
    assert!(matches!(refused, Err(BusError::Refused { .. })), "{refused:?}");
    assert_eq!(script.requests().len(), 3);
    let waited = begun.elapsed();
    assert!((75..=225).contains(&waited.as_millis()), "50 ms and 100 ms, with jitter: {waited:?}");
}

/// Refuses each request with one event in it, as a whole.
#[derive(Debug)]
struct InvalidEvent(&'static str);

impl CallInterceptor for InvalidEvent {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let injected = match details(call.body).iter().any(|detail| detail == self.0) {
            true => Injected::Refused(400, json!({"__type": "ValidationException"})),
            false => Injected::Answered,
        };
        ready(injected.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_event_fails_alone() {
    let aws = InMemoryAws::new(&[]);
    let bus = aws.seen_by(Arc::new(InvalidEvent(r#"{"number":2}"#))).bus();
    let details: Vec<String> = (0..4).map(detail).collect();
    let published = join_all(details.iter().map(|detail| bus.publish(NAME, detail))).await;
    let taken: Vec<bool> = published.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, true, false, true]);
    assert_eq!(aws.events().len(), 3);
}

/// Answers each request after a while, and counts how many are in flight.
#[derive(Debug, Default)]
struct SlowBus {
    takes: Duration,
    /// In flight, and the most there ever were.
    in_flight: Arc<Mutex<(usize, usize)>>,
}

impl SlowBus {
    fn new(takes: Duration) -> Arc<Self> {
        Arc::new(Self { takes, in_flight: Arc::default() })
    }

    fn most_in_flight(&self) -> usize {
        self.in_flight.lock().unwrap().1
    }
}

struct InFlight(Arc<Mutex<(usize, usize)>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

impl CallInterceptor for SlowBus {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        async move {
            {
                let mut in_flight = self.in_flight.lock().unwrap();
                in_flight.0 += 1;
                in_flight.1 = in_flight.1.max(in_flight.0);
            }
            let _in_flight = InFlight(Arc::clone(&self.in_flight));
            sleep(self.takes).await;
            Injected::Answered.into()
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_events_go_together() {
    let aws = InMemoryAws::new(&[]);
    let slow = SlowBus::new(Duration::from_millis(20));
    let bus = aws.seen_by(slow.clone()).bus();
    let begun = Instant::now();
    // One each millisecond: what comes while four requests are in flight waits for the next.
    let published = join_all((0..200).map(async |number| {
        sleep(Duration::from_millis(u64::try_from(number).unwrap())).await;
        bus.publish(NAME, &detail(number)).await
    }))
    .await;
    assert!(published.iter().all(Result::is_ok));
    assert_eq!((aws.events().len(), slow.most_in_flight()), (200, 4));
    assert!(requests_made(&aws) < 60, "{}", requests_made(&aws));
    assert!(begun.elapsed() < Duration::from_millis(260), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn hanging_bus_is_left_after_a_while() {
    let slow = SlowBus::new(Duration::from_secs(3_600));
    let aws = InMemoryAws::new(&[]);
    let bus = aws.seen_by(slow.clone()).bus();
    let begun = Instant::now();
    let published =
        join_all((0..1_000).map(async |number| bus.publish(NAME, &detail(number)).await)).await;
    assert!(published.iter().all(Result::is_err));
    assert!(begun.elapsed() <= Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(slow.most_in_flight(), 4, "the others were never sent");
}

/// Publishes, and leaves after so long.
async fn publish_for(bus: &Bus, detail: &str, patience: Duration) -> bool {
    timeout(patience, bus.publish(NAME, detail)).await.is_ok_and(|published| published.is_ok())
}

#[tokio::test(start_paused = true)]
async fn dropped_sender_loses_no_event() {
    let (short, long) = (Duration::from_millis(100), Duration::from_secs(60));
    // Both are in one request, and one of the two sends it.
    for patience in [[short, long], [long, short]] {
        let aws = InMemoryAws::new(&[]);
        let bus = aws.seen_by(SlowBus::new(Duration::from_millis(500))).bus();
        let details = [detail(0), detail(1)];
        let published = tokio::join!(
            publish_for(&bus, &details[0], patience[0]),
            publish_for(&bus, &details[1], patience[1]),
        );
        assert_eq!(published, (patience[0] == long, patience[1] == long));
        let left = &details[usize::from(patience[1] == long)];
        assert!(aws.events().iter().any(|event| event.detail == *left), "{:?}", aws.events());
    }
}
