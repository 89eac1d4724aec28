use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception, NoFaults};
use aws_in_memory::network::Network;
use aws_in_memory::{InMemoryAws, builders};
use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use aws_lambda_events::encodings::Body;
use domain::credential::CallbackSecret;
use domain::id::{JobId, ProviderName, RenderJobId};
use domain::job::{Job, Report, State, Transition};
use domain::polling::Tracking;
use domain::provider::catalogue::Adjustments;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::tracker::Tracker;

use super::*;

/// The secret that the tokens in `events/` were made with.
const SECRET: (&str, &str) = ("callback-secret", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk");
/// The secrets that the signatures in `events/` were made with, before and after a new one.
const VIRALSYNC_SECRET: (&str, &str) =
    ("providers/viralsync/webhook-secrets", "vs_new_secret,vs_secret_example");
const ZVID_SECRET: (&str, &str) = ("providers/zvid/webhook-secrets", "whsec_example");

const ZVID: &str = include_str!("../../../events/webhook-zvid.json");
const ZVID_ACCOUNT: &str = include_str!("../../../events/webhook-zvid-account.json");
const SHOTSTACK: &str = include_str!("../../../events/webhook-shotstack.json");
const VIRALSYNC: &str = include_str!("../../../events/webhook-viralsync-signed.json");
const WRONG_TOKEN: &str = include_str!("../../../events/webhook-wrong-token.json");

/// When the callbacks in `events/` come: three seconds after the account's was signed.
fn arrival() -> DateTime<Utc> {
    DateTime::from_timestamp(1_779_624_044, 0).unwrap()
}

fn event(text: &str) -> ApiGatewayV2httpRequest {
    serde_json::from_str(text).unwrap()
}

/// The same event, with other text in its body.
fn tampered(text: &str, from: &str, to: &str) -> ApiGatewayV2httpRequest {
    let mut event = event(text);
    let body = event.body.as_mut().unwrap();
    assert!(body.contains(from), "{body}");
    *body = body.replace(from, to);
    event
}

fn without(text: &str, header: &str) -> ApiGatewayV2httpRequest {
    let mut event = event(text);
    assert!(event.headers.remove(header).is_some());
    event
}

/// The job of the callbacks in `events/`, before its provider has answered the submit.
fn unanswered(provider: &str) -> Job {
    builders::job().provider(provider).tracking(Tracking::WebhookFirst).build()
}

/// The same, accepted as `render`.
fn job(provider: &str, render: &str) -> Job {
    let job = unanswered(provider);
    let accepted = Report::Accepted(RenderJobId::parse(render).unwrap());
    match job.apply(&accepted, 0, job.created_at) {
        Transition::Changed(job) => *job,
        Transition::Unchanged => panic!("not accepted"),
    }
}

fn viralsync_job() -> Job {
    job("viralsync", "job_a1b2c3d4e5f6")
}

fn zvid_job() -> Job {
    job("zvid", "07070707-0707-8707-8707-070707070707")
}

async fn with_job(parameters: &[(&str, &str)], job: &Job) -> InMemoryAws {
    let aws = InMemoryAws::new(parameters);
    aws.tracker().unwrap().store.insert_job(job).await.unwrap();
    aws
}

async fn stored(aws: &InMemoryAws) -> Job {
    let id = JobId::from_bytes([7; 16]);
    aws.tracker().unwrap().store.job(&id).await.unwrap().unwrap()
}

fn callbacks(tracker: Tracker, aws: &InMemoryAws) -> Callbacks {
    let secrets = Arc::clone(tracker.providers.secrets());
    Callbacks { tracker, secrets, wakes: aws.wakes(), entropy: aws.entropy() }
}

/// Status and body of the answer, and what AWS was asked for it.
async fn answered_with(
    aws: &InMemoryAws,
    request: ApiGatewayV2httpRequest,
) -> (i64, Value, Vec<String>) {
    let callbacks = callbacks(aws.tracker().unwrap(), aws);
    let before = aws.calls().len();
    let response = handle(&callbacks, request.into(), arrival).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    let asked = aws.calls().split_off(before);
    (response.status_code, serde_json::from_str(&body).unwrap(), asked)
}

async fn answered(aws: &InMemoryAws, event: &str) -> (i64, Value) {
    let (status, body, _) = answered_with(aws, serde_json::from_str(event).unwrap()).await;
    (status, body)
}

/// What is asked for a hint, when the provider cannot be asked. It is known afterwards that a
/// wake-up call was sent.
const STORED_AND_LEFT: [&str; 4] = ["GetItem", "PutItem", "SendMessage", "PutItem"];

/// What is asked for a callback that is believed: nothing of the provider, and its API key
/// is not even read.
const STORED_AND_TOLD: [&str; 5] = ["GetItem", "PutItem", "GetItem", "PutEvents", "PutItem"];

#[tokio::test]
async fn wrong_token_is_refused_first() {
    let aws = InMemoryAws::new(&[SECRET]);
    let (status, problem) = answered(&aws, WRONG_TOKEN).await;
    assert_eq!((status, &problem["code"]), (401, &"invalid_token".into()));
    assert_eq!(aws.calls(), ["GetParameters"]);
}

#[tokio::test]
async fn callback_of_each_provider_is_read() {
    for callback in [ZVID, SHOTSTACK, VIRALSYNC] {
        let aws = InMemoryAws::new(&[SECRET]);
        let (status, problem) = answered(&aws, callback).await;
        assert_eq!((status, &problem["code"]), (404, &"not_found".into()));
        let items = ["GetItem", "GetItem"];
        assert_eq!(
            aws.calls(),
            [&["GetParameters"][..], &items].concat(),
            "all secrets in one call, their changes, and the job"
        );
    }
}

#[tokio::test]
async fn unstored_callback_is_500() {
    let (status, problem) = answered(&InMemoryAws::without_table(&[SECRET]), SHOTSTACK).await;
    let expected = (500, &"not_stored".into());
    assert_eq!((status, &problem["code"]), expected, "invariant 3: no 2xx");
}

#[tokio::test(start_paused = true)]
async fn callback_before_its_secret_is_readable_is_500() {
    for callback in [ZVID, SHOTSTACK] {
        let (status, problem) = answered(&InMemoryAws::without_parameters(), callback).await;
        assert_eq!((status, &problem["code"]), (500, &"not_stored".into()), "{problem}");
    }
}

#[tokio::test]
async fn signed_callback_is_stored() {
    let aws = with_job(&[SECRET, VIRALSYNC_SECRET], &viralsync_job()).await;
    let (status, body, asked) = answered_with(&aws, event(VIRALSYNC)).await;
    assert_eq!((status, body), (200, json!({"status": "stored"})));
    let (parameters, rest) = asked.split_at(2);
    assert_eq!(parameters, ["GetParameters", "GetItem"]);
    assert_eq!(rest, STORED_AND_TOLD);

    let job = stored(&aws).await;
    assert_eq!(job.state, State::Completed);
    assert_eq!(job.result.url.as_deref(), Some("https://cdn.example/product-123.mp4"));
    assert_eq!(job.provider_status.as_deref(), Some("done"));
    assert!(job.outbox.is_empty() && job.settled_at.is_some(), "{job:?}");
}

#[tokio::test]
async fn repeated_callback_changes_nothing() {
    let aws = with_job(&[SECRET, VIRALSYNC_SECRET], &viralsync_job()).await;
    answered_with(&aws, event(VIRALSYNC)).await;
    let first = stored(&aws).await;
    let (status, body, asked) = answered_with(&aws, event(VIRALSYNC)).await;
    assert_eq!((status, body), (200, json!({"status": "known"})));
    assert_eq!(asked, ["GetParameters", "GetItem", "GetItem"]);
    assert_eq!(stored(&aws).await, first, "invariant 4: a repeat changes nothing");
}

#[tokio::test]
async fn flipped_bit_is_refused_first() {
    let aws = with_job(&[SECRET, VIRALSYNC_SECRET], &viralsync_job()).await;
    // `p` and `q` differ in their last bit.
    for forged in [
        tampered(VIRALSYNC, "product-123", "qroduct-123"),
        tampered(VIRALSYNC, "\"done\"", "\"done\" "),
    ] {
        let (status, problem, asked) = answered_with(&aws, forged).await;
        assert_eq!((status, &problem["code"]), (401, &"invalid_signature".into()));
        // And one in ten seconds has the secrets looked at once more.
        let look = ["UpdateItem", "GetParameters"];
        assert_eq!(asked[..2], ["GetParameters", "GetItem"]);
        assert!(asked[2..].is_empty() || asked[2..] == look, "{asked:?}");
    }
    assert_eq!(stored(&aws).await, viralsync_job(), "invariant 4: a forged body is not believed");
}

#[tokio::test]
async fn unsigned_callback_is_refused() {
    let aws = with_job(&[SECRET, VIRALSYNC_SECRET], &viralsync_job()).await;
    let (status, problem, asked) =
        answered_with(&aws, without(VIRALSYNC, "x-render-signature")).await;
    assert_eq!((status, &problem["code"]), (401, &"invalid_signature".into()));
    assert_eq!(asked, ["GetParameters", "GetItem"]);
    let job = stored(&aws).await;
    assert_eq!(job, viralsync_job(), "invariant 4: an unsigned body is not believed");
}

#[tokio::test]
async fn unsigned_callback_may_be_a_hint() {
    let aws = with_job(&[SECRET, ZVID_SECRET], &zvid_job()).await;
    let (status, body, asked) = answered_with(&aws, event(ZVID)).await;
    // The provider's API key is not stored here, so the poller has to look.
    assert_eq!((status, body), (200, json!({"status": "hint_stored"})));
    let (parameters, rest) = asked.split_at(2);
    assert_eq!(parameters, ["GetParameters", "GetItem"]);
    assert_eq!(rest, STORED_AND_LEFT);
    assert_eq!(stored(&aws).await, zvid_job());
    let calls = aws.wake_queue().sent();
    let call: Value = serde_json::from_str(&calls[0].body).unwrap();
    assert_eq!((calls.len(), &call["kind"], &call["look"]), (1, &json!("look"), &json!(0)));
}

#[tokio::test]
async fn hint_is_no_2xx_before_it_is_queued() {
    let aws = with_job(&[SECRET], &zvid_job()).await;
    let refused = aws.seen_by(Arc::new(NoQueue));
    let callbacks = callbacks(refused.tracker().unwrap(), &refused);
    let response = handle(&callbacks, event(ZVID).into(), arrival).await.unwrap();
    assert_eq!(response.status_code, 500, "invariant 3: no 2xx");
    assert!(aws.wake_queue().sent().is_empty());
    // The repeat finds that the hint is asked about, and sees to it if that ends without a call.
    let (status, _, asked) = answered_with(&aws, event(ZVID)).await;
    assert_eq!(status, 200);
    assert_eq!(asked[2..], ["GetItem", "PutItem", "PutItem", "SendMessage"]);
}

/// A network on which no message can be sent.
#[derive(Debug)]
struct NoQueue;

impl CallInterceptor for NoQueue {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        let injected = if call.to == "sqs" { Injected::Lost } else { Injected::Answered };
        Box::pin(std::future::ready(injected.into()))
    }
}

