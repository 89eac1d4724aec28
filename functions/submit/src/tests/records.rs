//! The request record: which job a key names after a crash, at once, and after a while.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_in_memory::interceptor::CallInterceptor;
use chrono::TimeDelta;
use domain::id::{IdempotencyKey, JobId, RequestId};
use shared::store::{Inserted, StoredPayload};

use super::*;

const KEY_OF_ZVID: &str = r#"{"key": "zvid_key", "hosts": ["zvid.test:80"]}"#;

/// A stack whose only provider accepts everything.
struct Stack {
    aws: InMemoryAws,
    network: Network,
    submits: Arc<Mutex<Vec<Value>>>,
}

impl Stack {
    async fn open() -> Self {
        clock::set(DateTime::from_timestamp(1_779_602_400, 0).unwrap());
        let aws = with_key(&[("providers/zvid/api-key", KEY_OF_ZVID)]).await;
        let (network, submits) = rendering_network();
        Self { aws, network, submits }
    }

    /// A request of a process of its own.
    async fn post_through(
        &self,
        interceptor: Arc<dyn CallInterceptor>,
        key: &str,
        name: &str,
    ) -> (i64, Value) {
        let mut request: ApiGatewayV2httpRequest = serde_json::from_str(OK).unwrap();
        request.headers.insert("idempotency-key", key.parse().unwrap());
        request.body = Some(body(name));
        let aws = self.aws.seen_by(interceptor);
        let dial = self.network.seen_by(Arc::new(NoFaults));
        let tracker = aws.started_tracker(dial, at_zvid_test()).await.unwrap();
        answered_by(&aws, tracker, request, clock::now).await
    }

    async fn post(&self, key: &str, name: &str) -> (i64, Value) {
        self.post_through(Arc::new(NoFaults), key, name).await
    }

    /// Stores the record of a request, as a function does that then dies.
    async fn abandon(&self, key: &str, name: &str) -> JobId {
        let job = JobId::from_bytes([9; 16]);
        let id = RequestId::of_key(&IdempotencyKey::parse(key).unwrap());
        let request = body(name);
        let request =
            domain::request::JobRequest::parse(request.as_bytes(), &TargetPolicy::public());
        let record =
            self.aws.store().new_record(job.clone(), request.unwrap().fingerprint, clock::now());
        let payload = StoredPayload::compress(body(name).as_bytes()).unwrap();
        let stored = self.aws.store().insert_record(&id, &record, &payload).await.unwrap();
        assert_eq!(stored, Inserted::New);
        job
    }

    fn submit_count(&self) -> usize {
        self.submits.lock().unwrap().len()
    }
}

fn body(name: &str) -> String {
    let request: ApiGatewayV2httpRequest = serde_json::from_str(OK).unwrap();
    let mut body: Value = serde_json::from_str(request.body.as_ref().unwrap()).unwrap();
    body["payload"]["name"] = name.into();
    body.to_string()
}

fn id(answer: &Value) -> &str {
    answer["jobId"].as_str().unwrap_or_default()
}

/// Refuses the puts of jobs.
#[derive(Debug)]
struct NoJobPuts;

impl CallInterceptor for NoJobPuts {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let is_job = call.body.pointer("/Item/sk/S").is_some_and(|sk| sk == "job");
        let injected = if is_job { Injected::Lost } else { Injected::Answered };
        std::future::ready(injected.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn repeat_goes_on_with_recorded_job() {
    let stack = Stack::open().await;
    let (status, _) = stack.post_through(Arc::new(NoJobPuts), "order-1", "a").await;
    assert_eq!((status, stack.submit_count()), (503, 0));
    let (status, answer) = stack.post("order-1", "a").await;
    assert_eq!((status, stack.submit_count()), (202, 1), "{answer}");
    let items = stack.aws.table().items();
    let record = items.iter().find(|item| item["sk"]["S"] == "payload").unwrap();
    assert_eq!(record["job"]["S"], id(&answer), "the provider got the id of the first record");
    let uuid = JobId::parse(id(&answer)).unwrap().as_uuid();
    assert_eq!(stack.submits.lock().unwrap()[0]["jobId"], uuid);
    assert_eq!(id(&stack.post("order-1", "a").await.1), id(&answer));
    assert_eq!(stack.post("order-1", "b").await.1["code"], "idempotency_mismatch");
    assert_eq!(stack.submit_count(), 1);
}

/// Answers each call after another while, so that requests overtake each other.
#[derive(Debug, Default)]
struct UnevenAws(AtomicU64);

impl CallInterceptor for UnevenAws {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let wait = self.0.fetch_add(37, Ordering::SeqCst) % 50;
        tokio::time::sleep(Duration::from_millis(wait)).map(|()| Injected::Answered.into()).boxed()
    }
}

/// However old the record is that they find, without a job or with one.
#[tokio::test(start_paused = true)]
async fn concurrent_repeats_submit_once() {
    for minutes in [None, Some(0), Some(9), Some(30), Some(59), Some(61), Some(14 * 24 * 60)] {
        let stack = Stack::open().await;
        let abandoned = match minutes {
            Some(minutes) => {
                let job = stack.abandon("order-1", "a").await;
                tokio::time::advance(Duration::from_secs(minutes * 60)).await;
                Some(job)
            }
            None => None,
        };
        let uneven = Arc::new(UnevenAws::default());
        let posts = (0..12).map(|_| stack.post_through(uneven.clone(), "order-1", "a"));
        let posts = join_all(posts).await;
        let first = id(&posts[0].1).to_owned();
        for (status, answer) in &posts {
            assert_eq!((*status, id(answer)), (202, first.as_str()), "{minutes:?}: {answer}");
        }
        assert_eq!(stack.submit_count(), 1, "{minutes:?}");
        let is_kept = minutes.is_some_and(|minutes| minutes < 60);
        let kept = abandoned.is_some_and(|job| job.as_str() == first);
        assert_eq!(kept, is_kept, "{minutes:?}");
    }
}

/// A request that is slow between the record and the job: all others of its key go on meanwhile.
#[tokio::test(start_paused = true)]
async fn slow_request_submits_no_second_time() {
    /// Delays the puts of jobs.
    #[derive(Debug)]
    struct SlowJobPuts(Duration);

    impl CallInterceptor for SlowJobPuts {
        fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
            let is_job = call.body.pointer("/Item/sk/S").is_some_and(|sk| sk == "job");
            let delay = if is_job { self.0 } else { Duration::ZERO };
            tokio::time::sleep(delay).map(|()| Injected::Answered.into()).boxed()
        }
    }

