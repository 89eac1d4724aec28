//! `providers/schema.json` against the code that parses specs.

use domain::provider::ProviderSpec;
use serde_json::{Value, json};

use crate::contract::Contract;
use crate::signatures::{self, pairs, signature, timestamp, token};
use crate::source;

fn schema() -> Contract {
    Contract::new(&serde_json::from_str(&source::text("providers/schema.json")).unwrap())
}

fn spec(name: &str) -> Value {
    serde_json::from_str(&source::text(&format!("providers/{name}.json"))).unwrap()
}

#[test]
fn spec_shipped_fits_the_schema() {
    let files = std::fs::read_dir(source::root().join("providers")).unwrap();
    let names = files.map(|file| file.unwrap().path().file_stem().unwrap().to_owned());
    for name in names.filter(|name| name != "schema") {
        let name = name.to_str().unwrap();
        schema().assert_valid(name, &spec(name));
    }
}

/// One change to a shipped spec at a pointer. `Value::Null` removes the member.
struct Mutation(&'static str, &'static str, Value);

impl Mutation {
    fn mutated(&self) -> Value {
        let Self(name, at, value) = self;
        let mut spec = spec(name);
        let (parent, member) = at.rsplit_once('/').unwrap();
        let parent = spec.pointer_mut(parent).unwrap_or_else(|| panic!("{name} has no {at}"));
        match value {
            Value::Null => drop(parent.as_object_mut().unwrap().remove(member).unwrap()),
            value => parent[member] = value.clone(),
        }
        spec
    }

    /// Whether the schema accepts it, and whether the code does.
    fn accepted(&self, schema: &Contract) -> (bool, bool) {
        let spec = self.mutated();
        (schema.accepts(&spec), ProviderSpec::parse(self.0, &spec.to_string()).is_ok())
    }
}

