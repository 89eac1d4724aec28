//! How a render whose submit was not answered is found again.

use domain::provider::EchoMask;
use domain::provider::answer::ProviderAnswer;
use domain::provider::request::ListPage;
use domain::provider::spec::{ListSpec, SubmitSafety};
use domain::provider::{ListAnswer, ProviderSpec};

use crate::facts::SearchFact;
use crate::matrix::Matrix;
use crate::meaning;
use crate::requests::key_for;
use crate::tested_provider::{TestedProvider, job_id, noon};

pub(crate) fn search(subject: &TestedProvider, matrix: &mut Matrix) {
    let Some(list) = list(&subject.provider.spec) else { return };
    for search in &subject.facts.lists {
        let case = format!("{} pages, {}", search.pages.len(), search.is);
        matrix.check(&case, &found(subject, list, search), &search.is);
    }
}

/// Reads the pages as long as there is a next one, as the tracker does, and wants each of
/// them at its own URL.
fn found(subject: &TestedProvider, list: &ListSpec, search: &SearchFact) -> String {
    let key = key_for(&subject.provider);
    let mut page = ListPage::First;
    let mut seen = 0;
    let mut answer = None;
    for fact in &search.pages {
        let request = subject.provider.list_request(list, &page, noon(), &key).unwrap();
        let url = request.url();
        if url.as_str() != fact.url {
            return format!("a page at {url} instead of {}", fact.url);
        }
        let body = fact.body.to_string();
        let http = ProviderAnswer::read(fact.http, None, body.as_bytes(), &EchoMask::default());
        let read = subject.provider.spec.read_list(list, &job_id(), seen, &http);
        if let ListAnswer::Next(next) = &read {
            if let ListPage::Offset(rows) = next {
                seen = *rows;
            }
            page = next.clone();
        }
        answer = Some(read);
    }
    answer.map(|answer| meaning::list(&answer)).unwrap_or_default()
}

fn list(spec: &ProviderSpec) -> Option<&ListSpec> {
    match &spec.submit_safety {
        SubmitSafety::List(list) => Some(list),
        SubmitSafety::ClientId {} | SubmitSafety::Callback {} => None,
    }
}
