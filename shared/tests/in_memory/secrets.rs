//! Secrets as one process sees them: [`shared::secrets`]. What many processes do together is in
//! [`ssm_quota`](crate::ssm_quota).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, FaultyOperation, Injected, Interception};
use aws_in_memory::{InMemoryAws, clock};
use domain::id::ProviderName;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use shared::secrets::{SecretChange, SecretError, SecretName, Secrets};
use tokio::time::{Instant, advance};

const SECRETS: SecretName = SecretName::WebhookSecrets;
const OTHER: SecretName = SecretName::CallbackSecret;
const PERIOD: Duration = Duration::from_secs(600);

/// Injects the same into every call about something else than changes of secrets, which a test may change at any time.
#[derive(Debug, Default)]
pub(crate) struct EveryCall(Mutex<Injected>);

impl EveryCall {
    pub(crate) fn set(&self, injected: Injected) {
        *self.0.lock().unwrap() = injected;
    }
}

impl CallInterceptor for EveryCall {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        // What follows the changes of secrets goes on.
        let follows = call.body["Key"]["pk"]["S"] == "secrets";
        let injected = if follows { Injected::Answered } else { self.0.lock().unwrap().clone() };
        let answered = async {
            // Concurrent readers begin meanwhile.
            tokio::task::yield_now().await;
            injected.into()
        };
        answered.boxed()
    }
}

