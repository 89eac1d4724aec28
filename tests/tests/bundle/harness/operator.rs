//! The operator: cancels renders, redelivers webhooks and rotates the secret. The answers are
//! checked: at once where the effect is visible, otherwise at the end of the run.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::clock;
use chrono::{DateTime, TimeDelta, Utc};
use domain::delivery::{Delivery, DeliveryState, GiveUpReason};
use domain::id::{EndpointId, EventId, JobId};
use domain::job::State;
use http::Method;
use serde_json::{Value, json};

use crate::checks::invariant_checker::text;
use crate::harness::backend::AnsweredCall;
use crate::harness::bundle::Bundle;
use crate::harness::renders::ProviderRender;

/// How often a cancellation is tried that the provider has not accepted yet, and the wait between
/// the tries.
const MAX_CANCEL_TRIES: usize = 20;
const CANCEL_INTERVAL: Duration = Duration::from_secs(15);

/// The age from which a recovery must find a webhook. It allows for wrong clocks and late indexes.
const MIN_AGE: TimeDelta = TimeDelta::minutes(10);

/// The grace period of a rotated secret, in seconds.
pub(crate) const GRACE_S: i64 = 3600;

/// A redelivery that the API has promised.
#[derive(Clone, Debug)]
pub(crate) struct PromisedRedelivery {
    pub(crate) event: EventId,
    pub(crate) since: DateTime<Utc>,
}

impl Bundle {
    /// Calls one of the operator's routes, chosen at random.
    pub(crate) async fn operate(self: &Arc<Self>, job: &JobId) {
        match self.random_faults.pick(4) {
            0 => drop(self.cancel(job).await),
            1 => drop(self.redeliver(job).await),
            2 => self.recover().await,
            _ => self.rotate().await,
        }
    }

    /// Cancels a render, and returns the HTTP status if the provider has the render at all.
    pub(crate) async fn cancel(self: &Arc<Self>, job: &JobId) -> Option<u16> {
        let path = format!("/v1/jobs/{job}/cancel");
        for _ in 0..MAX_CANCEL_TRIES {
            let was_accepted = !text(&self.item_of(job), "render").is_empty();
            let tried =
                self.call_until_answered(Method::POST, &path, &Value::Null, &[202, 409]).await?;
            let item = self.item_of(job);
            let render = self.render(text(&item, "render")).await;
            let is_over = render.is_some_and(|render| render.end().is_some());
            let is_so = match (tried.status, tried.code.as_str()) {
                (202, _) | (409, "cancel_refused") => is_over,
                (409, "job_ended") => {
                    State::from_name(text(&item, "state")).is_some_and(State::has_ended)
                }
                (409, "cancel_not_supported") => text(&item, "provider") != "viralsync",
                (409, "not_accepted_yet") => !was_accepted,
                _ => false,
            };
            if !is_so {
                self.checker
                    .violation(format!("contract: cancelling {job} is answered {tried:?}: {item}"));
            }
            if tried.code != "not_accepted_yet" {
                return Some(tried.status);
            }
            tokio::time::sleep(CANCEL_INTERVAL).await;
        }
        None
    }

    /// Redelivers the last webhook of a job.
    pub(crate) async fn redeliver(self: &Arc<Self>, job: &JobId) -> Option<u16> {
        let path = format!("/v1/jobs/{job}/redeliver");
        let before = self.aws.store().deliveries(job).await.unwrap();
        let is_unpublished = self.item_of(job).get("outbox").is_some();
        let begun = clock::true_now();
        let tried =
            self.call_until_answered(Method::POST, &path, &Value::Null, &[202, 409]).await?;
        let after = self.aws.store().deliveries(job).await.unwrap();
        let is_pending = |it: &Delivery| matches!(it.state, DeliveryState::Pending { .. });
        let is_so = match (tried.status, tried.code.as_str()) {
            (202, _) => match tried.body["eventId"].as_str().map(EventId::parse) {
                Some(Ok(event)) => {
                    self.promise(event, tried.since);
                    true
                }
                Some(Err(_)) | None => false,
            },
            (409, "nothing_to_deliver" | "webhook_not_configured") => before.is_empty(),
            // It is pending by itself, or by an earlier try whose answer was lost.
            (409, "delivery_pending") => {
                is_unpublished
                    || before.iter().chain(&after).any(is_pending)
                    || after.iter().any(|it| self.arrived_since(&it.event_id, begun))
            }
            _ => false,
        };
        if !is_so {
            self.checker.violation(format!(
                "contract: sending {job} again is answered {tried:?}: {before:?}"
            ));
        }
        Some(tried.status)
    }

    /// Redirects the webhook of a job that is being tried. The answer may be lost, or come when the
    /// attempt has begun that it could not take back; then it is asked for again.
    pub(crate) async fn redirect(self: &Arc<Self>, job: &JobId, url: &str) {
        let path = format!("/v1/jobs/{job}/redeliver");
        let tried = self.post_until_possible(&path, &json!({"to": url})).await;
        let Some(tried) = tried else { return };
        let is_so =
            matches!((tried.status, tried.code.as_str()), (202, _) | (409, "delivery_pending"));
        let event = self.aws.store().deliveries(job).await.unwrap().pop();
        match event {
            Some(delivery) if is_so && delivery.url == url => {
                self.checker.expect_at(&delivery.event_id, url);
            }
            other => self.checker.violation(format!(
                "contract: the redirect of {job} is answered {tried:?}: {other:?}"
            )),
        }
    }

