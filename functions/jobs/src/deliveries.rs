//! Deliveries of all jobs: listing them, and storing a changed one.

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::delivery::Delivery;
use domain::time;
use serde_json::{Value, json};
use shared::api::{self, Problem};
use shared::queue::Ticket;
use shared::store::{Committed, ListOrder, TimeSpan, Wait};
use shared::tracker::{MAX_CONFLICT_RETRIES, TrackError};
use shared::view;

use crate::Jobs;
use crate::query::Query;
use crate::reading::{invalid_parameter, page_limit, page_problem};

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

    /// Stores what `decide` makes of a delivery, and sends the ticket for what follows. After a
    /// conflict it decides again, from what the other writer stored, unless that has sent the
    /// delivery again.
    pub(crate) async fn change_delivery(
        &self,
        mut delivery: Delivery,
        decide: impl Fn(&Delivery) -> Result<Delivery, Problem>,
        now: DateTime<Utc>,
    ) -> Result<Delivery, Problem> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let changed = decide(&delivery)?;
            match self.store_and_send(&changed, now).await? {
                Committed::Stored => return Ok(changed),
                Committed::Conflict(Some(theirs)) if theirs.round_at == delivery.round_at => {
                    delivery = theirs;
                }
                Committed::Conflict(Some(_)) => {
                    return Err(Problem::new(
                        409,
                        "delivery_pending",
                        "Delivery pending",
                        "Another request has just sent this delivery again.",
                    ));
                }
                Committed::Conflict(None) => return Err(Problem::not_found("delivery")),
            }
        }
        Err(TrackError::TooManyConflicts.into())
    }

    /// Stores a delivery that was restarted or dropped, and sends the ticket for what follows.
    pub(crate) async fn store_and_send(
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
pub(crate) fn span(
    since: Option<&str>,
    until: Option<&str>,
    now: DateTime<Utc>,
) -> Result<TimeSpan, Problem> {
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
