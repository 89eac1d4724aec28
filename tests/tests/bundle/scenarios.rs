//! The scenarios: which jobs are requested, and how providers and receivers behave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use serde_json::{Value, json};
use tests::SimulatedProvider;

use crate::harness::backend::CallerRequest;
use crate::harness::bundle::Bundle;
use crate::harness::functions::PUBLIC_URL;
use crate::harness::receivers::{self, DEFAULT, PlannedAnswer};

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Arc<Bundle>) -> BoxFuture<'static, ()>,
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        pub(crate) const SCENARIOS: &[Scenario] = &[
            $(Scenario { name: stringify!($name), run: |bundle| $name(bundle).boxed() }),*
        ];
    };
}

scenarios![
    completion_is_polled,
    failure_is_polled,
    unsigned_callback,
    slow_status_is_awaited,
    unconfirmed_hint_is_looked_at,
    hints_are_joined,
    signed_callback,
    account_callback,
    callback_before_answer,
    every_step_is_reported,
    provider_refuses,
    abandoned_request_goes_on,
    key_is_used_again,
    redirected_submit_found_by_id,
    unknown_submit_found_by_id,
    unknown_submit_found_in_list,
    unknown_submit_called_back,
    second_attempt_delivers,
    delivery_exhausts,
    endpoint_is_gone,
    endpoint_is_disabled,
    webhook_is_redelivered,
    webhook_is_recovered,
    webhook_is_redirected,
    webhook_is_dropped,
    missing_webhook_is_redelivered,
    missing_webhooks_are_recovered,
    job_is_cancelled,
    secret_is_rotated,
];

/// No callback comes, so the poller finds the end.
async fn completion_is_polled(bundle: Arc<Bundle>) {
    bundle
        .set_render_options(SimulatedProvider::Zvid, "polled", &json!({"durationMs": 9000}))
        .await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Zvid, "polled")).await;
}

async fn failure_is_polled(bundle: Arc<Bundle>) {
    let options = json!({"durationMs": 5000, "failWith": "no codec"});
    bundle.set_render_options(SimulatedProvider::Zvid, "polled", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Zvid, "polled")).await;
}

/// An unsigned callback proves nothing, so the provider is asked.
async fn unsigned_callback(bundle: Arc<Bundle>) {
    let options = json!({"durationMs": 20_000, "callbackRetryMs": 8000});
    bundle.set_render_options(SimulatedProvider::Shotstack, "hinted", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, "hinted")).await;
}

/// The provider confirms its callback only after the callback is answered.
async fn slow_status_is_awaited(bundle: Arc<Bundle>) {
    let options = json!({"durationMs": 20_000, "statusDelayMs": 9000, "callbackRetryMs": 1000});
    bundle.set_render_options(SimulatedProvider::Shotstack, "slowly", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, "slowly")).await;
}

/// The provider's API fails when its callback comes, and once more.
async fn unconfirmed_hint_is_looked_at(bundle: Arc<Bundle>) {
    let options = json!({
        "durationMs": 20_000, "statusCode": 503, "statusCodeTimes": 2, "callbackRetryMs": 1000,
    });
    bundle.set_render_options(SimulatedProvider::Shotstack, "unheard", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, "unheard")).await;
}

/// Copies of a callback come at once, to a provider whose API takes a while.
async fn hints_are_joined(bundle: Arc<Bundle>) {
    let options = json!({
        "durationMs": 20_000, "statusDelayMs": 1500, "callback": {"times": 3},
        "callbackRetryMs": 1000,
    });
    bundle.set_render_options(SimulatedProvider::Shotstack, "joined", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, "joined")).await;
}

async fn signed_callback(bundle: Arc<Bundle>) {
    let options = json!({"durationMs": 20_000, "callbackRetryMs": 10_000});
    bundle.set_render_options(SimulatedProvider::ViralSync, "signed", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "signed")).await;
}

/// The provider's API fails once it has accepted the job, so only the account's webhook reports
/// the end.
async fn account_callback(bundle: Arc<Bundle>) {
    let (provider, tag) = (SimulatedProvider::RenderIo, "account");
    let url = format!("{PUBLIC_URL}/v1/webhooks/{}", provider.name());
    bundle.register(provider, tag, &url).await;
    let options = json!({"durationMs": 20_000, "statusCode": 503, "callbackRetryMs": 10_000});
    bundle.set_render_options(provider, tag, &options).await;
    bundle.submit(&CallerRequest::new(provider, tag).with("providerWebhook", json!(false))).await;
}

/// The provider answers the submit only after its callback was answered, and fails all status
/// calls. So the callback's report meets that of the submit.
async fn callback_before_answer(bundle: Arc<Bundle>) {
    let (provider, tag) = (SimulatedProvider::RenderIo, "hasty");
    let url = format!("{PUBLIC_URL}/v1/webhooks/{}", provider.name());
    bundle.register(provider, tag, &url).await;
    let options = json!({
        "durationMs": 1000,
        "submitAnswer": "afterCallback",
        "statusCode": 503,
        "callbackRetryMs": 10_000,
        "callbackAnswerWithinMs": 30_000,
    });
    bundle.set_render_options(provider, tag, &options).await;
    bundle.submit(&CallerRequest::new(provider, tag).with("providerWebhook", json!(false))).await;
}