/// Changes that both must refuse.
fn invalid() -> Vec<Mutation> {
    let mut invalid = vec![
        Mutation("zvid", "/name", json!("Zvid")),
        Mutation("zvid", "/name", json!("")),
        Mutation("zvid", "/docs", json!("see the wiki")),
        Mutation("zvid", "/verifiedLive", json!("no")),
        Mutation("zvid", "/baseUrls/default", Value::Null),
        Mutation("zvid", "/baseUrls/default", json!("http://api.zvid.io")),
        Mutation("shotstack", "/baseUrls/stage", json!("api.shotstack.io")),
        Mutation("zvid", "/headers/x-api-key", json!(5)),
        Mutation("zvid", "/headers/x-api-key", json!("{apiKey}\r\nx-more: 1")),
        Mutation("zvid", "/headers", json!({"x api key": "{apiKey}"})),
        Mutation("zvid", "/submit/path", json!("api/render")),
        Mutation("shotstack", "/status/path", json!("/render/{id}?data=false")),
        Mutation("viralsync", "/submitSafety/path", json!("/v1/jobs#new")),
        Mutation("viralsync", "/cancel/path", json!("v1/jobs/{id}/cancel")),
        Mutation("renderio", "/status/answer/resultFollows", json!("yes")),
        Mutation("zvid", "/submit/accepted", json!([])),
        Mutation("zvid", "/submit/accepted", json!([20])),
        Mutation("zvid", "/submit/accepted", json!(["202"])),
        Mutation("zvid", "/submit/id", json!(["jobId"])),
        Mutation("shotstack", "/submit/id", json!([])),
        Mutation("shotstack", "/submit/inject", Value::Null),
        Mutation("zvid", "/submit/inject/callback", json!([])),
        Mutation("zvid", "/submit/inject/callback", json!([{"set": "/a"}])),
        Mutation(
            "zvid",
            "/submit/inject/callback",
            json!([{"set": "/a", "append": "/a", "value": 1}]),
        ),
        Mutation("zvid", "/submit/inject/callback", json!([{"query": "a", "value": 1}])),
        Mutation("zvid", "/submitSafety/kind", json!("hope")),
        Mutation("zvid", "/webhook", Value::Null),
        Mutation("zvid", "/submit/inject/identity", json!([])),
        Mutation("zvid", "/submitSafety", json!({"kind": "clientId", "path": "/renders"})),
        Mutation("zvid", "/submitSafety", json!({"kind": "list"})),
        Mutation("shotstack", "/webhook", Value::Null),
        Mutation("shotstack", "/webhook/perJob", Value::Null),
        Mutation("viralsync", "/submit/id", json!([])),
        Mutation("viralsync", "/submit/inject/identity", Value::Null),
        Mutation("viralsync", "/submitSafety/rows", Value::Null),
        Mutation("viralsync", "/submitSafety/rows", json!("/jobs/*")),
        Mutation("viralsync", "/submitSafety/correlation", Value::Null),
        Mutation("viralsync", "/submitSafety/query", json!({"limit": 100})),
        Mutation("viralsync", "/submitSafety/next", json!({"parameter": "cursor"})),
        Mutation("viralsync", "/submitSafety/next", json!({"token": ["/next"]})),
        Mutation(
            "viralsync",
            "/submitSafety/next",
            json!({"parameter": "cursor", "token": ["/next"], "offset": "offset"}),
        ),
        Mutation("viralsync", "/cancel/method", json!("GET")),
        Mutation("viralsync", "/cancel/method", json!("post")),
        Mutation("viralsync", "/cancel/path", json!("/v1/jobs/cancel")),
        Mutation("viralsync", "/cancel/accepted", json!([])),
        Mutation("viralsync", "/cancel/accepted", json!([600])),
        Mutation("viralsync", "/cancel/accepted", Value::Null),
        Mutation("shotstack", "/status/path", json!("/render")),
        Mutation("zvid", "/status/query", json!({"a": 1})),
        Mutation("zvid", "/status/answer/words/completed", Value::Null),
        Mutation("zvid", "/status/answer/words/completed", json!([])),
        Mutation("zvid", "/status/answer/progress", json!(["/progress"])),
        Mutation("zvid", "/status/answer/resultExpiresAfterSeconds", json!(-1)),
        Mutation("zvid", "/webhook/answer/words/completed", json!([])),
        Mutation("zvid", "/status/answer/resultUrl", json!("http://cdn.example/{result}.mp4")),
        Mutation("zvid", "/webhook/answer/resultUrl", json!("https://cdn.example/video.mp4")),
        Mutation("zvid", "/webhook/perJob", Value::Null),
        Mutation("zvid", "/webhook/perJob", json!(true)),
        Mutation("zvid", "/webhook/perJob/byDefault", Value::Null),
        Mutation("zvid", "/webhook/account/job", Value::Null),
        Mutation("zvid", "/webhook/account/job", json!("/jobId")),
        Mutation("zvid", "/webhook/signature", Value::Null),
        Mutation("zvid", "/webhook/form", json!("yes")),
        Mutation("zvid", "/webhook/unsigned", json!("believe")),
        Mutation("zvid", "/webhook/rules", Value::Null),
        Mutation("json2video", "/webhook/unsigned", json!("refuse")),
        Mutation("json2video", "/webhook/account", json!({"job": ["/client-data/relay_job"]})),
        Mutation("json2video", "/webhook/answer", spec("json2video")["status"]["answer"].clone()),
        Mutation("json2video", "/webhook/perJob", Value::Null),
        // A token proves the sender, so the body must not be trusted.
        Mutation("viralsync", "/webhook/signature", token()),
        Mutation("zvid", "/webhook/rules/0/kind", json!("started")),
        Mutation("zvid", "/webhook/rules/0/when", json!({"test": true})),
        Mutation("shotstack", "/errors/0/means", json!("notFound")),
        Mutation("shotstack", "/errors/0/on", json!("list")),
        Mutation("shotstack", "/errors/0/http", json!([4000])),
        // Such a rule would match no body, or every body.
        Mutation("shotstack", "/errors/0/http", json!([])),
        Mutation("shotstack", "/errors/0/contains", json!("unknown render")),
        Mutation("shotstack", "/errors/0/pointer", json!("/message")),
        // Such a rule would refuse what was accepted.
        Mutation("shotstack", "/errors/0/http", json!([400, 200])),
        Mutation(
            "zvid",
            "/errors",
            json!([{"http": [202], "pointer": "/error", "contains": "", "means": "busy"}]),
        ),
    ];
    invalid.extend(unusable());
    for limit in ["pollFloorMs", "safetyPollSeconds", "deadlineSeconds", "submitTimeoutMs"] {
        // Zero would be a busy loop for some limits, and a deadline at once for others.
        let at: &'static str = format!("/limits/{limit}").leak();
        invalid.push(Mutation("zvid", at, json!(0)));
        invalid.push(Mutation("zvid", at, json!(1.5)));
        invalid.push(Mutation("zvid", at, json!(4_294_967_296_u64)));
    }
    let signatures = signatures::invalid().into_iter();
    invalid.extend(signatures.map(|it| Mutation("viralsync", "/webhook/signature", it)));
    invalid
}

