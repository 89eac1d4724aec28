//! The API calls of the default receiver's owner. A stack has one webhook configuration, so
//! only one test at a time may change it.

use std::time::Duration;

use ::http::Method;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;

use tokio::time::sleep;

use super::TestStack;
use crate::eventually::eventually;
use crate::http::HttpAnswer;
use crate::relay::DeliveryView;
use crate::test_job::TestJob;

/// Each process reads the configuration at most once a second.
const IN_FORCE_AFTER: Duration = Duration::from_millis(1_100);

impl TestStack {
    /// Calls a route below `/v1/webhook-config`, and waits until a change is in force everywhere.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn webhook_config(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<HttpAnswer> {
        let url = format!("{}/v1/webhook-config{path}", self.description.api_url);
        let bearer = self.bearer();
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = self.http.send(method.clone(), &url, &headers, body).await;
        if method == Method::PUT || method == Method::DELETE {
            sleep(IN_FORCE_AFTER).await;
        }
        answer
    }

    /// Sends a test event, waits for the first attempt, and returns the delivery.
    ///
    /// # Errors
    /// When it times out.
    pub async fn test_event(&self) -> Result<DeliveryView> {
        let sent = self.webhook_config(Method::POST, "/test", None).await?.expect(202)?;
        let location = sent.header("location").to_owned();
        let path = location
            .strip_prefix("/v1/webhook-config")
            .context("the location is no test delivery")?;
        eventually("a test event with an attempt", async || {
            let delivery = self.webhook_config(Method::GET, path, None).await?.expect(200)?;
            let delivery: DeliveryView = delivery.json()?;
            ensure!(!delivery.attempts.is_empty(), "it is {}", delivery.state);
            Ok(delivery)
        })
        .await
    }

    /// The URL of a simulated receiver whose webhooks are listed under this job.
    #[must_use]
    pub fn receiver_of(&self, test_job: &TestJob) -> String {
        format!("{}/receiver/{}", self.description.simulator_url, test_job.tag)
    }

    /// Waits until the job has left the `active` index, whether it has a delivery or not.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_inactive(&self, test_job: &TestJob) -> Result<()> {
        eventually(&format!("job of {} inactive", test_job.tag), async || {
            let job = self.job_item(test_job).await?;
            ensure!(!job.contains_key("shard"), "it is active");
            Ok(())
        })
        .await
    }
}
