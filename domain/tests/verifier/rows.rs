//! Every row against every way a request can be wrong.

use chrono::TimeDelta;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::sender::{Form, ID, NOON, PAYLOAD, Row, Sealed, Wire, encoded, noon, row, rows};
use domain::verifier::{Reason, Verification};

const MALFORMED: Verification = Verification::Invalid(Reason::Malformed);
const MISMATCH: Verification = Verification::Invalid(Reason::Mismatch);

fn verified(verification: &Verification) -> bool {
    matches!(verification, Verification::Verified { .. })
}

fn signing_rows() -> impl Iterator<Item = Row> {
    rows().into_iter().filter(|row| !row.is_token())
}

fn verify(row: &Row, wire: &Wire) -> Verification {
    wire.verify(row, &row.secrets(&[1]), noon())
}

#[test]
fn rows_name_sender_once_with_source() {
    let rows: Vec<Value> =
        serde_json::from_str(include_str!("../../src/verifier/schemes.json")).unwrap();
    let senders: Vec<&str> = rows.iter().map(|row| row["sender"].as_str().unwrap()).collect();
    for (row, sender) in rows.iter().zip(&senders) {
        assert_eq!(senders.iter().filter(|other| *other == sender).count(), 1, "{sender}");
        assert!(
            ["S", "D", "3P", "M", "brief"].contains(&row["mark"].as_str().unwrap()),
            "{sender}"
        );
    }
}

#[test]
fn signature_verifies() {
    for row in rows() {
        let expected = Verification::Verified {
            replay_id: match row.raw["replayId"]["kind"].as_str() {
                Some("header") => ID.to_owned(),
                _ => hex::encode(Sha256::digest(PAYLOAD)),
            },
            signed_at: row.raw["timestamp"].is_object().then(noon),
        };
        let wire = row.wire(&row.seal(&[1]));
        assert_eq!(verify(&row, &wire), expected, "{}: {wire:?}", row.sender);
    }
}

#[test]
fn body_with_flipped_bit_is_refused() {
    for row in signing_rows() {
        let sealed = row.seal(&[1]);
        for at in 0..sealed.payload.len() {
            let mut tampered = sealed.clone();
            // Bits that leave a text a text, for the forms.
            tampered.payload[at] ^= 1 << (at % 5);
            let outcome = verify(&row, &row.wire(&tampered));
            assert_eq!(outcome, MISMATCH, "invariant 4: {} {at}", row.sender);
        }
        let (most, _) = sealed.payload.split_at(sealed.payload.len() - 1);
        for payload in [&sealed.payload[1..], most, b""] {
            let mut tampered = sealed.clone();
            tampered.payload = payload.to_vec();
            assert_eq!(verify(&row, &row.wire(&tampered)), MISMATCH, "{}", row.sender);
        }
    }
}

#[test]
fn signature_with_flipped_bit_is_refused() {
    for row in rows() {
        let sealed = row.seal(&[1]);
        for at in 0..sealed.signatures[0].len() {
            let mut tampered = sealed.clone();
            tampered.signatures[0][at] ^= 1 << (at % 5);
            assert_eq!(verify(&row, &row.wire(&tampered)), MISMATCH, "{} {at}", row.sender);
        }
        let mut longer = sealed.clone();
        longer.signatures[0].push(b'0');
        let mut shorter = sealed.clone();
        shorter.signatures[0].pop();
        for tampered in [longer, shorter] {
            assert_eq!(verify(&row, &row.wire(&tampered)), MISMATCH, "{}", row.sender);
        }
    }
}

#[test]
fn signed_header_changed_is_refused() {
    for row in signing_rows() {
        let sealed = row.seal(&[1]);
        let wire = row.wire(&sealed);
        if row.raw["replayId"]["kind"] == "header" {
            let mut other = sealed.clone();
            other.id = "msg_2".into();
            assert_eq!(verify(&row, &row.wire(&other)), MISMATCH, "{}", row.sender);
        }
        if row.raw["timestamp"].is_object() {
            let mut other = sealed.clone();
            other.timestamp = row.stamp(NOON + 1);
            assert_eq!(verify(&row, &row.wire(&other)), MISMATCH, "{}", row.sender);
        }
        for (name, value) in &wire.headers {
            if value == b"value" {
                let other = wire.with(name, b"other");
                assert_eq!(verify(&row, &other), MISMATCH, "{}", row.sender);
            }
        }
    }
}