    /// Drops the webhook of a job that is being tried, the same way.
    pub(crate) async fn drop_delivery(self: &Arc<Self>, job: &JobId) {
        let path = format!("/v1/jobs/{job}/drop-delivery");
        let Some(tried) = self.post_until_possible(&path, &Value::Null).await else { return };
        let is_so = matches!((tried.status, tried.code.as_str()), (202, _) | (409, "not_pending"));
        let delivery = self.aws.store().deliveries(job).await.unwrap().pop();
        let is_over = |delivery: &Delivery| match delivery.state {
            DeliveryState::GivenUp(given_up) | DeliveryState::Exhausted(given_up) => {
                given_up.reason == GiveUpReason::Dropped
            }
            DeliveryState::Pending { .. } | DeliveryState::Delivered => false,
        };
        if !is_so || !delivery.as_ref().is_some_and(is_over) {
            self.checker.violation(format!(
                "contract: the drop of {job} is answered {tried:?}: {delivery:?}"
            ));
        }
    }

    async fn post_until_possible(
        self: &Arc<Self>,
        path: &str,
        body: &Value,
    ) -> Option<AnsweredCall> {
        loop {
            let tried = self.call_until_answered(Method::POST, path, body, &[202, 409]).await?;
            if tried.code != "attempt_under_way" {
                return Some(tried);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Checks that a receiver got no more than it had `before`.
    pub(crate) fn expect_no_more(&self, receiver: &str, before: usize) {
        let after = self.received(receiver);
        if after != before {
            let more = after - before;
            self.checker.violation(format!("contract: {more} attempts at {receiver} began late"));
        }
    }

    /// Makes the webhooks that are missing.
    pub(crate) async fn recover_missing(self: &Arc<Self>) {
        let mut wanted = json!({"since": "2026-01-01T00:00:00Z", "missing": true});
        loop {
            let path = "/v1/deliveries/recover";
            let Some(tried) = self.call_until_answered(Method::POST, path, &wanted, &[202]).await
            else {
                return;
            };
            match &tried.body["next"] {
                Value::Null => break,
                next => wanted["cursor"] = next.clone(),
            }
        }
    }

    /// Redelivers all exhausted webhooks.
    pub(crate) async fn recover(self: &Arc<Self>) {
        let mut lost = self.given_up().await;
        let begun = clock::true_now();
        lost.retain(|delivery| begun - delivery.created_at >= MIN_AGE && !self.is_gone(delivery));
        let mut wanted = json!({"since": "2026-01-01T00:00:00Z"});
        loop {
            let path = "/v1/deliveries/recover";
            let Some(tried) = self.call_until_answered(Method::POST, path, &wanted, &[202]).await
            else {
                return;
            };
            match &tried.body["next"] {
                Value::Null => break,
                next => wanted["cursor"] = next.clone(),
            }
        }
        for delivery in lost {
            self.promise(delivery.event_id, begun);
        }
    }

    /// Rotates the secret. The receivers check later that webhooks are signed with it.
    pub(crate) async fn rotate(self: &Arc<Self>) {
        let rotation = json!({"gracePeriodSeconds": GRACE_S});
        let path = "/v1/webhook-config/rotate-secret";
        let Some(tried) = self.call_until_answered(Method::POST, path, &rotation, &[200]).await
        else {
            return;
        };
        if !tried.body["secret"].is_string() {
            self.checker.violation("contract: a new secret is not shown");
        }
    }

    fn promise(&self, event: EventId, since: DateTime<Utc>) {
        self.promised_redeliveries.lock().unwrap().push(PromisedRedelivery { event, since });
    }

    pub(crate) fn arrived_since(&self, event: &EventId, since: DateTime<Utc>) -> bool {
        let mut webhooks = self.receivers.received().into_iter();
        webhooks.any(|webhook| webhook.id == event.as_str() && webhook.at >= since)
    }

    /// All exhausted deliveries.
    pub(crate) async fn given_up(&self) -> Vec<Delivery> {
        let mut given_up = Vec::new();
        for job in self.job_ids() {
            given_up.extend(self.aws.store().deliveries(&job).await.unwrap());
        }
        given_up.retain(|delivery| matches!(delivery.state, DeliveryState::Exhausted(_)));
        given_up
    }

    /// Whether the endpoint of a delivery is disabled.
    pub(crate) fn is_gone(&self, delivery: &Delivery) -> bool {
        let pk = format!("endpoint#{}", EndpointId::of(&delivery.url));
        let endpoint = self.aws.table().item(&pk, "endpoint");
        endpoint.is_some_and(|endpoint| endpoint.get("disabled").is_some())
    }

    fn item_of(&self, job: &JobId) -> Value {
        self.aws.table().item(&format!("job#{job}"), "job").unwrap_or_default()
    }

    async fn render(&self, id: &str) -> Option<ProviderRender> {
        self.renders().await.into_iter().find(|render| render.id == id)
    }
}