#[tokio::test]
async fn callback_without_secret_is_a_hint() {
    for callback in [event(VIRALSYNC), without(VIRALSYNC, "x-render-signature")] {
        let aws = with_job(&[SECRET], &viralsync_job()).await;
        let (status, body, asked) = answered_with(&aws, callback.clone()).await;
        assert_eq!((status, body), (200, json!({"status": "hint_stored"})));
        assert_eq!(asked[2..], STORED_AND_LEFT);
        let (status, body, asked) = answered_with(&aws, callback).await;
        assert_eq!((status, body), (200, json!({"status": "hint_stored"})));
        assert_eq!(asked[2..], ["GetItem", "PutItem"], "it joins the first");
        assert_eq!(stored(&aws).await, viralsync_job());
    }
}

/// As it is pasted from the console of a sender of Standard Webhooks.
const MALFORMED: &str = "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn malformed_secret_makes_callback_a_hint() {
    let malformed = ("providers/viralsync/webhook-secrets", MALFORMED);
    let aws = with_job(&[SECRET, malformed], &viralsync_job()).await;
    for callback in [event(VIRALSYNC), without(VIRALSYNC, "x-render-signature")] {
        let (status, body, _) = answered_with(&aws, callback).await;
        assert_eq!((status, body), (200, json!({"status": "hint_stored"})));
    }
    assert_eq!(stored(&aws).await, viralsync_job(), "invariant 4: it proves nothing");
}

