//! Every provider that ships, compared with what is known of its API.
//!
//! `tests/data/<name>.json` has the facts of one provider: what it answers, what it posts,
//! and what each of that means. They are written down from its documentation, not from our
//! spec of it. The suite runs every fact through the spec and prints how many hold, by
//! provider and kind of fact; `-` says that the provider has no such thing.
//!
//! Nothing in a spec is without a fact: when a part of it is left out or changed, a fact fails.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by a panic, and reports on the terminal"
)]

mod answers;
mod callbacks;
mod facts;
mod lists;
mod matrix;
mod meaning;
mod mutants;
mod requests;
mod scenarios;
mod signatures;
mod signer;
mod tested_provider;

use domain::provider::spec::{ProviderSpec, SubmitSafety};

use self::matrix::Matrix;
use self::tested_provider::{TestedProvider, subjects};

/// One kind of fact: its name, whether a provider has such a thing at all, and the check.
type Group = (&'static str, fn(&ProviderSpec) -> bool, fn(&TestedProvider, &mut Matrix));

const GROUPS: &[Group] = &[
    ("requests", always, requests::are_as_documented),
    ("callback wanted", always, requests::callbacks_are_wanted),
    ("submit accepted", always, answers::acceptances),
    ("submit refused", always, answers::refusals),
    ("submit unclear", always, answers::unclear_submits),
    ("status words", always, answers::words),
    ("unknown words", always, answers::unknown_words),
    ("results", always, answers::results),
    ("results expire", |spec| spec.status.answer.result_expires_after_seconds.is_some(), {
        answers::expiries
    }),
    ("progress", |spec| !spec.status.answer.progress.is_empty(), answers::progress),
    ("failures", always, answers::failures),
    ("status errors", always, answers::status_errors),
    ("callbacks", |spec| spec.webhook.is_some(), callbacks::are_understood),
    ("signatures", signs, signatures::hold),
    ("order and repeats", always, scenarios::end_as_expected),
    ("list search", |spec| matches!(spec.submit_safety, SubmitSafety::List(_)), lists::search),
    ("cancel", |spec| spec.cancel.is_some(), answers::cancellations),
];

fn always(_: &ProviderSpec) -> bool {
    true
}

fn signs(spec: &ProviderSpec) -> bool {
    spec.webhook.as_ref().is_some_and(|webhook| webhook.signature.is_some())
}

#[test]
fn spec_matches_every_fact() {
    let mut matrix = Matrix::default();
    for subject in &subjects() {
        run(subject, GROUPS.iter(), &mut matrix);
    }
    println!("{matrix}");
    assert!(matrix.misses().is_empty(), "\n{}", matrix.misses().join("\n"));
}

#[test]
fn spec_mutation_breaks_a_fact() {
    let mut unnoticed = Vec::new();
    for mut subject in subjects() {
        let document = subject.document();
        for mutant in mutants::of(&subject, &document) {
            // By far the slowest, and about nothing else.
            let signed = mutant.change.starts_with("/webhook/signature")
                || mutant.change.starts_with("/webhook/unsigned");
            let groups = GROUPS.iter().filter(|group| signed || group.0 != "signatures");
            subject.provider.base_url = mutant.spec.base_urls["default"].clone();
            subject.provider.spec = mutant.spec;
            let mut matrix = Matrix::default();
            run(&subject, groups, &mut matrix);
            if matrix.misses().is_empty() {
                unnoticed.push(format!("{}: {}", subject.name(), mutant.change));
            }
        }
    }
    assert!(unnoticed.is_empty(), "no fact is about\n{}", unnoticed.join("\n"));
}

fn run<'a>(subject: &TestedProvider, groups: impl Iterator<Item = &'a Group>, matrix: &mut Matrix) {
    for (group, has_it, check) in groups {
        matrix.begin(group, subject.name(), has_it(&subject.provider.spec));
        check(subject, matrix);
    }
}
