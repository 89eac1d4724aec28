use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::advance;

use super::*;
use crate::fake::FakeAws;
use crate::fake::fate::{Call, Fate, Fated, Happens};

const SECRETS: SecretName = SecretName::WebhookSecrets;

/// What happens to every call from now on.
#[derive(Debug, Default)]
struct Now(Mutex<Happens>);

impl Now {
    fn set(&self, happens: Happens) {
        *self.0.lock().unwrap() = happens;
    }
}

impl Fate for Now {
    fn of<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Fated> {
        let happens = self.0.lock().unwrap().clone();
        let answered = async {
            // Others have the time to ask as well.
            tokio::task::yield_now().await;
            happens.into()
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

fn denied() -> Happens {
    Happens::Refused(400, serde_json::json!({"__type": "AccessDeniedException"}))
}

#[tokio::test(start_paused = true)]
async fn what_the_api_changes_is_read_again_after_a_minute_and_the_rest_after_ten() {
    let aws = FakeAws::new(&[("webhook-secrets", "old"), ("api-key-hashes", "old")]);
    let secrets = aws.secrets();
    for name in [&SECRETS, &SecretName::ApiKeyHashes] {
        assert_eq!(read(&secrets, name).await.unwrap(), "old");
    }
    aws.set_parameter("webhook-secrets", "new");
    aws.set_parameter("api-key-hashes", "new");

    advance(Duration::from_secs(59)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
    advance(Duration::from_secs(1)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
    assert_eq!(read(&secrets, &SecretName::ApiKeyHashes).await.unwrap(), "old");
    advance(Duration::from_secs(540)).await;
    assert_eq!(read(&secrets, &SecretName::ApiKeyHashes).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_needs_a_secret_asks_for_it_once() {
    let aws = FakeAws::new(&[("webhook-secrets", "old")]);
    let fate = Arc::new(Now::default());
    let secrets = aws.seen_by(fate.clone()).secrets();
    let crowd = async || join_all((0..100).map(|_| read(&secrets, &SECRETS))).await;

    assert!(crowd().await.iter().all(|read| read.as_deref().is_ok_and(|text| text == "old")));
    assert_eq!(aws.asked().len(), 1);

    // One is told that it is not to be had, and so are all.
    secrets.forget(&SECRETS);
    fate.set(denied());
    assert!(crowd().await.iter().all(Result::is_err));
    fate.set(Happens::Answered);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old", "and who comes later asks again");
    assert_eq!(aws.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_ssm_is_down_what_was_read_will_do_for_ten_minutes() {
    let aws = FakeAws::new(&[("webhook-secrets", "old")]);
    let fate = Arc::new(Now::default());
    let secrets = aws.seen_by(fate.clone()).secrets();
    read(&secrets, &SECRETS).await.unwrap();
    fate.set(denied());
    advance(Duration::from_secs(599)).await;
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
    advance(Duration::from_secs(1)).await;
    let error = read(&secrets, &SECRETS).await.unwrap_err();
    assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
    fate.set(Happens::Answered);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_read_again() {
    let aws = FakeAws::new(&[("webhook-secrets", "old")]);
    let secrets = aws.secrets();
    read(&secrets, &SECRETS).await.unwrap();
    aws.set_parameter("webhook-secrets", "new");
    secrets.forget(&SECRETS);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_every_answer_was_lost_is_found_to_be_stored() {
    let aws = FakeAws::new(&[("webhook-secrets", "old")]);
    let fate = Arc::new(LosesPuts);
    let secrets = aws.seen_by(fate).secrets();
    let version = secrets.replace(&SECRETS, "new").await.unwrap();
    assert!(version > 1, "{version}");
    assert_eq!(aws.parameter("webhook-secrets").unwrap(), "new");
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "new");
}

/// Every write is made, and its answer is lost.
#[derive(Debug)]
struct LosesPuts;

impl Fate for LosesPuts {
    fn of<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Fated> {
        let put = call.what == "PutParameter";
        let happens = if put { Happens::Unanswered } else { Happens::Answered };
        std::future::ready(happens.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_not_stored_is_not_believed_to_be() {
    let aws = FakeAws::new(&[("webhook-secrets", "old")]);
    let fate = Arc::new(Now::default());
    let secrets = aws.seen_by(fate.clone()).secrets();
    read(&secrets, &SECRETS).await.unwrap();
    fate.set(denied());
    let error = secrets.replace(&SECRETS, "new").await.unwrap_err();
    assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
    fate.set(Happens::Answered);
    assert_eq!(read(&secrets, &SECRETS).await.unwrap(), "old");
}

#[tokio::test(start_paused = true)]
async fn whoever_writes_over_a_secret_is_told_when_it_reads_an_older_one() {
    let aws = FakeAws::new(&[("webhook-secrets", "first")]);
    let secrets = aws.secrets();
    let version = secrets.replace(&SECRETS, "second").await.unwrap();
    assert_eq!(secrets.read_since(&SECRETS, version, text).await.unwrap(), "second");
    let error = secrets.read_since(&SECRETS, version + 1, text).await.unwrap_err();
    assert!(matches!(error, SecretError::Stale(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_gone_and_to_remove_it_again_is_fine() {
    let aws = FakeAws::new(&[("webhook-headers", "{}")]);
    let secrets = aws.secrets();
    for _ in 0..2 {
        secrets.remove(&SecretName::WebhookHeaders).await.unwrap();
        let found = secrets.find(&SecretName::WebhookHeaders, text).await.unwrap();
        assert_eq!((found, aws.parameter("webhook-headers")), (None, None));
    }
}

#[test]
fn no_value_is_shown() {
    let secrets = FakeAws::new(&[]).secrets();
    secrets.cache(&SECRETS, Some("whsec_hidden"));
    let shown = format!("{secrets:?}");
    assert!(shown.contains("WebhookSecrets") && !shown.contains("hidden"), "{shown}");
}
