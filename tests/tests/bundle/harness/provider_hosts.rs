//! The providers' hosts. Each checks that a request carries the provider's own key and no other
//! secret, and forwards it to the simulator.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tests::SimulatedProvider;

use crate::checks::invariant::Invariant;
use crate::harness::bundle::Bundle;
use crate::harness::functions::PROVIDERS;

pub(crate) fn key_of(provider: SimulatedProvider) -> String {
    format!("the-key-of-our-account-with-{}", provider.name())
}

/// Stands in a planned answer for the callback URL that the provider was given last.
pub(crate) const OUR_URL: &str = "{our-url}";

/// The URL of the video that a provider makes for a tag.
pub(crate) fn video_url(tag: &str) -> String {
    format!("https://videos.test/{tag}.mp4")
}

impl Bundle {
    pub(crate) fn open_providers(self: &Arc<Self>) {
        for provider in PROVIDERS {
            let me = Arc::downgrade(self);
            let host = format!("{}.test", provider.name());
            let answer = move |request| answer(me.clone(), provider, request);
            self.network.add(&host, Arc::new(answer));
        }
    }

    /// Checks the secrets in a request, and replaces the account's key with the simulator's.
    fn admit(&self, provider: SimulatedProvider, mut request: Request<Bytes>) -> Request<Bytes> {
        let (name, key) = (provider.name(), key_of(provider));
        if !exchange(request.headers_mut(), &key, simulator::API_KEY) {
            self.checker
                .violated(Invariant::SecretsStaySecret, format!("{name} is asked without its key"));
        }
        let body = String::from_utf8_lossy(request.body()).into_owned();
        let text = format!("{} {:?} {body}", request.uri(), request.headers());
        // The provider's own key is replaced by now.
        self.checker.find_secrets(&text, &format!("a request to {name}"));
        let of_callbacks = self.aws.parameter("callback-secret");
        if of_callbacks.is_some_and(|secret| text.contains(&secret)) {
            self.checker.violated(
                Invariant::SecretsStaySecret,
                format!("{name} gets the secret of callbacks"),
            );
        }
        request
    }
}

impl Bundle {
    /// The answer of a provider that sends our callback URL back where it was planned to.
    fn echoed(&self, provider: SimulatedProvider, body: Bytes) -> Bytes {
        let text = String::from_utf8_lossy(&body);
        if !text.contains(OUR_URL) {
            return body;
        }
        let path = format!("/v1/webhooks/{}/", provider.name());
        let submitted = self.submitted.lock().unwrap();
        let given = submitted.iter().rev().find(|body| body.contains(&path)).unwrap();
        let (before, behind) = given.split_at(given.find(&path).unwrap());
        let start = before.rfind('"').unwrap() + 1;
        let end = behind.find('"').unwrap();
        let url = format!("{}{}", &before[start..], &behind[..end]);
        text.replace(OUR_URL, &url).into()
    }
}

/// Replaces a key in the header that holds it, and returns whether a header did.
fn exchange(headers: &mut HeaderMap, key: &str, by: &str) -> bool {
    let exchanged = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        let scheme = text.strip_suffix(key)?;
        HeaderValue::from_str(&format!("{scheme}{by}")).ok()
    };
    let mut has_any = false;
    for value in headers.values_mut() {
        if let Some(new) = exchanged(value) {
            *value = new;
            has_any = true;
        }
    }
    has_any
}

/// Answers a request to a provider.
fn answer(
    bundle: Weak<Bundle>,
    provider: SimulatedProvider,
    request: Request<Bytes>,
) -> BoxFuture<'static, Response<Bytes>> {
    async move {
        match bundle.upgrade() {
            Some(bundle) => {
                if request.method() == Method::POST && !request.uri().path().ends_with("/cancel") {
                    let body = String::from_utf8_lossy(request.body()).into_owned();
                    bundle.submitted.lock().unwrap().push(body);
                }
                let request = bundle.admit(provider, request);
                let mut answer = bundle.call_simulator(request).await;
                answer.headers_mut().remove(CONTENT_LENGTH);
                answer.map(|body| bundle.echoed(provider, body))
            }
            None => Response::default(),
        }
    }
    .boxed()
}
