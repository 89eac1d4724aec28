//! The state of the table and of the bus at the end of a run.

use std::collections::{BTreeMap, BTreeSet};

use domain::delivery::DeliveryState;
use domain::id::JobId;
use serde_json::Value;

use crate::checks::invariant::Invariant;
use crate::checks::invariant_checker::text;
use crate::harness::bundle::Bundle;

impl Bundle {
    /// Checks every job and every delivery.
    pub(crate) async fn check_table(&self) {
        let store = self.aws.store();
        let answered = self.answered_requests.lock().unwrap().clone();
        let requested: BTreeSet<JobId> =
            answered.iter().filter_map(|answered| self.job_of(answered)).collect();
        for id in self.job_ids() {
            let Some(job) = store.job(&id).await.unwrap() else { continue };
            let tag = &job.request.source_record_id;
            if job.settled_at.is_none() || !job.state.has_ended() {
                let state = job.state.name();
                self.checker.violated(
                    Invariant::EveryJobSettles,
                    format!("the job of {tag} is stuck, {state}"),
                );
            }
            if !requested.contains(&id) {
                self.checker.violated(
                    Invariant::OneRenderPerRequest,
                    format!("the job of {tag} belongs to no request"),
                );
            }
            let deliveries = store.deliveries(&id).await.unwrap();
            let exhausted =
                deliveries.iter().filter(|it| matches!(it.state, DeliveryState::Exhausted(_)));
            for delivery in exhausted {
                let is_reported = self.aws.events().into_iter().any(|event| {
                    event.detail_type == "webhook.delivery.exhausted"
                        && event.detail.contains(delivery.event_id.as_str())
                });
                if !is_reported {
                    self.checker.violated(
                        Invariant::EveryJobSettles,
                        format!("no event says that a delivery of {tag} is exhausted"),
                    );
                }
            }
        }
    }

    /// Checks that an event reported every disabled endpoint.
    pub(crate) fn check_endpoints(&self) {
        for item in self.aws.table().items() {
            let Some(reason) = item.pointer("/disabled/M/reason/S").and_then(Value::as_str) else {
                continue;
            };
            let id = text(&item, "pk").trim_start_matches("endpoint#");
            let is_reported = self.aws.events().into_iter().any(|event| {
                event.detail_type == "webhook.endpoint.disabled" && event.detail.contains(id)
            });
            if !is_reported {
                self.checker.violated(
                    Invariant::EveryJobSettles,
                    format!("no event says that an endpoint is disabled: {reason}"),
                );
            }
        }
    }

    /// Checks that every repeat of an event has the same bytes, on the bus and in webhooks.
    pub(crate) fn check_bodies(&self) {
        let webhooks = self.receivers.received().into_iter().map(|it| (it.id, it.body));
        let mut bodies: BTreeMap<String, String> = BTreeMap::new();
        for (id, body) in self.bus_bodies().into_iter().chain(webhooks) {
            let first = bodies.entry(id).or_insert_with(|| body.clone());
            if *first != body {
                self.checker.violated(
                    Invariant::OneTerminalTruth,
                    format!("two bodies of one event: {first} and {body}"),
                );
            }
        }
    }

    /// The id and the body of every event on the bus.
    fn bus_bodies(&self) -> Vec<(String, String)> {
        let events = self.aws.events().into_iter();
        let bodies = events.map(|event| {
            let body: Value = serde_json::from_str(&event.detail).unwrap();
            (body["eventId"].as_str().unwrap_or_default().to_owned(), event.detail)
        });
        bodies.collect()
    }

    pub(crate) fn job_ids(&self) -> Vec<JobId> {
        let items = self.aws.table().items();
        let jobs = items.iter().filter(|item| item["sk"]["S"] == "job");
        let ids = jobs.filter_map(|item| item["pk"]["S"].as_str()?.strip_prefix("job#"));
        ids.map(|id| JobId::parse(id).unwrap()).collect()
    }
}
