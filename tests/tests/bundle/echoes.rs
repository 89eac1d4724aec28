//! Providers that send our key and the callback URL back, in refusals, statuses and signed
//! callbacks: no job, event, webhook, problem or log has them.

use http::Method;
use serde_json::{Value, json};
use tests::SimulatedProvider;

use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::provider_hosts::{OUR_URL, key_of};

/// A text with all that a provider was given.
fn echo(provider: SimulatedProvider, url: &str) -> String {
    let key = key_of(provider);
    let hex = hex::encode(&key);
    let escaped = key.replace('-', "%2D");
    format!("bad {key} (in hex {hex}, ?key={escaped}) at {url}")
}

#[test]
fn provider_that_echoes_leaks_nothing() {
    let zvid = SimulatedProvider::Zvid;
    let viralsync = SimulatedProvider::ViralSync;
    let bundle = Bundle::run(RunSettings::default(), async |bundle| {
        // A refusal, of a submit that has a callback URL.
        let message = echo(zvid, OUR_URL);
        let options = json!({"submitStatus": 401, "submitBody": {"message": message}});
        bundle.set_render_options(zvid, "refused", &options).await;
        let refused = CallerRequest::new(zvid, "refused").with("providerWebhook", json!(true));
        bundle.submit(&refused.clone().refused("provider_auth")).await;
        // A failure that a poll finds, and one that a signed callback tells.
        for (provider, tag, url) in [(zvid, "polled", ""), (viralsync, "called", "")] {
            let options = json!({"failWith": echo(provider, url)});
            bundle.set_render_options(provider, tag, &options).await;
            bundle.submit(&CallerRequest::new(provider, tag)).await;
        }
        bundle.until("all of that is over", Bundle::is_quiet).await;

        let mut problems = Vec::new();
        for tag in ["refused", "polled", "called"] {
            let path = format!("/v1/jobs?sourceRecordId={tag}");
            let shown = bundle.call_api(Method::GET, &path, None, &Value::Null).await;
            assert_eq!(shown.status, 200, "{}", shown.body);
            problems.push(shown.body.to_string());
        }
        let repeated =
            bundle.call_api(Method::POST, "/v1/jobs", refused.key.as_deref(), &refused.body).await;
        assert_eq!(repeated.status, 502, "{}", repeated.body);
        problems.push(repeated.body.to_string());
        for text in &problems {
            assert!(text.contains("bad [secret] (in hex [secret]"), "{text}");
            bundle.checker.find_secrets(text, "an answer of the API");
        }
        assert!(problems[0].contains("/[secret]"), "the token: {}", problems[0]);
    });
    let log = bundle.checker.log().text();
    assert_eq!(bundle.checker.violations(), [""; 0], "{log}");
    for message in
        ["secret masked in a provider's answer", "secret masked in a provider's callback"]
    {
        assert!(log.contains(message), "{message}");
    }
    let told = bundle.receivers.received();
    let told = told.iter().filter(|webhook| webhook.body.contains("bad [secret]"));
    assert_eq!(told.count(), 3, "each failure is told of");
}