#[test]
fn timestamp_tolerance_is_exact() {
    for row in rows() {
        let wire = row.wire(&row.seal(&[1]));
        let secrets = row.secrets(&[1]);
        let at = |seconds| wire.verify(&row, &secrets, noon() + TimeDelta::seconds(seconds));
        let limit = |name: &str| row.raw["timestamp"][name].as_i64();
        match limit("maxAgeSeconds") {
            Some(limit) => {
                assert!(verified(&at(limit)), "{}", row.sender);
                assert_eq!(at(limit + 1), Verification::Invalid(Reason::TooOld), "{}", row.sender);
            }
            None => assert!(verified(&at(1_000_000_000)), "{}", row.sender),
        }
        match limit("maxAheadSeconds") {
            Some(limit) => {
                assert!(verified(&at(-limit)), "{}", row.sender);
                assert_eq!(at(-limit - 1), Verification::Invalid(Reason::TooNew), "{}", row.sender);
            }
            None => assert!(verified(&at(-1_000_000_000)), "{}", row.sender),
        }
    }
}

#[test]
fn forged_request_is_mismatch_at_any_age() {
    let row = row("stripe");
    let wire = row.wire(&row.seal(&[2]));
    let late = noon() + TimeDelta::days(1);
    assert_eq!(wire.verify(&row, &row.secrets(&[1]), late), MISMATCH);
}

#[test]
fn header_absent_means_missing() {
    for row in rows() {
        let wire = row.wire(&row.seal(&[1]));
        for (name, _) in wire.headers.iter().filter(|(name, _)| name != "Content-Type") {
            assert_eq!(verify(&row, &wire.without(name)), Verification::Missing, "{}", row.sender);
        }
        let bare = Wire { headers: Vec::new(), body: PAYLOAD.to_vec() };
        assert_eq!(verify(&row, &bare), Verification::Missing, "{}", row.sender);
    }
}

#[test]
fn header_repeated_is_invalid() {
    for row in rows() {
        let wire = row.wire(&row.seal(&[1]));
        for header in wire.headers.iter().filter(|(name, _)| name != "Content-Type") {
            let mut twice = wire.clone();
            twice.headers.push((header.0.to_lowercase(), header.1.clone()));
            assert_eq!(verify(&row, &twice), MALFORMED, "{} {}", row.sender, header.0);
            // What a gateway makes of the two.
            let joined = [&header.1[..], &header.1[..]].join(&b","[..]);
            let joined = verify(&row, &wire.with(&header.0, &joined));
            let list = row.has_list() && Some(header.0.to_lowercase()) == row.signature_header();
            let harmless = list && !row.raw["timestamp"]["place"]["key"].is_string();
            assert!(
                harmless || matches!(joined, Verification::Invalid(_)),
                "{} {joined:?}",
                row.sender
            );
        }
    }
}

#[test]
fn form_field_repeated_is_invalid() {
    for sender in ["transloadit", "transloadit-sha256", "transloadit-sha1"] {
        let row = row(sender);
        let wire = row.wire(&row.seal(&[1]));
        let text = String::from_utf8(wire.body.clone()).unwrap();
        for extra in ["signature=x", "%73ignature=x", "transloadit=%7B%7D", "transloadit"] {
            for body in [format!("{text}&{extra}"), format!("{extra}&{text}")] {
                let twice = Wire { headers: Vec::new(), body: body.into_bytes() };
                assert_eq!(verify(&row, &twice), MALFORMED, "{sender} {extra}");
            }
        }
        let more = Wire { headers: Vec::new(), body: format!("{text}&other=1").into_bytes() };
        assert_eq!(verify(&row, &more), verify(&row, &wire), "{sender}");
    }
}

