//! Receivers of several orders, and what the API says and does about them.

use anyhow::{Context, Result, ensure};
use domain::event::EndpointDisabled;
use tokio::sync::{Mutex, MutexGuard};

use super::World;
use crate::bus::BusEvent;
use crate::order::{Order, Provider};
use crate::patience::eventually;

/// There is one default receiver, and many tests.
static DEFAULT_RECEIVER: Mutex<()> = Mutex::const_new(());

impl World {
    /// An order that nobody has placed yet, whose webhooks go where another's go. What the
    /// receiver gets is to be asked of that other.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn order_like(&self, provider: Provider, other: &Order) -> Result<Order> {
        let mut order = self.order(provider).await?;
        let members = order.body.as_object_mut().context("an order is an object")?;
        let receiver = other.body.get("callbackUrl").context("it has no receiver")?;
        members.insert("callbackUrl".into(), receiver.clone());
        Ok(order)
    }

    /// Waits until the order's one delivery was tried at least so often.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn until_tried(&self, order: &Order, times: usize) -> Result<()> {
        eventually(&format!("delivery of {} tried {times} times", order.mark), async || {
            let deliveries = self.deliveries(order).await?;
            let tried = deliveries.first().map_or(0, |delivery| delivery.attempts.len());
            ensure!(tried >= times, "it was tried {tried} times");
            Ok(())
        })
        .await
    }

    /// Waits until the order's one delivery is in this state, for this reason.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn until_delivery(
        &self,
        order: &Order,
        state: &str,
        reason: Option<&str>,
    ) -> Result<crate::DeliveryView> {
        eventually(&format!("delivery of {} {state}", order.mark), async || {
            let deliveries = self.deliveries(order).await?;
            let delivery = deliveries.into_iter().next().context("there is none yet")?;
            let found = (delivery.state.as_str(), delivery.reason.as_deref());
            ensure!(found == (state, reason), "it is {found:?}");
            Ok(delivery)
        })
        .await
    }

    /// Waits until the bus has said so often that an endpoint was disabled; answers it all.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_disabled(&self, endpoint_id: &str, times: usize) -> Result<Vec<BusEvent>> {
        eventually(&format!("{endpoint_id} disabled"), async || {
            let events = self.subscription.events_of("endpointId", endpoint_id).await?;
            // The same thing said twice, under the same id, is said once.
            let mut said: Vec<BusEvent> = Vec::new();
            for event in events {
                if event.detail_type == EndpointDisabled::NAME && !said.contains(&event) {
                    said.push(event);
                }
            }
            ensure!(said.len() >= times, "it was said {} times", said.len());
            Ok(said)
        })
        .await
    }

    /// Makes the default receiver one's own; others wait until the guard is dropped.
    pub async fn default_receiver(&self) -> MutexGuard<'static, ()> {
        DEFAULT_RECEIVER.lock().await
    }
}
