//! Webhooks across all jobs: which were not delivered, and sending those again.

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::delivery::Delivery;
use domain::id::EndpointId;
use domain::time;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::api::{self, Problem};
use shared::queue::Ticket;
use shared::store::{AsOf, Committed, Order, Span, Wait};
use shared::view;

use crate::Jobs;
use crate::reading::{page_limit, page_problem, wrong};

const MAX_BODY_BYTES: usize = 16 * 1024;

/// How many deliveries one call recovers, unless it says otherwise.
const RECOVERED: u8 = 100;

/// Deliveries sent again at once: enough to hide the latency of two writes each.
const AT_ONCE: usize = 10;

/// What is to be recovered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    since: String,
    #[serde(default)]
    until: Option<String>,
    #[serde(default)]
    endpoint_id: Option<String>,
    #[serde(default)]
    limit: Option<u8>,
    #[serde(default)]
    cursor: Option<String>,
}

/// What became of a delivery that was to be sent again.
enum Recovered {
    Queued,
    /// Its endpoint is disabled: it would be given up again.
    Disabled,
    /// Another receiver's, or somebody else was faster.
    Passed,
}

impl Jobs {
    /// GET /v1/deliveries, by `state`, and `since` and `until` when they were created; `limit`
    /// and `cursor` page.
    pub(crate) async fn list_deliveries(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let parameter = |name: &str| request.query_string_parameters.first(name);
        let limit = page_limit(parameter("limit"))?;
        let cursor = parameter("cursor");
        let span = span(parameter("since"), parameter("until"), now)?;
        let store = &self.tracker.store;
        let page = match parameter("state") {
            Some("exhausted") => {
                store.undelivered(self.shards, span, Order::NewestFirst, cursor, limit).await
            }
            Some(state @ ("pending" | "delivered")) => {
                store.deliveries_in_state(state, span, cursor, limit).await
            }
            Some(_) | None => {
                return Err(wrong("state", "must be one of pending, delivered, exhausted"));
            }
        };
        let page = page.map_err(|cause| page_problem(&cause))?;
        let shown: Vec<Value> = page.items.iter().map(view::delivery_line).collect();
        Ok(api::json(200, &json!({"deliveries": shown, "next": page.next})))
    }

    /// POST /v1/deliveries/recover: sends again what was given up, a page at a time. A delivery
    /// that is sent again is no longer given up, so repeating a call does no harm, and a call
    /// that broke off is simply made again.
    pub(crate) async fn recover(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let body = api::body(request, MAX_BODY_BYTES)?;
        let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
            let detail =
                format!("The body must be {{\"since\": \"2026-05-24T12:00:00Z\"}}: {error}.");
            Problem::new(400, "malformed_json", "Malformed JSON", detail)
        })?;
        let span = span(Some(&wanted.since), wanted.until.as_deref(), now())?;
        let limit = wanted.limit.unwrap_or(RECOVERED);
        if !(1..=RECOVERED).contains(&limit) {
            return Err(wrong("limit", "must be a number from 1 to 100"));
        }
        let only = wanted.endpoint_id.as_deref().map(EndpointId::parse).transpose();
        let only = only.map_err(|error| wrong("endpointId", &error.to_string()))?;

        let cursor = wanted.cursor.as_deref();
        let store = &self.tracker.store;
        let page = store.undelivered(self.shards, span, Order::OldestFirst, cursor, limit).await;
        let page = page.map_err(|cause| page_problem(&cause))?;
        let mut wanted = page.items;
        wanted.retain(|delivery| {
            only.as_ref().is_none_or(|only| *only == EndpointId::of(&delivery.url))
        });
        let mut recovered = stream::iter(wanted)
            .map(|delivery| self.recover_one(delivery, now()))
            .buffer_unordered(AT_ONCE);
        let (mut queued, mut disabled) = (0, 0);
        while let Some(one) = recovered.next().await {
            match one? {
                Recovered::Queued => queued += 1,
                Recovered::Disabled => disabled += 1,
                Recovered::Passed => {}
            }
        }
        Ok(api::json(202, &json!({"queued": queued, "disabled": disabled, "next": page.next})))
    }

    async fn recover_one(
        &self,
        delivery: Delivery,
        now: DateTime<Utc>,
    ) -> Result<Recovered, Problem> {
        let Some(again) = delivery.recover(now) else { return Ok(Recovered::Passed) };
        let endpoint = self.tracker.store.endpoint(&delivery.url, AsOf::Now).await?;
        if endpoint.disabled.is_some() {
            return Ok(Recovered::Disabled);
        }
        Ok(match self.send_again(&again, now).await? {
            Committed::Stored => Recovered::Queued,
            Committed::Overtaken(_) => Recovered::Passed,
        })
    }

    /// Stores a delivery that starts anew, and sends its ticket.
    pub(crate) async fn send_again(
        &self,
        delivery: &Delivery,
        now: DateTime<Utc>,
    ) -> Result<Committed<Delivery>, Problem> {
        // The index first: if the ticket is lost, the poller sends another.
        let place = Wait::InIndex { until: now };
        let committed = self.tracker.store.commit_delivery(delivery, place).await?;
        if let Committed::Stored = committed {
            self.tracker.deliveries.send(&Ticket::next(delivery), Duration::ZERO).await?;
        }
        Ok(committed)
    }
}

/// What lies between two times; from the beginning and until now, unless it is said.
fn span(since: Option<&str>, until: Option<&str>, now: DateTime<Utc>) -> Result<Span, Problem> {
    let time = |name, text: Option<&str>, fallback| match text {
        None => Ok(fallback),
        Some(text) => time::parse(text)
            .ok_or_else(|| wrong(name, "must be a time, such as 2026-05-24T12:00:00Z")),
    };
    let since = time("since", since, DateTime::UNIX_EPOCH)?;
    let until = time("until", until, now)?;
    if since > until {
        return Err(wrong("since", "must not be later than `until`"));
    }
    Ok(Span { since, until })
}
