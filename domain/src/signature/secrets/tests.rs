use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use ed25519_compact::{PublicKey, Signature};
use proptest::prelude::*;

use super::*;
use crate::fixtures::noon;

fn secret(kind: SignatureType, seed: u8) -> WebhookSecret {
    WebhookSecret::from_random(kind, [seed; 32])
}

fn shared(seed: u8) -> WebhookSecret {
    secret(SignatureType::V1, seed)
}

fn grace(seconds: u64) -> GracePeriod {
    GracePeriod::from_seconds(seconds).unwrap()
}

/// As a receiver does that is not ours: `standardwebhooks` for v1, `ed25519-compact` for v1a.
fn verifies(
    secret: &WebhookSecret,
    header: &str,
    id: &str,
    at: DateTime<Utc>,
    body: &[u8],
) -> bool {
    let mut entries = header.split(' ').map(|entry| entry.split_once(',').unwrap());
    match secret {
        WebhookSecret::Shared(secret) => {
            let theirs = standardwebhooks::Webhook::new(&secret.reveal()).unwrap();
            let expected = theirs.sign(id, at.timestamp(), body).unwrap();
            header.split(' ').any(|entry| entry == expected)
        }
        WebhookSecret::Pair(pair) => {
            let public = pair.public_key();
            let public = STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
            let public = PublicKey::from_slice(&public).unwrap();
            let signed = [format!("{id}.{}.", at.timestamp()).as_bytes(), body].concat();
            entries.any(|(kind, signature)| {
                let signature = STANDARD.decode(signature).unwrap();
                kind == "v1a"
                    && Signature::from_slice(&signature)
                        .is_ok_and(|signature| public.verify(&signed, &signature).is_ok())
            })
        }
    }
}

#[test]
fn secrets_stored_text_is_read() {
    let text = format!("{}, {}", shared(1).reveal(), shared(2).reveal());
    let secrets = SigningSecrets::parse(&text).unwrap();
    let both: Vec<_> = secrets.in_force(noon()).map(|stored| stored.secret.clone()).collect();
    assert_eq!(both, [shared(1), shared(2)]);
    assert_eq!(secrets.reveal(), text.replace(' ', ""));
}

#[test]
fn secret_must_suit_every_library() {
    let pair = secret(SignatureType::V1a, 1).reveal();
    let other = STANDARD.decode(&secret(SignatureType::V1a, 2).reveal()[5..]).unwrap();
    let mut mixed = STANDARD.decode(&pair[5..]).unwrap();
    mixed[32..].copy_from_slice(&other[32..]);
    for (text, error) in [
        (String::new(), SigningSecretError::Prefix),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(), SigningSecretError::Prefix),
        ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=".into(), SigningSecretError::Prefix),
        ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(), SigningSecretError::Prefix),
        ("whsec_".into(), SigningSecretError::Length),
        ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGA".into(), SigningSecretError::Base64),
        ("whsec_!!".into(), SigningSecretError::Base64),
        (format!("whsec_{}", STANDARD.encode([7; 23])), SigningSecretError::Length),
        (format!("whsec_{}", STANDARD.encode([7; 65])), SigningSecretError::Length),
        (format!("whsk_{}", STANDARD.encode([7; 32])), SigningSecretError::Pair),
        (format!("whsk_{}", STANDARD.encode(mixed)), SigningSecretError::Pair),
        (format!("{pair}!"), SigningSecretError::Base64),
    ] {
        assert_eq!(SigningSecrets::parse(&text), Err(error.into()), "{text}");
    }
    for length in [24, 64] {
        let text = format!("whsec_{}", STANDARD.encode(vec![7; length]));
        assert_eq!(SigningSecrets::parse(&text).unwrap().reveal(), text);
    }
}

#[test]
fn secrets_attributes_are_read_strictly() {
    let (secret, at) = (shared(1).reveal(), "2026-05-24T12:00:00.000Z");
    let two = |first: &str, second: &str| {
        SigningSecrets::parse(&format!("{secret}{first},{secret}{second}"))
    };
    let good = two(&format!(";created={at}"), &format!(";created={at};expires={at}")).unwrap();
    assert_eq!(good.0[1].expires_at, Some(noon()));
    for wrong in [
        format!(";expires={at};created={at}"),
        format!(";created={at};created={at}"),
        format!(";Created={at}"),
        format!(";note={at}"),
        ";".into(),
        ";expires=".into(),
        ";expires=2026-05-24T12:00:00Z".into(),
        ";expires=2026-05-24T14:00:00.000+02:00".into(),
        ";expires=1779624000".into(),
        format!(";expires={at} ;"),
    ] {
        assert_eq!(two("", &wrong), Err(StoredSecretsError::Attribute), "{wrong}");
    }
    let first = two(&format!(";expires={at}"), "");
    assert_eq!(first, Err(StoredSecretsError::NewestExpires));
    let many = [secret.as_str(); MAX_SECRETS + 1].join(",");
    assert_eq!(SigningSecrets::parse(&many), Err(StoredSecretsError::TooMany));
}