/// The calls of SSM so far.
pub(crate) fn ssm_calls(aws: &InMemoryAws) -> Vec<String> {
    aws.calls().into_iter().filter(|call| call.contains("Parameter")).collect()
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(crate) async fn read(secrets: &Secrets, name: &SecretName) -> Result<String, SecretError> {
    secrets.get(name, text).await
}

async fn find(secrets: &Secrets, name: &SecretName) -> Option<String> {
    secrets.find(name, text).await.unwrap()
}

pub(crate) fn key(provider: &str) -> SecretName {
    SecretName::ProviderKey(ProviderName::parse(provider).unwrap())
}

fn denied() -> Injected {
    Injected::Refused(400, json!({"__type": "AccessDeniedException"}))
}

pub(crate) fn throttled() -> Injected {
    Injected::Refused(400, json!({"__type": "ThrottlingException"}))
}

/// A process whose calls pass the interceptor, with these secrets read. The first period is
/// shorter than the others, so it is over.
async fn warm(aws: &InMemoryAws, names: &[SecretName]) -> (Secrets, Arc<EveryCall>) {
    let interceptor = Arc::new(EveryCall::default());
    let secrets = aws.seen_by(interceptor.clone()).secrets();
    for _ in 0..2 {
        for name in names {
            find(&secrets, name).await;
        }
        advance(PERIOD).await;
    }
    for name in names {
        find(&secrets, name).await;
    }
    (secrets, interceptor)
}

/// With the keys of these providers, each named after its provider.
fn with_keys(providers: &[String]) -> InMemoryAws {
    let aws = InMemoryAws::new(&[]);
    for provider in providers {
        aws.set_parameter(&format!("providers/{provider}/api-key"), provider);
    }
    aws
}

fn providers(number: usize) -> Vec<String> {
    (0..number).map(|number| format!("provider-{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn names_asked_together_share_a_call() {
    for (number, calls) in [(1, 1), (9, 1), (10, 1), (11, 2), (25, 3)] {
        let names = providers(number);
        let aws = with_keys(&names);
        let secrets = aws.secrets();
        let asked = names.iter().map(async |name| read(&secrets, &key(name)).await.unwrap());
        assert_eq!(join_all(asked).await, names);
        assert_eq!(ssm_calls(&aws), vec!["GetParameters"; calls], "{number} names");
    }
}

#[tokio::test(start_paused = true)]
async fn expected_names_share_the_next_call() {
    let aws = InMemoryAws::new(&[("callback-secret", "c"), ("providers/zvid/api-key", "z")]);
    let secrets = aws.secrets();
    let webhook = SecretName::ProviderWebhookSecrets(ProviderName::parse("zvid").unwrap());
    secrets.expect([key("zvid"), webhook.clone()]);
    assert_eq!(ssm_calls(&aws), [""; 0], "to expect is not to ask");
    assert_eq!(read(&secrets, &SecretName::CallbackSecret).await.unwrap(), "c");
    assert_eq!(read(&secrets, &key("zvid")).await.unwrap(), "z");
    assert_eq!(find(&secrets, &webhook).await, None);
    assert_eq!(ssm_calls(&aws), ["GetParameters"]);
}

#[tokio::test(start_paused = true)]
async fn concurrent_reads_share_one_call() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let interceptor = Arc::new(EveryCall::default());
    let secrets = aws.seen_by(interceptor.clone()).secrets();
    let crowd = async || join_all((0..100).map(|_| read(&secrets, &SECRETS))).await;

    assert!(crowd().await.iter().all(|read| read.as_deref().is_ok_and(|text| text == "old")));
    assert_eq!(ssm_calls(&aws).len(), 1);

    // One call is refused, and so are all that wait for it.
    secrets.forget(&SECRETS);
    interceptor.set(denied());
    assert!(crowd().await.iter().all(Result::is_err));
    interceptor.set(Injected::Answered);
    advance(Duration::from_secs(5)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old", "and a later read asks again");
    assert_eq!(ssm_calls(&aws).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn secrets_are_read_once_in_ten_minutes() {
    let names = providers(9);
    let aws = with_keys(&names);
    let secrets = aws.secrets();
    let mut calls = Vec::new();
    for second in 0..2 * 3600 {
        // They are not all needed from the start, and one is absent.
        for name in names.iter().take(1 + second / 100) {
            assert_eq!(read(&secrets, &key(name)).await.unwrap(), *name);
        }
        assert_eq!(find(&secrets, &OTHER).await, None);
        let made = ssm_calls(&aws).len() - calls.len();
        calls.extend(vec![second; made]);
        advance(Duration::from_secs(1)).await;
    }
    let steady: Vec<usize> = calls.into_iter().filter(|second| *second >= 1800).collect();
    assert!(steady.len() >= 8, "{steady:?}");
    assert!(steady.windows(2).all(|pair| pair[1] - pair[0] >= 600), "{steady:?}");
}

#[tokio::test(start_paused = true)]
async fn change_by_hand_arrives_in_ten_minutes() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let (secrets, _) = warm(&aws, &[SECRETS, OTHER]).await;
    aws.set_parameter("webhook-secrets", "new");
    aws.set_parameter("callback-secret", "{}");
    advance(PERIOD - Duration::from_millis(1)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
    assert_eq!(find(&secrets, &OTHER).await, None);
    advance(Duration::from_millis(1)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
    assert_eq!(find(&secrets, &OTHER).await.as_deref(), Some("{}"));
}

/// A value, and that there is none.
#[tokio::test(start_paused = true)]
async fn throttled_minute_is_no_error() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    // The minute may begin at any time.
    for begin in (0..3600).step_by(170) {
        let interceptor = Arc::new(EveryCall::default());
        let secrets = aws.seen_by(interceptor.clone()).secrets();
        let mut slowest = Duration::ZERO;
        for second in 0..3600 {
            let is_throttled = second > 0 && (begin..begin + 60).contains(&second);
            interceptor.set(if is_throttled { throttled() } else { Injected::Answered });
            let start = Instant::now();
            assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old", "at {second}");
            assert_eq!(find(&secrets, &OTHER).await, None, "at {second}");
            slowest = slowest.max(start.elapsed());
            advance(Duration::from_secs(1)).await;
        }
        let one_call = Duration::from_millis(5);
        assert!(slowest < one_call, "no caller waits for a throttled call's repeat: {slowest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_secret_serves_during_outage() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    for outage in [denied(), throttled(), Injected::Lost] {
        let (secrets, interceptor) = warm(&aws, &[SECRETS, OTHER]).await;
        interceptor.set(outage);
        for _ in 0..119 {
            advance(Duration::from_secs(10)).await;
            assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
            assert_eq!(find(&secrets, &OTHER).await, None);
        }
        advance(Duration::from_secs(10)).await;
        let error = read(&secrets, &SECRETS).await.unwrap_err();
        assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
        secrets.find(&OTHER, text).await.unwrap_err();
        interceptor.set(Injected::Answered);
        advance(Duration::from_secs(5)).await;
        assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
    }
}

/// Never answers.
#[derive(Debug)]
struct Hangs;

impl CallInterceptor for Hangs {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        match call.to {
            "ssm" => std::future::pending().boxed(),
            _ => std::future::ready(Injected::Answered.into()).boxed(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_call_delays_a_stale_secret_once() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let hanging = Arc::new(Mutex::new(false));
    #[derive(Debug)]
    struct Switch(Arc<Mutex<bool>>);
    impl CallInterceptor for Switch {
        fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
            match *self.0.lock().unwrap() {
                true => Hangs.intercept(call),
                false => std::future::ready(Injected::Answered.into()).boxed(),
            }
        }
    }
    let secrets = aws.seen_by(Arc::new(Switch(Arc::clone(&hanging)))).secrets();
    read(&secrets, &SECRETS).await.unwrap();
    advance(PERIOD).await;
    *hanging.lock().unwrap() = true;
    let mut waited = Duration::ZERO;
    for _ in 0..60 {
        let start = Instant::now();
        let crowd = join_all((0..10).map(|_| read(&secrets, &SECRETS))).await;
        assert!(crowd.iter().all(|read| read.as_deref().is_ok_and(|text| text == "old")));
        let took = start.elapsed();
        assert!(took <= Duration::from_secs(1), "{took:?}");
        waited += took;
        advance(Duration::from_secs(1)).await;
    }
    assert!(waited <= Duration::from_secs(15), "{waited:?} of a minute");
    *hanging.lock().unwrap() = false;
    advance(Duration::from_secs(60)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
}

#[tokio::test(start_paused = true)]
async fn required_absent_secret_is_asked_again_soon() {
    let aws = InMemoryAws::new(&[]);
    let secrets = aws.secrets();
    let mut calls = Vec::new();
    for second in 0..2 * 3600 {
        let error = read(&secrets, &key("zvid")).await.unwrap_err();
        assert!(matches!(error, SecretError::Missing(_)), "{error}");
        let made = ssm_calls(&aws).len() - calls.len();
        calls.extend(vec![second; made]);
        advance(Duration::from_secs(1)).await;
    }
    assert!(calls[1] <= 6 && calls[2] <= 12 && calls[3] <= 24, "{calls:?}");
    assert!(calls.len() <= 22, "{calls:?}");
    let steady: Vec<usize> = calls.into_iter().filter(|second| *second >= 1800).collect();
    assert!(steady.windows(2).all(|pair| pair[1] - pair[0] >= 599), "{steady:?}");
}

fn change(id: u64) -> SecretChange {
    SecretChange::made(id, clock::now())
}

#[tokio::test(start_paused = true)]
async fn announced_change_is_read() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old"), ("callback-secret", "{}")]);
    let (secrets, _) = warm(&aws, &[SECRETS, OTHER]).await;
    let before = ssm_calls(&aws).len();
    aws.set_parameter("webhook-secrets", "new");
    let change = change(3);
    for after in 0..60 {
        secrets.hear_of_change(&[SECRETS, OTHER], &change, clock::now());
        assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new", "after {after} s");
        assert_eq!(find(&secrets, &OTHER).await.as_deref(), Some("{}"));
        advance(Duration::from_secs(1)).await;
    }
    // Once more after five seconds, because SSM may have shown what was there before.
    assert!(ssm_calls(&aws).len() - before <= 4, "{:?}", ssm_calls(&aws));
}

#[tokio::test(start_paused = true)]
async fn announced_absence_ends() {
    let aws = InMemoryAws::new(&[]);
    let (secrets, _) = warm(&aws, &[OTHER]).await;
    aws.set_parameter("callback-secret", "{}");
    secrets.hear_of_change(&[OTHER], &change(1), clock::now());
    assert_eq!(find(&secrets, &OTHER).await.as_deref(), Some("{}"));
}

#[tokio::test(start_paused = true)]
async fn outdated_secret_ends_after_a_minute() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    for outage in [throttled(), denied(), Injected::Lost] {
        aws.set_parameter("webhook-secrets", "old");
        let (secrets, interceptor) = warm(&aws, &[SECRETS]).await;
        interceptor.set(outage);
        aws.set_parameter("webhook-secrets", "new");
        let first = change(1);
        let start = clock::now();
        let mut revision = 1;
        while (clock::now() - start).num_seconds() < 55 {
            // Others follow: what is outdated gets no more time by them.
            let last = if revision == 1 { first } else { change(revision) };
            secrets.hear_of_change(&[SECRETS], &last, clock::now());
            assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
            advance(Duration::from_secs(3)).await;
            revision += 1;
        }
        secrets.hear_of_change(&[SECRETS], &change(revision), clock::now());
        let left = (start + chrono::TimeDelta::seconds(60) - clock::now()).to_std();
        advance(left.unwrap_or_default()).await;
        let error = read(&secrets, &SECRETS).await.unwrap_err();
        assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
        interceptor.set(Injected::Answered);
        advance(Duration::from_secs(5)).await;
        assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
    }
}

/// Refuses every call that asks for one name, as SSM does when its key may not be used.
#[derive(Debug)]
struct RefusesName(&'static str);

impl CallInterceptor for RefusesName {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let names = call.body["Names"].as_array().map_or(&[][..], Vec::as_slice);
        let asks = names.iter().filter_map(Value::as_str).any(|name| name.ends_with(self.0));
        let injected = if asks { denied() } else { Injected::Answered };
        std::future::ready(injected.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn refused_name_fails_alone() {
    let names = providers(4);
    let aws = with_keys(&names);
    let secrets = aws.seen_by(Arc::new(RefusesName("provider-2/api-key"))).secrets();
    for round in 0..3 {
        let asked = join_all(names.iter().map(async |name| read(&secrets, &key(name)).await));
        for (name, answer) in names.iter().zip(asked.await) {
            assert_eq!(answer.is_err(), name == "provider-2", "{name} in round {round}");
        }
        advance(PERIOD).await;
    }
}

#[tokio::test(start_paused = true)]
async fn cold_read_outlasts_a_short_throttle() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let interceptor = Arc::new(EveryCall::default());
    let secrets = aws.seen_by(interceptor.clone()).secrets();
    interceptor.set(throttled());
    let ends = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        interceptor.set(Injected::Answered);
    };
    let (answer, ()) = tokio::join!(read(&secrets, &SECRETS), ends);
    assert_eq!(answer.unwrap(), "old");

    let secrets = aws.seen_by(interceptor.clone()).secrets();
    interceptor.set(throttled());
    let start = Instant::now();
    let error = read(&secrets, &SECRETS).await.unwrap_err();
    assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
    let took = start.elapsed();
    assert!((Duration::from_secs(11)..Duration::from_secs(13)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn forgotten_secret_is_read_again() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let secrets = aws.secrets();
    read(&secrets, &SECRETS).await.unwrap();
    aws.set_parameter("webhook-secrets", "new");
    secrets.forget(&SECRETS);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_hide_no_write() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let loses_answers = FaultyOperation::new("PutParameter", Injected::Unanswered);
    let secrets = aws.seen_by(loses_answers).secrets();
    let version = secrets.replace(&SECRETS, "new").await.unwrap();
    assert!(version > 1, "{version}");
    assert_eq!(aws.parameter("webhook-secrets").unwrap(), "new");
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn failed_write_changes_no_cache() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let interceptor = Arc::new(EveryCall::default());
    let secrets = aws.seen_by(interceptor.clone()).secrets();
    read(&secrets, &SECRETS).await.unwrap();
    interceptor.set(denied());
    let error = secrets.replace(&SECRETS, "new").await.unwrap_err();
    assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
    interceptor.set(Injected::Answered);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
}

#[tokio::test(start_paused = true)]
async fn older_version_is_reported_stale() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "first")]);
    let secrets = aws.secrets();
    let version = secrets.replace(&SECRETS, "second").await.unwrap();
    assert_eq!(secrets.read_since(&SECRETS, version, text).await.unwrap(), "second");
    let error = secrets.read_since(&SECRETS, version + 1, text).await.unwrap_err();
    assert!(matches!(error, SecretError::Stale(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn removal_is_idempotent() {
    let aws = InMemoryAws::new(&[("callback-secret", "{}")]);
    let secrets = aws.secrets();
    for existed in [true, false] {
        assert_eq!(secrets.remove(&OTHER).await.unwrap(), existed);
        assert_eq!((find(&secrets, &OTHER).await, aws.parameter("callback-secret")), (None, None));
    }
}

#[tokio::test]
async fn debug_output_hides_values() {
    let secrets = InMemoryAws::new(&[("webhook-secrets", "whsec_hidden")]).secrets();
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "whsec_hidden");
    let shown = format!("{secrets:?}");
    assert!(shown.contains("WebhookSecrets") && !shown.contains("hidden"), "invariant 5: {shown}");
}
