//! The checks that run when no work is left. They read the table, the bus, the queues, the logs
//! and the records of providers and receivers.

pub(crate) mod callbacks;
pub(crate) mod events;
pub(crate) mod invariant;
pub(crate) mod invariant_checker;
pub(crate) mod lateness;
pub(crate) mod redeliveries;
pub(crate) mod requests;
pub(crate) mod rounds;
pub(crate) mod secrets;
pub(crate) mod table;

use std::sync::Arc;

use crate::checks::invariant::Invariant;
use crate::harness::bundle::Bundle;

impl Bundle {
    pub(crate) async fn check_all(self: &Arc<Self>) {
        let renders = self.renders().await;
        let answered = self.answered_requests.lock().unwrap().clone();
        for answered in &answered {
            self.check_request(answered, &renders).await;
        }
        self.check_redeliveries().await;
        self.check_table().await;
        self.check_endpoints();
        self.check_bodies();
        let lanes = [self.aws.delivery_queue(), self.aws.slow_delivery_queue()];
        if lanes.iter().any(|lane| !lane.dead_letters().is_empty()) {
            self.checker.violated(Invariant::EveryJobSettles, "a ticket is a dead letter");
        }
        self.check_secrets();
        self.check_rounds();
    }
}
