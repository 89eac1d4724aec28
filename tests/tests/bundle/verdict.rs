//! The invariants, judged when everything is quiet: by the providers' and the receivers' logs,
//! the bus and the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::delivery::DeliveryState;
use domain::id::JobId;
use serde_json::Value;

use crate::backend::Placed;
use crate::bundle::Bundle;
use crate::watch::text;

impl Bundle {
    /// Judges everything.
    pub(crate) async fn judge(self: &Arc<Self>) {
        let renders = self.renders().await;
        let placed = self.placed.lock().unwrap().clone();
        for placed in &placed {
            self.judge_order(placed, &renders).await;
        }
        self.judge_promises().await;
        self.judge_table().await;
        self.judge_endpoints();
        self.judge_bodies();
        let lanes = [self.aws.delivery_queue(), self.aws.slow_delivery_queue()];
        if lanes.iter().any(|lane| !lane.dead_letters().is_empty()) {
            self.watch.violation("invariant 2: a ticket is among the dead letters");
        }
        self.judge_secrets();
    }

    /// Every job and delivery there is.
    async fn judge_table(&self) {
        let store = self.aws.store();
        let placed = self.placed.lock().unwrap().clone();
        let ordered: BTreeSet<JobId> = placed.iter().filter_map(Placed::job).collect();
        for id in self.job_ids() {
            let Some(job) = store.job(&id).await.unwrap() else { continue };
            let mark = &job.request.source_record_id;
            if job.settled_at.is_none() || !job.state.has_ended() {
                let state = job.state.name();
                self.watch.violation(format!("invariant 2: the job of {mark} is stuck, {state}"));
            }
            if !ordered.contains(&id) {
                self.watch.violation(format!("invariant 1: nobody ordered the job of {mark}"));
            }
            let deliveries = store.deliveries(&id).await.unwrap();
            let exhausted =
                deliveries.iter().filter(|it| matches!(it.state, DeliveryState::Exhausted(_)));
            for delivery in exhausted {
                let said = self.aws.events().into_iter().any(|event| {
                    event.detail_type == "webhook.delivery.exhausted"
                        && event.detail.contains(delivery.event_id.as_str())
                });
                if !said {
                    self.watch
                        .violation(format!("invariant 2: nobody hears that {mark} is exhausted"));
                }
            }
        }
    }

    /// Every endpoint that nothing is sent to any more was said to be so.
    fn judge_endpoints(&self) {
        for item in self.aws.table().items() {
            let Some(reason) = item.pointer("/disabled/M/reason/S").and_then(Value::as_str) else {
                continue;
            };
            let id = text(&item, "pk").trim_start_matches("endpoint#");
            let said = self.aws.events().into_iter().any(|event| {
                event.detail_type == "webhook.endpoint.disabled" && event.detail.contains(id)
            });
            if !said {
                self.watch.violation(format!("invariant 2: nobody hears of an endpoint: {reason}"));
            }
        }
    }

    /// Every repeat of an event has the same bytes, on the bus and in webhooks.
    fn judge_bodies(&self) {
        let webhooks = self.receivers.received().into_iter().map(|it| (it.id, it.body));
        let mut bodies: BTreeMap<String, String> = BTreeMap::new();
        for (id, body) in self.told().into_iter().chain(webhooks) {
            let first = bodies.entry(id).or_insert_with(|| body.clone());
            if *first != body {
                self.watch.violation(format!("invariant 4: an event is {first} and {body}"));
            }
        }
    }

    /// Id and body of every event on the bus.
    fn told(&self) -> Vec<(String, String)> {
        let events = self.aws.events().into_iter();
        let told = events.map(|event| {
            let body: Value = serde_json::from_str(&event.detail).unwrap();
            (body["eventId"].as_str().unwrap_or_default().to_owned(), event.detail)
        });
        told.collect()
    }

    pub(crate) fn job_ids(&self) -> Vec<JobId> {
        let items = self.aws.table().items();
        let jobs = items.iter().filter(|item| item["sk"]["S"] == "job");
        let ids = jobs.filter_map(|item| item["pk"]["S"].as_str()?.strip_prefix("job#"));
        ids.map(|id| JobId::parse(id).unwrap()).collect()
    }
}
