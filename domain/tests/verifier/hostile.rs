//! Arbitrary requests: nothing panics, and nothing that was not signed verifies.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::sender::{ID, NOON, Row, Wire, noon, rows};
use domain::verifier::content::Content;
use domain::verifier::{SignatureScheme, Verification};

/// Bytes that look like what the rows read, and bytes that do not.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        "[0-9]{1,22}".prop_map(String::into_bytes),
        Just(NOON.to_string().into_bytes()),
        "(sha1=|sha256=|sha512=|sha384:|v0=)?[0-9a-fA-F]{0,130}".prop_map(String::into_bytes),
        "(v1a?,[A-Za-z0-9+/]{0,88}={0,2} ?){0,40}".prop_map(String::into_bytes),
        "t=1700000000(,v[01]=[0-9a-f]{64}){0,40}".prop_map(String::into_bytes),
        "((t|ts|time|v1|h1|sig1)=[0-9a-f]{0,64}[,;]? ?){0,8}".prop_map(String::into_bytes),
        "Bearer .{0,60}".prop_map(String::into_bytes),
        "(NO_SECRET_PROVIDED|[ -~]{0,20}){0,3}".prop_map(String::into_bytes),
    ]
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..300),
        "(signature|transloadit|%7[0-9a-g])?(=|&|%|\\+|sha384:|[0-9a-f]){0,120}"
            .prop_map(String::into_bytes),
        ("[0-9a-f]{96}", ".{0,30}").prop_map(|(signature, payload)| {
            format!("signature=sha384%3A{signature}&transloadit={payload}").into_bytes()
        }),
    ]
}

/// The headers that the row reads, each with any value, and one it does not read.
fn header_names(row: &Row) -> Vec<String> {
    let mut names: Vec<String> =
        row.wire(&row.seal(&[1])).headers.into_iter().map(|(name, _)| name).collect();
    names.push("x-other".into());
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn unsigned_request_never_verifies(
        values in vec(values(), 6),
        body in bodies(),
        extra in vec(("[a-zA-Z-]{0,12}", values()), 0..3),
    ) {
        for row in rows() {
            let names = header_names(&row);
            let mut headers: Vec<_> = names.into_iter().zip(values.clone()).collect();
            headers.extend(extra.clone());
            let wire = Wire { headers, body: body.clone() };
            let verification = wire.verify(&row, &row.secrets(&[1, 2]), noon());
            let verified = matches!(verification, Verification::Verified { .. });
            prop_assert!(!verified, "{} {wire:?}", row.sender);
        }
    }

    #[test]
    fn signed_payload_always_verifies(
        payload in "\\PC{0,80}",
        id in "[a-zA-Z0-9_-]{1,40}",
        age in -300i64..=300,
    ) {
        for row in rows() {
            let wire = row.wire(&row.seal_with(payload.as_bytes(), &id, &row.stamp(NOON - age), &[1]));
            let verification = wire.verify(&row, &row.secrets(&[1]), noon());
            let verified = matches!(verification, Verification::Verified { .. });
            prop_assert!(verified, "{} {verification:?} {wire:?}", row.sender);
        }
    }

    #[test]
    fn verifier_never_panics_on_changed_headers(at in 0usize..6, value in values()) {
        for row in rows() {
            let mut wire = row.wire(&row.seal_with(b"{}", ID, &row.stamp(NOON), &[1]));
            if let Some(header) = wire.headers.get_mut(at) {
                header.1.clone_from(&value);
            }
            let _ = wire.verify(&row, &row.secrets(&[1]), noon());
        }
    }

    #[test]
    fn scheme_parses_any_template_without_panic(
        template in "(\\PC|[{}]|\\{(body|id|timestamp|secret|header:x|form:f)\\}){0,12}",
        secrets in "(whsec_|whpk_)?\\PC{0,60}",
    ) {
        let _ = Content::parse(&template);
        let scheme = json!({
            "method": {"kind": "hmac", "hash": "sha256"},
            "carrier": {"kind": "header", "header": "x-sig"},
            "encoding": "hex", "key": {"form": "text"}, "content": template,
        });
        let _: Result<SignatureScheme, _> = serde_json::from_value::<SignatureScheme>(scheme);
        for row in rows() {
            let _ = row.scheme.parse_secrets(&secrets);
        }
    }
}