#[test]
fn new_secret_begins_after_the_lead() {
    let before = SigningSecrets::first(shared(1), noon());
    for seconds in [0, 1, 60, 86_400] {
        let secrets = before.rotate(shared(2), grace(seconds), noon()).unwrap();
        let (begin, end) = (noon() + LEAD, noon() + LEAD + grace(seconds).length());
        let moment = TimeDelta::milliseconds(1);
        for (at, expected) in [
            (noon(), [true, false]),
            (begin - moment, [true, false]),
            (begin, [seconds > 0, true]),
            (end - moment, [true, seconds > 0]),
            (end, [false, true]),
        ] {
            let header = secrets.sign("evt_1", at, b"{}");
            let verified = [1, 2].map(|n| verifies(&shared(n), &header, "evt_1", at, b"{}"));
            assert_eq!(verified, expected, "grace {seconds} s, at {at}");
        }
        assert_eq!(secrets.unended(noon()).count(), 2, "both are shown");
    }
}

#[test]
fn rotation_without_grace_ends_others_with_lead() {
    let secrets = SigningSecrets::first(shared(1), noon());
    let secrets = secrets.rotate(shared(2), GracePeriod::default(), noon()).unwrap();
    let secrets = secrets.rotate(shared(3), grace(0), noon()).unwrap();
    let at = |at| secrets.in_force(at).map(|it| it.secret.clone()).collect::<Vec<_>>();
    assert_eq!(at(noon() + LEAD - TimeDelta::milliseconds(1)), [shared(1)]);
    assert_eq!(at(noon() + LEAD), [shared(3)]);
}

#[test]
fn rotation_never_lengthens_earlier_grace() {
    let first = SigningSecrets::first(shared(1), noon());
    let second = first.rotate(shared(2), grace(60), noon()).unwrap();
    let third = second.rotate(shared(3), grace(600), noon()).unwrap();
    let ends = |secrets: &SigningSecrets| -> Vec<Option<i64>> {
        let ends = secrets.0.iter().map(|stored| stored.expires_at);
        ends.map(|end| end.map(|end| (end - noon()).num_seconds())).collect()
    };
    assert_eq!(ends(&third), [None, Some(660), Some(120)]);
    let sooner = third.rotate(shared(4), grace(30), noon()).unwrap();
    assert_eq!(ends(&sooner), [None, Some(90), Some(90), Some(90)]);
    let later = third.rotate(shared(4), grace(600), noon() + TimeDelta::seconds(120)).unwrap();
    assert_eq!(later.0.len(), 3, "what has ended is dropped");
}

#[test]
fn rotation_refuses_an_eleventh_secret() {
    let mut secrets = SigningSecrets::first(shared(0), noon());
    for (n, seconds) in (1..10).zip([900, 100, 900, 900, 900, 900, 900, 900, 900]) {
        secrets = secrets.rotate(shared(n), grace(seconds), noon()).unwrap();
    }
    let next_end = noon() + LEAD + TimeDelta::seconds(100);
    let refused = secrets.rotate(shared(10), grace(900), noon());
    assert_eq!(refused, Err(TooManySecrets { next_end }));
    assert!(secrets.rotate(shared(10), grace(900), next_end).is_ok());
    let sooner = secrets.rotate(shared(10), grace(0), noon());
    assert_eq!(sooner, Err(TooManySecrets { next_end: noon() + LEAD }), "they end with the lead");
    let short = secrets.rotate(shared(9), grace(0), noon()).unwrap();
    assert!(short.rotate(shared(10), grace(900), noon() + LEAD).is_ok(), "which makes room");
    assert!(secrets.rotate(shared(4), grace(900), noon()).is_ok(), "it is one of the ten");
}

#[test]
fn rotation_reuses_a_known_secret() {
    let later = noon() + TimeDelta::seconds(5);
    let secrets = SigningSecrets::first(shared(1), noon());
    let secrets = secrets.rotate(shared(2), grace(60), noon()).unwrap();
    let back = secrets.rotate(shared(1), grace(60), later).unwrap();
    let [one, two] = back.0.as_slice() else { panic!("{back:?}") };
    assert_eq!((&one.secret, one.created_at, one.expires_at), (&shared(1), Some(noon()), None));
    assert_eq!(
        (&two.secret, two.expires_at),
        (&shared(2), Some(later + LEAD + TimeDelta::seconds(60)))
    );
    assert_eq!(back.rotate(shared(1), grace(60), later).unwrap(), back, "said twice");
}

