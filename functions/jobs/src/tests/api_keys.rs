//! API keys: what each scope opens, who may make and revoke which, and what becomes of it when
//! requests cross or answers are lost.

use std::sync::Mutex;

use aws_in_memory::InMemoryAws;
use aws_in_memory::clock::now;
use aws_in_memory::interceptor::{Call, CallInterceptor, FaultyOperation, Injected, Interception};
use aws_lambda_events::encodings::Body;
use domain::credential::Scope;
use domain::id::KeyId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::api::Route;
use tokio::sync::Notify;
use tokio::time::{Duration, advance};

use super::*;

/// A request with a key. The ids in it are of nothing that exists.
fn request(key: &str, route: &str, body: &Value) -> ApiGatewayV2httpRequest {
    let mut event: Value = serde_json::from_str(GET).unwrap();
    event["headers"]["authorization"] = format!("Bearer {key}").into();
    event["routeKey"] = route.into();
    event["body"] = body.to_string().into();
    event["pathParameters"] = json!({
        "jobId": "job_07070707070787078707070707070707",
        "eventId": "evt_0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
        "name": "zvid",
        "keyId": "key_0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
    });
    serde_json::from_value(event).unwrap()
}

async fn answer(jobs: &Jobs, request: ApiGatewayV2httpRequest) -> (i64, Value) {
    let response = handle(jobs, request.into(), now).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

async fn asked(jobs: &Jobs, key: &str, route: &str, body: Value) -> (i64, Value) {
    answer(jobs, request(key, route, &body)).await
}

async fn created(jobs: &Jobs, key: &str, name: &str, scopes: &[&str]) -> (i64, Value) {
    let body = json!({"name": name, "owner": "shop@example.com", "scopes": scopes});
    asked(jobs, key, "POST /v1/keys", body).await
}

async fn revoked(jobs: &Jobs, key: &str, id: &str) -> (i64, Value) {
    let mut request = request(key, "DELETE /v1/keys/{keyId}", &Value::Null);
    request.path_parameters.insert("keyId".into(), id.into());
    answer(jobs, request).await
}

async fn listed(jobs: &Jobs, key: &str) -> Vec<Value> {
    let (status, page) = asked(jobs, key, "GET /v1/keys", Value::Null).await;
    assert_eq!(status, 200, "{page}");
    page["keys"].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Written out, and not read from the code that it checks.
const NEEDED: [(Scope, &[&str]); 3] = [
    (
        Scope::Read,
        &[
            "GET /v1/jobs",
            "GET /v1/jobs/{jobId}",
            "GET /v1/jobs/{jobId}/deliveries",
            "GET /v1/deliveries",
            "GET /v1/webhook-config",
            "GET /v1/webhook-config/test/{eventId}",
            "GET /v1/providers",
            "GET /v1/providers/{name}",
        ],
    ),
    (
        Scope::Operate,
        &[
            "POST /v1/jobs/{jobId}/cancel",
            "POST /v1/jobs/{jobId}/redeliver",
            "POST /v1/jobs/{jobId}/drop-delivery",
            "POST /v1/deliveries/recover",
            "POST /v1/webhook-config/test",
            "POST /v1/providers/{name}/resume",
        ],
    ),
    (
        Scope::Admin,
        &[
            "PUT /v1/webhook-config",
            "DELETE /v1/webhook-config",
            "POST /v1/webhook-config/rotate-secret",
            "GET /v1/keys",
            "POST /v1/keys",
            "PUT /v1/providers/{name}",
            "DELETE /v1/providers/{name}",
            "DELETE /v1/keys/{keyId}",
        ],
    ),
];

#[tokio::test]
async fn route_opens_to_its_scope_alone() {
    let mut routes: Vec<&str> = Route::ALL.into_iter().map(Route::key).collect();
    routes.retain(|key| *key != "POST /v1/jobs");
    let mut written: Vec<&str> = NEEDED.iter().flat_map(|(_, routes)| *routes).copied().collect();
    routes.sort_unstable();
    written.sort_unstable();
    assert_eq!(routes, written);

    let aws = InMemoryAws::new(&[]);
    for scope in Scope::ALL {
        aws.add_api_key(scope.name(), [scope].into_iter().collect()).await.unwrap();
    }
    let jobs = started(&aws);
    for (needed, routes) in NEEDED {
        for route in routes {
            for scope in Scope::ALL {
                let (status, answer) = asked(&jobs, scope.name(), route, json!({})).await;
                let what = format!("{route} with {}: {answer}", scope.name());
                if scope == needed {
                    assert!(!matches!(status, 401 | 403), "{what}");
                } else {
                    assert_eq!((status, &answer["code"]), (403, &"scope_missing".into()), "{what}");
                    assert_eq!(answer["scope"], needed.name(), "{what}");
                }
            }
            assert_eq!(asked(&jobs, "rr_wrong", route, json!({})).await.0, 401, "{route}");
        }
    }
}

#[tokio::test]
async fn created_key_is_shown_once() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let (status, made) = created(&jobs, KEY, "shop", &["read"]).await;
    assert_eq!(status, 201, "{made}");
    let key = text(&made["key"]);
    assert!(key.starts_with("rr_") && key.len() == 67);
    assert_eq!(asked(&jobs, key, "GET /v1/webhook-config", Value::Null).await.0, 404, "it reads");

    let keys = listed(&jobs, KEY).await;
    let [admin, shop] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!((&shop["name"], &shop["owner"]), (&"shop".into(), &"shop@example.com".into()));
    assert_eq!((&shop["scopes"], &shop["createdBy"]), (&json!(["read"]), &admin["keyId"]));
    assert_eq!(admin["createdBy"], "operator");
    let table = format!("{:?}{keys:?}", aws.table().items());
    assert!(!table.contains(key) && !table.contains(KEY), "invariant 5");
    assert!(!format!("{keys:?}").contains("sha256"), "{keys:?}");
}

#[tokio::test]
async fn key_grants_no_scope_that_it_lacks() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let (_, admin) = created(&jobs, KEY, "key-admin", &["admin", "read"]).await;
    let admin = text(&admin["key"]);
    let before = aws.table().items().len();
    for scopes in [&["submit"][..], &["read", "operate"], &["submit", "read", "operate", "admin"]] {
        let (status, problem) = created(&jobs, admin, "more", scopes).await;
        assert_eq!((status, &problem["code"]), (403, &"scope_not_granted".into()), "{problem}");
    }
    assert_eq!(aws.table().items().len(), before);
    assert_eq!(created(&jobs, admin, "another", &["admin", "read"]).await.0, 201);
}

