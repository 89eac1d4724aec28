//! Secrets as one process sees them: [`shared::secrets`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::InMemoryAws;
use aws_in_memory::interceptor::{Call, CallInterceptor, FaultyOperation, Injected, Interception};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use shared::secrets::{SecretError, SecretName, Secrets};
use tokio::time::advance;

const SECRETS: SecretName = SecretName::WebhookSecrets;

/// Injects the same into every call, which a test may change at any time.
#[derive(Debug, Default)]
pub(crate) struct EveryCall(Mutex<Injected>);

impl EveryCall {
    pub(crate) fn set(&self, injected: Injected) {
        *self.0.lock().unwrap() = injected;
    }
}

impl CallInterceptor for EveryCall {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let injected = self.0.lock().unwrap().clone();
        let answered = async {
            // Concurrent readers begin meanwhile.
            tokio::task::yield_now().await;
            injected.into()
        };
        answered.boxed()
    }
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

async fn read(secrets: &Secrets, name: &SecretName) -> Result<String, SecretError> {
    secrets.get(name, text).await
}

fn denied() -> Injected {
    Injected::Refused(400, serde_json::json!({"__type": "AccessDeniedException"}))
}

#[tokio::test(start_paused = true)]
async fn ttl_depends_on_the_secret() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old"), ("callback-secret", "old")]);
    let secrets = aws.secrets();
    for name in [&SECRETS, &SecretName::CallbackSecret] {
        assert_eq!(read(&secrets, name).await.unwrap(), "old");
    }
    aws.set_parameter("webhook-secrets", "new");
    aws.set_parameter("callback-secret", "new");

    advance(Duration::from_secs(59)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
    advance(Duration::from_secs(1)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
    assert_eq!(read(&secrets, &SecretName::CallbackSecret).await.unwrap(), "old");
    advance(Duration::from_secs(540)).await;
    assert_eq!(read(&secrets, &SecretName::CallbackSecret).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn concurrent_reads_share_one_fetch() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let interceptor = Arc::new(EveryCall::default());
    let secrets = aws.seen_by(interceptor.clone()).secrets();
    let crowd = async || join_all((0..100).map(|_| read(&secrets, &SECRETS))).await;

    assert!(crowd().await.iter().all(|read| read.as_deref().is_ok_and(|text| text == "old")));
    assert_eq!(aws.calls().len(), 1);

    // One fetch fails, and so do all that wait for it.
    secrets.forget(&SECRETS);
    interceptor.set(denied());
    assert!(crowd().await.iter().all(Result::is_err));
    interceptor.set(Injected::Answered);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old", "and a later read fetches again");
    assert_eq!(aws.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn stale_secret_serves_during_outage() {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old")]);
    let interceptor = Arc::new(EveryCall::default());
    let secrets = aws.seen_by(interceptor.clone()).secrets();
    read(&secrets, &SECRETS).await.unwrap();
    interceptor.set(denied());
    advance(Duration::from_secs(599)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
    advance(Duration::from_secs(1)).await;
    let error = read(&secrets, &SECRETS).await.unwrap_err();
    assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
    interceptor.set(Injected::Answered);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
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
    let aws = InMemoryAws::new(&[("webhook-headers", "{}")]);
    let secrets = aws.secrets();
    for _ in 0..2 {
        secrets.remove(&SecretName::WebhookHeaders).await.unwrap();
        let found = secrets.find(&SecretName::WebhookHeaders, text).await.unwrap();
        assert_eq!((found, aws.parameter("webhook-headers")), (None, None));
    }
}

#[tokio::test]
async fn debug_output_hides_values() {
    let secrets = InMemoryAws::new(&[("webhook-secrets", "whsec_hidden")]).secrets();
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "whsec_hidden");
    let shown = format!("{secrets:?}");
    assert!(shown.contains("WebhookSecrets") && !shown.contains("hidden"), "invariant 5: {shown}");
}