#[test]
fn form_part_repeated_or_truncated_is_invalid() {
    for row in rows().into_iter().filter(|row| row.form == Form::Multipart) {
        let wire = row.wire(&row.seal(&[1]));
        let text = String::from_utf8(wire.body.clone()).unwrap();
        let body = |body: String| Wire { headers: Vec::new(), body: body.into_bytes() };
        for name in ["signature", "transloadit", "other"] {
            let part =
                format!("--bound-ary\r\nContent-Disposition: form-data; name={name}\r\n\r\nx");
            let first = verify(&row, &body(format!("{part}\r\n{text}")));
            let last = text.replace("--bound-ary--", &format!("{part}\r\n--bound-ary--"));
            for verification in [first, verify(&row, &body(last))] {
                match name {
                    "other" => assert!(verified(&verification), "{}", row.sender),
                    _ => assert_eq!(verification, MALFORMED, "{} {name}", row.sender),
                }
            }
        }
        // Without its last line it may have been cut; nothing less is a form.
        let (most, _) = text.split_at(text.len() - "--\r\n".len());
        assert_eq!(verify(&row, &body(most.to_owned())), MALFORMED, "{}", row.sender);
    }
}

#[test]
fn replay_id_is_unique_per_request() {
    for row in rows() {
        let id = |payload: &[u8], id: &str| {
            let wire = row.wire(&row.seal_with(payload, id, &row.stamp(NOON), &[1]));
            match verify(&row, &wire) {
                Verification::Verified { replay_id, .. } => replay_id,
                other => panic!("{} {other:?}", row.sender),
            }
        };
        assert_eq!(id(PAYLOAD, ID), id(PAYLOAD, ID), "{}", row.sender);
        assert_ne!(id(PAYLOAD, ID), id(b"{\"id\":\"r-2\"}", "msg_2"), "{}", row.sender);
        assert!(!id(b"{}", ID).is_empty(), "{}", row.sender);
    }
}

#[test]
fn token_must_match_the_signatures_secret() {
    let row = row("marqeta-basic");
    let sealed = row.seal(&[1]);
    let verification = |sealed: &Sealed, numbers: &[u8]| {
        row.wire(sealed).verify(&row, &row.secrets(numbers), noon())
    };
    assert!(verified(&verification(&sealed, &[2, 1])));
    let others = Sealed { token: row.seal(&[2]).token, ..sealed.clone() };
    assert_eq!(
        verification(&others, &[1, 2]),
        MISMATCH,
        "both are in force, each with its own key"
    );
    for at in 0..sealed.token.len() {
        let mut tampered = sealed.clone();
        tampered.token[at] ^= 1;
        assert_eq!(verification(&tampered, &[1]), MISMATCH, "{at}");
    }
    let wire = row.wire(&sealed);
    for (value, expected) in [
        (&b"Basic"[..], MALFORMED),
        (b"Basic ", MALFORMED),
        (b"Basic !", MALFORMED),
        (b"Bearer eA==", MALFORMED),
        (b"Basic NO_SECRET_PROVIDED", Verification::Invalid(Reason::NoSecretProvided)),
        (b"Basic eA==", MISMATCH),
    ] {
        let wire = wire.with("Authorization", value);
        assert_eq!(wire.verify(&row, &row.secrets(&[1]), noon()), expected, "{value:?}");
    }
    for lacking in ["key", ":key", "token:", "user:password:"] {
        let error = row.scheme.parse_secrets(lacking).unwrap_err().to_string();
        assert_eq!(error, "a secret of this scheme is a token, a colon and a key", "{lacking}");
    }
}

#[test]
fn token_http_basic_is_user_and_password() {
    let row = row("deepgram-basic");
    let secrets = row.scheme.parse_secrets("user:pass").unwrap();
    let bare = Wire { headers: Vec::new(), body: b"{}".to_vec() };
    let verification =
        |value: &str| bare.with("Authorization", value.as_bytes()).verify(&row, &secrets, noon());
    assert!(verified(&verification("Basic dXNlcjpwYXNz")));
    for wrong in ["Basic dXNlcjpwYXNzIA==", "Basic dXNlcjpwYXM=", "Basic eA=="] {
        assert_eq!(verification(wrong), MISMATCH, "{wrong}");
    }
    for malformed in ["Basic user:pass", "Basic dXNlcjpwYXN", "dXNlcjpwYXNz", "Basic"] {
        assert_eq!(verification(malformed), MALFORMED, "{malformed}");
    }
}

