//! Callbacks that a test posts itself, as a provider or an attacker does.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request};
use sha2::Sha256;

use crate::harness::bundle::Bundle;
use crate::harness::functions::PUBLIC_URL;

/// The callback URL of the only render.
pub(crate) fn callback_path(bundle: &Bundle) -> String {
    let submitted = bundle.submitted.lock().unwrap().join("");
    let begin = submitted.find(PUBLIC_URL).expect("a callback is asked for") + PUBLIC_URL.len();
    submitted[begin..].split('"').next().unwrap().to_owned()
}

pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Request<Bytes> {
    let mut request = Request::builder().method(Method::POST).uri(format!("{PUBLIC_URL}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

/// The signature of a text, in hexadecimal digits.
pub(crate) fn hmac(key: &str, content: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(content);
    hex::encode(mac.finalize().into_bytes())
}
