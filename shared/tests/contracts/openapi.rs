//! `docs/openapi.yaml` against the template's routes, the code's problem codes and the API's
//! views.

use std::collections::BTreeSet;

use aws_in_memory::InMemoryAws;
use domain::address::TargetPolicy;
use domain::attempt::AttemptError;
use domain::credential::{ApiKey, KeyCreator, KeyRecord, Scope};
use domain::delivery::{Delivery, GiveUpReason};
use domain::endpoint::{Endpoint, EndpointLimits, Health, HoldReason};
use domain::event::{EventName, EventSet, TestEvent};
use domain::headers::{CustomHeaders, ReceiverHeaders};
use domain::id::{KeyId, KeyName, KeyOwner, ProviderName};
use domain::job::State;
use domain::polling::{Pause, PauseReason};
use domain::provider::catalogue::Adjustments;
use domain::request::{JobRequest, KeyRequest, ReceiverSettings};
use domain::signature::{GracePeriod, Rotation, SignatureType, SigningSecrets, WebhookSecret};
use serde_json::{Value, json};
use shared::api::Route;
use shared::provider_specs::ProviderSpecs;
use shared::store::WebhookConfig;
use shared::view;

use crate::contract::Contract;
use crate::{source, values};

fn document() -> Value {
    serde_saphyr::from_str(&source::text("docs/openapi.yaml")).unwrap()
}

fn schema(name: &str) -> Contract {
    Contract::closed_at(&document(), &format!("/components/schemas/{name}"))
}

