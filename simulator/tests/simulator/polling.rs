//! Repeated status calls, as a poller makes them.

use http::Method;
use serde_json::Value;

use crate::server::{TestServer, until};

/// Polls until `pointer` has the value `last`, and returns the values on the way and the last
/// answer.
pub(crate) async fn poll(
    server: &TestServer,
    path: &str,
    pointer: &str,
    last: &str,
) -> (Vec<String>, Value) {
    let mut seen = Vec::<String>::new();
    let answer = until(path, async || {
        let answer = server.call(Method::GET, path, "").await.json();
        let status = answer.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let is_last = status == last;
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        is_last.then_some(answer)
    })
    .await;
    (seen, answer)
}

/// A slow machine may miss a state, but never sees one too early or twice.
pub(crate) fn assert_in_order(seen: &[String], vocabulary: &[&str]) {
    let mut rest = vocabulary.iter();
    assert!(seen.iter().all(|status| rest.any(|word| word == status)), "{seen:?}");
}

/// The answers to a submit of `body`, one for each of `statuses` in the scenario.
pub(crate) async fn forced_refusals(
    server: &TestServer,
    provider: &str,
    submit: &str,
    body: &str,
    statuses: &[u16],
) -> String {
    let mut answers = Vec::new();
    for status in statuses {
        let options = format!(r#"{{"submitStatus":{status}}}"#);
        let path = format!("/_control/scenarios/{provider}/refused");
        assert_eq!(server.set(&path, &options).await, 204);
        let answer = server.call(Method::POST, submit, body).await;
        let retry_after = answer.headers.get("retry-after");
        let retry_after = retry_after.map(|value| format!(" ({})", value.to_str().unwrap()));
        answers.push(format!(
            "{}{} {}",
            answer.status,
            retry_after.unwrap_or_default(),
            answer.text
        ));
    }
    assert_eq!(server.look("/_control/renders?tag=refused").await, serde_json::json!([]));
    answers.join("\n")
}

/// The answers to calls with the good key.
pub(crate) async fn refusals(server: &TestServer, calls: &[(Method, &str, &str)]) -> String {
    let mut answers = Vec::new();
    for (method, path, body) in calls {
        let answer = server.call(method.clone(), path, body).await;
        answers.push(format!("{} {}", answer.status, answer.text));
    }
    answers.join("\n")
}

/// The answers to a status call without a key and with a wrong one.
pub(crate) async fn key_refusals(server: &TestServer, path: &str) -> String {
    let mut answers = Vec::new();
    for headers in [&[][..], &[("x-api-key", "other")]] {
        let answer = server.send(Method::GET, &server.url(path), headers, "").await;
        answers.push(format!("{} {}", answer.status, answer.text));
    }
    answers.join("\n")
}