async fn every_step_is_reported(bundle: Arc<Bundle>) {
    let options = json!({"durationMs": 20_000, "callbackRetryMs": 10_000});
    bundle.set_render_options(SimulatedProvider::ViralSync, "steps", &options).await;
    let steps = ["queued", "processing", "completed", "failed", "cancelled"];
    let events = steps.map(|step| format!("video.render.{step}"));
    let request =
        CallerRequest::new(SimulatedProvider::ViralSync, "steps").with("events", json!(events));
    bundle.submit(&request).await;
}

/// The refusal ends the job as failed.
async fn provider_refuses(bundle: Arc<Bundle>) {
    bundle
        .set_render_options(SimulatedProvider::Zvid, "refused", &json!({"submitStatus": 422}))
        .await;
    let request =
        CallerRequest::new(SimulatedProvider::Zvid, "refused").refused("provider_rejected");
    bundle.submit(&request).await;
}

/// A function died between the record of the request and its job, half an hour ago.
async fn abandoned_request_goes_on(bundle: Arc<Bundle>) {
    let request = CallerRequest::new(SimulatedProvider::ViralSync, "abandoned");
    bundle.abandon(&request, TimeDelta::minutes(30)).await;
    bundle.submit(&request).await;
}

/// The job that the key named was deleted.
async fn key_is_used_again(bundle: Arc<Bundle>) {
    let before = CallerRequest::new(SimulatedProvider::ViralSync, "before").with_key("order-1");
    bundle.abandon(&before, TimeDelta::days(2)).await;
    let request = CallerRequest::new(SimulatedProvider::ViralSync, "after").with_key("order-1");
    bundle.submit(&request).await;
}

/// The render is made, and the answer names another place.
async fn redirected_submit_found_by_id(bundle: Arc<Bundle>) {
    let options = json!({"durationMs": 15_000, "submitHiddenBy": 303});
    bundle.set_render_options(SimulatedProvider::Zvid, "redirected", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Zvid, "redirected")).await;
}

async fn unknown_submit_found_by_id(bundle: Arc<Bundle>) {
    let options = json!({"durationMs": 25_000, "submitAnswer": "never"});
    bundle.set_render_options(SimulatedProvider::Zvid, "unclear", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Zvid, "unclear")).await;
}

async fn unknown_submit_found_in_list(bundle: Arc<Bundle>) {
    let silent = json!({"durationMs": 25_000, "submitAnswer": "never", "callback": {"skip": true}});
    bundle.set_render_options(SimulatedProvider::Json2Video, "unclear", &silent).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Json2Video, "unclear")).await;
}

/// The first callback comes while the provider's API fails.
async fn unknown_submit_called_back(bundle: Arc<Bundle>) {
    let options = json!({
        "durationMs": 25_000,
        "submitAnswer": "never",
        "callbackRetryMs": 8000,
        "statusCode": 503,
        "statusCodeTimes": 1,
    });
    bundle.set_render_options(SimulatedProvider::Shotstack, "unclear", &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, "unclear")).await;
}

async fn second_attempt_delivers(bundle: Arc<Bundle>) {
    bundle.receivers.set_behaviors("retried", [PlannedAnswer::status(500)]);
    bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "retried")).await;
}

/// The last wait is longer than a queue can hold a message.
async fn delivery_exhausts(bundle: Arc<Bundle>) {
    bundle.receivers.always_answer("sick", 500);
    bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "sick")).await;
}

/// The receiver answers 410 and gets no more webhooks.
async fn endpoint_is_gone(bundle: Arc<Bundle>) {
    bundle.receivers.set_behaviors("gone", [PlannedAnswer::status(410)]);
    bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "gone")).await;
}

/// Two webhooks for one receiver, which throttles the first. The second waits, and is exhausted
/// when the first is answered 410.
async fn endpoint_is_disabled(bundle: Arc<Bundle>) {
    let paused = PlannedAnswer { retry_after: Some("20"), ..PlannedAnswer::status(429) };
    bundle.receivers.set_behaviors("closed", [paused]);
    bundle.receivers.always_answer("closed", 410);
    for (tag, duration) in [("first", 2000), ("second", 8000)] {
        bundle
            .set_render_options(SimulatedProvider::ViralSync, tag, &json!({"durationMs": duration}))
            .await;
        let closed = json!(receivers::url("closed"));
        bundle
            .submit(
                &CallerRequest::new(SimulatedProvider::ViralSync, tag).with("callbackUrl", closed),
            )
            .await;
    }
}

async fn webhook_is_redelivered(bundle: Arc<Bundle>) {
    let job = bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "again")).await;
    bundle.until("the webhook is delivered", |it| it.is_quiet() && it.received("again") > 0).await;
    let Some(job) = job else { return };
    let before = bundle.received("again");
    bundle.redeliver(&job).await;
    bundle.until("the webhook is delivered again", |it| it.received("again") > before).await;
}

