//! The reference library's Rust edition against ours, on input that all editions read alike:
//! ids without `.`, canonical numbers, bodies of text.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use standardwebhooks::Webhook;

use super::sender::{Row, Wire, row};
use crate::verifier::Verdict;

/// The oracle asks the clock itself, so its tests have to.
#[expect(clippy::disallowed_methods, reason = "the oracle takes no `now`")]
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn oracle(row: &Row) -> Webhook {
    Webhook::new(&row.secret_text(1)).unwrap()
}

fn wire(id: &str, timestamp: i64, signature: &str, body: &str) -> Wire {
    let headers = [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature.to_owned()),
    ];
    Wire {
        headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).to_vec(),
        body: body.as_bytes().to_vec(),
    }
}

/// Whether the two agree that it is good, and what they say.
fn both(row: &Row, wire: &Wire) -> (bool, bool) {
    let mut headers = HeaderMap::new();
    for (name, value) in &wire.headers {
        headers.insert(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    let now = DateTime::from_timestamp(now(), 0).unwrap();
    let ours = wire.verify(row, &row.secrets(&[1]), now);
    let theirs = oracle(row).verify(&wire.body, &headers);
    (matches!(ours, Verdict::Verified { .. }), theirs.is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Ages stop short of the tolerance by more than a test may take.
    #[test]
    fn we_agree_with_the_reference_library(
        id in "[a-zA-Z0-9_]{1,30}",
        age in prop_oneof![-290i64..=290, 310i64..=100_000, -100_000i64..=-310],
        body in "\\PC{0,120}",
        signature in prop_oneof![
            6 => Just("{good}".to_owned()),
            1 => Just("v1,AAAA {good}".to_owned()),
            1 => Just("{good} v1a,AAAA v2,BBBB".to_owned()),
            1 => Just("v1a,AAAA".to_owned()),
            1 => Just("v1,!!! {good}".to_owned()),
            1 => Just("{good},x".to_owned()),
            1 => Just("v1,abc".to_owned()),
            1 => Just("garbage".to_owned()),
            1 => Just(" {good} ".to_owned()),
            1 => "[ -~]{0,80}",
        ],
        tampered in prop::bool::weighted(0.2),
    ) {
        let row = row("replicate");
        let at = now() - age;
        let good = oracle(&row).sign(&id, at, body.as_bytes()).unwrap();
        let body = if tampered { format!("{body} ") } else { body };
        let wire = wire(&id, at, &signature.replace("{good}", &good), &body);
        let (ours, theirs) = both(&row, &wire);
        prop_assert_eq!(ours, theirs, "{:?}", wire);
    }
}

#[test]
fn what_the_test_sender_signs_is_what_the_reference_library_signs() {
    let row = row("replicate");
    let at = now();
    let sealed = row.seal_with(b"{}", "msg_1", &at.to_string(), &[1]);
    let sent = row.wire(&sealed);
    assert_eq!(both(&row, &sent), (true, true));
    let theirs = oracle(&row).sign("msg_1", at, b"{}").unwrap();
    assert!(sent.headers.iter().any(|(_, value)| value.ends_with(theirs.as_bytes())));
}