/// A repeat of a request whose answer was lost would otherwise leave a key that no caller holds.
#[tokio::test]
async fn second_key_of_a_name_is_refused() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let (_, first) = created(&jobs, KEY, "shop", &["read"]).await;
    let (status, problem) = created(&jobs, KEY, "shop", &["read"]).await;
    assert_eq!((status, &problem["code"]), (409, &"key_name_taken".into()), "{problem}");
    assert_eq!(problem["keyId"], first["keyId"], "the way out");
    assert_eq!(revoked(&jobs, KEY, text(&problem["keyId"])).await.0, 200);
    let (status, second) = created(&jobs, KEY, "shop", &["read"]).await;
    assert_eq!(status, 201);
    assert_ne!((&second["keyId"], &second["key"]), (&first["keyId"], &first["key"]));
}

#[tokio::test]
async fn lost_answers_leave_no_unknown_key() {
    let aws = with_key().await;
    let aws = aws.seen_by(FaultyOperation::new("TransactWriteItems", Injected::Unanswered));
    let jobs = started(&aws);
    let (status, made) = created(&jobs, KEY, "shop", &["read"]).await;
    assert_eq!(status, 201, "the write is recognised by its id: {made}");
    assert_eq!(listed(&jobs, KEY).await.len(), 2);
    let aws = aws.seen_by(FaultyOperation::new("TransactWriteItems", Injected::Unanswered));
    let jobs = started(&aws);
    let (status, _) = revoked(&jobs, KEY, text(&made["keyId"])).await;
    assert_eq!(status, 503, "it may be revoked");
    assert_eq!(listed(&jobs, KEY).await.len(), 1);
    assert_eq!(revoked(&jobs, KEY, text(&made["keyId"])).await.0, 404, "it is");
}

