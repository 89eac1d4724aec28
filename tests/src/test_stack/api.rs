//! Calls of our HTTP API, as a customer's backend or a provider makes them.

use ::http::Method;
use anyhow::{Context, Result};
use bytes::Bytes;
use domain::credential::CallbackSecret;
use domain::id::{JobId, ProviderName};
use serde::Deserialize;
use serde_json::Value;

use super::{TestStack, parameter};
use crate::http::HttpAnswer;
use crate::relay::{DeliveryView, JobView};
use crate::test_job::{SimulatedProvider, TestJob};

impl TestStack {
    /// Posts the job with its tag as the idempotency key.
    ///
    /// # Errors
    /// When the API does not answer, or names another job than before.
    pub async fn post(&self, test_job: &TestJob) -> Result<HttpAnswer> {
        let bearer = self.bearer();
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", &test_job.tag)];
        let answer = self.post_raw(&headers, test_job.body.to_string()).await?;
        // A refusal by the provider names the job too.
        let document: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let named = ["/jobId", "/job/jobId"].map(|place| document.pointer(place));
        if let Some(id) = named.into_iter().flatten().find_map(Value::as_str) {
            test_job.keep_id(id)?;
        }
        Ok(answer)
    }

    /// Posts any body to `/v1/jobs`, with these headers only.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn post_raw(
        &self,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<HttpAnswer> {
        let url = format!("{}/v1/jobs", self.description.api_url);
        self.http.send(Method::POST, &url, headers, body).await
    }

    /// Calls a path below `/v1/` with an API key.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn call_as(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<HttpAnswer> {
        let url = format!("{}/v1/{path}", self.description.api_url);
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.http.send(method, &url, &headers, body).await
    }

    /// The stack's own API key, which may do everything.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.description.api_key
    }

    /// The value of the `Authorization` header.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.description.api_key)
    }

    /// Posts the job and checks that it is accepted.
    ///
    /// # Errors
    /// When the answer is not 202.
    pub async fn submit(&self, test_job: &TestJob) -> Result<JobView> {
        self.post(test_job).await?.expect(202)?.json()
    }

    /// The job, as the API shows it.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub async fn job(&self, test_job: &TestJob) -> Result<JobView> {
        self.call(Method::GET, test_job, "").await?.expect(200)?.json()
    }

    /// The job's deliveries, as the API shows them.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub async fn deliveries(&self, test_job: &TestJob) -> Result<Vec<DeliveryView>> {
        #[derive(Deserialize)]
        struct Deliveries {
            deliveries: Vec<DeliveryView>,
        }
        let answer = self.call(Method::GET, test_job, "/deliveries").await?.expect(200)?;
        Ok(answer.json::<Deliveries>()?.deliveries)
    }

    /// Redelivers the job's last event.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn redeliver(&self, test_job: &TestJob) -> Result<HttpAnswer> {
        self.call(Method::POST, test_job, "/redeliver").await
    }

    /// Sends an event of the job again or elsewhere, as `wish` says.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn redeliver_as(&self, test_job: &TestJob, wish: &Value) -> Result<HttpAnswer> {
        let path = format!("/v1/jobs/{}/redeliver", test_job.job_id());
        self.call_api(Method::POST, &path, wish.to_string()).await
    }

    /// Gives up the job's pending delivery.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn drop_delivery(&self, test_job: &TestJob) -> Result<HttpAnswer> {
        self.call(Method::POST, test_job, "/drop-delivery").await
    }

    /// Cancels the job.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn cancel(&self, test_job: &TestJob) -> Result<HttpAnswer> {
        self.call(Method::POST, test_job, "/cancel").await
    }

    async fn call(&self, method: Method, test_job: &TestJob, path: &str) -> Result<HttpAnswer> {
        let url = format!("{}/v1/jobs/{}{path}", self.description.api_url, test_job.job_id());
        let bearer = self.bearer();
        self.http.send(method, &url, &[("authorization", &bearer)], Bytes::new()).await
    }

    /// Posts to a callback URL, as a provider or an attacker does.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn call_back(&self, url: &str, body: impl Into<Bytes>) -> Result<HttpAnswer> {
        let json = [("content-type", "application/json")];
        self.http.send(Method::POST, url, &json, body).await
    }

    /// Checks a callback URL, as a vendor does that registers it.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn check_url(&self, method: Method, url: &str) -> Result<HttpAnswer> {
        self.http.send(method, url, &[("origin", "https://vendor.example")], Bytes::new()).await
    }

    /// The callback URL with the right token for a job id, whether the job exists or not.
    ///
    /// # Errors
    /// When no submit has created the callback secret yet.
    pub async fn callback_url(&self, provider: SimulatedProvider, job: &JobId) -> Result<String> {
        let name = format!("{}/callback-secret", self.description.parameter_prefix);
        let secret = parameter(&self.ssm, &name).await?.context("no callback secret yet")?;
        let secret = CallbackSecret::parse(&secret)?;
        let name = ProviderName::parse(provider.name())?;
        let token = secret.token(&name, job);
        Ok(format!("{}/v1/webhooks/{name}/{job}/{token}", self.description.api_url))
    }
}