#[tokio::test]
async fn malformed_secret_of_account_is_500() {
    let aws = with_job(&[("providers/zvid/webhook-secrets", MALFORMED)], &zvid_job()).await;
    let (status, problem, asked) = answered_with(&aws, event(ZVID_ACCOUNT)).await;
    assert_eq!((status, &problem["code"]), (500, &"not_stored".into()));
    assert_eq!(asked, ["GetItem", "GetParameters"]);
    assert_eq!(stored(&aws).await, zvid_job());
}

#[tokio::test]
async fn unsigned_progress_asks_no_provider() {
    let aws = with_job(&[SECRET], &viralsync_job()).await;
    let progress = tampered(VIRALSYNC, "\"done\"", "\"running\"");
    let (status, body, asked) = answered_with(&aws, progress).await;
    assert_eq!((status, body), (200, json!({"status": "ignored"})));
    assert_eq!(asked, ["GetParameters", "GetItem", "GetItem"]);
    assert_eq!(stored(&aws).await, viralsync_job());
}

#[tokio::test]
async fn callback_of_another_render_is_ignored() {
    let other = job("viralsync", "job_scene_2");
    let aws = with_job(&[SECRET, VIRALSYNC_SECRET], &other).await;
    let (status, body, _) = answered_with(&aws, event(VIRALSYNC)).await;
    assert_eq!((status, body), (200, json!({"status": "ignored"})));
    assert_eq!(stored(&aws).await, other);
}