#[test]
fn secret_in_force_verifies_and_no_other() {
    for row in rows() {
        let wire = row.wire(&row.seal(&[1]));
        let with = |numbers: &[u8]| wire.verify(&row, &row.secrets(numbers), noon());
        for numbers in [&[1][..], &[1, 2], &[2, 1], &[3, 2, 1]] {
            assert!(verified(&with(numbers)), "{} {numbers:?}", row.sender);
        }
        for numbers in [&[2][..], &[2, 3]] {
            assert_eq!(with(numbers), MISMATCH, "{} {numbers:?}", row.sender);
        }
    }
}

#[test]
fn signature_list_needs_one_match() {
    for row in rows().into_iter().filter(Row::has_list) {
        for numbers in [&[1, 2][..], &[2, 1], &[3, 2, 1]] {
            let wire = row.wire(&row.seal(numbers));
            assert!(verified(&verify(&row, &wire)), "{} {numbers:?}", row.sender);
        }
        let sealed = row.seal(&[1]);
        let good = encoded(row.raw["encoding"].as_str().unwrap(), &sealed.signatures[0]);
        // An unreadable entry is not a signature; the other entry still is.
        let beside_garbage = ["!".to_owned(), good.clone()];
        let wire = row.wire_with(&sealed, &beside_garbage);
        assert!(verified(&verify(&row, &wire)), "{}", row.sender);
        let many = vec![good; 33];
        assert_eq!(verify(&row, &row.wire_with(&sealed, &many)), MALFORMED, "{}", row.sender);
    }
}

#[test]
fn rotation_of_stripe_verifies() {
    let row = row("stripe");
    let signature = |number| hex::encode(&row.seal(&[number]).signatures[0]);
    let (new, old) = (signature(1), signature(2));
    let wire = row.wire(&row.seal(&[1]));
    let with = |value: String, numbers: &[u8]| {
        let wire = wire.with("Stripe-Signature", value.as_bytes());
        wire.verify(&row, &row.secrets(numbers), noon())
    };
    for value in [
        format!("t={NOON},v1={new},v1={old},v0={old}"),
        format!("v1={old},v1={new},t={NOON}"),
        format!("t={NOON}, v1={old}, v1={new}"),
    ] {
        for numbers in [&[1][..], &[2], &[3, 2]] {
            assert!(verified(&with(value.clone(), numbers)), "{value} {numbers:?}");
        }
        assert_eq!(with(value, &[3]), MISMATCH);
    }
    for value in [
        format!("t={NOON} ,v1={new}"),
        format!("t= {NOON},v1={new}"),
        format!("t={NOON},t={NOON},v1={new}"),
        format!("v1={new}"),
        format!("t={NOON};v1={new}"),
        format!("t={NOON},v1={new},"),
        format!("t={NOON},v1 ={new}"),
        format!("T={NOON},v1={new}"),
        format!("t={NOON},v0={new}"),
    ] {
        assert_eq!(with(value.clone(), &[1]), MALFORMED, "{value}");
    }
}

#[test]
fn carrier_pairs_accept_any_named_key() {
    let scheme = json!({
        "method": {"kind": "hmac", "hash": "sha256"},
        "carrier": {"kind": "pairs", "header": "x-sig", "separator": ";", "keys": ["h1", "h2"]},
        "encoding": "hex", "key": {"form": "text"}, "content": "{body}",
    });
    let row = Row::new("two keys", scheme);
    let sealed = row.seal(&[1]);
    let good = hex::encode(&sealed.signatures[0]);
    for value in [format!("h1={good}"), format!("h2={good}"), format!("h1=00;h2={good}")] {
        let wire = row.wire(&sealed).with("X-Sig", value.as_bytes());
        assert!(verified(&verify(&row, &wire)), "{value}");
    }
    let wire = row.wire(&sealed).with("X-Sig", format!("h3={good}").as_bytes());
    assert_eq!(verify(&row, &wire), MALFORMED);
}