/// A process that has not heard of the rotation stops signing with it at its end.
#[test]
fn secret_that_ends_meanwhile_begins_again() {
    let secrets = SigningSecrets::first(shared(1), noon());
    let secrets = secrets.rotate(shared(2), grace(0), noon()).unwrap();
    let later = noon() + TimeDelta::seconds(5);
    let back = secrets.rotate(shared(1), grace(600), later).unwrap();
    for ms in (0..180_000).step_by(500) {
        let at = later + TimeDelta::milliseconds(ms);
        let (old, new) = (secrets.sign("evt_1", at, b"{}"), back.sign("evt_1", at, b"{}"));
        assert!(at >= later + LEAD || old == new, "after {ms} ms");
        assert!(!new.is_empty(), "after {ms} ms");
    }
    let after = back.in_force(later + LEAD).map(|it| it.secret.clone());
    assert_eq!(after.collect::<Vec<_>>(), [shared(1), shared(2)]);
}

/// What a standard parameter of SSM holds.
#[test]
fn secrets_ten_longest_fit_a_parameter() {
    let longest =
        |seed: u8| WebhookSecret::parse(&format!("whsec_{}", STANDARD.encode([seed; 64]))).unwrap();
    let mut secrets = SigningSecrets::first(longest(0), noon());
    for seed in 1..10 {
        secrets = secrets.rotate(longest(seed), GracePeriod::default(), noon()).unwrap();
    }
    assert_eq!(secrets.0.len(), MAX_SECRETS);
    assert!(secrets.reveal().len() <= 1700, "{}", secrets.reveal().len());
}

#[test]
fn secrets_are_hidden_in_debug() {
    let pair = secret(SignatureType::V1a, 3);
    let secrets = SigningSecrets::first(shared(3), noon());
    let secrets = secrets.rotate(pair.clone(), GracePeriod::default(), noon()).unwrap();
    let shown = format!("{secrets:?} {:?}", secrets.0[0].secret);
    assert!(shown.contains("WebhookSecret(v1, redacted)"), "{shown}");
    assert!(shown.contains("WebhookSecret(v1a, redacted)"), "{shown}");
    let WebhookSecret::Pair(pair) = pair else { panic!("no pair") };
    assert_eq!(format!("{pair:?}"), format!("KeyPair({}, redacted)", pair.public_key()));
}

fn any_secret() -> impl Strategy<Value = WebhookSecret> {
    let shared = prop::collection::vec(any::<u8>(), 24..=64).prop_map(|bytes| {
        WebhookSecret::parse(&format!("whsec_{}", STANDARD.encode(bytes))).unwrap()
    });
    let pair =
        any::<[u8; 32]>().prop_map(|seed| WebhookSecret::from_random(SignatureType::V1a, seed));
    prop_oneof![shared, pair]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any mix, rotated in at any times: what is in force verifies, what is not does not, and
    /// nothing is lost in the store.
    #[test]
    fn signature_verifies_only_secrets_in_force(
        rotations in prop::collection::vec((any_secret(), 0..=600_u64, 0..=200_i64), 1..=MAX_SECRETS),
        id in "evt_[0-9a-f]{32}",
        body in "\\PC{0,100}",
        age in 0..=900_i64,
    ) {
        let mut now = noon();
        let mut secrets: Option<SigningSecrets> = None;
        let mut all = Vec::new();
        for (secret, seconds, pause) in rotations {
            now += TimeDelta::seconds(pause);
            all.push(secret.clone());
            secrets = Some(match secrets {
                None => SigningSecrets::first(secret, now),
                Some(before) => before.rotate(secret, grace(seconds), now).unwrap(),
            });
        }
        let secrets = secrets.unwrap();
        prop_assert_eq!(SigningSecrets::parse(&secrets.reveal()), Ok(secrets.clone()));
        let at = now + TimeDelta::seconds(age);
        let header = secrets.sign(&id, at, body.as_bytes());
        let in_force: Vec<_> = secrets.in_force(at).map(|stored| &stored.secret).collect();
        let newest = all.last().unwrap();
        let began = at >= now + LEAD || all.len() == 1;
        prop_assert!(!began || in_force.first() == Some(&newest), "the newest never ends");
        prop_assert!(!in_force.is_empty());
        prop_assert_eq!(header.split(' ').count(), in_force.len());
        for secret in &all {
            let expected = in_force.contains(&secret);
            prop_assert_eq!(verifies(secret, &header, &id, at, body.as_bytes()), expected);
        }
        let flipped = format!("{body} ");

        for secret in &all {
            prop_assert!(!verifies(secret, &header, &id, at, flipped.as_bytes()));
        }
    }
}
