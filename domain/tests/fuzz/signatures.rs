//! Every scheme of the verifier: mutations of requests that were signed. Whatever verifies
//! must be one of them, whole: the same signed body, and the same verification.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::verifier::{Verification, VerifierSecrets};
use url::form_urlencoded;

use super::mutation;
use super::random::Random;
use super::run::run;
use crate::sender::{ID, NOON, PAYLOAD, Row, Wire, noon, rows};

/// A scheme, the secrets in force, and requests to begin with.
struct Sender {
    row: Row,
    secrets: VerifierSecrets,
    secret_texts: Vec<String>,
    requests: Vec<Request>,
}

struct Request {
    wire: Wire,
    verification: Verification,
}

impl Sender {
    fn new(row: Row) -> Self {
        let secrets = row.secrets(&[1, 2]);
        let sealed = [
            (PAYLOAD, ID, NOON, &[1][..]),
            (b"{}", "msg_2", NOON - 299, &[2]),
            ("{\"text\":\"ü & = % + 1\"}".as_bytes(), "3", NOON + 10, &[2, 1]),
            (b"1700000000", "msg_4", NOON, &[1]),
            // None of the secrets in force.
            (b"{\"stranger\":1}", "msg_5", NOON, &[3]),
            // In force, and long ago.
            (b"{\"old\":1}", "msg_6", NOON - 1_000_000, &[1]),
        ];
        let requests = sealed.map(|(payload, id, at, numbers)| {
            let wire = row.wire(&row.seal_with(payload, id, &row.stamp(at), numbers));
            let verification = wire.verify(&row, &secrets, noon());
            Request { wire, verification }
        });
        let secret_texts = vec![row.secret_text(1), row.secret_text(2)];
        Self { row, secrets, secret_texts, requests: requests.into() }
    }

    /// What the signature is about: the body, or the one field of it that is signed. Of
    /// multipart only the verification can tell, by the hash in it.
    fn signed_part(&self, wire: &Wire) -> Vec<u8> {
        let content = self.row.raw["content"].as_str().unwrap_or_default();
        let Some((_, rest)) = content.split_once("{form:") else { return wire.body.clone() };
        if wire.body.starts_with(b"--") {
            return Vec::new();
        }
        let field = rest.split_once('}').unwrap().0;
        let fields = form_urlencoded::parse(&wire.body).filter(|(name, _)| name == field);
        // All of them: one that is there twice may be read as either.
        fields.flat_map(|(_, value)| format!("{value}\n").into_bytes()).collect()
    }

    fn mutated(&self, random: &mut Random) -> Wire {
        let mut wire = random.of(&self.requests).wire.clone();
        for _ in 0..=random.below(2) {
            let other = &random.of(&self.requests).wire;
            match random.below(6) {
                0 => mutation::bytes(random, &mut wire.body, &[&other.body]),
                1 => wire.body.clone_from(&other.body),
                // The fields of a form twice.
                2 => wire.body.extend([b"&", other.body.as_slice()].concat()),
                _ => self.mutate_header(random, &mut wire, other),
            }
        }
        wire
    }

    fn mutate_header(&self, random: &mut Random, wire: &mut Wire, other: &Wire) {
        if wire.headers.is_empty() {
            return;
        }
        let at = random.below(wire.headers.len());
        let lent = random.of(&other.headers).1.clone();
        match random.below(8) {
            0 => drop(wire.headers.remove(at)),
            1 => wire.headers.push(wire.headers[at].clone()),
            2 => wire.headers[at].1 = lent,
            3 => wire.headers[at].0 = wire.headers[at].0.to_lowercase(),
            // The same header of another request: a signature moved to another body.
            4 => {
                let name = wire.headers[at].0.clone();
                let same = other.headers.iter().find(|(other, _)| *other == name);
                wire.headers[at].1 = same.map(|(_, value)| value.clone()).unwrap_or_default();
            }
            5 => wire.headers[at].1.extend(lent),
            _ => mutation::bytes(random, &mut wire.headers[at].1, &[&lent]),
        }
    }

    /// Whether the request verified, as it then may.
    fn check(&self, wire: &Wire) -> bool {
        let verification = wire.verify(&self.row, &self.secrets, noon());
        if !matches!(verification, Verification::Verified { .. }) {
            return false;
        }
        if self.row.is_token() {
            let known = |value: &[u8]| {
                let text = String::from_utf8_lossy(value);
                let written = |secret: &String| {
                    text.contains(secret) || text.contains(&STANDARD.encode(secret))
                };
                self.secret_texts.iter().any(written)
            };
            assert!(wire.headers.iter().any(|(_, value)| known(value)), "{wire:?}");
            return true;
        }
        let signed = self.signed_part(wire);
        let whole = self.requests.iter().any(|request| {
            request.verification == verification && self.signed_part(&request.wire) == signed
        });
        assert!(whole, "{} verifies what was never signed: {wire:?}", self.row.sender);
        true
    }
}

#[test]
fn verifier() {
    let senders: Vec<Sender> = rows().into_iter().map(Sender::new).collect();
    for sender in &senders {
        let good = sender.requests.iter().take(4);
        for request in good {
            let verified = matches!(request.verification, Verification::Verified { .. });
            assert!(verified, "{} {:?}", sender.row.sender, request.verification);
        }
        let stranger = &sender.requests[4].verification;
        assert!(matches!(stranger, Verification::Invalid(_)), "{stranger:?}");
    }
    run("verifier", 4_000, |random| {
        let sender = random.of(&senders);
        let wire = sender.mutated(random);
        sender.check(&wire)
    });
}