#[tokio::test]
async fn revoking_touches_no_other_key() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let (_, one) = created(&jobs, KEY, "one", &["read"]).await;
    let (_, two) = created(&jobs, KEY, "two", &["read"]).await;
    let (status, gone) = revoked(&jobs, KEY, text(&one["keyId"])).await;
    assert_eq!((status, &gone["name"]), (200, &"one".into()));
    let reads = async |key: &Value| asked(&jobs, text(key), "GET /v1/jobs", json!({})).await.0;
    assert_eq!((reads(&one["key"]).await, reads(&two["key"]).await), (401, 422));
    for id in [text(&one["keyId"]), "key_?", ""] {
        let (status, problem) = revoked(&jobs, KEY, id).await;
        assert_eq!((status, &problem["code"]), (404, &"not_found".into()), "{id}");
    }
    assert_eq!(listed(&jobs, KEY).await.len(), 2);
}

#[tokio::test]
async fn last_admin_key_cannot_be_revoked() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let own = listed(&jobs, KEY).await[0]["keyId"].clone();
    created(&jobs, KEY, "reader", &["read"]).await;
    let (status, problem) = revoked(&jobs, KEY, text(&own)).await;
    assert_eq!((status, &problem["code"]), (409, &"last_admin_key".into()), "{problem}");
    let (_, other) = created(&jobs, KEY, "other", &["admin"]).await;
    assert_eq!(revoked(&jobs, KEY, text(&own)).await.0, 200, "by itself");
    assert_eq!(listed(&jobs, text(&other["key"])).await.len(), 2);
}

/// Holds a process before its first transaction, until it is let go.
#[derive(Debug, Default)]
struct HeldTransaction {
    arrived: Notify,
    go: Notify,
    was_held: Mutex<bool>,
}

impl CallInterceptor for HeldTransaction {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let hold = call.what == "TransactWriteItems"
            && !std::mem::replace(&mut *self.was_held.lock().unwrap(), true);
        async move {
            if hold {
                self.arrived.notify_one();
                self.go.notified().await;
            }
            Injected::Answered.into()
        }
        .boxed()
    }
}

/// Handles a request in a process of its own, during whose first transaction `meanwhile`
/// happens: after the request was allowed, and before it changes anything.
async fn overtaken<Fut: Future<Output = (i64, Value)>>(
    aws: &InMemoryAws,
    request: impl FnOnce(Jobs) -> Fut,
    meanwhile: impl Future<Output = ()>,
) -> (i64, Value) {
    let held = Arc::new(HeldTransaction::default());
    let slow = request(started(&aws.seen_by(held.clone())));
    let overtaking = async {
        held.arrived.notified().await;
        meanwhile.await;
        held.go.notify_one();
    };
    futures_util::future::join(slow, overtaking).await.0
}

/// As the operator revokes one: `relay key revoke --table`.
async fn revoked_in_table(aws: &InMemoryAws, id: &Value) {
    let stored = aws.store().api_keys().await.unwrap().keys;
    let record = stored.get(&KeyId::parse(text(id)).unwrap()).unwrap();
    aws.store().delete_api_key(record).await.unwrap();
}

async fn names(aws: &InMemoryAws) -> Vec<String> {
    let stored = aws.store().api_keys().await.unwrap().keys;
    stored.iter().map(|record| record.name.to_string()).collect()
}

#[tokio::test]
async fn overtaken_admin_makes_no_key() {
    let aws = with_key().await;
    let (_, thief) = created(&started(&aws), KEY, "thief", &["admin"]).await;
    let key = text(&thief["key"]);
    let request = async |jobs: Jobs| created(&jobs, key, "spare", &["admin"]).await;
    let answer = overtaken(&aws, request, revoked_in_table(&aws, &thief["keyId"])).await;
    assert_eq!(answer.0, 401, "{}", answer.1);
    assert_eq!(names(&aws).await.len(), 1, "the operator's");
}

#[tokio::test]
async fn overtaken_admin_brings_no_key_back() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let (_, one) = created(&jobs, KEY, "one", &["admin"]).await;
    let (_, two) = created(&jobs, KEY, "two", &["admin"]).await;
    let own = listed(&jobs, KEY).await[0]["keyId"].clone();
    revoked_in_table(&aws, &own).await;
    let key = text(&two["key"]);
    let request = async |jobs: Jobs| revoked(&jobs, key, text(&one["keyId"])).await;
    let meanwhile = async {
        revoked_in_table(&aws, &one["keyId"]).await;
        revoked_in_table(&aws, &two["keyId"]).await;
    };
    let answer = overtaken(&aws, request, meanwhile).await;
    assert_eq!(answer.0, 401, "{}", answer.1);
    assert_eq!(names(&aws).await, [""; 0]);
}

