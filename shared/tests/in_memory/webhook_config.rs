//! The webhook configuration as one process knows it: [`shared::store`].

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::InMemoryAws;
use aws_in_memory::clock::now;
use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use domain::endpoint::EndpointLimits;
use domain::event::EventSet;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use shared::store::{LockOutcome, Switched, WebhookConfig};
use tokio::time::{Instant, sleep};

fn config(url: &str) -> WebhookConfig {
    WebhookConfig {
        url: Some(url.to_owned()),
        events: EventSet::terminal(),
        limits: EndpointLimits::default(),
        updated_at: now(),
    }
}

fn reads(aws: &InMemoryAws) -> usize {
    aws.calls().iter().filter(|call| *call == "GetItem").count()
}

#[tokio::test(start_paused = true)]
async fn webhook_config_is_read_once_a_second() {
    for stored in [None, Some(config("https://shop.example/hooks"))] {
        let aws = InMemoryAws::new(&[]);
        if let Some(config) = &stored {
            aws.put_webhook_config(config).await.unwrap();
        }
        let (one, same) = (aws.store(), aws.store());
        let one = [one.clone(), one];
        let before = reads(&aws);
        for _ in 0..30 {
            let asked = one.iter().cycle().take(50).map(|store| store.recent_webhook_config(now()));
            for read in join_all(asked).await {
                assert_eq!(read.unwrap(), stored);
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(reads(&aws) - before, 3, "1,500 times in three seconds");
        same.recent_webhook_config(now()).await.unwrap();
        assert_eq!(reads(&aws) - before, 4, "another process has its own");
    }
}

#[tokio::test(start_paused = true)]
async fn webhook_config_change_is_seen_within_a_second() {
    let aws = InMemoryAws::new(&[]);
    let (one, other) = (aws.store(), aws.store());
    for store in [&one, &other] {
        assert_eq!(store.recent_webhook_config(now()).await.unwrap(), None);
    }
    sleep(Duration::from_millis(10)).await;
    let changed = Some(config("https://shop.example/hooks"));
    InMemoryAws::switch(&one, changed.as_ref().unwrap()).await.unwrap();
    assert_eq!(
        one.recent_webhook_config(now()).await.unwrap(),
        changed,
        "at once in its own process"
    );
    sleep(Duration::from_millis(990)).await;
    assert_eq!(other.recent_webhook_config(now()).await.unwrap(), changed);
}

/// Takes a while for each call, and then loses it.
#[derive(Debug)]
struct AwayTable(Duration);

impl CallInterceptor for AwayTable {
    fn intercept<'a>(&'a self, _: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        sleep(self.0).map(|()| Injected::Lost.into()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn failed_config_read_is_shared() {
    let away = InMemoryAws::new(&[]).seen_by(Arc::new(AwayTable(Duration::from_secs(1))));
    let store = away.store();
    let begun = Instant::now();
    let asked = join_all((0..50).map(|_| store.recent_webhook_config(now()))).await;
    assert!(asked.iter().all(Result::is_err));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let again = Instant::now();
    store.recent_webhook_config(now()).await.unwrap_err();
    assert!(again.elapsed() > Duration::ZERO, "a failure is not remembered");
}

#[tokio::test(start_paused = true)]
async fn expired_lock_switches_nothing() {
    let aws = InMemoryAws::new(&[]);
    let store = aws.store();
    let lock = async || match store.lock_webhook_config(None, now()).await.unwrap() {
        LockOutcome::Acquired(lock) => lock,
        LockOutcome::Busy(until) => panic!("until {until}"),
    };
    let expired = lock().await;
    sleep(Duration::from_secs(46)).await;
    let held = lock().await;
    let [late, next] = ["https://late.example/", "https://next.example/"].map(config);
    assert_eq!(
        store.switch_webhook_config(&late, &[], &expired).await.unwrap(),
        Switched::Unlocked
    );
    assert_eq!(store.webhook_config().await.unwrap(), None);
    assert_eq!(store.switch_webhook_config(&next, &[], &held).await.unwrap(), Switched::Made);
    assert_eq!(store.webhook_config().await.unwrap(), Some(next));
}
