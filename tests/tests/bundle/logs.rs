//! No key, token, secret, payload or callback URL is logged, whatever the level is: the five
//! functions run at `TRACE`, with failures and without, and the log is searched.

use std::sync::Arc;

use bytes::Bytes;
use domain::credential::CallbackSecret;
use domain::id::ProviderName;
use http::header::AUTHORIZATION;
use http::{Method, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::telemetry;
use tests::SimulatedProvider;
use tracing::Level;

use crate::checks::invariant::Invariant;
use crate::faults::fault::Fault;
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{API_KEY, Bundle, PROVIDER_SECRET, RunSettings};
use crate::harness::functions::{PROVIDERS, PUBLIC_URL};
use crate::harness::provider_hosts;
use crate::harness::receivers::{self, DEFAULT, PlannedAnswer};

/// Part of every payload, source record id, receiver's path and video's URL here.
const TAG: &str = "not-for-the-log";

/// The values of the headers that the default receiver's owner asks for.
const HEADER_VALUES: [&str; 2] = ["Bearer pass-of-the-gateway", "side-door-of-the-shop"];

/// A key and a token of a stranger.
const WRONG_KEY: &str = "rr_a-key-of-a-stranger";
const WRONG_TOKEN: &str = "a-token-of-a-stranger";

/// Makes the bundle handle everything that must not be logged.
async fn run_everything(bundle: &Arc<Bundle>) {
    let [gateway, shop] = HEADER_VALUES;
    let config = json!({
        "url": receivers::url(DEFAULT),
        "headers": {"Authorization": gateway, "X-Shop": shop},
    });
    bundle.call_until_answered(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
    bundle.call_until_answered(Method::POST, "/v1/webhook-config/test", &Value::Null, &[202]).await;
    let tag = |name: &str| format!("{TAG}-{name}");

    // An API key that is made and revoked, and one that cannot be read.
    let body = json!({"name": "reader", "owner": tag("owner"), "scopes": ["read"]});
    let made = bundle.call_until_answered(Method::POST, "/v1/keys", &body, &[201, 409]).await;
    if let Some(id) = made.and_then(|made| made.body["keyId"].as_str().map(str::to_owned)) {
        let path = format!("/v1/keys/{id}");
        bundle.call_until_answered(Method::DELETE, &path, &Value::Null, &[200, 404]).await;
    }
    let hash = hex::encode(Sha256::digest(API_KEY));
    let broken = json!({"pk": {"S": "api-keys"}, "sk": {"S": "broken"}, "sha256": {"S": hash}});
    bundle.aws.table().answer("PutItem", &json!({"TableName": "table", "Item": broken}));

    // A signed callback, an attempt that fails first, and the default receiver.
    bundle.receivers.set_behaviors(&tag("signed"), [PlannedAnswer::status(500)]);
    let metadata = json!({"note": tag("metadata")});
    let signed = CallerRequest::new(SimulatedProvider::ViralSync, &tag("signed"));
    bundle.submit(&signed.with("metadata", metadata)).await;
    let by_default =
        CallerRequest::new(SimulatedProvider::ViralSync, &tag("default")).without("callbackUrl");
    bundle.submit(&by_default).await;
    bundle.rotate().await;
    bundle.receivers.set_behaviors(&tag("gone"), [PlannedAnswer::status(410)]);
    bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, &tag("gone"))).await;

    // Polls, and a callback that is a hint while the provider's API fails.
    bundle.submit(&CallerRequest::new(SimulatedProvider::Zvid, &tag("polled"))).await;
    let options = json!({
        "durationMs": 25_000,
        "submitAnswer": "never",
        "callbackRetryMs": 8000,
        "statusCode": 503,
        "statusCodeTimes": 2,
    });
    bundle.set_render_options(SimulatedProvider::Shotstack, &tag("unclear"), &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Shotstack, &tag("unclear"))).await;
    let options =
        json!({"durationMs": 25_000, "submitAnswer": "never", "callback": {"skip": true}});
    bundle.set_render_options(SimulatedProvider::Json2Video, &tag("listed"), &options).await;
    bundle.submit(&CallerRequest::new(SimulatedProvider::Json2Video, &tag("listed"))).await;

    // Refused by the provider, and called off.
    bundle
        .set_render_options(SimulatedProvider::Zvid, &tag("refused"), &json!({"submitStatus": 422}))
        .await;
    let refused =
        CallerRequest::new(SimulatedProvider::Zvid, &tag("refused")).refused("provider_rejected");
    bundle.submit(&refused).await;
    let options = json!({"durationMs": 90_000});
    bundle.set_render_options(SimulatedProvider::ViralSync, &tag("cancelled"), &options).await;
    let job =
        bundle.submit(&CallerRequest::new(SimulatedProvider::ViralSync, &tag("cancelled"))).await;
    if let Some(job) = job {
        bundle.cancel(&job).await;
        // Strangers: with a wrong key, a wrong token, and no signature.
        let list = format!("/v1/jobs?sourceRecordId={TAG}");
        let key = format!("Bearer {WRONG_KEY}");
        let request = Request::get(format!("{PUBLIC_URL}{list}")).header(AUTHORIZATION, key);
        bundle.call(request.body(Bytes::new()).unwrap()).await;
        for path in [format!("viralsync/{job}/{WRONG_TOKEN}"), "renderio".to_owned()] {
            let request = Request::post(format!("{PUBLIC_URL}/v1/webhooks/{path}"));
            let body = json!({"status": "done", "url": TAG}).to_string();
            bundle.call(request.body(Bytes::from(body)).unwrap()).await;
        }
    }
    bundle.until("all of that is over", Bundle::is_quiet).await;

    // A failure of our own.
    bundle.random_faults.start_outage("dynamodb", Fault::Lost);
    let path = format!("/v1/jobs?sourceRecordId={TAG}");
    let answer = bundle.call_api(Method::GET, &path, None, &Value::Null).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    bundle.random_faults.end_outage("dynamodb");
}