/// The signature proves the account; whether it is this job's render is not known yet.
#[tokio::test]
async fn callback_before_render_id_is_a_hint() {
    let aws = with_job(&[SECRET, VIRALSYNC_SECRET], &unanswered("viralsync")).await;
    let (status, body, asked) = answered_with(&aws, event(VIRALSYNC)).await;
    assert_eq!((status, body), (200, json!({"status": "hint_stored"})));
    assert_eq!(asked[2..], STORED_AND_LEFT);
    assert_eq!(aws.wake_queue().sent()[0].delay, Duration::from_secs(2));
    assert_eq!(stored(&aws).await, unanswered("viralsync"));
}

#[tokio::test]
async fn registration_check_reads_nothing() {
    let aws = InMemoryAws::without_table(&[]);
    let callbacks = callbacks(aws.tracker().unwrap(), &aws);
    for (method, expected) in [("OPTIONS", 204), ("HEAD", 200), ("GET", 200)] {
        for known in [ZVID, ZVID_ACCOUNT, WRONG_TOKEN] {
            let mut request = event(known);
            request.request_context.http.method = method.parse().unwrap();
            let response = handle(&callbacks, request.into(), arrival).await.unwrap();
            assert_eq!((response.status_code, response.body), (expected, None), "{method}");
            assert!(response.headers.is_empty(), "{:?}", response.headers);
        }
    }
    assert!(aws.calls().is_empty(), "{:?}", aws.calls());
}

#[tokio::test]
async fn account_callback_carries_our_id() {
    let aws = with_job(&[ZVID_SECRET], &unanswered("zvid")).await;
    let (status, body, _) = answered_with(&aws, event(ZVID_ACCOUNT)).await;
    assert_eq!((status, body), (200, json!({"status": "stored"})));
    assert_eq!(stored(&aws).await.state, State::Completed);
}

