//! Which callbacks are believed to be the provider's.

use chrono::{DateTime, TimeDelta};
use domain::provider::spec::webhook::{Unsigned, WebhookSpec};
use domain::verifier::{Reason, SignatureScheme, Verification};

use crate::facts::Signature;
use crate::matrix::Matrix;
use crate::signer::{Signed, SignerInput};
use crate::tested_provider::{TestedProvider, noon};

const VERIFIED: &str = "verified";

pub(crate) fn hold(subject: &TestedProvider, matrix: &mut Matrix) {
    let Some(facts) = &subject.facts.signature else { return };
    let Some(webhook) = &subject.provider.spec.webhook else { return };
    let Some(scheme) = &webhook.signature else { return };
    let check = SignatureCheck { facts, scheme };
    let call = SignerInput { secret: &facts.secret, id: "msg_1", at: noon() };

    vectors(&check, matrix);
    bodies(&check, call, matrix);
    check.headers_matter(call, matrix);
    ages(&check, call, matrix);
    rotation(&check, call, matrix);
    replays(&check, call, matrix);
    matrix.check("a signed body is believed", &webhook.believes().to_string(), "true");
    matrix.check("an unsigned body", policy(webhook), &facts.unsigned);
}

struct SignatureCheck<'a> {
    facts: &'a Signature,
    scheme: &'a SignatureScheme,
}

impl SignatureCheck<'_> {
    fn verify(&self, signed: &Signed, secrets: &str, seconds_later: i64) -> Verification {
        let Ok(secrets) = self.scheme.parse_secrets(secrets) else { return Verification::Missing };
        signed.verify(self.scheme, &secrets, noon() + TimeDelta::seconds(seconds_later))
    }

    fn outcome(&self, signed: &Signed) -> String {
        text(&self.verify(signed, &self.facts.secret, 0))
    }

    /// Each header is read, whatever its case, and only if it is there once.
    fn headers_matter(&self, call: SignerInput<'_>, matrix: &mut Matrix) {
        let good = self.facts.sign(call);
        for (index, (name, value)) in good.headers.iter().enumerate() {
            let mut in_capitals = good.clone();
            in_capitals.headers[index].0 = name.to_uppercase();
            matrix.check(&format!("{name} in capitals"), &self.outcome(&in_capitals), VERIFIED);
            let mut without = good.clone();
            without.headers.remove(index);
            matrix.check(&format!("without {name}"), &self.outcome(&without), "missing");
            let mut twice = good.clone();
            twice.headers.push((name.clone(), value.clone()));
            matrix.check(&format!("{name} twice"), &self.outcome(&twice), "malformed");
        }
    }
}

fn vectors(check: &SignatureCheck<'_>, matrix: &mut Matrix) {
    for vector in &check.facts.vectors {
        let headers =
            vector.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let signed = Signed { headers, body: vector.body.clone().into_bytes() };
        let Ok(secrets) = check.scheme.parse_secrets(&vector.secret) else {
            matrix.check("a vector's secret", "refused", "taken");
            continue;
        };
        let now = DateTime::from_timestamp(vector.at, 0).unwrap();
        matrix.check("a vector", &text(&signed.verify(check.scheme, &secrets, now)), VERIFIED);
        let longer = Signed { body: [&signed.body[..], b" "].concat(), ..signed };
        let verification = longer.verify(check.scheme, &secrets, now);
        matrix.check("a vector and a blank more", &text(&verification), "mismatch");
    }
}

/// Not a bit of body or signature can change.
fn bodies(check: &SignatureCheck<'_>, call: SignerInput<'_>, matrix: &mut Matrix) {
    let good = check.facts.sign(call);
    matrix.check("as it was signed", &check.outcome(&good), VERIFIED);

    let changed = each_bit_flipped(&good.body).map(|body| Signed { body, ..good.clone() });
    matrix.check("any bit of the body", &all(changed.map(|s| check.outcome(&s))), "mismatch");

    let signature = check.facts.signature(call);
    let changed = each_bit_flipped(&signature).map(|other| check.facts.sealed(call, &other));
    matrix.check("any bit of the signature", &all(changed.map(|s| check.outcome(&s))), "mismatch");

    let half = check.facts.sealed(call, &signature[..signature.len() / 2]);
    matrix.check("half a signature", &check.outcome(&half), "mismatch");
    let none = check.facts.sealed(call, &[]);
    let refused = check.outcome(&none) != VERIFIED;
    matrix.check("an empty signature is refused", &refused.to_string(), "true");
}