    for minutes in [0, 9, 10, 59, 60, 61] {
        let stack = Stack::open().await;
        stack.abandon("order-1", "a").await;
        // It finds the record just before it is of another age.
        let at = Duration::from_secs(minutes * 60).saturating_sub(Duration::from_secs(1));
        tokio::time::advance(at).await;
        let slow = Arc::new(SlowJobPuts(Duration::from_millis(2500)));
        let others = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            join_all((0..6).map(|_| stack.post("order-1", "a"))).await
        };
        let (first, others) = tokio::join!(stack.post_through(slow, "order-1", "a"), others);
        for (status, answer) in others {
            assert_eq!((status, id(&answer)), (202, id(&first.1)), "{minutes}: {answer}");
        }
        assert_eq!(stack.submit_count(), 1, "{minutes}");
    }
}

/// The job and its record are deleted at different times.
#[tokio::test(start_paused = true)]
async fn key_of_deleted_job_makes_another() {
    let stack = Stack::open().await;
    let deleted = stack.abandon("order-1", "a").await;
    tokio::time::advance(Duration::from_secs(59 * 60)).await;
    let (status, refused) = stack.post("order-1", "b").await;
    assert_eq!((status, &refused["code"]), (422, &"idempotency_mismatch".into()));
    tokio::time::advance(Duration::from_secs(60)).await;
    let (status, answer) = stack.post("order-1", "b").await;
    assert_eq!(status, 202, "{answer}");
    assert_ne!(id(&answer), deleted.as_str());
    let (_, again) = stack.post("order-1", "b").await;
    assert_eq!((id(&again), stack.submit_count()), (id(&answer), 1));
    assert_eq!(stack.post("order-1", "a").await.1["code"], "idempotency_mismatch");
}

/// DynamoDB may delete an expired item days late.
#[tokio::test(start_paused = true)]
async fn expired_record_counts_as_absent() {
    let stack = Stack::open().await;
    let (_, answer) = stack.post("order-1", "a").await;
    let job = stack.aws.store().job(&JobId::parse(id(&answer)).unwrap()).await.unwrap().unwrap();
    // The test's stack keeps jobs for a day, and records for longer than any job is active.
    tokio::time::advance(Duration::from_secs(8 * 24 * 3600 + 1)).await;
    assert_eq!(id(&stack.post("order-1", "a").await.1), id(&answer), "it is still rendered");
    let settled = domain::job::Job { settled_at: Some(clock::now()), ..job.next_version() };
    stack.aws.store().commit_job(&settled).await.unwrap();
    let (status, anew) = stack.post("order-1", "b").await;
    assert_eq!((status, stack.submit_count()), (202, 2), "{anew}");
    assert_ne!(id(&anew), id(&answer));
    let record =
        |items: Vec<Value>| items.into_iter().find(|item| item["sk"]["S"] == "payload").unwrap();
    let expires_at = record(stack.aws.table().items())["expires_at"]["N"].clone();
    let expires_at: i64 = expires_at.as_str().unwrap().parse().unwrap();
    assert!(expires_at > (clock::now() + TimeDelta::days(7)).timestamp());
}

/// An id that followed from the key would be that of every stack.
#[tokio::test(start_paused = true)]
async fn stacks_choose_ids_of_their_own() {
    let (one, other) = (Stack::open().await, Stack::open().await);
    let (_, of_one) = one.post("order-1", "a").await;
    let (_, of_other) = other.post("order-1", "a").await;
    assert_ne!(id(&of_one), id(&of_other));
    let submitted = |stack: &Stack| stack.submits.lock().unwrap()[0]["jobId"].clone();
    assert_ne!(submitted(&one), submitted(&other), "the id that the provider gets");
}
