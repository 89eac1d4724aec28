//! The redeliveries that the API has promised.

use chrono::TimeDelta;
use domain::delivery::DeliveryState;

use crate::checks::invariant::Invariant;
use crate::harness::bundle::Bundle;
use crate::harness::operator::PromisedRedelivery;

/// The largest error of a clock.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::minutes(3);

impl Bundle {
    /// Every promised redelivery arrives, or is exhausted again.
    pub(crate) async fn check_redeliveries(&self) {
        let promised_redeliveries = self.promised_redeliveries.lock().unwrap().clone();
        let given_up = self.given_up().await;
        for PromisedRedelivery { event, since } in promised_redeliveries {
            let given_up = given_up.iter().find(|delivery| delivery.event_id == event);
            let is_over = given_up.is_some_and(|delivery| match delivery.state {
                DeliveryState::Exhausted(given_up) => {
                    given_up.at > since - MAX_CLOCK_SKEW || self.is_gone(delivery)
                }
                DeliveryState::Pending { .. }
                | DeliveryState::Delivered
                | DeliveryState::GivenUp(_) => false,
            });
            if !is_over && !self.arrived_since(&event, since) {
                self.checker.violated(
                    Invariant::EveryJobSettles,
                    format!("{event} is not sent again as promised"),
                );
            }
        }
    }
}