#[tokio::test]
async fn admins_cannot_revoke_each_other_at_once() {
    let aws = with_key().await;
    let (_, other) = created(&started(&aws), KEY, "other", &["admin"]).await;
    let keys = listed(&started(&aws), KEY).await;
    let request = async |jobs: Jobs| revoked(&jobs, KEY, text(&keys[1]["keyId"])).await;
    let meanwhile = async {
        let quick = started(&aws);
        let second = revoked(&quick, text(&other["key"]), text(&keys[0]["keyId"])).await;
        assert_eq!(second.0, 200, "{}", second.1);
    };
    let first = overtaken(&aws, request, meanwhile).await;
    assert_eq!(first.0, 401, "it was revoked first: {}", first.1);
    assert_eq!(listed(&started(&aws), text(&other["key"])).await.len(), 1, "one is left");
}

#[tokio::test]
async fn admins_cannot_both_leave_at_once() {
    let aws = with_key().await;
    let (_, other) = created(&started(&aws), KEY, "other", &["admin"]).await;
    let own = listed(&started(&aws), KEY).await[0]["keyId"].clone();
    let request = async |jobs: Jobs| revoked(&jobs, KEY, text(&own)).await;
    let meanwhile = async {
        let answer = revoked(&started(&aws), text(&other["key"]), text(&other["keyId"])).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
    };
    let (status, problem) = overtaken(&aws, request, meanwhile).await;
    assert_eq!((status, &problem["code"]), (409, &"last_admin_key".into()), "{problem}");
    assert_eq!(names(&aws).await.len(), 1);
}

#[tokio::test]
async fn overtaken_departure_names_another_admin() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let (_, one) = created(&jobs, KEY, "one", &["admin"]).await;
    created(&jobs, KEY, "two", &["admin"]).await;
    let own = listed(&jobs, KEY).await[0]["keyId"].clone();
    let request = async |jobs: Jobs| revoked(&jobs, KEY, text(&own)).await;
    let answer = overtaken(&aws, request, revoked_in_table(&aws, &one["keyId"])).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    assert_eq!(names(&aws).await, ["two"]);
}

#[tokio::test]
async fn concurrent_requests_make_one_key() {
    let aws = with_key().await;
    let (one, two) = (started(&aws), started(&aws));
    let answers = futures_util::future::join(
        created(&one, KEY, "shop", &["read"]),
        created(&two, KEY, "shop", &["read"]),
    );
    let (one, two) = answers.await;
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[tokio::test]
async fn unreadable_key_keeps_its_name() {
    let aws = with_key().await;
    let item = json!({"pk": {"S": "api-keys"}, "sk": {"S": "broken"}});
    assert_eq!(aws.table().answer("PutItem", &json!({"TableName": "t", "Item": item})).0, 200);
    let (status, problem) = created(&started(&aws), KEY, "broken", &["read"]).await;
    assert_eq!((status, &problem["code"]), (409, &"key_name_taken".into()), "{problem}");
}

#[tokio::test]
async fn number_of_keys_is_bounded() {
    let aws = with_key().await;
    let jobs = started(&aws);
    for n in 1..100 {
        let (status, made) = created(&jobs, KEY, &format!("n-{n}"), &["read"]).await;
        assert_eq!(status, 201, "{made}");
    }
    let (status, problem) = created(&jobs, KEY, "one-more", &["read"]).await;
    assert_eq!((status, &problem["code"]), (409, &"too_many_keys".into()), "{problem}");
    assert_eq!(listed(&jobs, KEY).await.len(), 100);
}

fn admin_routes() -> impl Iterator<Item = &'static str> {
    let routes = NEEDED.iter().filter(|(scope, _)| *scope == Scope::Admin);
    routes.flat_map(|(_, routes)| *routes).copied()
}

