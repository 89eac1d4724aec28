//! Requests that are refused with a problem document that names the error, and that leave no
//! trace in the table or at a provider.

use anyhow::Result;
use domain::id::{IdempotencyKey, RequestId};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};
use tests::{SimulatedProvider, TestJob, TestStack};

/// An invalid request, and the problem document that it must get.
struct BadRequest {
    test_job: TestJob,
    headers: Vec<(&'static str, String)>,
    body: String,
    status: u16,
    code: &'static str,
    /// The problem's `field`, if it has one.
    field: Option<&'static str>,
}

impl BadRequest {
    fn new(stack: &TestStack, test_job: TestJob, status: u16, code: &'static str) -> Self {
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("authorization", stack.bearer()),
            ("idempotency-key", test_job.tag.clone()),
        ];
        let body = test_job.body.to_string();
        Self { test_job, headers, body, status, code, field: None }
    }

    fn about(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    /// Replaces a header's value, or removes the header.
    fn sending(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.extend(value.map(|value| (name, value.to_owned())));
        self
    }

    /// The beginning of the request, for assertion messages.
    fn shown(&self) -> String {
        format!("{:?} {}", self.headers, self.body.chars().take(400).collect::<String>())
    }
}

/// More than the number of processors, because the functions mostly wait.
const CONCURRENCY: usize = 6;

#[tokio::test]
async fn submit_refused_leaves_no_trace() -> Result<()> {
    let stack = TestStack::connect("bad").await?;
    let before = stack.ledger_now().await?;
    let mut all = wrong_members(&stack).await?;
    all.extend(wrong_bodies(&stack).await?);
    all.extend(wrong_headers(&stack).await?);

    stream::iter(&all)
        .map(Ok)
        .try_for_each_concurrent(CONCURRENCY, |bad| assert_explained(&stack, bad))
        .await?;

    for bad in &all {
        assert_eq!(stack.jobs_of_source(&bad.test_job).await?, 0, "{}", bad.shown());
        assert_eq!(stack.provider_calls(&bad.test_job).await?.len(), 0, "{}", bad.shown());
        // The ledger shows that nothing was ever written, published or queued.
        let record = RequestId::of_key(&IdempotencyKey::parse(&bad.test_job.tag)?);
        for trace in [bad.test_job.tag.as_str(), record.as_str()] {
            let requests = stack.ledger(before, trace).await?;
            assert!(requests.is_empty(), "{}: {requests:#?}", bad.shown());
        }
    }
    Ok(())
}

async fn assert_explained(stack: &TestStack, bad: &BadRequest) -> Result<()> {
    let headers: Vec<_> = bad.headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let answer = stack.post_raw(&headers, bad.body.clone()).await?;

    assert_eq!(answer.status, bad.status, "{}: {answer}", bad.shown());
    assert_eq!(answer.header("content-type"), "application/problem+json", "{}", bad.shown());
    let mut problem: Map<String, Value> = answer.json()?;
    for text in ["title", "detail"] {
        let text = problem.remove(text);
        let text = text.as_ref().and_then(Value::as_str).unwrap_or_default();
        assert!(!text.is_empty(), "{}: {answer}", bad.shown());
    }
    let mut expected = json!({
        "type": format!("urn:render-relay:problem:{}", bad.code),
        "status": bad.status,
        "code": bad.code,
    });
    if let Some(field) = bad.field {
        expected["field"] = json!(field);
    }
    assert_eq!(Value::Object(problem), expected, "{}", bad.shown());
    if bad.status == 401 {
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{}", bad.shown());
    }
    Ok(())
}

async fn wrong_members(stack: &TestStack) -> Result<Vec<BadRequest>> {
    let too_long = |most: usize| json!("x".repeat(most + 1));
    let mut all = Vec::new();
    for (code, member, values) in [
        ("missing_field", "provider", vec![Value::Null]),
        ("missing_field", "payload", vec![Value::Null]),
        ("missing_field", "sourceRecordId", vec![Value::Null]),
        ("unknown_provider", "provider", vec![json!("unknown"), json!("zvid2")]),
        ("invalid_field", "provider", vec![json!(5), json!("../zvid"), json!("")]),
        // Zvid's `jobId` is ours to choose, so a payload with one is refused too.
        (
            "invalid_field",
            "payload",
            vec![json!([]), json!("{}"), json!({"payload": {}, "jobId": "x"})],
        ),
        (
            "invalid_field",
            "sourceRecordId",
            vec![json!(123), json!(""), json!("a\nb"), too_long(256)],
        ),
        ("invalid_field", "payloadVersion", vec![json!(4), json!(""), too_long(128)]),
        ("invalid_field", "events", vec![json!("all"), json!([]), json!(["video.render.done"])]),
        ("invalid_field", "metadata", vec![json!([]), json!({"k": too_long(2_048)})]),
        ("invalid_field", "providerWebhook", vec![json!("yes"), json!(1)]),
        ("invalid_field", "callbackUrl", vec![json!(1)]),
        (
            "invalid_callback_url",
            "callbackUrl",
            vec![json!("/hooks"), json!("ftp://a.example/"), json!("https://u:p@a.example/")],
        ),
        ("invalid_field", "callbackURL", vec![json!("https://a.example/")]),
    ] {
        for value in values {
            let test_job = stack.new_job(SimulatedProvider::Zvid).await?.with(member, value);
            all.push(BadRequest::new(stack, test_job, 422, code).about(member));
        }
    }

    let mut both =
        stack.new_job(SimulatedProvider::Shotstack).await?.with("providerWebhook", json!(true));
    both.body["payload"]["callback"] = json!("https://theirs.example/");
    all.push(BadRequest::new(stack, both, 422, "invalid_field").about("providerWebhook"));
    Ok(all)
}

async fn wrong_bodies(stack: &TestStack) -> Result<Vec<BadRequest>> {
    let good = stack.new_job(SimulatedProvider::Zvid).await?.body.to_string();
    let deep = format!("{{\"payload\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let mut all = Vec::new();
    for body in [
        String::new(),
        good[..good.len() - 1].to_owned(),
        format!("{good}{good}"),
        format!("[{good}]"),
        json!(good).to_string(),
        "null".to_owned(),
        deep,
    ] {
        let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
        all.push(BadRequest { body, ..BadRequest::new(stack, test_job, 400, "malformed_json") });
    }

    let mut large = BadRequest::new(
        stack,
        stack.new_job(SimulatedProvider::Zvid).await?,
        413,
        "payload_too_large",
    );
    large.body += &" ".repeat(1024 * 1024 + 1 - large.body.len());
    all.push(large);
    let mut dense = stack.new_job(SimulatedProvider::Zvid).await?;
    dense.body["payload"]["name"] = json!(format!("{}{}", dense.tag, noise(800_000)));
    all.push(BadRequest::new(stack, dense, 413, "payload_too_large").about("payload"));
    Ok(all)
}

async fn wrong_headers(stack: &TestStack) -> Result<Vec<BadRequest>> {
    let known = stack.bearer();
    let (key, basic) = (known.replace("Bearer ", ""), known.replace("Bearer", "Basic"));
    let mut all = Vec::new();
    for wrong in [None, Some(""), Some("Bearer"), Some("Bearer rr_no"), Some(&key), Some(&basic)] {
        let bad = BadRequest::new(
            stack,
            stack.new_job(SimulatedProvider::Zvid).await?,
            401,
            "unauthorized",
        );
        all.push(bad.sending("authorization", wrong));
    }
    for wrong in ["", "two words", &"k".repeat(256), "schlüssel"] {
        let test_job = stack.new_job(SimulatedProvider::Zvid).await?;
        let bad = BadRequest::new(stack, test_job, 422, "invalid_idempotency_key");
        all.push(bad.sending("idempotency-key", Some(wrong)).about("Idempotency-Key"));
    }
    Ok(all)
}

/// Text that does not compress below three quarters of its length.
fn noise(length: usize) -> String {
    let mut state = 1u64;
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(letters[usize::from(state.to_be_bytes()[0] & 63)])
    })
    .take(length)
    .collect()
}
