//! Receivers that several jobs share, and the API's view of their endpoints.

use ::http::Method;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use domain::event::EndpointDisabled;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::TestStack;
use crate::bus::BusEvent;
use crate::eventually::eventually;
use crate::http::HttpAnswer;
use crate::test_job::{SimulatedProvider, TestJob};

#[derive(Deserialize)]
struct DeliveryPage {
    deliveries: Vec<Value>,
    next: Option<String>,
}

/// A stack has one default receiver, which only one test at a time may change.
static DEFAULT_RECEIVER: Mutex<()> = Mutex::const_new(());

impl TestStack {
    /// A job that is not submitted yet, with the same receiver as another job. The webhooks of
    /// both are listed under the other job.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn new_job_like(
        &self,
        provider: SimulatedProvider,
        other: &TestJob,
    ) -> Result<TestJob> {
        let mut test_job = self.new_job(provider).await?;
        let members = test_job.body.as_object_mut().context("a body is an object")?;
        let receiver = other.body.get("callbackUrl").context("it has no receiver")?;
        members.insert("callbackUrl".into(), receiver.clone());
        Ok(test_job)
    }

    /// Waits until the job's only delivery had at least so many attempts.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_attempted(&self, test_job: &TestJob, times: usize) -> Result<()> {
        eventually(&format!("delivery of {} attempted {times} times", test_job.tag), async || {
            let deliveries = self.deliveries(test_job).await?;
            let attempts = deliveries.first().map_or(0, |delivery| delivery.attempts.len());
            ensure!(attempts >= times, "it had {attempts} attempts");
            Ok(())
        })
        .await
    }

    /// Waits until the job's only delivery is in this state, for this reason.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_delivery(
        &self,
        test_job: &TestJob,
        state: &str,
        reason: Option<&str>,
    ) -> Result<crate::DeliveryView> {
        eventually(&format!("delivery of {} {state}", test_job.tag), async || {
            let deliveries = self.deliveries(test_job).await?;
            let delivery = deliveries.into_iter().next().context("there is none yet")?;
            let found = (delivery.state.as_str(), delivery.reason.as_deref());
            ensure!(found == (state, reason), "it is {found:?}");
            Ok(delivery)
        })
        .await
    }

    /// Waits until so many different events announced that the endpoint was disabled, and
    /// returns them.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_disabled(&self, endpoint_id: &str, times: usize) -> Result<Vec<BusEvent>> {
        eventually(&format!("{endpoint_id} disabled"), async || {
            let events = self.subscription.events_of("endpointId", endpoint_id).await?;
            // A repeat of an event with the same id counts once.
            let mut announced: Vec<BusEvent> = Vec::new();
            for event in events {
                if event.detail_type == EndpointDisabled::NAME && !announced.contains(&event) {
                    announced.push(event);
                }
            }
            ensure!(announced.len() >= times, "it was announced {} times", announced.len());
            Ok(announced)
        })
        .await
    }

    /// Recovers the exhausted deliveries of an endpoint.
    ///
    /// # Errors
    /// When the answer is not 202.
    pub async fn recover(&self, endpoint_id: &str, since: &str) -> Result<Value> {
        let body = json!({"since": since, "endpointId": endpoint_id});
        let answer =
            self.call_api(Method::POST, "/v1/deliveries/recover", body.to_string()).await?;
        answer.expect(202)?.json()
    }

    /// Makes the deliveries that events since a time never had, and returns how many.
    ///
    /// # Errors
    /// When the answer for a page is not 202.
    pub async fn recover_missing(&self, since: &str) -> Result<u64> {
        #[derive(Deserialize)]
        struct Recovery {
            queued: u64,
            next: Option<String>,
        }
        let (mut queued, mut cursor) = (0, None);
        loop {
            let body = json!({"since": since, "missing": true, "cursor": cursor});
            let answer = self.call_api(Method::POST, "/v1/deliveries/recover", body.to_string());
            let page: Recovery = answer.await?.expect(202)?.json()?;
            queued += page.queued;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(queued);
            }
        }
    }

    /// The deliveries of an endpoint in a state since a time, from all pages.
    ///
    /// # Errors
    /// When the answer for a page is not 200.
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
            let page: DeliveryPage =
                self.call_api(Method::GET, &path, "").await?.expect(200)?.json()?;
            let of_endpoint =
                |line: &Value| line.get("endpointId").is_some_and(|id| id == endpoint_id);
            found.extend(page.deliveries.into_iter().filter(of_endpoint));
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(found),
            }
        }
    }

    /// Locks the default receiver; other tests wait until the guard is dropped.
    pub async fn lock_default_receiver(&self) -> MutexGuard<'static, ()> {
        DEFAULT_RECEIVER.lock().await
    }

    pub(super) async fn call_api(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<HttpAnswer> {
        let url = format!("{}{path}", self.description.api_url);
        let bearer = self.bearer();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.http.send(method, &url, &headers, body).await
    }
}
