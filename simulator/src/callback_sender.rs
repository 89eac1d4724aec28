//! Schedules the callbacks of a render, for each of its URLs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Method, Request, StatusCode, header};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::callback::{
    CallbackContent, CallbackContext, CallbackEvent, Destination, ScheduledCallback,
};
use crate::provider::ProviderApi;
use crate::render::{CallbackAttempt, RenderKey};
use crate::render_id::RenderId;
use crate::scenario::Scenario;
use crate::simulation::Simulation;

/// The most repeats. The providers repeat for up to an hour; the first steps show how.
const MAX_RETRIES: usize = 3;

/// Sends the callbacks of a render on their way, as many as it has URLs.
pub(crate) fn schedule(
    simulation: &Arc<Simulation>,
    provider: &'static dyn ProviderApi,
    id: &RenderId,
    scheduled: &[ScheduledCallback],
) {
    let now = Instant::now();
    let key = (provider.name(), id.clone());
    let destinations = match simulation.state().renders.get(&key) {
        Some(render) => render.destinations.clone(),
        None => return,
    };
    for destination in destinations {
        for callback in scheduled {
            let copy = CallbackCopy {
                simulation: Arc::clone(simulation),
                provider,
                key: key.clone(),
                destination: destination.clone(),
                event: callback.event,
            };
            let leaves_at = now + callback.after;
            tokio::spawn(async move {
                sleep_until(leaves_at).await;
                copy.deliver().await;
            });
        }
    }
}

struct CallbackCopy {
    simulation: Arc<Simulation>,
    provider: &'static dyn ProviderApi,
    key: RenderKey,
    destination: Destination,
    event: CallbackEvent,
}

impl CallbackCopy {
    async fn deliver(self) {
        let Some(random) = self.simulation.environment.random() else { return };
        let delivery_id = RenderId::uuid(random);
        let Some(scenario) = self.scenario() else { return };
        let policy = self.provider.callback_policy();
        let own = scenario.callback_answer_within_ms;
        let answer_timeout =
            own.map_or(policy.answer_timeout, |ms| Duration::from_millis(ms.into()));
        let waits = scaled(policy.retry_waits_s, scenario.callback_retry_ms);
        let waits = std::iter::once(Duration::ZERO).chain(waits.take(MAX_RETRIES));
        for (retries, wait) in waits.enumerate() {
            sleep(wait).await;
            let context = CallbackContext {
                event: self.event,
                secret: self.destination.secret.as_ref(),
                delivery_id: delivery_id.clone(),
                attempt: retries + 1,
                at: self.simulation.environment.now(),
            };
            let Some(callback) = self.callback(&context) else { return };
            match self.attempt(callback, context.at, answer_timeout).await {
                Some(status) if policy.accepts(status) => return,
                _ => {}
            }
        }
    }

    /// `None` when the render was dropped.
    fn scenario(&self) -> Option<Arc<Scenario>> {
        Some(Arc::clone(&self.simulation.state().renders.get(&self.key)?.scenario))
    }

    /// `None` when there is nothing to report: the render was dropped, or was cancelled before
    /// another report.
    fn callback(&self, context: &CallbackContext<'_>) -> Option<CallbackContent> {
        let state = self.simulation.state();
        let render = state.renders.get(&self.key)?;
        let is_news = render.cancelled_at.is_some() == (self.event == CallbackEvent::Cancelled);
        is_news.then(|| self.provider.callback(render, context))
    }

    /// Sends the callback once, records the attempt, and returns the status of the answer.
    async fn attempt(
        &self,
        callback: CallbackContent,
        at: DateTime<Utc>,
        answer_timeout: Duration,
    ) -> Option<StatusCode> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.destination.url)
            .header(header::CONTENT_TYPE, callback.content_type);
        for (name, value) in callback.headers {
            request = request.header(name, value);
        }
        let answer = match request.body(Bytes::from(callback.body.clone())) {
            Err(error) => Err(error.to_string()),
            Ok(request) => timeout(answer_timeout, self.simulation.environment.post(request))
                .await
                .unwrap_or_else(|_| Err("timeout".to_owned())),
        };
        let attempt = CallbackAttempt {
            at: at.timestamp_millis(),
            url: self.destination.url.clone(),
            status: answer.as_ref().ok().map(StatusCode::as_u16),
            error: answer.as_ref().err().cloned(),
            body: callback.body,
        };
        if let Some(render) = self.simulation.state().renders.get_mut(&self.key) {
            render.callbacks.push(attempt);
        }
        answer.ok()
    }
}

/// The provider's waits, scaled so that the first becomes `first_ms`.
fn scaled(seconds: &'static [u32], first_ms: u32) -> impl Iterator<Item = Duration> {
    let first = seconds.first().copied().unwrap_or(1).max(1);
    seconds.iter().map(move |wait| {
        let ms = u64::from(*wait) * u64::from(first_ms) / u64::from(first);
        Duration::from_millis(ms)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::registry;

    #[test]
    fn retry_waits_keep_their_ratio() {
        let rhythm = |name| -> Vec<u128> {
            let waits = registry::named(name).unwrap().callback_policy().retry_waits_s;
            scaled(waits, 500).take(MAX_RETRIES).map(|wait| wait.as_millis()).collect()
        };
        assert_eq!(rhythm("zvid"), [500, 1_000, 2_000]);
        assert_eq!(rhythm("shotstack"), [500, 1_687, 4_000]);
    }
}