/// Changes whose shape is valid, but whose requests could not be sent, or whose renders could
/// never be found again.
fn unusable() -> Vec<Mutation> {
    vec![
        Mutation("zvid", "/docs", json!("javascript:alert(1)")),
        Mutation("zvid", "/baseUrls/default", json!("https://me:secret@api.zvid.io")),
        Mutation("zvid", "/baseUrls/default", json!("https://api.zvid.io/v2?region=eu")),
        Mutation("zvid", "/baseUrls/default", json!("https://api.zvid.io/#v2")),
        Mutation("zvid", "/headers", json!({"x-api-key": "{apikey}"})),
        Mutation("zvid", "/headers", json!({"x-api-key": "{apiKey}", "Host": "cdn.zvid.io"})),
        Mutation("zvid", "/headers", json!({"x-api-key": "{apiKey}", "content-length": "2"})),
        Mutation("zvid", "/headers", json!({"x-api-key": "{apiKey}", "Accept": "text/plain"})),
        Mutation("zvid", "/submit/path", json!("/render/{id}")),
        Mutation("zvid", "/status/path", json!("/jobs/{id}/{part}")),
        Mutation("viralsync", "/submitSafety/path", json!("/jobs/{id}")),
        Mutation("viralsync", "/cancel/path", json!("/jobs/{id}/{}")),
        Mutation("zvid", "/submit/accepted", json!([202, 409])),
        Mutation("zvid", "/submit/accepted", json!([303])),
        Mutation("zvid", "/submit/inject/callback", json!([{"set": "/webhookUrl", "value": "x"}])),
        Mutation(
            "zvid",
            "/submit/inject/callback",
            json!([{"set": "/hooks/*", "value": "{callbackUrl}"}]),
        ),
        Mutation(
            "zvid",
            "/submit/inject/callback",
            json!([{"append": "", "value": "{callbackUrl}"}]),
        ),
        // Account callbacks and list searches look for a render by this id.
        Mutation("mux", "/submit/inject/identity", json!([{"set": "/passthrough", "value": "x"}])),
        Mutation("zvid", "/submit/inject/identity", json!([{"set": "/jobId", "value": "{jobId}"}])),
        Mutation("viralsync", "/submit/inject/identity", json!([{"set": "/movie/id", "value": 7}])),
        Mutation("viralsync", "/submitSafety/rows", json!([])),
        Mutation("viralsync", "/submitSafety/correlation", json!([])),
        Mutation("viralsync", "/submitSafety/id", json!([])),
        Mutation("viralsync", "/submitSafety/next/token", json!([])),
        Mutation("zvid", "/status/answer/status", json!([])),
        Mutation("zvid", "/webhook/answer/status", json!([])),
        Mutation("zvid", "/webhook/account/job", json!([])),
        Mutation("zvid", "/status/answer/words/completed", json!(["completed", ""])),
        Mutation("zvid", "/status/answer/words/failed", json!([" "])),
        Mutation("zvid", "/status/answer/progress/0/scale", json!(0)),
        Mutation("zvid", "/status/answer/progress/0/scale", json!(-0.01)),
        Mutation("viralsync", "/status/answer/errorCodeSeparator", json!("")),
        Mutation("zvid", "/status/answer/resultUrl", json!("https://{result}")),
        Mutation("zvid", "/status/answer/resultUrl", json!("https://{result}.example/video")),
        Mutation("zvid", "/limits/submitTimeoutMs", json!(25_001)),
        Mutation("zvid", "/limits/statusTimeoutMs", json!(25_001)),
        // A job whose end is never learned ends at the deadline.
        Mutation("zvid", "/limits/deadlineSeconds", json!(604_801)),
        Mutation("zvid", "/limits/pollFloorMs", json!(499)),
    ]
}

