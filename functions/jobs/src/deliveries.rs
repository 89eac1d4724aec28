//! Deliveries of all jobs: listing them, and restarting those that were given up.

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
use shared::store::{Committed, Consistency, ListOrder, TimeSpan, Wait};
use shared::view;

use crate::Jobs;
use crate::query::Query;
use crate::reading::{invalid_parameter, page_limit, page_problem};

const MAX_BODY_BYTES: usize = 16 * 1024;

/// How many deliveries one call recovers by default, and at most.
const MAX_RECOVERED: u8 = 100;

/// How many deliveries are restarted concurrently: enough to hide the latency of two writes each.
const MAX_CONCURRENT: usize = 10;

/// The body of a recovery.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecoveryRequest {
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

/// The outcome of recovering a delivery.
enum RecoverOutcome {
    Queued,
    /// Its endpoint is disabled: the delivery would be given up again.
    Disabled,
    /// It is not given up any more, or another call restarted it.
    Skipped,
}

impl Jobs {
    /// GET /v1/deliveries, by `state`, and by their creation between `since` and `until`; paged
    /// by `limit` and `cursor`.
    pub(crate) async fn list_deliveries(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let query = Query::of(request);
        let limit = page_limit(query.get("limit")?)?;
        let cursor = query.get("cursor")?;
        let span = span(query.get("since")?, query.get("until")?, now)?;
        let store = &self.tracker.store;
        let page = match query.get("state")? {
            Some("exhausted") => {
                let shards = self.shards.most(&self.tracker.store).await?;
                store.undelivered(shards, span, ListOrder::NewestFirst, cursor, limit).await
            }
            Some(state @ ("pending" | "delivered")) => {
                store.deliveries_in_state(state, span, cursor, limit).await
            }
            Some(_) | None => {
                return Err(invalid_parameter(
                    "state",
                    "must be one of pending, delivered, exhausted",
                ));
            }
        };
        let page = page.map_err(|cause| page_problem(&cause))?;
        let shown: Vec<Value> = page.items.iter().map(view::delivery_line).collect();
        Ok(api::json(200, &json!({"deliveries": shown, "next": page.next})))
    }

    /// POST /v1/deliveries/recover: restarts deliveries that were given up, a page at a time. A
    /// restarted delivery is no longer given up, so a call may be repeated, also after a failure.
    pub(crate) async fn recover(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let body = api::body(request, MAX_BODY_BYTES)?;
        let recovery: RecoveryRequest = serde_json::from_slice(&body).map_err(|error| {
            let detail =
                format!("The body must be {{\"since\": \"2026-05-24T12:00:00Z\"}}: {error}.");
            Problem::new(400, "malformed_json", "Malformed JSON", detail)
        })?;
        let span = span(Some(&recovery.since), recovery.until.as_deref(), now())?;
        let limit = recovery.limit.unwrap_or(MAX_RECOVERED);
        if !(1..=MAX_RECOVERED).contains(&limit) {
            return Err(invalid_parameter("limit", "must be a number from 1 to 100"));
        }
        let only = recovery.endpoint_id.as_deref().map(EndpointId::parse).transpose();
        let only = only.map_err(|error| invalid_parameter("endpointId", &error.to_string()))?;

        let cursor = recovery.cursor.as_deref();
        let store = &self.tracker.store;
        let shards = self.shards.most(&self.tracker.store).await?;
        let page = store.undelivered(shards, span, ListOrder::OldestFirst, cursor, limit).await;
        let page = page.map_err(|cause| page_problem(&cause))?;
        let mut selected = page.items;
        selected.retain(|delivery| {
            only.as_ref().is_none_or(|only| *only == EndpointId::of(&delivery.url))
        });
        let mut recovered = stream::iter(selected)
            .map(|delivery| self.restart_one(delivery, now()))
            .buffer_unordered(MAX_CONCURRENT);
        let (mut queued, mut disabled) = (0, 0);
        while let Some(one) = recovered.next().await {
            match one? {
                RecoverOutcome::Queued => queued += 1,
                RecoverOutcome::Disabled => disabled += 1,
                RecoverOutcome::Skipped => {}
            }
        }
        Ok(api::json(202, &json!({"queued": queued, "disabled": disabled, "next": page.next})))
    }

    async fn restart_one(
        &self,
        delivery: Delivery,
        now: DateTime<Utc>,
    ) -> Result<RecoverOutcome, Problem> {
        let Some(again) = delivery.recover(now) else { return Ok(RecoverOutcome::Skipped) };
        let endpoint = self.tracker.store.endpoint(&delivery.url, Consistency::Strong).await?;
        if endpoint.disabled.is_some() {
            return Ok(RecoverOutcome::Disabled);
        }
        Ok(match self.restart(&again, now).await? {
            Committed::Stored => RecoverOutcome::Queued,
            Committed::Conflict(_) => RecoverOutcome::Skipped,
        })
    }

    /// Stores a restarted delivery, and sends its ticket.
    pub(crate) async fn restart(
        &self,
        delivery: &Delivery,
        now: DateTime<Utc>,
    ) -> Result<Committed<Delivery>, Problem> {
        // The delivery enters the `due` index first: if its ticket is lost, the poller sends
        // another.
        let place = Wait::InIndex { until: now };
        let committed = self.tracker.store.commit_delivery(delivery, place).await?;
        if let Committed::Stored = committed {
            self.tracker.deliveries.send(&Ticket::next(delivery), Duration::ZERO).await?;
        }
        Ok(committed)
    }
}

/// The span between two times. By default it has no start, and ends now.
fn span(since: Option<&str>, until: Option<&str>, now: DateTime<Utc>) -> Result<TimeSpan, Problem> {
    let time = |name, text: Option<&str>, fallback| match text {
        None => Ok(fallback),
        Some(text) => time::parse(text)
            .ok_or_else(|| invalid_parameter(name, "must be a time, such as 2026-05-24T12:00:00Z")),
    };
    let since = time("since", since, DateTime::UNIX_EPOCH)?;
    let until = time("until", until, now)?;
    if since > until {
        return Err(invalid_parameter("since", "must not be later than `until`"));
    }
    Ok(TimeSpan { since, until })
}
