//! What callers send, and headers of receivers.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use domain::address::{ReceiverUrl, TargetPolicy};
use domain::request::JobRequest;
use domain::retry::{MAX_RETRY_AFTER, retry_after};
use serde_json::{Value, json};
use url::{Host, Url};

use super::mutation;
use super::run::run;
use crate::sender::noon;

const URLS: [&str; 12] = [
    "https://hooks.example.com/relay?x=1",
    "https://hooks.example.com:443/",
    "https://user:pass@hooks.example.com/",
    "http://hooks.example.com/",
    "https://127.0.0.1/",
    "https://0x7f.1/",
    "https://2130706433/",
    "https://[::ffff:10.0.0.1]/",
    "https://[fe80::1%25eth0]/",
    "https://169.254.169.254/latest/meta-data",
    "https://xn--bcher-kva.example/",
    "https://93.184.216.34/hook",
];

#[test]
fn job_request() {
    let valid = json!({
        "provider": "zvid", "payload": {"template": "t", "n": [1, 2.5, null]},
        "sourceRecordId": "product-123", "payloadVersion": "v4",
        "callbackUrl": URLS[0], "events": ["video.render.completed", "video.render.failed"],
        "metadata": {"campaign": "spring"}, "providerWebhook": true,
    });
    let mut others = members(&valid);
    others.extend(URLS.map(Value::from));
    let policy = TargetPolicy::public();
    assert!(JobRequest::parse(valid.to_string().as_bytes(), &policy).is_ok());
    run("job_request", 20_000, |random| {
        let mut request = valid.clone();
        mutation::json(random, &mut request, &others);
        let body = mutation::text(random, &request);
        let Ok(parsed) = JobRequest::parse(&body, &policy) else { return false };
        // The same request, however it is written.
        let document: Value = serde_json::from_slice(&body).unwrap();
        let pretty = serde_json::to_vec_pretty(&document).unwrap();
        assert_eq!(JobRequest::parse(&pretty, &policy).as_ref(), Ok(&parsed));
        assert_eq!(document["payload"], Value::Object(parsed.payload));
        true
    });
}

#[test]
fn receiver_url() {
    let pieces = URLS.map(str::as_bytes);
    let policy = TargetPolicy::public();
    run("receiver_url", 20_000, |random| {
        let mut text = random.of(&URLS).as_bytes().to_vec();
        mutation::bytes(random, &mut text, &pieces);
        let text = String::from_utf8_lossy(&text);
        let Ok(accepted) = ReceiverUrl::parse(&text, &policy) else { return false };
        let again = ReceiverUrl::parse(accepted.as_str(), &policy);
        assert_eq!(again.map(|url| url.as_str().to_owned()).unwrap(), accepted.as_str());

        let url = Url::parse(accepted.as_str()).unwrap();
        assert_eq!((url.scheme(), url.port_or_known_default()), ("https", Some(443)), "{url}");
        assert_eq!((url.username(), url.password(), url.fragment()), ("", None, None), "{url}");
        let literal = match url.host().unwrap() {
            Host::Domain(_) => return true,
            Host::Ipv4(address) => IpAddr::from(address),
            Host::Ipv6(address) => IpAddr::from(address),
        };
        assert!(policy.vet_literal(literal).is_ok(), "{url}");
        true
    });
}

#[test]
fn retry_after_header() {
    let written = [
        "120",
        "0",
        "86401",
        "99999999999999999999",
        "1.5",
        "-1",
        "Tue, 14 Nov 2023 23:13:20 GMT",
        "Tuesday, 14-Nov-23 23:13:20 GMT",
        "Tue Nov 14 23:13:20 2023",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ];
    let pieces = written.map(str::as_bytes);
    let clocks = [noon(), DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC];
    run("retry_after_header", 20_000, |random| {
        let mut text = random.of(&written).as_bytes().to_vec();
        mutation::bytes(random, &mut text, &pieces);
        let wait = retry_after(&String::from_utf8_lossy(&text), *random.of(&clocks));
        assert!(wait.is_none_or(|wait| wait <= MAX_RETRY_AFTER), "{wait:?}");
        wait.is_some()
    });
}

/// All values in a document.
pub(crate) fn members(document: &Value) -> Vec<Value> {
    let inside: Vec<Value> = match document {
        Value::Object(inside) => inside.values().flat_map(members).collect(),
        Value::Array(elements) => elements.iter().flat_map(members).collect(),
        _ => Vec::new(),
    };
    inside.into_iter().chain([document.clone()]).collect()
}