/// The cache of a warm process does not know yet that a key was revoked. What an admin may do
/// would outlast the key.
#[tokio::test]
async fn revoked_key_opens_no_admin_route() {
    let aws = with_key().await;
    let jobs = started(&aws);
    let (_, thief) = created(&jobs, KEY, "thief", &["admin", "read"]).await;
    let key = text(&thief["key"]);
    let mut warm = Vec::new();
    for route in admin_routes() {
        let process = started(&aws);
        assert_eq!(listed(&process, key).await.len(), 2);
        warm.push((route, process));
    }
    revoked(&jobs, KEY, text(&thief["keyId"])).await;
    let before = aws.table().items();
    for (route, process) in warm {
        let read = asked(&process, key, "GET /v1/jobs", json!({})).await;
        assert_eq!(read.0, 422, "the cache has it: {}", read.1);
        let (status, answer) = asked(&process, key, route, json!({})).await;
        assert_eq!(status, 401, "{route}: {answer}");
        assert_eq!(asked(&process, key, "GET /v1/jobs", json!({})).await.0, 401, "now it has not");
    }
    assert_eq!(aws.table().items(), before);
}

#[tokio::test]
async fn admin_routes_trust_no_cache_in_outages() {
    let aws = with_key().await;
    let faults = Arc::new(QueryOutage::default());
    let jobs = started(&aws.seen_by(faults.clone()));
    assert_eq!(listed(&jobs, KEY).await.len(), 1);
    *faults.is_on.lock().unwrap() = true;
    assert_eq!(asked(&jobs, KEY, "GET /v1/jobs", json!({})).await.0, 422, "it is warm");
    for route in admin_routes() {
        let (status, answer) = asked(&jobs, KEY, route, json!({})).await;
        assert_eq!(status, 503, "{route}: {answer}");
    }
}

/// Refuses queries, such as those for the keys, while it is on.
#[derive(Debug, Default)]
struct QueryOutage {
    is_on: Mutex<bool>,
}

impl CallInterceptor for QueryOutage {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let refused = call.what == "Query" && *self.is_on.lock().unwrap();
        let answer = match refused {
            true => Injected::Refused(400, json!({"__type": "AccessDeniedException"})),
            false => Injected::Answered,
        };
        std::future::ready(answer.into()).boxed()
    }
}

#[tokio::test]
async fn only_admin_keys_cost_admin_routes_reads() {
    let aws = with_key().await;
    aws.add_api_key("rr_reader", [Scope::Read].into_iter().collect()).await.unwrap();
    let jobs = started(&aws);
    let reads = || aws.calls().iter().filter(|call| *call == "Query").count();
    assert_eq!(asked(&jobs, "rr_reader", "GET /v1/keys", json!({})).await.0, 403);
    let before = reads();
    for route in admin_routes() {
        assert_eq!(asked(&jobs, "rr_reader", route, json!({})).await.0, 403, "{route}");
        assert_eq!(asked(&jobs, "rr_wrong", route, json!({})).await.0, 401, "{route}");
    }
    assert_eq!(reads(), before, "wrong keys are compared with what was read a moment ago");
}

/// Two functions are as two processes: neither knows of the other's changes.
#[tokio::test(start_paused = true)]
async fn change_is_in_force_everywhere_within_a_minute() {
    let aws = with_key().await;
    let (jobs, warm) = (started(&aws), started(&aws));
    let reads = async |key: &str| asked(&warm, key, "GET /v1/jobs", json!({})).await.0;
    assert_eq!(reads(KEY).await, 422, "it is warm");
    let (_, made) = created(&jobs, KEY, "shop", &["read"]).await;
    let key = text(&made["key"]);
    advance(Duration::from_secs(59)).await;
    assert_eq!(reads(key).await, 422, "it may read");
    revoked(&jobs, KEY, text(&made["keyId"])).await;
    advance(Duration::from_secs(59)).await;
    assert_eq!(reads(key).await, 401);
    assert_eq!(reads(KEY).await, 422, "the other key still may");
}

#[tokio::test]
async fn wrong_key_request_says_which_member() {
    let aws = with_key().await;
    let jobs = started(&aws);
    for (body, status, code) in [
        (json!([]), 400, "malformed_json"),
        (json!({}), 422, "missing_field"),
        (json!({"name": "a b", "owner": "o", "scopes": ["read"]}), 422, "invalid_field"),
        (json!({"name": "a", "owner": "o", "scopes": ["all"]}), 422, "invalid_field"),
        (
            json!({"name": "a", "owner": "o".repeat(5000), "scopes": ["read"]}),
            413,
            "payload_too_large",
        ),
    ] {
        let answer = asked(&jobs, KEY, "POST /v1/keys", body).await;
        assert_eq!((answer.0, text(&answer.1["code"])), (status, code), "{}", answer.1);
    }
}
