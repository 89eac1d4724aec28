//! What providers answer and post, and their specs. Bodies are grown from each spec's own
//! pointers and words, so a provider that is added is fuzzed without a line here.

use chrono::{DateTime, Utc};
use domain::id::{JobId, RenderJobId};
use domain::job::{Observation, RenderStatus};
use domain::provider::EchoMask;
use domain::provider::ProviderKey;
use domain::provider::answer::{ProviderAnswer, REFUSES_A_SUBMIT};
use domain::provider::catalogue::{Adjustments, Catalogue, Provider};
use domain::provider::key::KeyHost;
use domain::provider::pointer::Pointer;
use domain::provider::request::{ListPage, SubmitParts};
use domain::provider::spec::SubmitSafety;
use domain::provider::spec::webhook::WebhookKind;
use domain::provider::{
    CancelAnswer, HttpRequest, ListAnswer, ProviderSpec, StatusAnswer, SubmitAnswer,
};
use serde_json::{Map, Value, json};

use super::mutation;
use super::random::Random;
use super::requests::members;
use super::run::run;
use crate::sender::{Form, noon};

/// A provider and what its bodies are grown from.
struct Soil {
    provider: Provider,
    document: Value,
    pointers: Vec<Pointer>,
    values: Vec<Value>,
}

const STATUSES: [u16; 20] = [
    200, 201, 202, 204, 101, 301, 400, 401, 402, 403, 404, 408, 409, 422, 425, 429, 500, 502, 503,
    599,
];

fn job() -> JobId {
    JobId::from_bytes([7; 16])
}

fn asked() -> RenderJobId {
    RenderJobId::parse("r-1").unwrap()
}

fn soils() -> Vec<Soil> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../providers");
    let catalogue = Catalogue::load(&Adjustments::default()).unwrap();
    let soils = catalogue.names().map(|name| {
        let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let texts: Vec<String> = members(&document)
            .into_iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .chain(rule_pointers(&document))
            .collect();
        let pointers = texts.iter().filter(|text| text.starts_with('/'));
        let pointers = pointers.map(|text| Pointer::parse(&text.replace('*', "0")).unwrap());
        let mut values: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
        values.extend([
            json!(true),
            json!(job()),
            json!(job().as_uuid()),
            json!("r-1"),
            json!(".."),
            json!("https://cdn.example/video.mp4"),
            json!(0.5),
            json!([{"id": "r-1"}, null]),
        ]);
        let provider = catalogue.get(name).unwrap().as_ref().clone();
        Soil { provider, pointers: pointers.collect(), values, document }
    });
    soils.collect()
}

/// The pointers that are keys, not values: those of `when`.
fn rule_pointers(document: &Value) -> Vec<String> {
    let rules = document.pointer("/webhook/rules").and_then(Value::as_array);
    let whens = rules.into_iter().flatten().filter_map(|rule| rule["when"].as_object());
    whens.flat_map(|when| when.keys().cloned()).collect()
}

impl Soil {
    fn grown(&self, random: &mut Random) -> Value {
        let mut body = if random.once_in(8) { json!([null]) } else { json!({}) };
        for _ in 0..1 + random.below(6) {
            if let Some(place) = random.of(&self.pointers).make(&mut body) {
                *place = random.of(&self.values).clone();
            }
        }
        // Most callbacks are of a kind that some rule names.
        if let Some(rules) = self.document.pointer("/webhook/rules").and_then(Value::as_array)
            && let Some(when) = random.of(rules)["when"].as_object()
        {
            for (at, value) in when {
                if let Some(place) = Pointer::parse(at).unwrap().make(&mut body) {
                    *place = value.clone();
                }
            }
        }
        mutation::json(random, &mut body, &self.values);
        body
    }

    fn body(&self, random: &mut Random) -> Vec<u8> {
        let body = self.grown(random);
        match &body {
            Value::Object(members) if random.once_in(8) => form(random, members),
            _ => mutation::text(random, &body),
        }
    }
}

/// A form in either way of writing one, broken once in a while.
fn form(random: &mut Random, members: &Map<String, Value>) -> Vec<u8> {
    let way = *random.of(&[Form::UrlEncoded, Form::Multipart]);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields = members.iter().map(|(name, value)| (name.as_str(), text(value).into_bytes()));
    let mut form = way.written(fields);
    if random.once_in(2) {
        mutation::bytes(random, &mut form, &[b"--bound-ary", b"; name=\"", b"\r\n\r\n"]);
    }
    form
}

/// What must hold of anything that we store of a provider.
fn check(observation: &Observation) {
    let word = &observation.provider_status;
    assert!(word.chars().count() <= 64 && !word.chars().any(char::is_control), "{word:?}");
    assert!(observation.progress.is_none_or(|p| (0.0..=1.0).contains(&p)), "{observation:?}");
    if let RenderStatus::Failed(failure) = &observation.status {
        assert!(failure.message.chars().count() <= 301, "{failure:?}");
    }
}

fn check_id(id: &RenderJobId) {
    assert!(!id.as_str().is_empty() && !matches!(id.as_str(), "." | ".."), "{id}");
}