#[tokio::test]
async fn account_callback_finds_its_job() {
    let aws = with_job(&[ZVID_SECRET], &zvid_job()).await;
    let (status, body, asked) = answered_with(&aws, event(ZVID_ACCOUNT)).await;
    assert_eq!((status, body), (200, json!({"status": "stored"})));
    let (parameters, rest) = asked.split_at(2);
    assert_eq!(parameters, ["GetItem", "GetParameters"], "there is no token to check");
    assert_eq!(rest, STORED_AND_TOLD);
    assert_eq!(stored(&aws).await.state, State::Completed);
}

#[tokio::test]
async fn account_callback_spells_uuid_otherwise() {
    let ours = "07070707-0707-8707-8707-070707070707";
    for render in [ours.replace('-', ""), format!("URN:UUID:{ours}"), format!("{{{ours}}}")] {
        let aws = with_job(&[ZVID_SECRET], &job("zvid", &render)).await;
        let (status, body, _) = answered_with(&aws, event(ZVID_ACCOUNT)).await;
        assert_eq!((status, body), (200, json!({"status": "stored"})), "{render}");
        let job = stored(&aws).await;
        let kept = RenderJobId::parse(&render).unwrap();
        assert_eq!((job.state, job.render_job_id), (State::Completed, Some(kept)), "{render}");
    }
}

#[tokio::test]
async fn unsigned_account_callback_is_refused() {
    let aws = with_job(&[ZVID_SECRET], &zvid_job()).await;
    let mut old = event(ZVID_ACCOUNT);
    old.headers.insert("x-zvid-timestamp", "1779623041".parse().unwrap());
    for callback in [
        without(ZVID_ACCOUNT, "x-zvid-signature"),
        without(ZVID_ACCOUNT, "x-zvid-timestamp"),
        tampered(ZVID_ACCOUNT, "product-123", "qroduct-123"),
        old,
    ] {
        let (status, problem, asked) = answered_with(&aws, callback).await;
        assert_eq!((status, &problem["code"]), (401, &"invalid_signature".into()));
        assert_eq!(asked[..2], ["GetItem", "GetParameters"]);
    }
    assert_eq!(stored(&aws).await, zvid_job());
}

#[tokio::test]
async fn account_callback_needs_a_secret() {
    let aws = with_job(&[], &zvid_job()).await;
    let (status, problem, asked) = answered_with(&aws, event(ZVID_ACCOUNT)).await;
    assert_eq!((status, &problem["code"]), (401, &"invalid_signature".into()));
    assert_eq!(asked, ["GetItem", "GetParameters"]);
}

#[tokio::test]
async fn old_account_callback_is_refused() {
    let aws = with_job(&[ZVID_SECRET], &zvid_job()).await;
    let callbacks = callbacks(aws.tracker().unwrap(), &aws);
    let late = || DateTime::from_timestamp(1_779_624_041 + 301, 0).unwrap();
    let response = handle(&callbacks, event(ZVID_ACCOUNT).into(), late).await.unwrap();
    assert_eq!(response.status_code, 401);
}

#[tokio::test]
async fn foreign_account_callback_is_ignored() {
    // Of an unknown job, and of a job that another provider renders.
    let elsewhere = job("viralsync", "07070707-0707-8707-8707-070707070707");
    for aws in [InMemoryAws::new(&[ZVID_SECRET]), with_job(&[ZVID_SECRET], &elsewhere).await] {
        let (status, body, asked) = answered_with(&aws, event(ZVID_ACCOUNT)).await;
        assert_eq!((status, body), (200, json!({"status": "ignored"})));
        assert_eq!(asked, ["GetItem", "GetParameters", "GetItem"]);
    }
}

#[tokio::test]
async fn account_url_needs_account_callbacks() {
    for provider in ["shotstack", "viralsync", "no-such-provider", "No Name"] {
        let aws = InMemoryAws::new(&[SECRET, VIRALSYNC_SECRET]);
        let mut callback = event(ZVID_ACCOUNT);
        callback.path_parameters.insert("provider".into(), provider.into());
        let (status, problem, asked) = answered_with(&aws, callback).await;
        assert_eq!((status, &problem["code"]), (404, &"not_found".into()), "{provider}");
        assert!(asked.is_empty(), "{asked:?}");
    }
}

