//! The simulated providers and receivers of a test's jobs.

use ::http::Method;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use domain::id::{JobId, ProviderName};
use domain::provider::catalogue::Adjustments;
use domain::provider::key::KeyHost;
use domain::provider::request::SubmitParts;
use domain::provider::{Catalogue, ProviderKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::TestStack;
use crate::eventually::eventually;
use crate::simulator::{ApiCall, ReceivedWebhook, SimulatedRender};
use crate::test_job::{SimulatedProvider, TestJob};

/// The only key that a simulated provider accepts.
const SIMULATOR_KEY: &str = "sim-key";

impl TestStack {
    /// Sets how the provider treats this job; the simulator documents the options. The
    /// provider waits long for the answer to a callback, so that a slow machine does not look
    /// like a lost answer.
    ///
    /// # Errors
    /// When an option does not exist.
    pub async fn set_scenario(&self, test_job: &TestJob, options: &Value) -> Result<()> {
        let defaults = json!({"callbackAnswerWithinMs": 120_000});
        let path = format!("/scenarios/{}/{}", test_job.provider.simulated_as(), test_job.tag);
        let options = merged(&defaults, options);
        self.http.put(&self.control(&path), &options).await?.expect(204).map(drop)
    }

    /// Lets the job's render run until [`TestStack::end_render`]; `options` add to this.
    ///
    /// # Errors
    /// When an option does not exist.
    pub async fn set_endless(&self, test_job: &TestJob, options: &Value) -> Result<()> {
        let defaults = json!({"durationMs": 1, "queuedMs": 0, "freezeProgress": 0.4});
        self.set_scenario(test_job, &merged(&defaults, options)).await
    }

    /// Ends the job's endless render, whose callbacks are then sent.
    ///
    /// # Errors
    /// When there is no such render, or it has ended.
    pub async fn end_render(&self, test_job: &TestJob) -> Result<()> {
        self.control_render(test_job, "end").await
    }

    /// Lets the job's provider send a progress callback.
    ///
    /// # Errors
    /// When the provider has no progress callbacks.
    pub async fn report_progress(&self, test_job: &TestJob) -> Result<()> {
        self.control_render(test_job, "progress").await
    }

    async fn control_render(&self, test_job: &TestJob, what: &str) -> Result<()> {
        let path = format!("/renders/{}/{}/{what}", test_job.provider.simulated_as(), test_job.tag);
        let url = self.control(&path);
        self.http.send(Method::POST, &url, &[], Bytes::new()).await?.expect(204).map(drop)
    }

    /// Makes a render at the job's provider as another stack with the same account does, which
    /// has the job id `other`. Its callbacks go nowhere.
    ///
    /// # Errors
    /// When the provider does not accept it.
    pub async fn render_of_another_stack(
        &self,
        provider: SimulatedProvider,
        other: &JobId,
        tag: &str,
    ) -> Result<()> {
        let name = ProviderName::parse(provider.simulated_as())?;
        let base_url = format!("{}/{name}", self.description.simulator_url).parse()?;
        let catalogue = Catalogue::load(&Adjustments::default())?;
        let provider_now = catalogue.get(&name).context("it is shipped")?.at(&base_url);
        let host = KeyHost::of(&base_url).context("the simulator has a host")?;
        let payload = provider.payload(tag);
        let request = provider_now.submit_request(&SubmitParts {
            payload: payload.as_object().context("a payload is an object")?,
            job_id: other,
            callback_url: None,
            api_key: &ProviderKey::new(SIMULATOR_KEY, vec![host])?,
        })?;
        let headers: Vec<(&str, &str)> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let body = Bytes::copy_from_slice(request.body().unwrap_or_default());
        let answer = self.http.send(Method::POST, request.url().as_str(), &headers, body).await?;
        ensure!((200..300).contains(&answer.status), "answered {answer}");
        Ok(())
    }

    /// Sets the answers of the job's receiver, one for each webhook; later webhooks get 200.
    /// This releases the answers that the receiver still holds back.
    ///
    /// # Errors
    /// When an answer is malformed.
    pub async fn set_receiver_answers(&self, test_job: &TestJob, answers: &Value) -> Result<()> {
        let behaviour = json!({"secret": self.webhook_secret, "answers": answers});
        let url = self.control(&format!("/receivers/{}", test_job.tag));
        self.http.put(&url, &behaviour).await?.expect(204).map(drop)
    }

    /// The job's renders at its provider.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn renders(&self, test_job: &TestJob) -> Result<Vec<SimulatedRender>> {
        self.control_get(&format!("/renders?tag={}", test_job.tag)).await
    }

    /// The job's only render.
    ///
    /// # Errors
    /// When there is no render, or more than one.
    pub async fn render(&self, test_job: &TestJob) -> Result<SimulatedRender> {
        let mut renders = self.renders(test_job).await?;
        let count = renders.len();
        renders.pop().filter(|_| count == 1).with_context(|| format!("{count} renders, not one"))
    }

    /// Waits until so many callbacks about the job's only render were answered, which can be
    /// after the job has ended, and returns the render.
    ///
    /// # Errors
    /// When it times out.
    pub async fn until_called_back(
        &self,
        test_job: &TestJob,
        times: usize,
    ) -> Result<SimulatedRender> {
        eventually(&format!("{times} callbacks of {} answered", test_job.tag), async || {
            let render = self.render(test_job).await?;
            let statuses = render.callback_statuses();
            ensure!(statuses.len() >= times, "{statuses:?}");
            Ok(render)
        })
        .await
    }

    /// All calls to the job's provider about this job, except status calls for a render that
    /// does not exist: the provider cannot know their job.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn provider_calls(&self, test_job: &TestJob) -> Result<Vec<ApiCall>> {
        self.control_get(&format!("/requests?tag={}", test_job.tag)).await
    }

    /// The number of submits to the job's provider, accepted or not.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn submit_count(&self, test_job: &TestJob) -> Result<usize> {
        let calls = self.provider_calls(test_job).await?;
        Ok(calls.iter().filter(|call| call.method == "POST").count())
    }

    /// Waits until the job's render was polled so many times more.
    ///
    /// # Errors
    /// When it times out, or there is no render.
    pub async fn until_polled(&self, test_job: &TestJob, more: u32) -> Result<()> {
        let before = self.render(test_job).await?.polls;
        eventually(&format!("{} polled {more} times", test_job.tag), async || {
            let polls = self.render(test_job).await?.polls;
            ensure!(polls >= before + more, "{} times", polls - before);
            Ok(())
        })
        .await
    }

    /// All status calls for this render id, whether the render exists or not.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn status_calls(&self, render_id: &str) -> Result<Vec<ApiCall>> {
        let mut calls: Vec<ApiCall> = self.control_get("/requests").await?;
        calls.retain(|call| call.method == "GET" && call.path.contains(render_id));
        Ok(calls)
    }

    /// The webhooks that the job's receiver got, oldest first.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn webhooks(&self, test_job: &TestJob) -> Result<Vec<ReceivedWebhook>> {
        #[derive(Deserialize)]
        struct SharedReceiver {
            received: Vec<ReceivedWebhook>,
        }
        let receiver: SharedReceiver =
            self.control_get(&format!("/receivers/{}", test_job.tag)).await?;
        Ok(receiver.received)
    }
}

/// The members of `base`, replaced and extended by `options`.
fn merged(base: &Value, options: &Value) -> Value {
    let members = [base, options].into_iter().filter_map(Value::as_object).flatten();
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}
