//! The Standard Webhooks reference library and Svix's library, on input that they treat alike:
//! ids without `.`, canonical numbers, bodies of text. They must accept our signatures, and our
//! verifier must agree with them about every request.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use domain::provider::ProviderSpec;
use domain::signature::{GracePeriod, SignatureType, SigningSecrets, WebhookSecret};
use domain::verifier::{Incoming, SignatureScheme, Verification};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

const REPLICATE: &str = include_str!("../../../providers/replicate.json");

/// The scheme of a shipped provider that signs by Standard Webhooks.
fn scheme() -> SignatureScheme {
    let spec = ProviderSpec::parse("replicate.json", REPLICATE).unwrap();
    spec.webhook.unwrap().signature.unwrap()
}

fn secret(seed: u8) -> String {
    WebhookSecret::from_random(SignatureType::V1, [seed; 32]).reveal()
}

/// The libraries read the clock themselves, so these tests have to.
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Whether our verifier, the reference library and Svix's library accept a request.
fn accepted_by(id: &str, timestamp: &str, signature: &str, body: &[u8]) -> [bool; 3] {
    let values =
        [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
    let mut headers = HeaderMap::new();
    for (name, value) in values {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let scheme = scheme();
    let ours: Vec<(&str, &[u8])> = values.map(|(name, value)| (name, value.as_bytes())).to_vec();
    let incoming = Incoming { headers: &ours, body };
    let secrets = scheme.parse_secrets(&secret(1)).unwrap();
    let at = DateTime::from_timestamp(now(), 0).unwrap();
    let reference = standardwebhooks::Webhook::new(&secret(1)).unwrap();
    let svix = svix::webhooks::Webhook::new(&secret(1)).unwrap();
    [
        matches!(scheme.verify(&incoming, &secrets, at), Verification::Verified { .. }),
        reference.verify(body, &headers).is_ok(),
        svix.verify(body, &headers).is_ok(),
    ]
}

proptest! {
    // Fewer cases, because ed25519 is slow without optimisations.
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Also during rotations: the libraries ignore signatures of unknown types.
    #[test]
    fn signature_verifies_in_every_library(
        id in "evt_[0-9a-f]{32}",
        body in "\\PC{0,200}",
        newer in prop::collection::vec((any::<bool>(), 2..=255_u8), 0..=9),
    ) {
        let at = DateTime::from_timestamp(now(), 0).unwrap();
        let mut secrets = SigningSecrets::parse(&secret(1)).unwrap();
        for (pair, seed) in newer {
            let kind = if pair { SignatureType::V1a } else { SignatureType::V1 };
            let newer = WebhookSecret::from_random(kind, [seed; 32]);
            secrets = secrets.rotate(newer, GracePeriod::default(), at).unwrap();
        }
        let signature = secrets.sign(&id, at, body.as_bytes());
        let accepted = accepted_by(&id, &at.timestamp().to_string(), &signature, body.as_bytes());
        prop_assert_eq!(accepted, [true; 3]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Ages differ from the tolerance by more than a test's duration.
    #[test]
    fn verifier_agrees_with_the_libraries(
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
        let at = now() - age;
        let svix = svix::webhooks::Webhook::new(&secret(1)).unwrap();
        let good = svix.sign(&id, at, body.as_bytes()).unwrap();
        let body = if tampered { format!("{body} ") } else { body };
        let signature = signature.replace("{good}", &good);
        let [ours, reference, svix] =
            accepted_by(&id, &at.to_string(), &signature, body.as_bytes());
        prop_assert_eq!((ours, ours), (reference, svix), "{} {}", signature, at);
    }
}
