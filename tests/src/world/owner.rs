//! What the owner of the default receiver does. There is one configuration per stack, so
//! whoever changes it has to be alone with it.

use ::http::Method;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;

use super::World;
use crate::http::Answer;
use crate::order::Order;
use crate::patience::eventually;
use crate::relay::DeliveryView;

impl World {
    /// Calls the API below `/v1/webhook-config`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn webhook_config(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let url = format!("{}/v1/webhook-config{path}", self.stack.api_url);
        let bearer = self.bearer();
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.http.send(method, &url, &headers, body).await
    }

    /// Sends a test event, and answers its delivery once it was tried.
    ///
    /// # Errors
    /// When it is not.
    pub async fn test_event(&self) -> Result<DeliveryView> {
        let sent = self.webhook_config(Method::POST, "/test", None).await?.expect(202)?;
        let place = sent.header("location").to_owned();
        let place = place.strip_prefix("/v1/webhook-config").context("no place to look")?;
        eventually("a test event that was tried", async || {
            let delivery = self.webhook_config(Method::GET, place, None).await?.expect(200)?;
            let delivery: DeliveryView = delivery.json()?;
            ensure!(!delivery.attempts.is_empty(), "it is {}", delivery.state);
            Ok(delivery)
        })
        .await
    }

    /// A receiver of the simulator, and what it got is then told by the order's mark.
    #[must_use]
    pub fn receiver_of(&self, order: &Order) -> String {
        format!("{}/receiver/{}", self.stack.simulator_url, order.mark)
    }

    /// Waits until the order's job has ended and left the active ones, whether it had
    /// something to deliver or not.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn until_told(&self, order: &Order) -> Result<()> {
        eventually(&format!("job of {} told of", order.mark), async || {
            let job = self.job_item(order).await?;
            ensure!(!job.contains_key("shard"), "it is active");
            Ok(())
        })
        .await
    }
}
