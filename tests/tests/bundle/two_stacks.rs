//! Stacks that share a provider's account, one after the other or at once: each tells of its own
//! renders and of no other's. The same idempotency keys are used in all of them.
//!
//! Which render is whose is read from the bodies that the providers got: each has the tag of one
//! request, and a video's URL is made of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::job::State;
use http::Method;
use serde_json::{Value, json};
use tests::SimulatedProvider;
use tokio::time::sleep;

use crate::checks::invariant_checker::text;
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, PROVIDER_SECRET, RunSettings};
use crate::harness::functions::PROVIDERS;
use crate::harness::parallel::in_parallel;
use crate::harness::provider_hosts::video_url;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Whether the answer to a submit is lost, in either stack.
const LOST: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

/// Whether callbacks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callbacks {
    Sent,
    Lost,
}

/// What went wrong, with its case.
fn violations(bundle: &Bundle, case: &str) -> Vec<String> {
    bundle
        .checker
        .violations()
        .into_iter()
        .map(|violation| format!("{case}: {violation}"))
        .collect()
}

fn assert_none(failed: &[Vec<String>]) {
    let failed = failed.concat();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Submits a job under a key that other stacks use too.
async fn submit(bundle: &Arc<Bundle>, provider: SimulatedProvider, tag: &str, key: &str) {
    let request = CallerRequest::new(provider, tag).with_key(key);
    // Zvid calls back only when it is asked to.
    bundle.submit(&request.with("providerWebhook", json!(true))).await;
}

/// The jobs in the table that did not complete with the video of their own tag, and the tags that
/// have none.
fn wrong_ends(bundle: &Bundle, tags: &[&str], case: &str) -> Vec<String> {
    let items = bundle.aws.table().items();
    let jobs = items.iter().filter(|item| text(item, "sk") == "job");
    let ends = |it: &Value| ["source", "state", "url"].map(|name| text(it, name).to_owned());
    let ends: BTreeSet<[String; 3]> = jobs.map(ends).collect();
    let own = |tag: &&str| [(*tag).to_owned(), State::Completed.name().to_owned(), video_url(tag)];
    let expected: BTreeSet<[String; 3]> = tags.iter().map(own).collect();
    match ends == expected {
        true => Vec::new(),
        false => vec![format!("{case}: the jobs are {ends:?}")],
    }
}

#[test]
fn stacks_at_one_account_tell_own_renders() {
    let cases: Vec<_> = PROVIDERS
        .into_iter()
        .flat_map(|provider| LOST.map(|lost| (provider, lost)))
        .flat_map(|(provider, lost)| {
            [Callbacks::Sent, Callbacks::Lost].map(|callbacks| (provider, lost, callbacks))
        })
        // Only its callback finds a lost render of this provider.
        .filter(|case| *case != (SimulatedProvider::Shotstack, case.1, Callbacks::Lost))
        .collect();
    assert_none(&in_parallel(&cases, |(provider, lost, callbacks)| {
        let case = format!("{} {lost:?} {callbacks:?}", provider.name());
        let tags = [["a-one", "a-two"], ["b-one", "b-two"]];
        let stacks = Bundle::run_beside(RunSettings::default(), async |first, second| {
            for ((stack, lost), tags) in [first, second].into_iter().zip(lost).zip(tags) {
                for tag in tags {
                    let mut options = json!({"durationMs": 40_000, "callbackRetryMs": 8000});
                    if *lost {
                        options["submitAnswer"] = json!("never");
                    }
                    if *callbacks == Callbacks::Lost {
                        options["callback"] = json!({"skip": true});
                    }
                    stack.set_render_options(*provider, tag, &options).await;
                }
            }
            let [of_first, of_second] = tags;
            submit(first, *provider, of_first[0], "order-1").await;
            sleep(Duration::from_secs(7)).await;
            submit(second, *provider, of_second[0], "order-1").await;
            submit(second, *provider, of_second[1], "order-2").await;
            sleep(Duration::from_secs(7)).await;
            submit(first, *provider, of_first[1], "order-2").await;
        });
        let mut failed = Vec::new();
        for (stack, tags) in stacks.iter().zip(tags) {
            failed.extend(violations(stack, &case));
            failed.extend(wrong_ends(stack, &tags, &case));
            let submits = stack.submitted.lock().unwrap().len();
            if submits != 2 {
                failed.push(format!("{case}: {submits} submits"));
            }
        }
        failed
    }));
}

/// A provider calls a stack back about every render of the account: Zvid both stacks, RenderIO,
/// which takes one webhook, the one that was registered last.
#[test]
fn account_callbacks_reach_own_jobs() {
    let cases: Vec<_> = [SimulatedProvider::Zvid, SimulatedProvider::RenderIo]
        .into_iter()
        .flat_map(|provider| LOST.map(|lost| (provider, lost)))
        .collect();
    assert_none(&in_parallel(&cases, |(provider, lost)| {
        let case = format!("{} {lost:?}", provider.name());
        let mut statuses = Vec::new();
        let stacks = Bundle::run_beside(RunSettings::default(), async |first, second| {
            first.aws.set_parameter("providers/zvid/webhook-secrets", PROVIDER_SECRET);
            second.aws.set_parameter("providers/zvid/webhook-secrets", PROVIDER_SECRET);
            // Each is a text of every body, so both webhooks are called.
            for (stack, tag) in [(first, "own-"), (second, "wn-")] {
                let url = format!("{}/v1/webhooks/{}", stack.url, provider.name());
                stack.register(*provider, tag, &url).await;
            }
            for (stack, tag, lost) in [(first, "own-a", lost[0]), (second, "own-b", lost[1])] {
                let mut options = json!({"durationMs": 20_000});
                if *provider == SimulatedProvider::Zvid {
                    // Its API is down, so only the account's webhook tells.
                    options["statusCode"] = json!(503);
                }
                if lost {
                    options["submitAnswer"] = json!("never");
                }
                stack.set_render_options(*provider, tag, &options).await;
                let request = CallerRequest::new(*provider, tag).with_key("order-1");
                stack.submit(&request.with("providerWebhook", json!(false))).await;
            }
            sleep(Duration::from_secs(60)).await;
            let renders = first.control(Method::GET, "/renders", &Value::Null).await;
            for render in renders.as_array().unwrap() {
                let callbacks = render["callbacks"].as_array().unwrap();
                statuses.extend(callbacks.iter().map(|callback| callback["status"].clone()));
            }
        });
        let mut failed = Vec::new();
        let callbacks = if *provider == SimulatedProvider::Zvid { 4 } else { 2 };
        if statuses != vec![200; callbacks] {
            failed.push(format!("{case}: the callbacks are answered {statuses:?}"));
        }
        for (stack, tag) in stacks.iter().zip(["own-a", "own-b"]) {
            failed.extend(violations(stack, &case));
            failed.extend(wrong_ends(stack, &[tag], &case));
        }
        failed
    }));
}

/// A render whose callback comes once more, when its job is gone.
fn called_back_late(after: Duration) -> Value {
    let late_ms = u64::try_from(after.as_millis()).unwrap();
    json!({"durationMs": 5000, "callback": {"lateMs": late_ms}})
}

/// A render of the same key, which is under way when that callback comes.
fn under_way(lost: bool) -> Value {
    let mut options = json!({"durationMs": 15 * 60_000, "callbackRetryMs": 8000});
    if lost {
        options["submitAnswer"] = json!("never");
    }
    options
}

#[test]
fn stack_made_anew_tells_own_renders() {
    let cases: Vec<_> =
        PROVIDERS.into_iter().flat_map(|it| [false, true].map(|lost| (it, lost))).collect();
    assert_none(&in_parallel(&cases, |(provider, lost)| {
        let case = format!("{} lost: {lost}", provider.name());
        let bundle = Bundle::run(RunSettings::default(), async |bundle| {
            let late = called_back_late(Duration::from_secs(600));
            bundle.set_render_options(*provider, "old-one", &late).await;
            bundle.set_render_options(*provider, "new-one", &under_way(*lost)).await;
            submit(bundle, *provider, "old-one", "order-1").await;
            bundle.until_quiet().await;
            assert_eq!(wrong_ends(bundle, &["old-one"], &case), [""; 0]);
            bundle.make_anew().await;
            submit(bundle, *provider, "new-one", "order-1").await;
        });
        let wrong = wrong_ends(&bundle, &["new-one"], &case);
        violations(&bundle, &case).into_iter().chain(wrong).collect()
    }));
}

/// After two days the job is deleted, and after nine its record too.
#[test]
fn key_used_again_makes_its_own_render() {
    let cases: Vec<_> = PROVIDERS
        .into_iter()
        .flat_map(|provider| [2, 9].map(|days| (provider, days)))
        .flat_map(|(provider, days)| [false, true].map(|lost| (provider, days, lost)))
        .collect();
    assert_none(&in_parallel(&cases, |(provider, days, lost)| {
        let case = format!("{} after {days} days, lost: {lost}", provider.name());
        let settings = RunSettings { skips_idle_ticks: true, ..RunSettings::default() };
        let bundle = Bundle::run(settings, async |bundle| {
            let late = called_back_late(DAY * *days + Duration::from_secs(600));
            bundle.set_render_options(*provider, "old-one", &late).await;
            bundle.set_render_options(*provider, "new-one", &under_way(*lost)).await;
            submit(bundle, *provider, "old-one", "order-1").await;
            bundle.until_quiet().await;
            assert_eq!(wrong_ends(bundle, &["old-one"], &case), [""; 0]);
            sleep(DAY * *days).await;
            bundle.delete_expired();
            let records = bundle.aws.table().items();
            let has_record = records.iter().any(|item| text(item, "sk") == "payload");
            assert_eq!(has_record, *days < 8, "{case}");
            submit(bundle, *provider, "new-one", "order-1").await;
        });
        let wrong = wrong_ends(&bundle, &["new-one"], &case);
        violations(&bundle, &case).into_iter().chain(wrong).collect()
    }));
}