/// The delivery is exhausted and then recovered.
async fn webhook_is_recovered(bundle: Arc<Bundle>) {
    bundle.receivers.always_answer("later", 500);
    bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "later")).await;
    let given_up = |it: &Bundle| it.is_quiet() && !it.aws.table().indexed("undelivered").is_empty();
    bundle.until("the webhook is given up", given_up).await;
    bundle.receivers.accept_again("later");
    let before = bundle.received("later");
    bundle.recover().await;
    bundle.until("the webhook is delivered", |it| it.received("later") > before).await;
}

/// The receiver has moved, and its old place refuses what comes. The ticket of the next attempt
/// there is in the queue.
async fn webhook_is_redirected(bundle: Arc<Bundle>) {
    bundle.receivers.always_answer("moved", 500);
    let job = bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "moved")).await;
    bundle.until("the webhook is refused", |it| it.received("moved") > 0).await;
    let Some(job) = job else { return };
    bundle.redirect(&job, &receivers::url("here")).await;
    let before = bundle.received("moved");
    bundle.until("the webhook is delivered", |it| it.is_quiet() && it.received("here") > 0).await;
    bundle.expect_no_more("moved", before);
}

async fn webhook_is_dropped(bundle: Arc<Bundle>) {
    bundle.receivers.always_answer("dropped", 500);
    let job = bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "dropped")).await;
    bundle.until("the webhook is refused", |it| it.received("dropped") > 0).await;
    let Some(job) = job else { return };
    bundle.drop_delivery(&job).await;
    let before = bundle.received("dropped");
    bundle.until("its end is known", |it| it.is_quiet()).await;
    bundle.expect_no_more("dropped", before);
}

/// A job ends while no receiver is configured.
async fn missing_webhook_is_redelivered(bundle: Arc<Bundle>) {
    let request = CallerRequest::new(SimulatedProvider::ViralSync, "late").without("callbackUrl");
    let job = bundle.submit(&request).await;
    bundle.until("the job settles", |it| it.is_quiet()).await;
    let Some(job) = job else { return };
    let config = json!({"url": receivers::url(DEFAULT)});
    bundle.call_until_answered(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
    bundle.redeliver(&job).await;
    bundle.until("the webhook is delivered", |it| it.received(DEFAULT) > 0).await;
}

/// The same for all events of a job.
async fn missing_webhooks_are_recovered(bundle: Arc<Bundle>) {
    let events = ["queued", "processing", "completed", "failed"];
    let events = events.map(|step| format!("video.render.{step}"));
    let request = CallerRequest::new(SimulatedProvider::ViralSync, "missed");
    let request = request.without("callbackUrl").with("events", json!(events));
    bundle.submit(&request).await;
    bundle.until("the job settles", |it| it.is_quiet()).await;
    let config = json!({"url": receivers::url(DEFAULT)});
    bundle.call_until_answered(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
    bundle.recover_missing().await;
    let arrived = |it: &Bundle| {
        let events = it.aws.events().into_iter().map(|event| event.detail_type);
        let webhooks = it.receivers.received().into_iter();
        let ids = webhooks.filter(|it| it.receiver == DEFAULT).map(|it| it.id);
        ids.collect::<BTreeSet<_>>().len() >= events.collect::<BTreeSet<_>>().len()
    };
    bundle.until("a webhook of each event arrives", arrived).await;
}

async fn job_is_cancelled(bundle: Arc<Bundle>) {
    bundle
        .set_render_options(SimulatedProvider::ViralSync, "stopped", &json!({"durationMs": 90_000}))
        .await;
    let Some(job) =
        bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, "stopped")).await
    else {
        return;
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    let answered = bundle.cancel(&job).await;
    if !bundle.has_fault() && answered != Some(202) {
        bundle.checker.violation(format!("contract: cancelling is answered {answered:?}"));
    }
}

/// The secret is rotated while webhooks wait, and a test event is sent.
async fn secret_is_rotated(bundle: Arc<Bundle>) {
    let config = json!({"url": receivers::url(DEFAULT)});
    bundle.call_until_answered(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
    bundle
        .submit(&CallerRequest::new(SimulatedProvider::ViralSync, "before").without("callbackUrl"))
        .await;
    bundle.rotate().await;
    bundle
        .submit(&CallerRequest::new(SimulatedProvider::ViralSync, "after").without("callbackUrl"))
        .await;
    bundle.call_until_answered(Method::POST, "/v1/webhook-config/test", &Value::Null, &[202]).await;
    let arrived = |it: &Bundle| {
        let webhooks = it.receivers.received().into_iter();
        let ids = webhooks.filter(|it| it.receiver == DEFAULT).map(|it| it.id);
        ids.collect::<BTreeSet<String>>().len() >= 3
    };
    bundle.until("a test and two webhooks arrive", arrived).await;
}