#[test]
fn spec_invalid_is_refused_by_both() {
    let schema = schema();
    for mutation in invalid() {
        let Mutation(name, at, value) = &mutation;
        assert_eq!(mutation.accepted(&schema), (false, false), "{name} {at} = {value}");
    }
}

#[test]
fn spec_valid_is_accepted_by_both() {
    let schema = schema();
    for mutation in [
        Mutation("zvid", "/$schema", Value::Null),
        Mutation("zvid", "/baseUrls/eu", json!("https://eu.api.zvid.io/v2")),
        Mutation("zvid", "/headers", json!({})),
        Mutation("zvid", "/baseUrls/default", json!("https://[2001:db8::1]:8443/v2/")),
        Mutation("zvid", "/submit/wrap", Value::Null),
        Mutation("zvid", "/submit/id", json!([])),
        Mutation("zvid", "/limits/submitTimeoutMs", json!(25_000)),
        Mutation(
            "viralsync",
            "/submit/inject/identity",
            json!([{"set": "/movie/tags", "value": ["ours", {"id": "job {jobUuid}"}]}]),
        ),
        Mutation("zvid", "/submit/error", json!([""])),
        Mutation("zvid", "/headers/authorization", json!("Basic {apiKeyBase64}")),
        Mutation(
            "zvid",
            "/submit/inject/callback",
            json!([{"query": "to", "value": "{callbackUrl}"}]),
        ),
        Mutation(
            "zvid",
            "/submit/inject/callback",
            json!([{"append": "/a", "value": {"b": [null, "{callbackUrl}"]}}]),
        ),
        Mutation("viralsync", "/submitSafety/query", Value::Null),
        Mutation("viralsync", "/submitSafety/next", Value::Null),
        Mutation("viralsync", "/submitSafety/next", json!({"offset": "skip"})),
        Mutation("viralsync", "/submitSafety", json!({"kind": "callback"})),
        Mutation("viralsync", "/cancel", Value::Null),
        Mutation(
            "shotstack",
            "/cancel",
            json!({"method": "DELETE", "path": "/render/{id}", "accepted": [204]}),
        ),
        Mutation(
            "shotstack",
            "/status",
            json!({
                "path": "/renders", "query": {"a": "b", "id": "{id}"}, "id": [],
                "answer": {"status": ["/s"], "words": {"completed": ["ok"]}, "result": [], "error": []},
            }),
        ),
        Mutation("zvid", "/status/answer/words/timedOut", json!(["timeout"])),
        Mutation("zvid", "/status/answer/progress", Value::Null),
        Mutation("zvid", "/status/answer/result", json!(["/files/*/url"])),
        Mutation("zvid", "/status/answer/errorCodeSeparator", json!(": ")),
        Mutation("zvid", "/webhook/rules", json!([{"kind": "ended"}])),
        Mutation("zvid", "/webhook/rules", json!([])),
        Mutation("zvid", "/webhook/account", Value::Null),
        Mutation("zvid", "/webhook/answer", Value::Null),
        Mutation("zvid", "/webhook/form", json!(true)),
        Mutation("zvid", "/webhook/unsigned", json!("refuse")),
        Mutation("viralsync", "/webhook/unsigned", Value::Null),
        Mutation("json2video", "/webhook/signature", token()),
        Mutation("zvid", "/status/answer/resultUrl", json!("https://cdn.example/{result}.mp4")),
        Mutation(
            "zvid",
            "/errors",
            json!([
                {"on": "submit", "http": [400], "pointer": "/error", "contains": "busy", "means": "busy"},
                {"http": [202, 303, 503], "pointer": "/e", "contains": "full", "means": "busy"},
                {"on": "submit", "http": [422], "means": "transient"},
            ]),
        ),
        Mutation("zvid", "/limits/pollFloorMs", json!(500)),
        Mutation("zvid", "/limits/deadlineSeconds", json!(604_800)),
    ] {
        let Mutation(name, at, value) = &mutation;
        assert_eq!(mutation.accepted(&schema), (true, true), "{name} {at} = {value}");
    }
}