/// All that must not be in the log.
fn hidden(bundle: &Bundle) -> Vec<String> {
    let stored = |name: &str| bundle.aws.parameter(name).unwrap();
    let mut hidden: Vec<String> = [API_KEY, PROVIDER_SECRET, TAG, WRONG_KEY, WRONG_TOKEN]
        .into_iter()
        .chain(HEADER_VALUES)
        // The paths of receivers, and of the callback URLs that providers are given.
        .chain(["/hooks/", "/v1/webhooks/"])
        .map(str::to_owned)
        .collect();
    hidden.push(hex::encode(Sha256::digest(API_KEY)));
    hidden.extend(PROVIDERS.map(provider_hosts::key_of));
    let secrets = stored("webhook-secrets");
    let secrets: Vec<String> = secrets
        .split(',')
        .map(|stored| stored.split(';').next().unwrap().trim_start_matches("whsec_").to_owned())
        .collect();
    assert!(secrets.len() >= 2, "there was a rotation");
    hidden.extend(secrets);
    let secret = stored("callback-secret");
    let callback_secret = CallbackSecret::parse(&secret).unwrap();
    for answered in bundle.answered_requests.lock().unwrap().iter() {
        if let Some(job) = bundle.job_of(answered) {
            let provider = ProviderName::parse(answered.request.provider.name()).unwrap();
            hidden.push(callback_secret.token(&provider, &job));
        }
    }
    hidden.push(secret);
    hidden
}

#[test]
fn trace_log_holds_no_secret() {
    let mut all = String::new();
    for (has_random_faults, seed) in [(false, 1), (true, 1), (true, 2)] {
        let settings = RunSettings { seed, has_random_faults, ..RunSettings::default() };
        let bundle = Bundle::run(settings, async |bundle| {
            let log = telemetry::subscriber(Level::TRACE, bundle.checker.log());
            let _logging = tracing::subscriber::set_default(log);
            run_everything(bundle).await;
        });
        let log = bundle.checker.log().text();
        for secret in hidden(&bundle) {
            let line = log.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{}: `{secret}`", Invariant::SecretsStaySecret);
        }
        all.push_str(&log);
    }
    // All of it was done, and logged; and there were failures of our own.
    for message in [
        "job changed",
        "delivery attempt recorded",
        "webhook secret rotated",
        "API key created",
        "API key revoked",
        "unreadable API key item skipped",
        "callback token refused",
        "hint not confirmed yet; poller looks again",
        "\"level\":\"ERROR\"",
    ] {
        assert!(all.contains(message), "{message}");
    }
}
