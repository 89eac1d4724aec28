//! The scenarios: which jobs are requested, and how providers and receivers behave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

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
    signed_callback,
    account_callback,
    callback_before_answer,
    every_step_is_reported,
    provider_refuses,
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