fn named(schema: &str) -> BTreeSet<String> {
    let document = document();
    let names = document["components"]["schemas"][schema]["enum"].as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// The route keys of the template, such as `GET /v1/jobs/{jobId}`.
fn template_routes() -> BTreeSet<String> {
    let template: Value = serde_saphyr::from_str(&source::text("template.yaml")).unwrap();
    let resources = template["Resources"].as_object().unwrap().values();
    let routes = resources.filter(|resource| resource["Type"] == "AWS::ApiGatewayV2::Route");
    routes.map(|route| route["Properties"]["RouteKey"].as_str().unwrap().to_owned()).collect()
}

/// The template's routes as an API's users see them. One takes what the other routes of callbacks
/// do not: the methods that registration checks use, for the same paths.
fn offered_routes() -> BTreeSet<String> {
    let mut routes = template_routes();
    assert!(routes.remove("ANY /v1/webhooks/{proxy+}"), "{routes:?}");
    let of_callbacks: Vec<String> = routes
        .iter()
        .filter_map(|route| route.strip_prefix("POST /v1/webhooks/").map(str::to_owned))
        .collect();
    assert_eq!(of_callbacks.len(), 2);
    let checks = of_callbacks.iter().flat_map(|path| {
        ["GET", "HEAD", "OPTIONS"].map(|method| format!("{method} /v1/webhooks/{path}"))
    });
    routes.extend(checks);
    routes
}

#[test]
fn openapi_lists_exactly_the_routes() {
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    let operations: BTreeSet<String> = paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    assert_eq!(operations, offered_routes());
}

/// Each route with the scope that it needs, as the code has them.
#[test]
fn routes_need_the_documented_scopes() {
    let routes: BTreeSet<String> = Route::ALL.map(Route::key).map(str::to_owned).into();
    assert_eq!(routes.len(), Route::ALL.len(), "no key twice");
    let mut of_callers = template_routes();
    of_callers.retain(|route| !route.contains("/v1/webhooks/"));
    assert_eq!(routes, of_callers);
    let document = document();
    for route in Route::ALL {
        let (method, path) = route.key().split_once(' ').unwrap();
        let operation = &document["paths"][path][method.to_lowercase()];
        let security = json!([{"apiKey": [route.scope().name()]}]);
        assert_eq!(operation["security"], security, "{}", route.key());
    }
}

/// The failure codes, from the one `match` that names each of them.
fn failure_codes() -> BTreeSet<String> {
    texts(source::between(&source::text("domain/src/failure.rs"), "=> \"", "\""))
}

#[test]
fn openapi_lists_exactly_the_problem_codes() {
    let folders = ["shared/src", "functions"].map(|folder| source::root().join(folder));
    let mut codes = BTreeSet::new();
    for (file, code) in folders.iter().flat_map(|folder| source::rust_below(folder)) {
        let mut calls = source::between(&code, "Problem::new(", ";");
        if file.ends_with("shared/src/api.rs") {
            calls.extend(source::between(&code, "Self::new(", ";"));
        }
        for call in calls {
            match call.split(',').nth(1).unwrap().trim() {
                literal if literal.starts_with('"') => {
                    codes.insert(literal.trim_matches('"').to_owned());
                }
                // A rejected submit has the failure's code.
                "failure.code.name()" => {
                    codes
                        .extend(failure_codes().into_iter().filter(|c| c.starts_with("provider_")));
                }
                other => panic!("{}: `{other}` is not a known form of a code", file.display()),
            }
        }
    }
    assert_eq!(named("ProblemCode"), codes);
}

#[test]
fn openapi_problem_codes_all_have_answers() {
    let text = source::text("docs/openapi.yaml");
    let answers = text.split("  schemas:").next().unwrap();
    for code in named("ProblemCode") {
        assert!(answers.contains(&format!("`{code}`")), "no answer names `{code}`");
    }
}

#[test]
fn openapi_enums_match_the_code() {
    assert_eq!(named("FailureCode"), failure_codes());
    assert_eq!(named("JobState"), texts(State::ALL.map(State::name)));
    assert_eq!(named("Scope"), texts(Scope::ALL.map(Scope::name)));
    assert_eq!(named("EventName"), texts(EventName::ALL.map(EventName::as_str)));
    let document = document();
    let errors =
        document["components"]["schemas"]["Attempt"]["properties"]["error"]["enum"].clone();
    let names = AttemptError::ALL.iter().map(|error| json!(error.name()));
    assert_eq!(errors, names.chain([json!("status"), Value::Null]).collect::<Value>());
    let held = HoldReason::ALL.map(HoldReason::name);
    let given_up = GiveUpReason::ALL.map(GiveUpReason::name);
    assert_eq!(named("DeliveryReason"), texts(held.into_iter().chain(given_up)));
}

#[test]
fn job_view_fits_openapi() {
    let contract = schema("Job");
    let mut states = BTreeSet::new();
    for job in values::lives().into_iter().flatten() {
        states.insert(job.state.name());
        contract.assert_valid(job.state.name(), &view::job(&job, None));
        for delivery in values::deliveries() {
            contract.assert_valid(job.state.name(), &view::job(&job, Some(&delivery)));
        }
    }
    assert_eq!(states, State::ALL.map(State::name).into_iter().collect());
}

#[test]
fn job_view_separates_end_from_settlement() {
    let ended = values::lives().into_iter().flatten().find(|job| job.state == State::Completed);
    let ended = ended.unwrap();
    let shown = view::job(&ended, None);
    assert!(!ended.outbox.is_empty() && shown["endedAt"].is_string());
    assert_eq!(shown["settledAt"], Value::Null, "its event is not published yet");

    let later = values::noon() + chrono::TimeDelta::hours(1);
    let settled = ended.mark_all_published().settle(chrono::TimeDelta::zero(), later);
    let shown = view::job(&settled.unwrap(), None);
    assert_eq!(shown["settledAt"], domain::time::text(later));
}

#[test]
fn delivery_view_fits_openapi() {
    let contract = schema("Delivery");
    let test = TestEvent::new([7; 16], values::noon());
    let test = Delivery::of_test(&test, "https://shop.example/hooks", values::noon()).unwrap();
    for delivery in values::deliveries().into_iter().chain([test]) {
        contract.assert_valid(delivery.state.name(), &view::delivery(&delivery));
    }
}

#[test]
fn webhook_config_view_fits_openapi() {
    let contract = schema("WebhookConfig");
    let url = "https://shop.example/hooks";
    let headers = CustomHeaders::from_json(json!({"x-key": "k"})).unwrap();
    let headers = ReceiverHeaders::new(url, headers).unwrap();
    let secret = |kind| WebhookSecret::from_random(kind, [7; 32]);
    let single = SigningSecrets::parse(&secret(SignatureType::V1).reveal()).unwrap();
    let (grace, now) = (GracePeriod::default(), values::noon());
    let rotated = single.rotate(secret(SignatureType::V1a), grace, now).unwrap();
    let events = EventSet::terminal();
    let limits = EndpointLimits::new(Some(5), None).unwrap();
    let config = WebhookConfig { url: Some(url.into()), events, limits, updated_at: now };
    let endpoint = Endpoint::unknown(url);
    let shown = view::webhook_config(&config, &endpoint, Some(&headers), Some(&rotated), now);
    contract.assert_valid("with all members", &shown);
    assert_eq!(shown["secrets"].as_array().unwrap().len(), 2);
    assert_eq!(shown["headerNames"], json!(["x-key"]));
    contract.assert_valid(
        "with few members",
        &view::webhook_config(&config, &endpoint, None, None, now),
    );
}

#[tokio::test]
async fn provider_view_fits_openapi() {
    let contract = schema("Provider");
    let aws = InMemoryAws::new(&[]);
    let acme = source::text("providers/zvid.json").replace("\"zvid\"", "\"acme\"");
    aws.put_spec("acme", &acme).await.unwrap();
    aws.put_spec("broken", "{").await.unwrap();
    aws.put_spec("shotstack", "{").await.unwrap();
    aws.put_spec("json2video", &source::text("providers/json2video.json")).await.unwrap();
    let specs = ProviderSpecs::load(aws.store(), Adjustments::default()).await.unwrap();
    for (name, origin, in_force, replaces) in [
        ("zvid", "shipped", true, false),
        ("acme", "stored", true, false),
        ("broken", "stored", false, false),
        ("shotstack", "stored", false, false),
        ("json2video", "stored", true, true),
    ] {
        let name = ProviderName::parse(name).unwrap();
        let since = chrono::DateTime::UNIX_EPOCH;
        let pause = Pause {
            since,
            until: since,
            failures: 2,
            reason: PauseReason::UnreadableAnswer,
            status: in_force.then_some(200),
            renders: 3,
            spec: 0,
        };
        let pauses = [(7, name.clone(), pause)];
        let shown = view::provider(&name, &specs.in_force(), &pauses);
        assert_eq!(shown["pauses"][0]["reason"], "unreadable_answer");
        let name = name.as_str();
        contract.assert_valid(name, &shown);
        assert_eq!((&shown["origin"], &shown["inForce"]), (&json!(origin), &json!(in_force)));
        assert_eq!(shown["problem"].is_null(), in_force, "{shown}");
        assert_eq!(shown["replacesShipped"], replaces, "{shown}");
    }
}

/// The schema describes only the shape of headers; the code refuses reserved names.
#[test]
fn webhook_config_schema_agrees_with_parser() {
    let at = "/paths/~1v1~1webhook-config/put/requestBody/content/application~1json/schema";
    let contract = Contract::new(
        &json!({"$ref": format!("#{at}"), "paths": document()["paths"], "components": document()["components"]}),
    );
    let url = "https://shop.example/hooks";
    for (valid, body) in [
        (true, json!({"url": url})),
        (true, json!({"url": url, "events": null, "headers": null})),
        (true, json!({"url": url, "events": ["video.render.failed"], "headers": {"x-a": "b"}})),
        (false, json!({})),
        (false, json!({"url": 5})),
        (false, json!({"url": url, "events": []})),
        (false, json!({"url": url, "events": ["webhook.test"]})),
        (false, json!({"url": url, "headers": []})),
        (false, json!({"url": url, "headers": {"": "b"}})),
        (false, json!({"url": url, "headers": {"x-a": ""}})),
        (false, json!({"url": url, "headers": {"x-a": 5}})),
        (true, json!({"url": url, "maxInFlight": 50, "ratePerSecond": 100})),
        (true, json!({"url": url, "maxInFlight": null, "ratePerSecond": null})),
        (false, json!({"url": url, "maxInFlight": 51})),
        (false, json!({"url": url, "maxInFlight": 0})),
        (false, json!({"url": url, "ratePerSecond": 101})),
        (false, json!({"url": url, "ratePerSecond": 0.5})),
        (false, json!({"url": url, "secret": "x"})),
    ] {
        let parsed = ReceiverSettings::parse(body.to_string().as_bytes(), &TargetPolicy::public());
        assert_eq!((contract.accepts(&body), parsed.is_ok()), (valid, valid), "{body}");
    }
}

#[test]
fn rotation_schema_agrees_with_parser() {
    let at = "/paths/~1v1~1webhook-config~1rotate-secret/post/requestBody/content/application~1json/schema";
    let contract = Contract::new(&json!({"$ref": format!("#{at}"), "paths": document()["paths"]}));
    let secret = WebhookSecret::from_random(SignatureType::V1, [7; 32]).reveal();
    for (valid, body) in [
        (true, json!({})),
        (true, json!({"type": null, "gracePeriodSeconds": null, "secret": null})),
        (true, json!({"type": "v1", "gracePeriodSeconds": 604_800, "secret": secret})),
        (true, json!({"type": "v1a", "gracePeriodSeconds": 0})),
        (false, json!({"type": "v2"})),
        (false, json!({"gracePeriodSeconds": 604_801})),
        (false, json!({"gracePeriodSeconds": -1})),
        (false, json!({"gracePeriodSeconds": "60"})),
        (false, json!({"secret": 5})),
        (false, json!({"secret": "secret"})),
        (false, json!({"grace": 5})),
    ] {
        let parsed = Rotation::parse(body.to_string().as_bytes());
        assert_eq!((contract.accepts(&body), parsed.is_ok()), (valid, valid), "{body}");
    }
}

#[test]
fn api_key_view_fits_openapi() {
    let contract = schema("ApiKey");
    let key = ApiKey::from_random([7; 32]);
    for created_by in [KeyCreator::Operator, KeyCreator::Key(KeyId::from_bytes([8; 16]))] {
        let record = KeyRecord {
            id: KeyId::from_bytes([7; 16]),
            name: KeyName::parse("shop").unwrap(),
            owner: KeyOwner::parse("ops").unwrap(),
            scopes: Scope::ALL.into_iter().collect(),
            hash: key.hash(),
            created_at: values::noon(),
            created_by,
        };
        let mut shown = view::api_key(&record);
        contract.assert_valid("a listed key", &shown);
        shown["key"] = key.reveal().into();
        contract.assert_valid("a new key", &shown);
    }
}

#[test]
fn key_request_schema_agrees_with_parser() {
    let contract = schema("KeyRequest");
    let minimal = json!({"name": "shop", "owner": "ops", "scopes": ["read"]});
    let mut requests = vec![(true, minimal.clone())];
    for (valid, member, value) in [
        (true, "name", json!("A.b-c_9")),
        (true, "name", json!("x".repeat(64))),
        (true, "owner", json!("ä".repeat(128))),
        (true, "scopes", json!(Scope::ALL.map(Scope::name))),
        (false, "name", json!("x".repeat(65))),
        (false, "name", json!("key_1")),
        (false, "name", json!("two words")),
        (false, "name", json!("")),
        (false, "name", Value::Null),
        (false, "owner", json!("")),
        (false, "owner", json!("ä".repeat(129))),
        (false, "owner", json!(7)),
        (false, "scopes", json!([])),
        (false, "scopes", json!(["all"])),
        (false, "scopes", json!("read")),
        (false, "scopes", Value::Null),
        (false, "key", json!("rr_mine")),
    ] {
        let mut request = minimal.clone();
        request[member] = value;
        requests.push((valid, request));
    }
    for (valid, request) in requests {
        let parsed = KeyRequest::parse(request.to_string().as_bytes());
        assert_eq!((contract.accepts(&request), parsed.is_ok()), (valid, valid), "{request}");
    }
}

#[test]
fn delivery_line_view_fits_openapi() {
    let contract = schema("DeliveryLine");
    for delivery in values::deliveries() {
        contract.assert_valid(delivery.state.name(), &view::delivery_line(&delivery));
    }
}

#[test]
fn endpoint_view_fits_openapi() {
    let contract = schema("EndpointHealth");
    let mut states = BTreeSet::new();
    for endpoint in values::endpoints() {
        let shown = view::endpoint(&endpoint, values::noon());
        states.insert(endpoint.health(values::noon()).name());
        contract.assert_valid("an endpoint", &shown);
    }
    assert_eq!(states, Health::ALL.map(Health::name).into_iter().collect());
}

#[test]
fn job_request_schema_agrees_with_parser() {
    let contract = schema("JobRequest");
    let minimal = json!({"provider": "zvid", "payload": {}, "sourceRecordId": "p-1"});
    let with = |member: &str, value: Value| {
        let mut request = minimal.clone();
        request[member] = value;
        request
    };
    let mut requests =
        vec![(true, minimal.clone()), (false, with("callbackURL", json!("https://x")))];
    for member in ["payloadVersion", "callbackUrl", "events", "metadata", "providerWebhook"] {
        requests.push((true, with(member, Value::Null)));
    }
    for member in ["provider", "payload", "sourceRecordId"] {
        requests.push((false, with(member, Value::Null)));
    }
    for (member, value) in [
        ("provider", json!("Zvid")),
        ("payload", json!("{}")),
        ("sourceRecordId", json!("")),
        ("sourceRecordId", json!("x".repeat(257))),
        ("payloadVersion", json!(4)),
        ("payloadVersion", json!("x".repeat(129))),
        ("events", json!([])),
        ("events", json!(["video.render.done"])),
        ("metadata", json!([])),
        ("providerWebhook", json!("yes")),
    ] {
        requests.push((false, with(member, value)));
    }
    for (valid, request) in requests {
        let parsed = JobRequest::parse(request.to_string().as_bytes(), &TargetPolicy::public());
        assert_eq!((contract.accepts(&request), parsed.is_ok()), (valid, valid), "{request}");
    }
}

#[test]
fn openapi_examples_fit_their_schemas() {
    let document = document();
    let mut found = Vec::new();
    examples("", &document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for (schema, example) in found {
        Contract::closed_at(&document, &schema).assert_valid(&schema, &example);
    }
    let submits = &document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"];
    let submits = submits["application/json"]["examples"].as_object().unwrap();
    for (name, example) in submits {
        let body = example["value"].to_string();
        let parsed = JobRequest::parse(body.as_bytes(), &TargetPolicy::public());
        assert!(parsed.is_ok(), "{name}: {parsed:?}");
    }
}

/// All examples, each with the pointer of the schema beside it.
fn examples(at: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) => {
            if let Some(examples) = members.get("examples").and_then(Value::as_object) {
                let values = examples.values().map(|example| example["value"].clone());
                found.extend(values.map(|value| (format!("{at}/schema"), value)));
            }
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1").replace('{', "%7B");
                examples(&format!("{at}/{}", name.replace('}', "%7D")), value, found);
            }
        }
        Value::Array(elements) => {
            for (n, value) in elements.iter().enumerate() {
                examples(&format!("{at}/{n}"), value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