/// The tracker of a function that starts now.
async fn started(aws: &InMemoryAws) -> Tracker {
    let network = Network::default().seen_by(Arc::new(NoFaults));
    aws.started_tracker(network, Adjustments::default()).await.unwrap()
}

/// What a function answers that found a broken spec of a provider of one's own.
async fn answered_without(own: &str, request: ApiGatewayV2httpRequest) -> (i64, Value) {
    let aws = InMemoryAws::new(&[SECRET]);
    aws.put_spec(own, "{").await.unwrap();
    let tracker = started(&aws).await;
    let callbacks = callbacks(tracker, &aws);
    let response = handle(&callbacks, request.into(), arrival).await.unwrap();
    let Some(Body::Text(body)) = response.body else { panic!("no text") };
    (response.status_code, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn callback_without_spec_is_retried() {
    let secret = CallbackSecret::parse(SECRET.1).unwrap();
    let acme = ProviderName::parse("acme").unwrap();
    let mut for_job = event(ZVID);
    let token = secret.token(&acme, &JobId::from_bytes([7; 16]));
    for_job.path_parameters.insert("provider".into(), acme.to_string());
    for_job.path_parameters.insert("token".into(), token);
    let mut for_account = event(ZVID_ACCOUNT);
    for_account.path_parameters.insert("provider".into(), acme.to_string());

    for request in [for_job.clone(), for_account.clone()] {
        let (status, problem) = answered_without("acme", request).await;
        assert_eq!((status, &problem["code"]), (500, &"not_stored".into()));
    }
    // The token proves that there was such a provider; the account's URL proves nothing.
    assert_eq!(answered_without("other", for_job).await.0, 500);
    let (status, problem) = answered_without("other", for_account).await;
    assert_eq!((status, &problem["code"]), (404, &"not_found".into()));
}

const GUIDE: &str = include_str!("../../../docs/adding-a-provider.md");

/// The guide says to put its document, and to store its secret.
#[tokio::test]
async fn guide_provider_needs_only_its_spec() {
    let blocks = GUIDE.split("```json\n").skip(1);
    let mut blocks = blocks.map(|rest| rest.split_once("\n```").unwrap().0);
    let (spec, conversation) = (blocks.next().unwrap(), blocks.next().unwrap());
    let conversation: Value = serde_json::from_str(conversation).unwrap();
    let exchanges = conversation["exchanges"].as_array().unwrap();
    let callback = exchanges.iter().find_map(|exchange| exchange.get("callback")).unwrap();
    let secret = conversation["webhookSecrets"].as_str().unwrap();
    let aws = InMemoryAws::new(&[("providers/reelworks/webhook-secrets", secret)]);
    aws.put_spec("reelworks", spec).await.unwrap();
    let id = JobId::parse(conversation["jobId"].as_str().unwrap()).unwrap();
    let tracker = started(&aws).await;
    let rolling = Job { id: id.clone(), ..job("reelworks", "flm_1") };
    tracker.store.insert_job(&rolling).await.unwrap();

    let mut request: Value = serde_json::from_str(ZVID_ACCOUNT).unwrap();
    request["pathParameters"]["provider"] = "reelworks".into();
    request["headers"] = callback["headers"].clone();
    request["body"] = callback["body"].clone();
    let request = serde_json::from_value(request).unwrap();
    let callbacks = callbacks(tracker, &aws);
    let response = handle(&callbacks, request, arrival).await.unwrap();

    assert_eq!(response.status_code, 200);
    let done = callbacks.tracker.store.job(&id).await.unwrap().unwrap();
    assert_eq!((done.state, done.provider_status.as_deref()), (State::Completed, Some("ready")));
    assert_eq!(done.result.url.as_deref(), callback["expect"]["resultUrl"].as_str());
}

/// Lambda can then run several at once in one process, as its Managed Instances do.
#[test]
fn handler_future_is_send() {
    fn is_send<'a, F: Future + Send>(_: impl Fn(&'a Callbacks, HttpEvent) -> F) {}
    is_send(|function, event| handle(function, event, Utc::now));
}
