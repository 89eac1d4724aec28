//! How often the functions ask SSM, whose forty calls a second are shared by the whole account,
//! and what is noticed outside while it takes none.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tests::SimulatedProvider;

use crate::faults::fault::Fault;
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::functions::{Function, PROVIDERS};

const MINUTE: Duration = Duration::from_secs(60);

/// The messages of what a caller, a provider or a receiver notices, if only by a delay.
const NOTICED: [&str; 4] = [
    "answered 503",
    "answered 500",
    "ticket returned to the queue",
    "provider key unavailable; job status not fetched",
];

fn settings() -> RunSettings {
    let horizon = Duration::from_secs(6 * 3600);
    RunSettings { horizon, skips_idle_ticks: true, ..RunSettings::default() }
}

impl Bundle {
    /// One job of each provider, and a look at all of them.
    async fn use_everything(self: &Arc<Self>, tag: &str) {
        for provider in PROVIDERS {
            let tag = format!("{tag}-{}", provider.name());
            assert!(self.submit(&CallerRequest::new(provider, &tag)).await.is_some());
        }
        let path = "/v1/webhook-config";
        self.call_until_answered(Method::GET, path, &Value::Null, &[200, 404]).await;
    }

    /// How often a function asked for secrets, in each invocation from `first` on.
    fn secret_calls(&self, function: Function, first: usize) -> Vec<usize> {
        let invocations = self.invocations();
        let of_it = invocations.iter().skip(first).filter(|it| it.function == function);
        let asks = |label: &str| label.starts_with("ssm GetParameters /");
        of_it.map(|it| it.calls().iter().filter(|call| asks(&call.label)).count()).collect()
    }
}

#[test]
fn functions_ask_ssm_once_in_ten_minutes() {
    let mut steady_from = 0;
    let bundle = Bundle::run(settings(), async |bundle| {
        for minute in (0..120).step_by(2) {
            if minute == 60 {
                steady_from = bundle.invocations().len();
            }
            bundle.use_everything(&format!("m{minute}")).await;
            tokio::time::sleep(2 * MINUTE).await;
        }
    });
    assert_eq!(bundle.checker.violations(), [""; 0], "{}", bundle.checker.log().text());
    println!("| function | calls in a cold start | calls in the second hour | processes |");
    for function in
        [Function::Submit, Function::Poller, Function::Webhook, Function::Deliver, Function::Jobs]
    {
        let cold = bundle.secret_calls(function, 0).into_iter().find(|calls| *calls > 0);
        let cold = cold.unwrap_or_default();
        let steady: usize = bundle.secret_calls(function, steady_from).into_iter().sum();
        let processes = bundle.warm.lock().unwrap()[&function].len();
        println!("| {function:?} | {cold} | {steady} | {processes} |");
        // What is only looked at takes no secret.
        let expected = usize::from(function != Function::Jobs);
        assert_eq!(cold, expected, "{function:?}");
        assert!(steady <= 6 * processes, "{function:?}: {steady} calls of {processes}");
    }
}

#[test]
fn throttled_ssm_minute_is_not_noticed() {
    for begin in [12, 18] {
        let bundle = Bundle::run(settings(), async |bundle| {
            for minute in 0..30 {
                if minute == begin {
                    bundle.random_faults.start_outage("ssm", Fault::Busy);
                } else if minute == begin + 1 {
                    bundle.random_faults.end_outage("ssm");
                }
                bundle.use_everything(&format!("m{minute}")).await;
                tokio::time::sleep(MINUTE).await;
            }
        });
        let log = bundle.checker.log().text();
        assert_eq!(bundle.checker.violations(), [""; 0], "{log}");
        for noticed in NOTICED {
            assert!(!log.contains(noticed), "{noticed}: {log}");
        }
    }
}

#[test]
fn ended_secret_signs_nothing_while_ssm_throttles() {
    let bundle = Bundle::run(settings(), async |bundle| {
        bundle.use_everything("before").await;
        tokio::time::sleep(5 * MINUTE).await;
        let (path, body) = ("/v1/webhook-config/rotate-secret", json!({"gracePeriodSeconds": 0}));
        bundle.call_until_answered(Method::POST, path, &body, &[200]).await;
        bundle.random_faults.start_outage("ssm", Fault::Busy);
        for second in (0..180).step_by(10) {
            let tag = format!("during-{second:03}");
            bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, &tag)).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        bundle.random_faults.end_outage("ssm");
    });
    // The receivers know when a secret has ended.
    let log = bundle.checker.log().text();
    assert_eq!(bundle.checker.violations(), [""; 0], "{log}");
    assert!(log.contains("serving stale secret"), "until the new one begins");
    assert!(log.contains("secrets not known; attempt put off"), "and no longer");
}
