//! What was said to be sent again.

use chrono::TimeDelta;
use domain::delivery::DeliveryState;

use crate::harness::bundle::Bundle;
use crate::harness::operator::Promise;

/// How wrong a clock is at most.
const WRONG: TimeDelta = TimeDelta::minutes(3);

impl Bundle {
    /// Whatever is said to be sent again arrives, or is given up anew.
    pub(crate) async fn judge_promises(&self) {
        let promises = self.promises.lock().unwrap().clone();
        let given_up = self.given_up().await;
        for Promise { event, since } in promises {
            let given_up = given_up.iter().find(|delivery| delivery.event_id == event);
            let is_over = given_up.is_some_and(|delivery| match delivery.state {
                DeliveryState::Exhausted(given_up) => {
                    given_up.at > since - WRONG || self.is_gone(delivery)
                }
                DeliveryState::Pending { .. }
                | DeliveryState::Delivered
                | DeliveryState::GivenUp(_) => false,
            });
            if !is_over && !self.arrived_since(&event, since) {
                self.watch.violation(format!("invariant 2: {event} is not sent again"));
            }
        }
    }
}
