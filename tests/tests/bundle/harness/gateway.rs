//! API Gateway. A function that dies is a 500 to the caller, one that takes too long or has no
//! free execution a 503, and a request too many a 429.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_in_memory::quotas::Throttle;
use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use aws_lambda_events::encodings::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use serde_json::{Value, json};

use crate::harness::bundle::Bundle;
use crate::harness::functions::{Function, FunctionAnswer, FunctionEvent};
use crate::harness::invocation::InvocationEnd;

/// The time after which API Gateway gives up on a function.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The answer that a caller sees.
#[derive(Clone, Debug)]
pub(crate) struct GatewayResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl GatewayResponse {
    fn of_gateway(status: u16) -> Self {
        let message = match status {
            404 => "Not Found",
            429 => "Too Many Requests",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        Self { status, headers: HeaderMap::new(), body: json!({"message": message}) }
    }

    /// Whether the same request may be answered later.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.status >= 500 || self.status == 429
    }
}

/// The routes of the template: method, path and function.
pub(crate) fn routes() -> &'static [(String, String, Function)] {
    static ROUTES: OnceLock<Vec<(String, String, Function)>> = OnceLock::new();
    ROUTES.get_or_init(|| {
        let mut lines = include_str!("../../../../template.yaml").lines().map(str::trim);
        let mut routes = Vec::new();
        while let Some(line) = lines.next() {
            let Some((method, path)) =
                line.strip_prefix("RouteKey: ").and_then(|key| key.split_once(' '))
            else {
                continue;
            };
            let target = lines.next().unwrap_or_default();
            let function = match target.strip_prefix("Target: !Sub integrations/${") {
                Some("SubmitIntegration}") => Function::Submit,
                Some("WebhookIntegration}") => Function::Webhook,
                Some("JobsIntegration}") => Function::Jobs,
                _ => panic!("{line}: {target}"),
            };
            routes.push((method.to_owned(), path.to_owned(), function));
        }
        routes
    })
}

/// The route of a request, with its path parameters. One that takes the rest of a path as one
/// parameter is for what no other route takes.
fn route(method: &Method, path: &str) -> Option<(String, Function, HashMap<String, String>)> {
    let (greedy, full): (Vec<_>, Vec<_>) =
        routes().iter().partition(|(_, pattern, _)| pattern.ends_with("+}"));
    full.into_iter().chain(greedy).find_map(|(wanted, pattern, function)| {
        if wanted != "ANY" && method.as_str() != *wanted {
            return None;
        }
        Some((format!("{wanted} {pattern}"), *function, named(pattern, path)?))
    })
}

/// The path parameters, if the path has this pattern.
fn named(pattern: &str, path: &str) -> Option<HashMap<String, String>> {
    let mut named = HashMap::new();
    let mut parts = path.split('/');
    for name in pattern.split('/') {
        match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if name.ends_with('+') => {
                let rest = parts.by_ref().collect::<Vec<_>>().join("/");
                named.insert(name.trim_end_matches('+').to_owned(), rest);
            }
            Some(name) => drop(named.insert(name.to_owned(), parts.next()?.to_owned())),
            None if parts.next() == Some(name) => {}
            None => return None,
        }
    }
    let is_named = named.values().all(|value| !value.is_empty());
    (parts.next().is_none() && is_named).then_some(named)
}

impl Bundle {
    /// Sends a request to the API.
    pub(crate) async fn call(self: &Arc<Self>, request: Request<Bytes>) -> GatewayResponse {
        let Some((key, function, named)) = route(request.method(), request.uri().path()) else {
            return GatewayResponse::of_gateway(404);
        };
        if !self.routes.lock().unwrap().admit(&key) {
            self.aws.count_throttle(Throttle::Route);
            return GatewayResponse::of_gateway(429);
        }
        let mut event = ApiGatewayV2httpRequest::default();
        event.route_key = Some(key);
        event.request_context.http.method = request.method().clone();
        event.headers = request.headers().clone();
        event.path_parameters = named;
        event.raw_query_string = request.uri().query().map(str::to_owned);
        event.body = Some(String::from_utf8_lossy(request.body()).into_owned());
        let event = FunctionEvent::Http(Box::new(event));
        // The function continues when the gateway has given up.
        match tokio::time::timeout(TIMEOUT, self.invoke(function, event)).await {
            Ok(Ok(InvocationEnd::Answered(FunctionAnswer::Http(answer)))) => {
                let body = match answer.body {
                    Some(Body::Text(text)) => text,
                    Some(_) | None => String::new(),
                };
                self.checker.find_secrets(&body, "an answer");
                GatewayResponse {
                    status: u16::try_from(answer.status_code).unwrap_or(0),
                    headers: answer.headers,
                    body: serde_json::from_str(&body).unwrap_or_default(),
                }
            }
            Ok(Ok(InvocationEnd::Throttled)) => GatewayResponse::of_gateway(503),
            Ok(Ok(_) | Err(_)) => GatewayResponse::of_gateway(500),
            Err(_) => GatewayResponse::of_gateway(503),
        }
    }

    /// Sends a provider's callback, and returns the status that the provider sees.
    pub(crate) async fn called_back(self: &Arc<Self>, request: Request<Bytes>) -> u16 {
        let (path, body) = (request.uri().path().to_owned(), request.body().clone());
        let seen = self.call(request).await;
        if (200..300).contains(&seen.status) {
            self.check_accepted_callback(&path, &body);
        }
        seen.status
    }
}