#[test]
fn signature_schemes_all_fit_the_schema() {
    let schema = schema();
    let rows: Value =
        serde_json::from_str(&source::text("domain/src/verifier/schemes.json")).unwrap();
    for row in rows.as_array().unwrap() {
        let sender = &row["sender"];
        // json2video has no `answer`, which a token could not prove.
        let mutation = Mutation("json2video", "/webhook/signature", row["scheme"].clone());
        assert_eq!(mutation.accepted(&schema), (true, true), "{sender}");
        let mutation = Mutation("viralsync", "/webhook/signature", row["scheme"].clone());
        let signs = row["scheme"]["method"]["kind"] != "token";
        assert_eq!(mutation.accepted(&schema), (signs, signs), "{sender}");
    }
}

/// One example for each alternative in the schema.
#[test]
fn schema_alternatives_are_all_accepted() {
    let header = json!({"kind": "header", "header": "x-other"});
    let key = json!({"kind": "key", "key": "t"});
    let bytes = json!({"form": "encoded", "encoding": "base64Url", "prefix": "whsec_"});
    let in_signature = |changes: &[Value]| -> Vec<Mutation> {
        let signatures = changes.iter().map(signature);
        signatures.map(|it| Mutation("json2video", "/webhook/signature", it)).collect()
    };
    let list = spec("viralsync")["submitSafety"].clone();
    let examples_of = [
        (
            "submitSafety",
            vec![
                Mutation("zvid", "/submitSafety", json!({"kind": "clientId"})),
                Mutation("zvid", "/submitSafety", list),
                Mutation("viralsync", "/submitSafety", json!({"kind": "callback"})),
            ],
        ),
        (
            "signatureMethod",
            in_signature(&[
                json!({"method": {"kind": "hmac", "hash": "sha1"}}),
                json!({"method": {"kind": "digest", "hash": "sha512"}, "content": "{body}{secret}"}),
                json!({"method": {"kind": "ed25519"}, "key": bytes}),
                json!({"method": {"kind": "token"}, "encoding": "base64", "content": null}),
            ]),
        ),
        (
            "signatureCarrier",
            in_signature(&[
                json!({"carrier": {"kind": "header", "header": "X-Sig", "prefix": "sha256="}}),
                json!({"carrier": pairs(&["v1", "v2"])}),
                json!({"carrier": {"kind": "list", "header": "x-sig", "prefix": "v1,"}}),
                json!({"carrier": {"kind": "form", "field": "sig"}, "content": "{form:payload}"}),
            ]),
        ),
        ("signatureKey", in_signature(&[json!({"key": {"form": "text"}}), json!({"key": bytes})])),
        (
            "signatureTimestamp/properties/place",
            in_signature(&[
                json!({"timestamp": timestamp(&header), "content": "{timestamp}.{body}"}),
                json!({
                    "timestamp": timestamp(&key), "content": "{body};{timestamp}",
                    "carrier": pairs(&["v1"]),
                }),
            ]),
        ),
        (
            "replayId",
            in_signature(&[
                json!({"replayId": header, "content": "{id}|{sha256Hex(body)}"}),
                json!({"replayId": {"kind": "pointer", "pointer": "/id"}}),
                json!({"replayId": {"kind": "bodyHash"}}),
            ]),
        ),
        (
            "nextPage",
            [json!({"parameter": "page", "token": ["/next"]}), json!({"offset": "skip"})]
                .map(|next| Mutation("viralsync", "/submitSafety/next", next))
                .into(),
        ),
    ];
    let document: Value = serde_json::from_str(&source::text("providers/schema.json")).unwrap();
    let schema = schema();
    for (at, examples) in examples_of {
        let alternatives = document.pointer(&format!("/$defs/{at}/oneOf")).unwrap();
        assert_eq!(alternatives.as_array().unwrap().len(), examples.len(), "{at}");
        for example in examples {
            assert_eq!(example.accepted(&schema), (true, true), "{at}: {}", example.2);
        }
    }
}