#[test]
fn encoding_hex_ignores_case_base64_does_not() {
    for row in signing_rows() {
        let sealed = row.seal(&[1]);
        let text = encoded(row.raw["encoding"].as_str().unwrap(), &sealed.signatures[0]);
        let swapped: String = text
            .chars()
            .map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
            .collect();
        let verification = verify(&row, &row.wire_with(&sealed, &[swapped]));
        if row.raw["encoding"] == "hex" {
            assert!(verified(&verification), "{}", row.sender);
        } else {
            assert!(matches!(verification, Verification::Invalid(_)), "{}", row.sender);
        }
    }
}

#[test]
fn header_garbage_is_invalid() {
    let garbage: &[&[u8]] = &[
        b"",
        b" ",
        b",",
        b";",
        b"=",
        b"garbage",
        b"v1",
        b"v1,",
        b"v1,a,b",
        b"v1,abc",
        b"v1=",
        b"t=",
        b"t=1",
        b"t=1,v1=",
        b"t=1700000000,v1",
        b"v1=aa,v1=bb",
        b"sha256=",
        b"sha256",
        b"sha384:",
        b"sha512=zz",
        b"v0=",
        b"Bearer",
        b"Bearer ",
        b"bearer x",
        b"\xff\xfe\x00",
        b"v1,\xff",
        b"null",
        b"undefined",
        b"0",
        b"==",
        b"t=1700000000,t=1700000000,v1=aa",
    ];
    for row in rows() {
        let wire = row.wire(&row.seal(&[1]));
        for value in garbage {
            let Some(header) = row.signature_header() else { continue };
            let verification = verify(&row, &wire.with(&header, value));
            assert!(matches!(verification, Verification::Invalid(_)), "{} {value:?}", row.sender);
        }
        for (name, _) in wire.headers.iter().filter(|(name, _)| name != "Content-Type") {
            let verification = verify(&row, &wire.with(name, b""));
            assert!(matches!(verification, Verification::Invalid(_)), "{} {name}", row.sender);
        }
    }
}

#[test]
fn signature_undecodable_is_malformed() {
    for (sender, value) in [
        ("github", "sha256=zz"),
        ("github", "sha256=abc"),
        ("github", "sha1=abcd"),
        ("shopify", "AAA"),
        ("shopify", "AA-_"),
        ("replicate", "v1,abc"),
        ("replicate", "v1, v1,!"),
        ("stripe", "t=1700000000,v1=,v1=zz"),
    ] {
        let row = row(sender);
        let wire =
            row.wire(&row.seal(&[1])).with(&row.signature_header().unwrap(), value.as_bytes());
        assert_eq!(verify(&row, &wire), MALFORMED, "{sender} {value}");
    }
}

#[test]
fn placeholder_signature_is_refused() {
    const PLACEHOLDER: &str = "NO_SECRET_PROVIDED";
    for row in rows() {
        let none = Verification::Invalid(Reason::NoSecretProvided);
        let sealed = row.seal(&[1]);
        let wire = row.wire_with(&sealed, &[PLACEHOLDER.to_owned()]);
        assert_eq!(verify(&row, &wire), none, "{}", row.sender);
        if let Some(header) = row.signature_header() {
            let bare = row.wire(&sealed).with(&header, PLACEHOLDER.as_bytes());
            assert_eq!(verify(&row, &bare), none, "{}", row.sender);
        }
        assert!(row.scheme.parse_secrets(PLACEHOLDER).is_err(), "{}", row.sender);
    }
}

