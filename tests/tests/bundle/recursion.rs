//! Chains of messages that Lambda's recursion detection would cut: the tickets of a receiver that is
//! down for hours, and the wake-up calls of a render that takes minutes. Each is run twice, with
//! recursion detection and in an account that has none, and ends at the same times.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::quotas::{Quotas, Throttle};
use domain::retry::DeliverySchedule;
use serde_json::{Value, json};
use tests::SimulatedProvider;

use crate::checks::lateness::{Acceptances, dead_letters};
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::receivers;

const DOWN: &str = "down";
/// How long the receiver is down, and how many webhooks may wait for it.
const DOWN_FOR: Duration = Duration::from_secs(3 * 3600);
const WEBHOOKS: usize = 50;

/// A receiver with many pending webhooks is down for hours.
async fn receiver_is_down(bundle: &Arc<Bundle>, webhooks: usize) {
    bundle.receivers.always_answer(DOWN, 500);
    let url = Value::from(receivers::url(DOWN));
    for number in 0..webhooks {
        let (provider, tag) = (SimulatedProvider::ViralSync, format!("order-{number:02}."));
        bundle.set_render_options(provider, &tag, &json!({"durationMs": 1000})).await;
        let request = CallerRequest::new(provider, &tag).with("callbackUrl", url.clone());
        bundle.submit(&request).await.expect("it is taken");
    }
    tokio::time::sleep(DOWN_FOR).await;
    bundle.receivers.accept_again(DOWN);
}

/// No callback comes for a render of ten minutes.
async fn long_render_is_polled(bundle: &Arc<Bundle>) {
    let (provider, tag) = (SimulatedProvider::Zvid, "long");
    bundle.set_render_options(provider, tag, &json!({"durationMs": 600_000})).await;
    bundle.submit(&CallerRequest::new(provider, tag)).await.expect("it is taken");
}

fn settings() -> RunSettings {
    let mut settings = RunSettings {
        skips_idle_ticks: true,
        horizon: Duration::from_secs(24 * 3600),
        ..RunSettings::default()
    };
    settings.parameters.schedule = DeliverySchedule::default();
    settings
}

/// Runs it with and without recursion detection, and asserts that this makes no difference.
fn compare(scenario: impl AsyncFnOnce(&Arc<Bundle>) + Copy) -> Arc<Bundle> {
    let detected = Bundle::run(settings(), scenario);
    let quotas = Quotas { recursion: u32::MAX, ..Quotas::default() };
    let undetected = Bundle::run(RunSettings { quotas, ..settings() }, scenario);
    for bundle in [&detected, &undetected] {
        assert_eq!(bundle.checker.violations(), [""; 0], "{}", bundle.checker.log().text());
        assert_eq!(dead_letters(bundle), None);
    }
    assert_eq!(detected.aws.throttles().get(&Throttle::Recursion), None);
    assert_eq!(Acceptances::of(&detected), Acceptances::of(&undetected));
    detected
}

#[test]
fn tickets_outlast_recursion_detection() {
    let bundle = compare(async |bundle| receiver_is_down(bundle, WEBHOOKS).await);
    let accepted = bundle.receivers.received().into_iter().filter(|it| it.answered == 200);
    assert_eq!(accepted.count(), WEBHOOKS);
}

#[test]
fn wake_ups_outlast_recursion_detection() {
    let bundle = compare(long_render_is_polled);
    assert_eq!(bundle.received("long"), 1);
}

/// So that the tests above can fail: a function that does not allow it is not called again.
#[test]
fn recursion_ends_unless_template_allows_it() {
    let forbidden = || RunSettings { forbids_recursion: true, ..settings() };
    let bundle = Bundle::run(forbidden(), async |bundle| receiver_is_down(bundle, 12).await);
    assert!(bundle.aws.throttles()[&Throttle::Recursion] > 0);
    assert!(dead_letters(&bundle).is_some());
    let bundle = Bundle::run(forbidden(), long_render_is_polled);
    assert!(bundle.aws.throttles()[&Throttle::Recursion] > 0);
}
