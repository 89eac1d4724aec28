//! Many processes under SSM's quotas: forty reads and three writes a second for all of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use aws_in_memory::quotas::{Quotas, Throttle};
use aws_in_memory::{InMemoryAws, clock};
use domain::credential::CallbackSecret;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use shared::callback_secret;
use shared::secrets::{SecretName, Secrets};
use tokio::time::{Instant, advance};

use crate::secrets::{key, read, ssm_calls};

/// What `submit` does before it stores a job.
async fn token_and_key(aws: &InMemoryAws) -> (CallbackSecret, String) {
    let (secrets, entropy) = (aws.secrets(), aws.entropy());
    secrets.expect([key("zvid")]);
    let secret = callback_secret::get_or_make(&secrets, &aws.store(), entropy, clock::now).await;
    (secret.unwrap(), read(&secrets, &key("zvid")).await.unwrap())
}

fn new_stack() -> InMemoryAws {
    InMemoryAws::new(&[("providers/zvid/api-key", "key")])
}

/// How many reads of parameters were answered so far, and how many throttled.
fn reads(aws: &InMemoryAws) -> (usize, usize) {
    let asked = aws.calls().into_iter().filter(|call| call == "GetParameters").count();
    let throttled = aws.throttles().get(&Throttle::ParameterRead).copied().unwrap_or_default();
    (asked - throttled, throttled)
}

/// What became of so many submits at once, each in a process of its own.
async fn submits(aws: &InMemoryAws, number: usize) -> (Duration, (usize, usize)) {
    aws.set_quotas(Quotas::default());
    let (start, (made, refused)) = (Instant::now(), reads(aws));
    let processes =
        (0..number).map(async |_| token_and_key(&aws.seen_by(Arc::new(NoFaults))).await);
    let all = join_all(processes);
    let secrets = all.await.into_iter().map(|(secret, key)| (secret.reveal(), key));
    let stored = aws.parameter("callback-secret").unwrap();
    assert!(secrets.into_iter().all(|it| it == (stored.clone(), "key".to_owned())));
    let (made, refused) = (reads(aws).0 - made, reads(aws).1 - refused);
    (start.elapsed(), (made, refused))
}

#[tokio::test(start_paused = true)]
async fn cold_processes_share_the_quota() {
    let aws = new_stack();
    submits(&aws, 1).await;
    for number in [50, 100, 200] {
        advance(Duration::from_secs(60)).await;
        let (took, (made, refused)) = submits(&aws, number).await;
        println!("{number} cold submits: {took:?}, {made} reads, {refused} throttled");
        assert_eq!(made, number, "one call each");
        assert!(took < Duration::from_secs(12), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_stack_takes_many_cold_submits() {
    for number in [1, 50, 200] {
        let aws = new_stack();
        let (took, (made, refused)) = submits(&aws, number).await;
        println!("{number} on a new stack: {took:?}, {made} reads, {refused} throttled");
        assert_eq!(made, number, "one call each, and the key with the first");
        assert!(took < Duration::from_secs(13), "{took:?}");
        assert_eq!(aws.calls().iter().filter(|call| *call == "PutParameter").count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn crashed_maker_is_replaced() {
    // Before and after each call of the one that makes the secret.
    for (operation, nth) in [("PutItem", 0), ("PutParameter", 0), ("PutItem", 1)] {
        for made in [false, true] {
            let aws = new_stack();
            let crash = Arc::new(Crash { operation, left: Mutex::new(nth), made });
            let process = aws.seen_by(crash);
            let dead = tokio::time::timeout(Duration::from_secs(1), token_and_key(&process)).await;
            assert!(dead.is_err(), "{operation} {nth} is reached");
            let (took, _) = submits(&aws, 20).await;
            assert!(took < Duration::from_secs(18), "{operation} {nth}, made: {made}: {took:?}");
        }
    }
}

/// Ends the process at a call: holds it for ever, before or after it is made.
#[derive(Debug)]
struct Crash {
    operation: &'static str,
    left: Mutex<usize>,
    made: bool,
}

impl CallInterceptor for Crash {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        async move {
            if call.what == self.operation {
                let left = self.left.lock().unwrap().checked_sub(1);
                match left {
                    Some(left) => *self.left.lock().unwrap() = left,
                    None if self.made => {
                        let then = std::future::pending().boxed();
                        return Interception { injected: Injected::Answered, then };
                    }
                    None => return std::future::pending().await,
                }
            }
            Injected::Answered.into()
        }
        .boxed()
    }
}

/// Lets every write take three seconds.
#[derive(Debug, Default)]
struct SlowWrite;

impl CallInterceptor for SlowWrite {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        async move {
            if call.what == "PutParameter" {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            Injected::Answered.into()
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn slow_maker_is_waited_for() {
    let aws = new_stack();
    let processes = (0..50).map(async |_| token_and_key(&aws.seen_by(Arc::new(SlowWrite))).await);
    let secrets = join_all(processes).await.into_iter().map(|(secret, _)| secret.reveal());
    let stored = aws.parameter("callback-secret").unwrap();
    assert!(secrets.into_iter().all(|secret| secret == stored));
    assert_eq!(aws.calls().iter().filter(|call| *call == "PutParameter").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn callback_secret_of_before_is_kept() {
    let before = CallbackSecret::from_random([9; 32]).reveal();
    let aws = new_stack();
    aws.set_parameter("callback-secret", &before);
    assert_eq!(token_and_key(&aws).await.0.reveal(), before);
    assert_eq!(aws.parameter("callback-secret").unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn deleted_callback_secret_is_made_again() {
    let aws = new_stack();
    let first = token_and_key(&aws).await.0.reveal();
    advance(Duration::from_secs(60)).await;
    aws.secrets().remove(&SecretName::CallbackSecret).await.unwrap();
    let second = token_and_key(&aws).await.0.reveal();
    assert_ne!(first, second);
    assert_eq!(aws.parameter("callback-secret").unwrap(), second);
}

#[tokio::test(start_paused = true)]
async fn callback_secret_is_found_after_absence() {
    let aws = new_stack();
    let warm = aws.secrets();
    let find = async |secrets: &Secrets| {
        let found = callback_secret::find(secrets, &aws.store(), aws.entropy(), clock::now).await;
        found.unwrap().map(|secret| secret.reveal())
    };
    // Strangers' requests make this process remember for long that there is none.
    for _ in 0..100 {
        assert_eq!(find(&warm).await, None);
        advance(Duration::from_secs(10)).await;
    }
    let made = token_and_key(&aws).await.0.reveal();
    assert_eq!(find(&warm).await, Some(made));
}

#[tokio::test(start_paused = true)]
async fn renewals_of_many_processes_are_spread() {
    let aws = new_stack();
    let processes: Vec<Secrets> = (0..200).map(|_| aws.secrets()).collect();
    let (mut busiest, mut before) = (0, 0);
    for tick in 0..120 {
        for secrets in &processes {
            read(secrets, &key("zvid")).await.unwrap();
        }
        let made = ssm_calls(&aws).len() - before;
        before += made;
        if tick > 0 {
            busiest = busiest.max(made);
        }
        advance(Duration::from_secs(30)).await;
    }
    println!("200 processes: {before} reads in an hour, {busiest} in the busiest half minute");
    assert!((1000..1600).contains(&before), "each in ten minutes: {before}");
    // A twentieth of them is due in each.
    assert!(busiest < 40, "{busiest}");
}