fn ages(check: &SignatureCheck<'_>, call: SignerInput<'_>, matrix: &mut Matrix) {
    let good = check.facts.sign(call);
    let outcome = |later| text(&check.verify(&good, &check.facts.secret, later));
    let day = 86_400;
    match check.facts.max_age_seconds {
        Some(age) => {
            matrix.check("as old as may be", &outcome(age), VERIFIED);
            matrix.check("stale", &outcome(age + 1), "too old");
        }
        None => matrix.check("a day old", &outcome(day), VERIFIED),
    }
    match check.facts.max_ahead_seconds {
        Some(ahead) => {
            matrix.check("as far ahead as may be", &outcome(-ahead), VERIFIED);
            matrix.check("from the future", &outcome(-ahead - 1), "too new");
        }
        None => matrix.check("a day ahead", &outcome(-day), VERIFIED),
    }
    if check.facts.content.contains("{timestamp}") {
        let later = SignerInput { at: call.at + TimeDelta::seconds(1), ..call };
        let moved = check.facts.sealed(later, &check.facts.signature(call));
        matrix.check("another time than signed", &check.outcome(&moved), "mismatch");
    }
}

/// While secrets are changed both are in force.
fn rotation(check: &SignatureCheck<'_>, call: SignerInput<'_>, matrix: &mut Matrix) {
    let Signature { secret, older_secret, strange_secret, .. } = check.facts;
    let both = format!("{secret}, {older_secret}");
    for (case, signer, expected) in [
        ("the newer of two secrets", secret, VERIFIED),
        ("the older of two secrets", older_secret, VERIFIED),
        ("a secret that is not ours", strange_secret, "mismatch"),
    ] {
        let signed = check.facts.sign(SignerInput { secret: signer, ..call });
        matrix.check(case, &text(&check.verify(&signed, &both, 0)), expected);
    }
    let signed = check.facts.sign(SignerInput { secret: older_secret, ..call });
    matrix.check("a secret no longer in force", &check.outcome(&signed), "mismatch");
}

/// A copy gets the same verification and the same id, another callback another id.
fn replays(check: &SignatureCheck<'_>, call: SignerInput<'_>, matrix: &mut Matrix) {
    let good = check.facts.sign(call);
    let first = check.verify(&good, &check.facts.secret, 0);
    let copy = check.verify(&good, &check.facts.secret, 10);
    let same = first == copy && !id_of(&first).is_empty();
    matrix.check("a copy has the same replay id", &same.to_string(), "true");

    if let Some(body) = &check.facts.copy {
        let copy = Signature { body: body.clone(), ..check.facts.clone() };
        let copy = check.verify(&copy.sign(call), &check.facts.secret, 10);
        let same = copy == first;
        matrix.check("a copy with other bytes has it too", &same.to_string(), "true");
    }

    let mut other = check.facts.body.clone();
    other["id"] = "another".into();
    let other = Signature { body: other, ..check.facts.clone() };
    let signed = other.sign(SignerInput { id: "msg_2", ..call });
    let second = check.verify(&signed, &check.facts.secret, 0);
    let differs = text(&second) == VERIFIED && id_of(&second) != id_of(&first);
    matrix.check("another callback has another replay id", &differs.to_string(), "true");
}

fn each_bit_flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut other = bytes.to_vec();
        other[bit / 8] ^= 1 << (bit % 8);
        other
    })
}

/// The one outcome of all, or all the outcomes there are.
fn all(outcomes: impl Iterator<Item = String>) -> String {
    let mut outcomes: Vec<String> = outcomes.collect();
    outcomes.sort();
    outcomes.dedup();
    outcomes.join(", ")
}

fn text(verification: &Verification) -> String {
    let text = match verification {
        Verification::Verified { .. } => VERIFIED,
        Verification::Missing => "missing",
        Verification::Invalid(Reason::Malformed) => "malformed",
        Verification::Invalid(Reason::Mismatch) => "mismatch",
        Verification::Invalid(Reason::TooOld) => "too old",
        Verification::Invalid(Reason::TooNew) => "too new",
        Verification::Invalid(Reason::NoSecretProvided) => "no secret provided",
    };
    text.to_owned()
}

fn id_of(verification: &Verification) -> &str {
    match verification {
        Verification::Verified { replay_id, .. } => replay_id,
        Verification::Missing | Verification::Invalid(_) => "",
    }
}

fn policy(webhook: &WebhookSpec) -> &'static str {
    match webhook.unsigned {
        Unsigned::Hint => "hint",
        Unsigned::Refuse => "refuse",
    }
}
