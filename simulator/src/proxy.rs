//! A proxy in front of an AWS endpoint that records the cost of each call.
//!
//! It changes DynamoDB requests that do not ask for their capacity, so that they do
//! ([`capacity`]). An endpoint that checks signatures would refuse those; emulators do not.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::Utc;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, header, request};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::environment::HttpClient;
use crate::ledger::Record;
use crate::ledger::capacity::{self, Units};
use crate::simulation::Simulation;

/// The largest body that passes: a function's code, as base64 in JSON.
const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;

/// The most that is kept of a request's body.
const MAX_KEPT_BODY_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) simulation: Arc<Simulation>,
    pub(crate) client: HttpClient,
    pub(crate) upstream: Authority,
}

/// Handles every request to the AWS listener.
pub(crate) async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    // A task of its own, because a caller that disconnects does not undo the write.
    let work = tokio::spawn(async move { proxy.forward(request).await });
    match work.await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Proxy {
    async fn forward(&self, request: Request) -> Response {
        let at = Utc::now().timestamp_millis();
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
            return (StatusCode::PAYLOAD_TOO_LARGE, "request body unreadable").into_response();
        };
        let (service, operation) = name_of(&head, &body);
        let invocation = head.headers.get("amz-sdk-invocation-id");
        let invocation = invocation.and_then(|id| id.to_str().ok()).map(str::to_owned);
        let metered = service == "dynamodb" && capacity::has_capacity(&operation);
        let request =
            String::from_utf8_lossy(body.get(..MAX_KEPT_BODY_BYTES).unwrap_or(&body)).into_owned();
        let asked = metered.then(|| capacity::ask(&body)).flatten();

        let (status, headers, answer) = match self.send(&head, asked.unwrap_or(body)).await {
            Ok(answer) => answer,
            Err(error) => {
                let message = format!("no answer from {}: {error}", self.upstream);
                (StatusCode::BAD_GATEWAY, HeaderMap::new(), Bytes::from(message))
            }
        };
        let document: Value = if metered || !status.is_success() {
            serde_json::from_slice(&answer).unwrap_or_default()
        } else {
            Value::Null
        };
        let units =
            if metered { capacity::consumed(&operation, &document) } else { Units::default() };
        let record = Record {
            seq: 0,
            at,
            service,
            operation,
            invocation,
            request,
            status: status.as_u16(),
            error: error_type(status, &document),
            units,
        };
        self.simulation.state().ledger.add(record);
        (status, headers, Body::from(answer)).into_response()
    }

    async fn send(
        &self,
        head: &request::Parts,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, HeaderMap, Bytes)> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.upstream.clone())
            .path_and_query(path)
            .build()?;
        let mut request =
            http::Request::builder().method(head.method.clone()).uri(uri).body(Full::new(body))?;
        *request.headers_mut() = end_to_end(head.headers.clone());
        // The body may have changed, and the client counts for itself.
        request.headers_mut().remove(header::CONTENT_LENGTH);

        let (head, body) = self.client.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status, end_to_end(head.headers), body))
    }
}

/// The headers that are not about one connection. `Expect` is answered by this server.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::EXPECT] {
        headers.remove(hop);
    }
    headers.remove("keep-alive");
    headers
}

/// The service and the operation. The JSON protocols name both in `X-Amz-Target`, the query
/// protocol names the operation in its form, the others in the path.
fn name_of(head: &request::Parts, body: &[u8]) -> (String, String) {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some((prefix, operation)) = text("x-amz-target").and_then(|it| it.rsplit_once('.')) {
        let service = match prefix {
            "AmazonSQS" => "sqs",
            "AmazonSSM" => "ssm",
            "AWSEvents" => "events",
            _ if prefix.starts_with("DynamoDB_") => "dynamodb",
            other => other,
        };
        return (service.to_owned(), operation.to_owned());
    }
    // `AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/<service>/aws4_request, …`
    let service = text("authorization")
        .and_then(|value| value.split_once("Credential="))
        .and_then(|(_, scope)| scope.split('/').nth(3))
        .unwrap_or("unknown");
    let form = text("content-type").is_some_and(|it| it.contains("x-www-form-urlencoded"));
    let action = form
        .then(|| str::from_utf8(body).ok()?.split('&').find_map(|it| it.strip_prefix("Action=")))
        .flatten();
    let operation =
        action.map_or_else(|| format!("{} {}", head.method, head.uri.path()), str::to_owned);
    (service.to_owned(), operation)
}

/// `com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException` without the part up to the
/// `#`.
fn error_type(status: StatusCode, document: &Value) -> Option<String> {
    let full = document.get("__type").filter(|_| !status.is_success())?.as_str()?;
    Some(full.rsplit('#').next().unwrap_or(full).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(headers: &[(&str, &str)], body: &str) -> String {
        let mut request = http::Request::builder().method("POST").uri("/2015-03-31/functions?x=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let (service, operation) = name_of(&head, body.as_bytes());
        format!("{service} {operation}")
    }

    #[test]
    fn calls_are_named() {
        let scope = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, x";
        let form = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        for (headers, body, expected) in [
            (&[("x-amz-target", "DynamoDB_20120810.PutItem")] as &[_], "", "dynamodb PutItem"),
            (&[("x-amz-target", "AmazonSQS.SendMessage")], "", "sqs SendMessage"),
            (&[("x-amz-target", "AWSEvents.PutEvents")], "", "events PutEvents"),
            (&[("x-amz-target", "AmazonSSM.GetParameter")], "", "ssm GetParameter"),
            (&[("authorization", scope)], "{}", "lambda POST /2015-03-31/functions"),
            (&[("authorization", scope), form], "Version=1&Action=Do", "lambda Do"),
            (&[], "", "unknown POST /2015-03-31/functions"),
        ] {
            assert_eq!(named(headers, body), expected);
        }
    }
}