#[test]
fn timestamp_has_one_spelling() {
    for row in rows().into_iter().filter(|row| row.raw["timestamp"].is_object()) {
        let number = row.stamp(NOON);
        let spellings = [
            format!("+{number}"),
            format!("0{number}"),
            format!(" {number}"),
            format!("{number} "),
            format!("{number}.0"),
            format!("{number}.9"),
            format!("{number}e0"),
            format!("{number}abc"),
            format!("-{number}"),
            format!("{number}_0"),
            format!("0x{number}"),
            format!("{number}\t"),
            "+1".into(),
            "01".into(),
            " 1".into(),
            "1.0".into(),
            "1e3".into(),
            "1abc".into(),
            "00".into(),
            "-0".into(),
            "\u{0661}".into(),
            "9223372036854775807".into(),
            "9223372036854775808".into(),
            "99999999999999999999999999".into(),
            String::new(),
        ];
        for spelling in spellings {
            let signed = row.seal_with(PAYLOAD, ID, &spelling, &[1]);
            assert_eq!(verify(&row, &row.wire(&signed)), MALFORMED, "{} {spelling}", row.sender);
            // As the libraries that sign the parsed number would have it.
            let mut sealed = row.seal(&[1]);
            sealed.timestamp.clone_from(&spelling);
            assert_eq!(verify(&row, &row.wire(&sealed)), MALFORMED, "{} {spelling}", row.sender);
        }
        let epoch = row.seal_with(PAYLOAD, ID, "0", &[1]);
        assert_eq!(verify(&row, &row.wire(&epoch)), Verification::Invalid(Reason::TooOld));
    }
}

#[test]
fn id_empty_or_ambiguous_is_refused() {
    for sender in ["replicate", "gemini", "polar"] {
        let row = row(sender);
        for id in ["msg.1", ".", ""] {
            let signed = row.seal_with(PAYLOAD, id, &row.stamp(NOON), &[1]);
            assert_eq!(verify(&row, &row.wire(&signed)), MALFORMED, "{sender} {id}");
        }
    }
    let row = row("fal");
    let signed = row.seal_with(PAYLOAD, "a\nb", &row.stamp(NOON), &[1]);
    assert_eq!(verify(&row, &row.wire(&signed)), MALFORMED);
}

#[test]
fn body_may_be_any_bytes() {
    for row in signing_rows().filter(|row| row.signature_header().is_some()) {
        for body in [&b""[..], b"\xff\x00\xfe", b"not json", "\u{feff}{}".as_bytes()] {
            let wire = row.wire(&row.seal_with(body, ID, &row.stamp(NOON), &[1]));
            assert!(verified(&verify(&row, &wire)), "{} {body:?}", row.sender);
        }
    }
}

#[test]
fn token_does_not_prove_the_body() {
    for row in rows().into_iter().filter(Row::is_token) {
        assert!(!row.scheme.proves_body());
        let mut wire = row.wire(&row.seal(&[1]));
        wire.body = b"another".to_vec();
        assert_eq!(
            verify(&row, &wire),
            Verification::Verified {
                replay_id: hex::encode(Sha256::digest(b"another")),
                signed_at: None,
            }
        );
    }
}

#[test]
fn secrets_are_hidden_in_debug() {
    for row in rows() {
        let text = row.secret_text(1);
        assert_eq!(format!("{:?}", row.secrets(&[1, 2])), "VerifierSecrets(2, redacted)");
        for wrong in ["", ",", &format!("{text},"), &format!(",{text}")] {
            assert!(row.scheme.parse_secrets(wrong).is_err(), "{} {wrong}", row.sender);
        }
        let Some(prefix) = row.raw["key"]["prefix"].as_str() else { continue };
        let bare = text.strip_prefix(prefix).unwrap();
        for wrong in [bare, prefix, &format!("{text}!"), &format!("x{text}")] {
            let error = row.scheme.parse_secrets(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(bare), "{}", row.sender);
        }
    }
}

#[test]
fn public_key_of_small_order_is_refused() {
    let fal = row("fal");
    // The neutral point, and one that is not on the curve.
    for weak in [format!("AQ{}", "A".repeat(41)), format!("Ag{}", "A".repeat(41))] {
        assert!(fal.scheme.parse_secrets(&weak).is_err(), "{weak}");
    }
    // Secrets of another scheme verify nothing.
    let wire = fal.wire(&fal.seal(&[1]));
    assert_eq!(wire.verify(&fal, &row("github").secrets(&[1]), noon()), MISMATCH);
    let github = row("github");
    let wire = github.wire(&github.seal(&[1]));
    assert_eq!(wire.verify(&github, &fal.secrets(&[1]), noon()), MISMATCH);
}