/// A target for each provider that calls back: its decoder, and nothing else.
#[test]
fn callbacks() {
    for soil in soils() {
        let spec = &soil.provider.spec;
        let Some(webhook) = &spec.webhook else { continue };
        run(&format!("callbacks::{}", spec.name), 3_000, |random| {
            let body = soil.body(random);
            let Ok(callback) = spec.read_callback(&body, &EchoMask::default(), noon()) else {
                return false;
            };
            assert_eq!(
                spec.read_callback(&body, &EchoMask::default(), noon()).as_ref(),
                Ok(&callback)
            );
            callback.render_job_id.iter().for_each(check_id);
            if let Some(claim) = &callback.claim {
                check(claim);
                assert!(webhook.believes(), "{callback:?}");
            }
            callback.kind != WebhookKind::Ignore
        });
    }
}

#[test]
fn answers() {
    let soils = soils();
    run("answers", 20_000, |random| {
        let soil = random.of(&soils);
        let body = soil.body(random);
        let status = match random.below(8) {
            0 => u16::from(random.byte()) * 4,
            1..4 => 200 + u16::try_from(random.below(3)).unwrap(),
            _ => *random.of(&STATUSES),
        };
        check_answers(&soil.provider.spec, status, &body, noon())
    });
}

/// Whether a render was accepted or its state observed.
fn check_answers(spec: &ProviderSpec, status: u16, body: &[u8], now: DateTime<Utc>) -> bool {
    let answer = &ProviderAnswer::read(status, None, body, &EchoMask::default());
    let mut is_informative = false;
    match spec.read_submit(answer) {
        SubmitAnswer::Accepted(id) => {
            is_informative = true;
            check_id(&id);
            assert!(spec.submit.accepted.contains(&status), "{status} was accepted");
        }
        // A render that may exist is never called off.
        SubmitAnswer::Rejected(rejection) => {
            let has_rule = spec.errors.iter().any(|rule| rule.http.contains(&status));
            assert!(has_rule || REFUSES_A_SUBMIT.contains(&status), "{rejection:?}");
        }
        SubmitAnswer::Unclear => {}
    }
    if let StatusAnswer::Observed(observation) = spec.read_status(&asked(), answer, now) {
        assert!((200..=299).contains(&status), "{status} {observation:?}");
        assert_eq!(observation.render_job_id, Some(asked()));
        check(&observation);
        is_informative = true;
    }
    if let SubmitSafety::List(list) = &spec.submit_safety {
        match spec.read_list(list, &job(), 3, answer) {
            ListAnswer::Found(id) => {
                check_id(&id);
                let text = String::from_utf8_lossy(body).to_lowercase();
                let ids = [job().to_string(), job().as_uuid(), job().as_uuid().replace('-', "")];
                assert!(ids.iter().any(|id| text.contains(id)), "{text}");
            }
            ListAnswer::Next(ListPage::Offset(rows)) => assert!(rows > 3, "no progress"),
            ListAnswer::Next(_) | ListAnswer::Absent | ListAnswer::Unavailable { .. } => {}
        }
    }
    if let Some(cancel) = &spec.cancel {
        let accepted = spec.read_cancel(cancel, answer) == CancelAnswer::Accepted;
        assert_eq!(accepted, cancel.accepted.contains(&status));
    }
    is_informative
}

#[test]
fn specs() {
    let soils = soils();
    let documents: Vec<Value> = soils.iter().map(|soil| soil.document.clone()).collect();
    let mut others: Vec<Value> = documents.iter().flat_map(members).collect();
    others.extend([json!(0), json!(u64::MAX), json!("http://x/"), json!("/{id}"), json!({})]);
    run("specs", 8_000, |random| {
        let mut document = random.of(&documents).clone();
        for _ in 0..=random.below(3) {
            mutation::json(random, &mut document, &others);
        }
        let text = mutation::text(random, &document);
        let Ok(spec) = ProviderSpec::parse("x", &String::from_utf8_lossy(&text)) else {
            return false;
        };
        let body = random.of(&soils).body(random);
        let status = *random.of(&STATUSES);
        // What a spec of our own must do, a stranger's spec must do too.
        check_answers(&spec, status, &body, noon());
        let _ = spec.read_callback(&body, &EchoMask::default(), noon());
        requests_stay_below(&spec);
        true
    });
}

/// Whatever the spec, requests can be sent, and go to its own host by https.
fn requests_stay_below(spec: &ProviderSpec) {
    let base_url = spec.base_urls.get("default").unwrap().clone();
    // A base URL whose host is none gets no key.
    let Some(host) = KeyHost::of(&base_url) else { return };
    let key = ProviderKey::new("k", vec![host]).unwrap();
    let provider = Provider { spec: spec.clone(), base_url };
    let stays = |request: &HttpRequest| {
        let url = request.url();
        assert_eq!(url.scheme(), "https", "{url}");
        assert_eq!(url.origin(), provider.base_url.origin(), "{url}");
        for (name, value) in request.headers() {
            assert!(http::HeaderName::try_from(name).is_ok(), "{name:?}");
            assert!(http::HeaderValue::try_from(value).is_ok(), "{value:?}");
        }
    };
    let id = RenderJobId::parse("../x?y#z@evil.example").unwrap_or_else(|_| asked());
    stays(&provider.status_request(&id, &key).unwrap());
    let payload = Map::new();
    let submission = SubmitParts {
        payload: &payload,
        job_id: &job(),
        callback_url: Some("https://relay.example/cb"),
        api_key: &key,
    };
    if let Ok(request) = provider.submit_request(&submission) {
        stays(&request);
    }
    if let Some(cancel) = &spec.cancel {
        stays(&provider.cancel_request(cancel, &id, &key).unwrap());
    }
    if let SubmitSafety::List(list) = &spec.submit_safety {
        let page = ListPage::Offset(9);
        stays(&provider.list_request(list, &page, noon(), &key).unwrap());
    }
}
