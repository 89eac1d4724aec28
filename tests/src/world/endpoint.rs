//! Receivers of several orders, and what the API says and does about them.

use ::http::Method;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use domain::event::EndpointDisabled;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::World;
use crate::bus::BusEvent;
use crate::http::Answer;
use crate::order::{Order, Provider};
use crate::patience::eventually;

#[derive(Deserialize)]
struct Page {
    deliveries: Vec<Value>,
    next: Option<String>,
}

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

    /// Has what was given up at an endpoint sent again.
    ///
    /// # Errors
    /// When it is not answered 202.
    pub async fn recover(&self, endpoint_id: &str, since: &str) -> Result<Value> {
        let body = json!({"since": since, "endpointId": endpoint_id});
        let answer = self.ask(Method::POST, "/v1/deliveries/recover", body.to_string()).await?;
        answer.expect(202)?.json()
    }

    /// The deliveries in a state, since a time: those of an endpoint on all pages.
    ///
    /// # Errors
    /// When a page is not answered 200.
    pub async fn deliveries_in(
        &self,
        state: &str,
        since: &str,
        endpoint_id: &str,
    ) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/deliveries?state={state}&since={since}&limit=100{cursor}");
            let page: Page = self.ask(Method::GET, &path, "").await?.expect(200)?.json()?;
            let wanted = |line: &Value| line.get("endpointId").is_some_and(|id| id == endpoint_id);
            found.extend(page.deliveries.into_iter().filter(wanted));
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(found),
            }
        }
    }

    /// Makes the default receiver one's own; others wait until the guard is dropped.
    pub async fn default_receiver(&self) -> MutexGuard<'static, ()> {
        DEFAULT_RECEIVER.lock().await
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let url = format!("{}{path}", self.stack.api_url);
        let bearer = self.bearer();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.http.send(method, &url, &headers, body).await
    }
}