#[test]
fn spec_with_unknown_member_is_refused() {
    let schema = schema();
    for name in ["zvid", "shotstack", "json2video", "viralsync", "renderio"] {
        let places = closed_places("", &spec(name));
        assert!(places.contains(&"/submitSafety/typo".to_owned()), "{places:?}");
        for place in places {
            let mutation = Mutation(name, place.leak(), json!(1));
            assert_eq!(mutation.accepted(&schema), (false, false), "{name} {}", mutation.1);
        }
    }
}

/// The pointer of one additional member in every object whose members the schema lists.
fn closed_places(at: &str, value: &Value) -> Vec<String> {
    let free_members = ["/baseUrls", "/headers", "/query", "/when", "/value"];
    match value {
        Value::Object(members) if !free_members.iter().any(|open| at.ends_with(open)) => {
            let inside =
                members.iter().flat_map(|(name, v)| closed_places(&format!("{at}/{name}"), v));
            [format!("{at}/typo")].into_iter().chain(inside).collect()
        }
        Value::Array(elements) => {
            let elements = elements.iter().enumerate();
            elements.flat_map(|(n, v)| closed_places(&format!("{at}/{n}"), v)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn schema_words_are_all_accepted() {
    let words: Value = serde_json::from_str(&source::text("providers/schema.json")).unwrap();
    let schema = schema();
    for (in_schema, name, in_spec) in [
        ("/$defs/cancel/properties/method", "viralsync", "/cancel/method"),
        ("/$defs/webhook/properties/unsigned", "viralsync", "/webhook/unsigned"),
        ("/$defs/hash", "viralsync", "/webhook/signature/method/hash"),
        ("/$defs/encoding", "viralsync", "/webhook/signature/encoding"),
        ("/$defs/signatureTimestamp/properties/unit", "zvid", "/webhook/signature/timestamp/unit"),
        ("/$defs/webhook/properties/rules/items/properties/kind", "zvid", "/webhook/rules/0/kind"),
        ("/$defs/errorRule/properties/on", "shotstack", "/errors/0/on"),
        ("/$defs/errorRule/properties/means", "shotstack", "/errors/0/means"),
    ] {
        let words = words.pointer(in_schema).unwrap()["enum"].as_array().unwrap();
        for word in words {
            let mutation = Mutation(name, in_spec, word.clone());
            assert_eq!(mutation.accepted(&schema), (true, true), "{in_spec} = {word}");
        }
    }
}

#[test]
fn spec_contradiction_is_refused_by_code() {
    let same_header = json!({
        "timestamp": timestamp(&json!({"kind": "header", "header": "X-Signature"})),
        "content": "{timestamp}.{body}",
    });
    let same_key = json!({
        "timestamp": timestamp(&json!({"kind": "key", "key": "v1"})),
        "content": "{timestamp}.{body}", "carrier": pairs(&["v1"]),
    });
    let own_field = json!({"carrier": {"kind": "form", "field": "a"}, "content": "{form:a}"});
    let another_id = json!({
        "content": "{header:x-user}.{body}",
        "replayId": {"kind": "header", "header": "x-id"},
    });
    let schema = schema();
    for mutation in [
        Mutation("zvid", "/status/answer/words/failed", json!(["COMPLETED"])),
        Mutation("zvid", "/webhook/answer/words/failed", json!(["COMPLETED"])),
        Mutation("viralsync", "/webhook/signature", signature(&same_header)),
        Mutation("viralsync", "/webhook/signature", signature(&same_key)),
        Mutation("viralsync", "/webhook/signature", signature(&own_field)),
        Mutation("viralsync", "/webhook/signature", signature(&another_id)),
    ] {
        let Mutation(name, at, value) = &mutation;
        assert_eq!(mutation.accepted(&schema), (true, false), "{name} {at} = {value}");
    }
}
